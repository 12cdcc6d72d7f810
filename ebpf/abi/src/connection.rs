//! Connections whose packets are counted, for faults on the first ones of each.

use crate::{assert_layout, pod};

/// One connection in the direction of one stream.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey {
    /// The id of the [`Stream`](crate::Stream) that decides on its packets.
    pub stream: u64,
    /// IPv4 addresses are IPv4-mapped.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u32,
}
assert_layout!(ConnectionKey, size = 48, align = 8);

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Of a TCP connection: what its SYN began with. Another SYN on the same ports is another connection.
    pub initial_sequence: u64,
    pub packets: u64,
}
assert_layout!(Connection, size = 16, align = 8);

pod!(ConnectionKey, Connection);
