//! Sampled packet events.

use crate::{assert_layout, pod};

pub const OUTCOME_PASSED: u32 = 1;
pub const OUTCOME_DROPPED: u32 = 2;
pub const OUTCOME_BYPASSED: u32 = 3;
pub const OUTCOME_DELAYED: u32 = 4;
pub const OUTCOME_CORRUPTED: u32 = 5;
pub const OUTCOME_DUPLICATED: u32 = 6;
/// Handed to the delay line, which answers it.
pub const OUTCOME_REJECTED: u32 = 7;

/// One packet and what became of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketEvent {
    /// `CLOCK_BOOTTIME`, ns.
    pub time: u64,
    pub slot: u32,
    pub target: u32,
    /// `DIRECTION_*`.
    pub direction: u32,
    /// `OUTCOME_*`.
    pub outcome: u32,
    /// IPv4 addresses are IPv4-mapped.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// Host byte order; 0 where the protocol has none.
    pub source_port: u16,
    pub destination_port: u16,
    /// The IP protocol number.
    pub protocol: u32,
    pub wire_packets: u32,
    pub wire_bytes: u32,
}
assert_layout!(PacketEvent, size = 72, align = 8);

pod!(PacketEvent);
