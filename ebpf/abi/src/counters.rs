//! Ground truth: what became of every packet, counted where it happens.

use crate::{assert_layout, pod};

/// Key of a set of counters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CounterKey {
    pub slot: u32,
    pub target: u32,
    /// `DIRECTION_*`.
    pub direction: u32,
}
assert_layout!(CounterKey, size = 12, align = 4);

/// Wire packets and bytes (L2 without FCS).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}
assert_layout!(Tally, size = 16, align = 8);

/// What the kernel counts for one (slot, target, direction).
///
/// At quiescence `matched + duplicated = passed + dropped + bypassed + rejected + released + lost`. What happens in the
/// delay line (rejected packets, drops of a shaper's queue, losses) and in the segmenter's and the line's devices is
/// counted there, outside this struct.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The fault's target, peers, ports and direction name this packet.
    pub matched: Tally,
    /// Matched, and let on at once.
    pub passed: Tally,
    /// Matched, and dropped by this fault.
    pub dropped: Tally,
    /// Matched, but the action could not be done now (hung daemon, no line); let on untouched.
    pub bypassed: Tally,
    /// Came back from the delay line or the departure queue and went on.
    pub released: Tally,
    /// Clones that this fault made.
    pub duplicated: Tally,
    /// A modifier beside the identity: answers of the delay line that went on.
    pub replied: Tally,
    /// A modifier beside the identity: bytes of the payload were changed.
    pub corrupted: Tally,
    /// A modifier beside the identity: handed to the delay line or the departure queue.
    pub delayed: Tally,
    /// A modifier beside the identity: handed to the segmenter, as the wire packets it must give back.
    pub segmenting: Tally,
    /// A modifier beside the identity: came back from the segmenter.
    pub segmented: Tally,
    /// A modifier beside the identity, and part of `delayed`: handed to the departure queue.
    pub departing: Tally,
    /// A modifier beside the identity, and part of `released`: came back from the departure queue.
    pub departed: Tally,
    /// Matched, and dropped because the departure queue holds all that it may of this target.
    pub lost_bound: Tally,
    /// When the first packet was matched: `CLOCK_BOOTTIME`, ns; 0: none was.
    pub first_match: u64,
    /// The latest departure that was given to a packet: `CLOCK_MONOTONIC`, ns; 0: none was.
    pub last_departure: u64,
}
assert_layout!(Counters, size = 14 * 16 + 16, align = 8);

impl Counters {
    /// Adds these to a sum.
    pub fn add_to(&self, sum: &mut Self) {
        for (more, total) in self.tallies().into_iter().zip(sum.tallies_mut()) {
            total.packets += more.packets;
            total.bytes += more.bytes;
        }
        sum.first_match = earliest(sum.first_match, self.first_match);
        sum.last_departure = sum.last_departure.max(self.last_departure);
    }

    fn tallies(&self) -> [Tally; 14] {
        [
            self.matched,
            self.passed,
            self.dropped,
            self.bypassed,
            self.released,
            self.duplicated,
            self.replied,
            self.corrupted,
            self.delayed,
            self.segmenting,
            self.segmented,
            self.departing,
            self.departed,
            self.lost_bound,
        ]
    }

    fn tallies_mut(&mut self) -> [&mut Tally; 14] {
        [
            &mut self.matched,
            &mut self.passed,
            &mut self.dropped,
            &mut self.bypassed,
            &mut self.released,
            &mut self.duplicated,
            &mut self.replied,
            &mut self.corrupted,
            &mut self.delayed,
            &mut self.segmenting,
            &mut self.segmented,
            &mut self.departing,
            &mut self.departed,
            &mut self.lost_bound,
        ]
    }
}

/// The earlier of two moments, of which 0 is none.
pub const fn earliest(one: u64, other: u64) -> u64 {
    if one == 0 || (other != 0 && other < one) {
        other
    } else {
        one
    }
}
const _: () = assert!(earliest(0, 0) == 0 && earliest(0, 7) == 7 && earliest(7, 0) == 7);
const _: () = assert!(earliest(7, 5) == 5 && earliest(5, 7) == 5);

/// Index into the per-CPU array of things that went wrong inside the programs.
pub const INCIDENT_EVENT_LOST: u32 = 0;
/// A packet that is too short or malformed to be parsed; it passes.
pub const INCIDENT_UNPARSED: u32 = 1;
/// No counters for a (slot, target, direction) in force; the packet passes.
pub const INCIDENT_NO_COUNTERS: u32 = 2;
/// A frame without our tag on one of our own devices; it is dropped.
pub const INCIDENT_UNTAGGED: u32 = 3;
/// A helper failed in the middle of an action; the packet passes or, when it can't, is dropped.
pub const INCIDENT_HELPER_FAILED: u32 = 4;
/// A packet came back for a target or slot that is gone; it is dropped.
pub const INCIDENT_ORPHANED: u32 = 5;
/// A DNS answer at a watched target that was not copied, or not whole: no room in the ring, a fragment, or several
/// datagrams in one packet.
pub const INCIDENT_DNS_LOST: u32 = 6;
pub const INCIDENT_COUNT: u32 = 7;

/// Names of the incidents, by index.
pub const INCIDENT_NAMES: [&str; INCIDENT_COUNT as usize] = [
    "event_lost",
    "unparsed",
    "no_counters",
    "untagged",
    "helper_failed",
    "orphaned",
    "dns_lost",
];

pod!(CounterKey, Tally, Counters);
