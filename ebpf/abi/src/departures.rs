//! Packets that the kernel itself holds until they depart.

use crate::{MAX_TARGETS, assert_layout, pod};

/// Bytes of the kernel's memory that the queue holds, of one target or of all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Of all packets that were ever handed to the queue.
    pub entered: u64,
    /// Of all that came back.
    pub left: u64,
    /// The latest departure that was given to one of them: `CLOCK_MONOTONIC`, ns.
    pub last_departure: u64,
}
assert_layout!(Holding, size = 24, align = 8);

/// Behind those of the targets, by id, stands what they hold together.
pub const HOLDING_ALL: u32 = MAX_TARGETS;
pub const HOLDINGS: u32 = MAX_TARGETS + 1;

/// What a packet takes besides its bytes, about.
pub const HOLDING_OVERHEAD: u64 = 768;

/// What is still held so long after it should have departed has been lost on the way, ns.
pub const HOLDING_LOST_AFTER: u64 = 1_000_000_000;

/// Upper bounds of the buckets of delays that were really added, in ns: 1, 2 and 5 of each decade from 1 us, and 60 s.
pub const DELAY_BOUNDS: [u64; 25] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    20_000_000_000,
    50_000_000_000,
    60_000_000_000,
];
/// The last one has no upper bound.
pub const DELAY_BUCKETS: usize = DELAY_BOUNDS.len() + 1;

/// Delays really added by the queue; a super-packet counts once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// Of all delays, ns.
    pub sum: u64,
    /// `buckets[i]` counts delays of at most `DELAY_BOUNDS[i]` that the bucket before doesn't.
    pub buckets: [u64; DELAY_BUCKETS],
}
assert_layout!(Delays, size = 8 + 8 * DELAY_BUCKETS, align = 8);

pod!(Holding, Delays);
