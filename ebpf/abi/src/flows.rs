//! What UDP's flows are counted by, while somebody asks.

use crate::{assert_layout, pod};

/// Key of a flow: an owner's end and the other one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// IPv4 addresses are IPv4-mapped.
    pub local: [u8; 16],
    pub remote: [u8; 16],
    pub owner: u32,
    /// Host byte order.
    pub local_port: u16,
    pub remote_port: u16,
}
assert_layout!(FlowKey, size = 40, align = 4);

/// What a flow did since the programs were loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Wire packets.
    pub packets_sent: u64,
    pub packets_received: u64,
    /// Of UDP payload.
    pub bytes_sent: u64,
    pub bytes_received: u64,
}
assert_layout!(FlowCounts, size = 32, align = 8);

pod!(FlowKey, FlowCounts);
