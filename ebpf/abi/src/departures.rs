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
    /// How much before its time a packet is told to depart, ns: what the queue's wake-up and the way back take at least.
    pub lead: u64,
}
assert_layout!(Holding, size = 32, align = 8);

/// No packet departs earlier than that before its time, ns; what takes longer is no way back but a busy machine.
pub const LEAD_MOST: u64 = 128_000;
/// Nor by more than this part of its latency.
const LEAD_SHARE: u64 = 8;

impl Holding {
    /// The lead of a packet that is to be held for `latency`, ns.
    #[inline(always)]
    pub const fn lead_within(lead: u64, latency: u64) -> u64 {
        let most = latency / LEAD_SHARE;
        if lead < most { lead } else { most }
    }

    /// The lead after a packet that was back `way` after it should have departed, ns. It grows by little of what one was late and
    /// falls by all of what one was early, so that few are early, and by little.
    #[inline(always)]
    pub const fn lead_after(lead: u64, way: u64) -> u64 {
        const GROWTH: u64 = 128;
        if way < lead {
            return way;
        }
        let next = lead + (way - lead) / GROWTH;
        if next < LEAD_MOST { next } else { LEAD_MOST }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// 50 us, and up to 31 more, evenly but in no order.
    fn way(packet: u64) -> u64 {
        50_000 + packet * 13 % 32 * 1_000
    }

    #[test]
    fn the_lead_becomes_what_the_way_takes_at_least() {
        let mut lead = 0;
        for packet in 0..400 {
            lead = Holding::lead_after(lead, way(packet));
        }
        let (mut early, mut earliest) = (0, 0);
        for packet in 400..1200 {
            let way = way(packet);
            early += u64::from(way < lead);
            earliest = earliest.max(lead.saturating_sub(way));
            lead = Holding::lead_after(lead, way);
            assert!((50_000..56_000).contains(&lead), "{lead}");
        }
        assert!(
            early < 800 / 10 && earliest < 6_000,
            "{early} early, by up to {earliest} ns"
        );
    }

    #[test]
    fn a_shorter_way_is_learned_at_once_and_a_long_one_hardly() {
        assert_eq!(Holding::lead_after(40_000, 10_000), 10_000);
        assert_eq!(Holding::lead_after(1, 0), 0);
        assert_eq!(Holding::lead_after(40_000, 168_000), 41_000);
        assert_eq!(Holding::lead_after(LEAD_MOST, 1_000_000_000), LEAD_MOST);
        assert_eq!(Holding::lead_after(0, u64::MAX), LEAD_MOST);
    }

    #[test]
    fn a_short_latency_has_a_short_lead() {
        assert_eq!(Holding::lead_within(100_000, 10_000_000), 100_000);
        assert_eq!(Holding::lead_within(100_000, 80_000), 10_000);
        assert_eq!(Holding::lead_within(100_000, 0), 0);
    }
}
