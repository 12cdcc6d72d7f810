//! The TCP connections of pods, of namespaces that faults name, and of the node.
//!
//! An owner has at most 100 series: 24 of connections (6 classes of peers x 4 outcomes), of which those that are zero are
//! left out, 12 of errors, 8 other counters, and two histograms of 28.

use prometheus_client::registry::Registry;
use sabot_abi::{
    CONNECTION_OUTCOME_NAMES, HISTOGRAM_BUCKETS, Histogram, PEER_CLASS_NAMES, SUB_BITS, log_linear_bound,
};

use super::family::{Count, Distribution, Family};
use crate::observe::identity::Identity;
use crate::observe::tcp::{TcpSnapshot, TcpTotals};

/// Kernel buckets in one bucket of the metric: a power of two.
const MERGED: usize = 1 << SUB_BITS;

pub(super) fn register(registry: &mut Registry, snapshot: &TcpSnapshot) {
    register_connections(registry, snapshot);
    register_times(registry, snapshot);
    register_counts(registry, snapshot);
    let mut untracked = Family::new(
        "tcp_untracked",
        "Connections that the observer's table had no room for: each once as it begins, and later each time that one is seen.",
        ["seen"],
    );
    untracked.push(["beginning"], Count(snapshot.untracked));
    untracked.push(["later"], Count(snapshot.untracked_sightings));
    untracked.register(registry);
}

fn register_connections(registry: &mut Registry, snapshot: &TcpSnapshot) {
    let mut connections = Family::new(
        "tcp_connections",
        "TCP connections that were opened, accepted, closed after being established, or failed before.",
        ["namespace", "pod", "peer", "outcome"],
    );
    let mut errors = Family::new(
        "tcp_connect_errors",
        "TCP connections that were asked for and failed, by error; closed: the application gave up.",
        ["namespace", "pod", "errno"],
    );
    for (owner, totals) in &snapshot.owners {
        let [namespace, pod] = labels(owner);
        for (peer, outcomes) in PEER_CLASS_NAMES.iter().zip(&totals.connections) {
            for (outcome, &count) in CONNECTION_OUTCOME_NAMES.iter().zip(outcomes) {
                if count > 0 {
                    connections.push([&namespace, &pod, peer, outcome], Count(count));
                }
            }
        }
        for &(errno, count) in &totals.connect_errors {
            errors.push([&namespace, &pod, errno], Count(count));
        }
    }
    connections.register(registry);
    errors.register(registry);
}

fn register_times(registry: &mut Registry, snapshot: &TcpSnapshot) {
    type Times = fn(&TcpTotals) -> &Histogram;
    let families: [(&str, &str, Times); 2] = [
        (
            "tcp_handshake_seconds",
            "From a SYN, or from the last SYN-ACK, until the connection was established.",
            |totals| &totals.handshakes,
        ),
        (
            "tcp_rtt_seconds",
            "The smoothed round-trip time of each connection, at most once in each tick of the kernel.",
            |totals| &totals.rtts,
        ),
    ];
    for (name, help, times) in families {
        let mut family = Family::new(name, help, ["namespace", "pod"]);
        for (owner, totals) in &snapshot.owners {
            let [namespace, pod] = labels(owner);
            family.push([&namespace, &pod], distribution(times(totals)));
        }
        family.register(registry);
    }
}

fn register_counts(registry: &mut Registry, snapshot: &TcpSnapshot) {
    type Counts = fn(&TcpTotals) -> [u64; 2];
    let families: [(&str, &str, &str, [&str; 2], Counts); 3] = [
        (
            "tcp_retransmits",
            "Segments that were sent again; in sum what nstat calls TcpRetransSegs.",
            "kind",
            ["data", "synack"],
            |totals| [totals.retransmits, totals.synack_retransmits],
        ),
        (
            "tcp_resets",
            "Resets of TCP connections.",
            "direction",
            ["sent", "received"],
            |totals| [totals.resets_sent, totals.resets_received],
        ),
        (
            "tcp_bytes",
            "Payload that the peer acknowledged, and payload received; the end of a stream counts as a byte.",
            "direction",
            ["sent", "received"],
            |totals| [totals.bytes_sent, totals.bytes_received],
        ),
    ];
    for (name, help, label, values, counts) in families {
        let mut family = Family::new(name, help, ["namespace", "pod", label]);
        for (owner, totals) in &snapshot.owners {
            let [namespace, pod] = labels(owner);
            for (value, count) in values.iter().zip(counts(totals)) {
                family.push([&namespace, &pod, value], Count(count));
            }
        }
        family.register(registry);
    }
    type Single = fn(&TcpTotals) -> u64;
    let families: [(&str, &str, Single); 2] = [
        (
            "tcp_rtos",
            "Times that the retransmission timer of a connection ran out.",
            |totals| totals.rtos,
        ),
        (
            "tcp_connections_lost",
            "Established TCP connections that an error ended; they are among the closed ones.",
            |totals| totals.lost,
        ),
    ];
    for (name, help, count) in families {
        let mut family = Family::new(name, help, ["namespace", "pod"]);
        for (owner, totals) in &snapshot.owners {
            let [namespace, pod] = labels(owner);
            family.push([&namespace, &pod], Count(count(totals)));
        }
        family.register(registry);
    }
}

fn labels(owner: &Identity) -> [String; 2] {
    [owner.namespace().to_owned(), owner.label()]
}

/// The first bucket and the last one stand alone; of the others each power of two becomes one.
fn distribution(histogram: &Histogram) -> Distribution {
    let inner = 1..HISTOGRAM_BUCKETS - 1;
    let firsts = inner.step_by(MERGED);
    let mut bounds = vec![log_linear_bound(0)];
    let mut buckets = vec![histogram.buckets[0]];
    for first in firsts {
        bounds.push(log_linear_bound(first + MERGED - 1));
        buckets.push(histogram.buckets[first..first + MERGED].iter().sum());
    }
    buckets.push(histogram.buckets[HISTOGRAM_BUCKETS - 1]);
    Distribution {
        bounds,
        buckets,
        sum: std::time::Duration::from_nanos(histogram.sum),
    }
}
const _: () = assert!((HISTOGRAM_BUCKETS - 2).is_multiple_of(MERGED));

#[cfg(test)]
mod tests {
    use sabot_abi::log_linear_bucket;

    use super::*;

    #[test]
    fn every_time_is_in_the_bucket_whose_bounds_hold_it() {
        for time in [
            0,
            1023,
            1024,
            5000,
            40_000_000,
            17_179_869_183,
            17_179_869_184,
            u64::MAX,
        ] {
            let mut histogram = Histogram::EMPTY;
            histogram.buckets[log_linear_bucket(time)] = 1;
            let distribution = distribution(&histogram);
            let expected = distribution.bounds.partition_point(|&bound| bound <= time);
            let found = distribution.buckets.iter().position(|&count| count == 1);
            assert_eq!(found, Some(expected), "{time} ns");
        }
    }

    #[test]
    fn bounds_are_powers_of_two() {
        let distribution = distribution(&Histogram::EMPTY);
        assert_eq!(distribution.bounds.first(), Some(&1024));
        assert!(distribution.bounds.windows(2).all(|pair| pair[1] == 2 * pair[0]));
        assert_eq!(distribution.bounds.len(), 25);
    }
}
