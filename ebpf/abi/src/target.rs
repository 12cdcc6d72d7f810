//! Targets: one attached device each, and the slots that are in force on it.

use crate::{assert_layout, pod};

/// Attached devices that the kernel's tables hold at once.
pub const MAX_TARGETS: u32 = 1024;
/// Slots in force on one target.
pub const MAX_TARGET_SLOTS: usize = 64;

/// The device's frames carry a MAC header.
pub const TARGET_MAC_HEADER: u32 = 1 << 0;
/// The device belongs to the node itself, where a packet's mark may mean something to others.
pub const TARGET_NODE_DEVICE: u32 = 1 << 1;
/// The DNS answers that arrive at the target are copied for the daemon.
pub const TARGET_WATCH_DNS: u32 = 1 << 2;

/// What the classifier knows of one target. Like a rule's, a body is immutable once the target's state word points at it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The target's device, in the target's own netns.
    pub ifindex: u32,
    /// The delay line's TAP in the target's netns; 0 when it has none.
    pub line_ifindex: u32,
    /// The segmenter's near end in the target's netns; 0 when it has none.
    pub segmenter_ifindex: u32,
    /// The near end of the way to the departure queue in the target's netns; 0 when it has none.
    pub departures_ifindex: u32,
    /// A set of `TARGET_*`.
    pub flags: u32,
    /// Slots in use.
    pub slot_count: u32,
    /// The key of the index of several slots; [`TARGET_NO_INDEX`] where there is none, and every slot is visited.
    pub index: u32,
    /// Bytes that the departure queue may hold of the target.
    pub departures_bytes: u32,
    /// The target's part of the key of its random streams.
    pub identity: u64,
    /// The slots in force, in the order in which they are evaluated.
    pub slots: [u32; MAX_TARGET_SLOTS],
}
assert_layout!(Target, size = 40 + 4 * MAX_TARGET_SLOTS, align = 8);

/// A target's state word: 0 when it is not in use, otherwise the index of its body plus one. Bodies of target `t` are
/// `2t` and `2t + 1`.
pub const TARGET_FREE: u32 = 0;

/// No index has this key.
pub const TARGET_NO_INDEX: u32 = 0;

/// Programs behind the gate.
pub const GATE_EGRESS: u32 = 0;
pub const GATE_INGRESS: u32 = 1;
/// What a delay line gives back.
pub const GATE_LINE: u32 = 2;
/// What the segmenter gives back.
pub const GATE_SEGMENTER: u32 = 3;
/// What the departure queue lets go.
pub const GATE_DEPARTURES: u32 = 4;
pub const GATE_SIZE: u32 = 5;

/// One end of the TCP connections that keep the node reachable.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ControlEnd {
    /// An IPv4 address is IPv4-mapped.
    pub address: [u8; 16],
    /// Big-endian.
    pub port: [u8; 2],
}
assert_layout!(ControlEnd, size = 18, align = 1);

/// Ends that the kernel's table holds at once: some ports on each of the node's addresses.
pub const MAX_CONTROL_ENDS: u32 = 8192;

pod!(Target, ControlEnd);
