//! What is counted of calls.

use std::collections::BTreeMap;
use std::time::Duration;

/// Upper bounds of all buckets but the last one, ns: 1, 2.5 and 5 of each power of ten from half a millisecond to five
/// minutes. A status takes one of the first, the pull of an image one of the last.
pub const BOUNDS: [u64; 18] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
    300_000_000_000,
];

/// The calls of one operation since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationStats {
    /// Ended ones by outcome: gRPC's code as `NotFound`, or in lower case what it has none for.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Spent in all whose beginning and end were seen.
    pub total: Duration,
    /// How many of those took how long; not cumulative.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Begun and not ended; now, not since the start.
    pub in_flight: u64,
}

impl OperationStats {
    pub fn calls(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// `duration` is `None` where it isn't known.
    pub(super) fn count(&mut self, outcome: &'static str, duration: Option<Duration>) {
        *self.outcomes.entry(outcome).or_default() += 1;
        if let Some(duration) = duration {
            self.total += duration;
            let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            self.buckets[BOUNDS.partition_point(|&bound| bound < ns)] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_whose_bound_holds_it() {
        let mut stats = OperationStats::default();
        for ms in [0, 1, 3, 400_000] {
            stats.count("OK", Some(Duration::from_millis(ms)));
        }
        stats.count("lost", None);
        let filled: Vec<_> = (0..stats.buckets.len())
            .filter(|&index| stats.buckets[index] == 1)
            .collect();
        assert_eq!(filled, [0, 1, 3, BOUNDS.len()]);
        assert_eq!((stats.calls(), stats.total), (5, Duration::from_millis(400_004)));
        assert!(BOUNDS.is_sorted());
    }
}
