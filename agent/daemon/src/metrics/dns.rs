//! What the node's pods ask DNS servers.

use std::time::Duration;

use prometheus_client::registry::Registry;
use sabot_abi::{HISTOGRAM_BUCKETS, Histogram, SUB_BITS, log_linear_bound};

use super::family::{Count, Distribution, Family};
use crate::observe::queries::{QuerySnapshot, QueryStats};

/// Kernel buckets in one bucket of the metric: its bounds are powers of two.
const MERGED: usize = 1 << SUB_BITS;
const _: () = assert!((HISTOGRAM_BUCKETS - 2).is_multiple_of(MERGED));

pub(super) fn register(registry: &mut Registry, snapshot: &QuerySnapshot) {
    register_counts(registry, snapshot);
    register_answers(registry, snapshot);
    let mut unrecorded = Family::new(
        "dns_unrecorded",
        "DNS queries whose answers a full table keeps from being recognised (open), and messages that could not be read \
         (unread).",
        ["table"],
    );
    for (table, count) in snapshot.unrecorded {
        unrecorded.push([table], Count(count));
    }
    unrecorded.register(registry);
}

/// What is one number of each owner.
fn register_counts(registry: &mut Registry, snapshot: &QuerySnapshot) {
    type Number = fn(&QueryStats) -> u64;
    let families: [(&str, &str, Number); 5] = [
        (
            "dns_queries",
            "DNS queries over UDP and TCP, each once however often it was sent.",
            |stats| stats.queries,
        ),
        (
            "dns_retries",
            "DNS queries that were sent again while they were open.",
            |stats| stats.retries,
        ),
        (
            "dns_unanswered",
            "DNS queries that nobody answered within five seconds.",
            |stats| stats.unanswered,
        ),
        (
            "dns_late",
            "Answers to DNS queries that had been counted as unanswered.",
            |stats| stats.late,
        ),
        (
            "dns_unmatched",
            "DNS answers to nothing that was open: second ones, and those to queries that were not seen.",
            |stats| stats.unmatched,
        ),
    ];
    for (name, help, number) in families {
        let mut family = Family::new(name, help, ["namespace", "pod"]);
        for (owner, stats) in &snapshot.owners {
            family.push([owner.namespace(), &owner.label()], Count(number(stats)));
        }
        family.register(registry);
    }
}

fn register_answers(registry: &mut Registry, snapshot: &QuerySnapshot) {
    let mut responses = Family::new(
        "dns_responses",
        "DNS queries that were answered in time, by response code.",
        ["namespace", "pod", "rcode"],
    );
    let mut durations = Family::new(
        "dns_duration_seconds",
        "From the first sending of a DNS query to its answer, of those that were answered in time.",
        ["namespace", "pod"],
    );
    for (owner, stats) in &snapshot.owners {
        for (rcode, count) in &stats.responses {
            responses.push([owner.namespace(), &owner.label(), rcode], Count(*count));
        }
        // Most owners never ask anything.
        if stats.queries != 0 {
            durations.push([owner.namespace(), &owner.label()], distribution(&stats.latency));
        }
    }
    responses.register(registry);
    durations.register(registry);
}

fn distribution(histogram: &Histogram) -> Distribution {
    // The last kernel bucket is the one without a bound; the first one stands alone.
    let [first, merged @ .., unbounded] = &histogram.buckets;
    let mut bounds = vec![log_linear_bound(0)];
    let mut buckets = vec![*first];
    for (index, group) in merged.chunks(MERGED).enumerate() {
        bounds.push(log_linear_bound((index + 1) * MERGED));
        buckets.push(group.iter().sum());
    }
    buckets.push(*unbounded);
    Distribution {
        bounds,
        buckets,
        sum: Duration::from_nanos(histogram.sum),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_in_the_bucket_whose_bounds_hold_it() {
        for latency in [
            0,
            1023,
            1024,
            1025,
            300_000,
            1_000_000_000,
            17_179_869_183,
            17_179_869_184,
        ] {
            let mut histogram = Histogram {
                sum: latency,
                ..Histogram::EMPTY
            };
            histogram.buckets[sabot_abi::log_linear_bucket(latency)] = 1;
            let distribution = distribution(&histogram);
            let expected = distribution.bounds.partition_point(|&bound| bound <= latency);
            let found = distribution.buckets.iter().position(|&count| count == 1);
            assert_eq!(found, Some(expected), "{latency} ns");
            assert_eq!(distribution.bounds.len() + 1, distribution.buckets.len());
        }
    }
}
