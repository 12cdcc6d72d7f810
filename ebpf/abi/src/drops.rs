//! Packets that the kernel drops, by reason.

use crate::{DIRECTION_EGRESS, DIRECTION_INGRESS, assert_layout, pod};

/// A classifier that is about to drop a packet leaves a note in the packet, in this word of its `cb` and in the two that
/// follow: the mark, then the wire packets and the bytes that it counts. The entry program uses the words before.
pub const DROP_NOTE: usize = 2;
/// Bits of the mark that say what is dropped; the others are drawn by the daemon at its start, since other users of the
/// `cb` write into it what the network sends.
pub const DROP_NOTE_KINDS: u32 = 7;
pub const DROP_NOTE_EGRESS: u32 = 1;
pub const DROP_NOTE_INGRESS: u32 = 2;
/// What is counted as an incident, such as the kernel's own frames on our devices.
pub const DROP_NOTE_INCIDENT: u32 = 3;
/// Beside a direction: no verdict of the fault's, but the departure queue holds as much as it may.
pub const DROP_NOTE_BOUND: u32 = 4;

/// What all of our own devices' names begin with.
pub const OWN_DEVICE_PREFIX: [u8; 6] = *b"sabot-";
/// What the delay line's devices are called before their number, among our own.
pub const LINE_DEVICE_LETTER: u8 = b'l';

/// The kind of a note about a packet of a target.
#[inline(always)]
pub const fn drop_note_kind(direction: u32) -> u32 {
    if direction == DIRECTION_EGRESS {
        DROP_NOTE_EGRESS
    } else {
        DROP_NOTE_INGRESS
    }
}
const _: () = assert!(drop_note_kind(DIRECTION_INGRESS) == DROP_NOTE_INGRESS);

/// The kernel's enumeration is older than Linux 5.17 and has no reasons.
pub const DROP_REASON_UNKNOWN: u32 = u32::MAX;
/// No reason of the kernel's: a fault dropped the packet.
pub const DROP_REASON_FAULT: u32 = u32::MAX - 1;
/// No reason of the kernel's: the departure queue had no room for the packet.
pub const DROP_REASON_FAULT_BOUND: u32 = u32::MAX - 2;
/// A subsystem's reasons have its number in the upper half; the core's have 0 there.
pub const DROP_REASON_SUBSYSTEM_SHIFT: u32 = 16;

/// Key of a count of drops.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DropKey {
    pub owner: u32,
    /// The kernel's number, or `DROP_REASON_*`.
    pub reason: u32,
    /// `DIRECTION_*`.
    pub direction: u32,
    /// 1 for what a fault dropped, or one of its devices; 0 for everything else.
    pub injected: u32,
}
assert_layout!(DropKey, size = 16, align = 4);

/// A packet that something else than a fault dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropEvent {
    /// `CLOCK_BOOTTIME`, ns.
    pub time: u64,
    pub owner: u32,
    pub reason: u32,
    /// `DIRECTION_*`.
    pub direction: u32,
    pub wire_packets: u32,
    pub wire_bytes: u32,
    /// The IP protocol number; 0 where there is none.
    pub protocol: u32,
    /// IPv4 addresses are IPv4-mapped; zeros for what isn't IP.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// The id of the cgroup (v2) of the socket that sent it or would have received it; 0 where there is none.
    pub cgroup: u64,
    /// Host byte order; 0 where there is none.
    pub source_port: u16,
    pub destination_port: u16,
    pub reserved: u32,
}
assert_layout!(DropEvent, size = 80, align = 8);

/// Index into the per-CPU array of what the drop program could not record: events, for want of room in the ring.
pub const DROP_LOSS_EVENT: u32 = 0;
/// Drops that are in no count, for want of room for their key.
pub const DROP_LOSS_COUNT_TABLE: u32 = 1;
/// Events that the bound on their rate kept back.
pub const DROP_LOSS_SUPPRESSED: u32 = 2;
pub const DROP_LOSS_COUNT: u32 = 3;

pod!(DropKey, DropEvent);
