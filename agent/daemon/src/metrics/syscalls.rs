//! The syscalls of watched processes.

use prometheus_client::registry::Registry;
use sabot_abi::{LATENCY_BUCKETS, LATENCY_SHIFT, SYSCALL_LOSS_EVENT, SYSCALL_LOSS_NAMES};

use super::family::{Count, Distribution, Family, Level};
use crate::observe::syscalls::{CallStats, SyscallSnapshot};

/// Kernel buckets in one bucket of the metric: a factor of four between its bounds tells latencies apart well enough, at
/// half the series.
const MERGED: usize = 2;
const _: () = assert!((LATENCY_BUCKETS - 2).is_multiple_of(MERGED));

pub(super) fn register(registry: &mut Registry, snapshot: &SyscallSnapshot) {
    let mut durations = Family::new(
        "syscall_duration_seconds",
        "Durations of the syscalls of watched processes.",
        ["process", "syscall"],
    );
    for ((process, syscall), stats) in &snapshot.calls {
        durations.push([process, syscall], distribution(stats));
    }
    durations.register(registry);

    let mut errors = Family::new(
        "syscall_errors",
        "Failed syscalls of watched processes; EINTR includes those that a signal makes the kernel restart.",
        ["process", "syscall", "errno"],
    );
    for (((process, syscall), errno), &count) in &snapshot.errors {
        errors.push([process, syscall, errno], Count(count));
    }
    errors.register(registry);

    let mut in_flight = Family::new(
        "syscalls_in_flight",
        "Syscalls of watched processes that have begun and not ended.",
        [],
    );
    in_flight.push([], Level(snapshot.in_flight as f64));
    in_flight.register(registry);

    let mut unrecorded = Family::new(
        "syscall_unrecorded",
        "Syscalls of watched processes that a full table kept out of the other metrics.",
        ["table"],
    );
    // Lost events are in the family of lost events.
    for (index, (name, &count)) in SYSCALL_LOSS_NAMES.iter().zip(&snapshot.losses).enumerate() {
        if index != SYSCALL_LOSS_EVENT as usize {
            unrecorded.push([name], Count(count));
        }
    }
    unrecorded.register(registry);
}

fn distribution(stats: &CallStats) -> Distribution {
    // The last kernel bucket is the one without a bound; the first one stands alone, so that the rest falls into pairs.
    let [first, paired @ .., unbounded] = &stats.buckets;
    let mut bounds = vec![1 << LATENCY_SHIFT];
    let mut buckets = vec![*first];
    for (pair, index) in paired.chunks(MERGED).zip(1u32..) {
        bounds.push(1 << (LATENCY_SHIFT + index * MERGED as u32));
        buckets.push(pair.iter().sum());
    }
    buckets.push(*unbounded);
    Distribution {
        bounds,
        buckets,
        sum: stats.total,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_call_is_in_the_bucket_whose_bounds_hold_it() {
        for duration in [
            0,
            1023,
            1024,
            5000,
            16_384,
            1_000_000,
            4_294_967_295,
            4_294_967_296,
            u64::MAX / 2,
        ] {
            let mut stats = CallStats {
                calls: 1,
                total: Duration::from_nanos(duration),
                ..CallStats::default()
            };
            stats.buckets[sabot_abi::latency_bucket(duration)] = 1;
            let distribution = distribution(&stats);
            let expected = distribution.bounds.partition_point(|&bound| bound <= duration);
            let found = distribution.buckets.iter().position(|&count| count == 1);
            assert_eq!(found, Some(expected), "{duration} ns");
            assert_eq!(distribution.buckets.iter().sum::<u64>(), 1);
        }
    }

    #[test]
    fn the_bounds_grow_by_four_from_a_microsecond_on() {
        let distribution = distribution(&CallStats::default());
        assert_eq!(distribution.bounds.first(), Some(&1024));
        assert!(distribution.bounds.windows(2).all(|pair| pair[1] == 4 * pair[0]));
        assert_eq!(distribution.bounds.len() + 1, distribution.buckets.len());
    }
}
