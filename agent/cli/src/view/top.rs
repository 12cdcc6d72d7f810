//! What happened between two snapshots, by pod and by process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sabot_proto::convert::{duration_from_proto, timestamp_from_proto};
use sabot_proto::sabot::v1;
use serde::Serialize;

use super::event::PodDoc;
use super::{Span, Time, full_name, metadata};

/// Rates are per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TopDoc {
    pub(crate) time: Option<Time>,
    /// Between the two snapshots.
    pub(crate) interval: Span,
    /// Those that hurt come first, then the busiest.
    pub(crate) pods: Vec<PodTopDoc>,
    /// Those that take the most time come first.
    pub(crate) syscalls: Vec<SyscallTopDoc>,
    /// Events that were lost in between, of all streams.
    pub(crate) events_lost: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodTopDoc {
    /// Absent: the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<PodDoc>,
    /// In force on it.
    pub(crate) faults: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_p50: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rtt_p99: Option<Span>,
    pub(crate) retransmits: f64,
    pub(crate) rtos: f64,
    /// Sent and received.
    pub(crate) resets: f64,
    /// Opened and accepted.
    pub(crate) connections: f64,
    pub(crate) connections_failed: f64,
    pub(crate) bytes_sent: f64,
    pub(crate) bytes_received: f64,
    pub(crate) drops_injected: f64,
    pub(crate) drops_other: f64,
    pub(crate) dns_queries: f64,
    pub(crate) dns_unanswered: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SyscallTopDoc {
    pub(crate) process: String,
    pub(crate) syscall: String,
    pub(crate) calls: f64,
    pub(crate) errors: f64,
    /// Of the calls in between; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mean: Option<Span>,
    /// Of the calls in between; absent beyond the last bound of the daemon's, 17 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<Span>,
}

impl SyscallTopDoc {
    /// Who comes first in a list: the time that they took.
    pub(crate) fn order(a: &Self, b: &Self) -> std::cmp::Ordering {
        let spent = |call: &Self| call.calls * call.mean.map_or(0.0, |Span(mean)| mean.as_secs_f64());
        spent(b).total_cmp(&spent(a))
    }
}

/// A pod's namespace and name; the node has none.
type Key = Option<(String, String)>;

impl TopDoc {
    /// What grew from one snapshot to the next. Who is new has grown from nothing.
    pub(crate) fn between(earlier: &v1::GetSnapshotResponse, later: &v1::GetSnapshotResponse) -> Self {
        let seconds = moment(later)
            .and_then(|later| later.duration_since(moment(earlier)?).ok())
            .unwrap_or_default();
        let rate = Rate(seconds.as_secs_f64());
        let mut pods: BTreeMap<Key, PodTopDoc> = BTreeMap::new();
        tcp(&mut pods, rate, earlier, later);
        drops(&mut pods, rate, earlier, later);
        dns(&mut pods, rate, earlier, later);
        faults(&mut pods, later);
        let mut pods: Vec<_> = pods
            .into_iter()
            .map(|(key, pod)| PodTopDoc {
                pod: key.map(|(namespace, name)| PodDoc { namespace, name }),
                ..pod
            })
            .collect();
        pods.sort_by(PodTopDoc::order);
        let lost = |snapshot: &v1::GetSnapshotResponse| -> u64 {
            snapshot.events_lost.iter().map(|lost| lost.count).sum()
        };
        Self {
            time: moment(later).map(Time),
            interval: Span(seconds),
            pods,
            syscalls: syscalls(rate, earlier, later),
            events_lost: lost(later).saturating_sub(lost(earlier)),
        }
    }
}

impl PodTopDoc {
    /// Who comes first in a list.
    pub(crate) fn order(a: &Self, b: &Self) -> std::cmp::Ordering {
        let weight = |pod: &Self| (pod.faults.len() as f64, pod.retransmits, pod.busyness());
        let (a, b) = (weight(a), weight(b));
        b.partial_cmp(&a).unwrap_or(std::cmp::Ordering::Equal)
    }

    fn busyness(&self) -> f64 {
        self.bytes_sent + self.bytes_received
    }
}

/// Seconds.
#[derive(Clone, Copy)]
struct Rate(f64);

impl Rate {
    fn of(self, earlier: u64, later: u64) -> f64 {
        let grown = later.saturating_sub(earlier) as f64;
        if self.0 > 0.0 { grown / self.0 } else { 0.0 }
    }
}

fn moment(snapshot: &v1::GetSnapshotResponse) -> Option<std::time::SystemTime> {
    timestamp_from_proto("time", snapshot.time?).ok()
}

fn key(pod: Option<&v1::PodRef>) -> Key {
    pod.map(|pod| (pod.namespace.clone(), pod.name.clone()))
}

fn tcp(
    pods: &mut BTreeMap<Key, PodTopDoc>,
    rate: Rate,
    earlier: &v1::GetSnapshotResponse,
    later: &v1::GetSnapshotResponse,
) {
    let before: BTreeMap<Key, &v1::TcpSummary> = earlier
        .tcp
        .iter()
        .map(|tcp| (key(tcp.pod.as_ref()), tcp))
        .collect();
    let nothing = v1::TcpSummary::default();
    for now in &later.tcp {
        let key = key(now.pod.as_ref());
        let before = before.get(&key).copied().unwrap_or(&nothing);
        let pod = pods.entry(key).or_default();
        let grown = |read: fn(&v1::TcpSummary) -> u64| rate.of(read(before), read(now));
        pod.retransmits = grown(|tcp| tcp.retransmits + tcp.synack_retransmits);
        pod.rtos = grown(|tcp| tcp.rtos);
        pod.resets = grown(|tcp| tcp.resets_sent + tcp.resets_received);
        pod.connections = grown(|tcp| {
            tcp.connections
                .iter()
                .map(|peer| peer.opened + peer.accepted)
                .sum()
        });
        pod.connections_failed = grown(|tcp| tcp.connections.iter().map(|peer| peer.failed).sum());
        pod.bytes_sent = grown(|tcp| tcp.bytes_sent);
        pod.bytes_received = grown(|tcp| tcp.bytes_received);
        let rtts = added(before.rtts.as_ref(), now.rtts.as_ref());
        pod.rtt_p50 = quantile(&rtts, 0.5);
        pod.rtt_p99 = quantile(&rtts, 0.99);
    }
}

fn drops(
    pods: &mut BTreeMap<Key, PodTopDoc>,
    rate: Rate,
    earlier: &v1::GetSnapshotResponse,
    later: &v1::GetSnapshotResponse,
) {
    let sums = |snapshot: &v1::GetSnapshotResponse| {
        let mut sums: BTreeMap<(Key, bool), u64> = BTreeMap::new();
        for drop in &snapshot.drops {
            *sums.entry((key(drop.pod.as_ref()), drop.injected)).or_default() += drop.packets;
        }
        sums
    };
    let before = sums(earlier);
    for ((key, injected), count) in sums(later) {
        let known = before.get(&(key.clone(), injected)).copied().unwrap_or_default();
        let pod = pods.entry(key).or_default();
        let place = if injected {
            &mut pod.drops_injected
        } else {
            &mut pod.drops_other
        };
        *place = rate.of(known, count);
    }
}

fn dns(
    pods: &mut BTreeMap<Key, PodTopDoc>,
    rate: Rate,
    earlier: &v1::GetSnapshotResponse,
    later: &v1::GetSnapshotResponse,
) {
    let before: BTreeMap<Key, &v1::DnsSummary> = earlier
        .dns
        .iter()
        .map(|dns| (key(dns.pod.as_ref()), dns))
        .collect();
    for now in &later.dns {
        let key = key(now.pod.as_ref());
        let known = before
            .get(&key)
            .map_or((0, 0), |dns| (dns.queries, dns.unanswered));
        let pod = pods.entry(key).or_default();
        pod.dns_queries = rate.of(known.0, now.queries);
        pod.dns_unanswered = rate.of(known.1, now.unanswered);
    }
}

fn faults(pods: &mut BTreeMap<Key, PodTopDoc>, later: &v1::GetSnapshotResponse) {
    for fault in &later.faults {
        let name = full_name(&metadata(fault.metadata.clone()));
        let targets = fault.status.iter().flat_map(|status| &status.targets);
        let injected: BTreeSet<_> = targets
            .filter(|target| target.phase() == v1::TargetPhase::Injected)
            .filter_map(|target| owner(fault, target.target.as_ref()?))
            .collect();
        for pod in injected {
            pods.entry(pod).or_default().faults.push(name.clone());
        }
    }
}

/// Whom the daemon counts a target's traffic for.
fn owner(fault: &v1::Fault, target: &v1::TargetRef) -> Option<Key> {
    use v1::target::Kind;

    if !target.pod_name.is_empty() {
        return Some(Some((target.pod_namespace.clone(), target.pod_name.clone())));
    }
    match fault.spec.as_ref()?.target.as_ref()?.kind.as_ref()? {
        Kind::Netns(path) => Some(Some((String::new(), format!("netns:{path}")))),
        Kind::Interface(_) | Kind::Node(_) => Some(None),
        Kind::Pods(_) | Kind::Service(_) => None,
    }
}

fn syscalls(
    rate: Rate,
    earlier: &v1::GetSnapshotResponse,
    later: &v1::GetSnapshotResponse,
) -> Vec<SyscallTopDoc> {
    fn key(call: &v1::SyscallSummary) -> (&str, &str) {
        (call.process.as_str(), call.syscall.as_str())
    }
    let total = |call: &v1::SyscallSummary| {
        call.total
            .and_then(|total| duration_from_proto("total", total).ok())
            .unwrap_or_default()
    };
    let errors = |call: &v1::SyscallSummary| call.errors.iter().map(|error| error.count).sum::<u64>();
    let before: BTreeMap<_, _> = earlier.syscalls.iter().map(|call| (key(call), call)).collect();
    let nothing = v1::SyscallSummary::default();
    let mut rows: Vec<(Duration, SyscallTopDoc)> = later
        .syscalls
        .iter()
        .filter_map(|now| {
            let before = before.get(&key(now)).copied().unwrap_or(&nothing);
            let calls = now.calls.checked_sub(before.calls).filter(|&calls| calls > 0)?;
            let spent = total(now).saturating_sub(total(before));
            let row = SyscallTopDoc {
                process: now.process.clone(),
                syscall: now.syscall.clone(),
                calls: rate.of(before.calls, now.calls),
                errors: rate.of(errors(before), errors(now)),
                mean: Some(Span(spent / u32::try_from(calls).unwrap_or(u32::MAX))),
                p99: quantile(&added(before.durations.as_ref(), now.durations.as_ref()), 0.99),
            };
            Some((spent, row))
        })
        .collect();
    rows.sort_by_key(|(spent, _)| std::cmp::Reverse(*spent));
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Counts by upper bound; the one without any is the last.
fn buckets(durations: Option<&v1::Durations>) -> BTreeMap<Duration, u64> {
    let buckets = durations.into_iter().flat_map(|durations| &durations.buckets);
    buckets
        .map(|bucket| {
            let below = bucket
                .below
                .and_then(|below| duration_from_proto("below", below).ok());
            (below.unwrap_or(Duration::MAX), bucket.count)
        })
        .collect()
}

fn added(before: Option<&v1::Durations>, now: Option<&v1::Durations>) -> BTreeMap<Duration, u64> {
    let before = buckets(before);
    let mut added = buckets(now);
    for (below, count) in &mut added {
        *count = count.saturating_sub(before.get(below).copied().unwrap_or_default());
    }
    added
}

/// The upper bound of the bucket in which it lies; `None` without any, and where it has none.
fn quantile(buckets: &BTreeMap<Duration, u64>, share: f64) -> Option<Span> {
    let count: u64 = buckets.values().sum();
    let rank = (count as f64 * share).ceil().max(1.0) as u64;
    let mut sum = 0;
    let (below, _) = buckets.iter().find(|(_, count)| {
        sum += **count;
        sum >= rank
    })?;
    (*below < Duration::MAX).then_some(Span(*below))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use sabot_proto::convert::{duration_to_proto, timestamp_to_proto};

    use super::*;

    fn pod(name: &str) -> Option<v1::PodRef> {
        Some(v1::PodRef {
            namespace: "shop".into(),
            name: name.into(),
        })
    }

    fn durations(millis: &[(u64, u64)]) -> Option<v1::Durations> {
        Some(v1::Durations {
            buckets: millis
                .iter()
                .map(|&(below, count)| v1::DurationBucket {
                    below: (below > 0).then(|| duration_to_proto(Duration::from_millis(below))),
                    count,
                })
                .collect(),
            ..v1::Durations::default()
        })
    }

    fn tcp(name: &str, retransmits: u64, bytes: u64, rtts: &[(u64, u64)]) -> v1::TcpSummary {
        v1::TcpSummary {
            pod: pod(name),
            retransmits,
            bytes_sent: bytes,
            rtts: durations(rtts),
            ..v1::TcpSummary::default()
        }
    }

    fn call(syscall: &str, calls: u64, millis: u64) -> v1::SyscallSummary {
        v1::SyscallSummary {
            process: "kubelet".into(),
            syscall: syscall.into(),
            calls,
            total: Some(duration_to_proto(Duration::from_millis(millis))),
            ..v1::SyscallSummary::default()
        }
    }

    fn at(seconds: u64) -> v1::GetSnapshotResponse {
        v1::GetSnapshotResponse {
            time: Some(timestamp_to_proto(
                SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            )),
            ..v1::GetSnapshotResponse::default()
        }
    }

    #[test]
    fn rates_are_what_grew_and_quantiles_are_of_what_was_added() {
        let earlier = v1::GetSnapshotResponse {
            tcp: vec![tcp("web", 10, 1000, &[(1, 100)])],
            syscalls: vec![
                v1::SyscallSummary {
                    durations: durations(&[(2000, 10)]),
                    ..call("read", 10, 100)
                },
                call("futex", 5, 5),
            ],
            ..at(100)
        };
        let later = v1::GetSnapshotResponse {
            tcp: vec![
                tcp("web", 14, 5000, &[(1, 100), (50, 9), (0, 1)]),
                tcp("db", 2, 0, &[]),
            ],
            syscalls: vec![
                v1::SyscallSummary {
                    durations: durations(&[(5, 2), (2000, 10)]),
                    ..call("read", 12, 110)
                },
                call("futex", 5, 5),
                call("write", 4, 80),
            ],
            ..at(102)
        };
        let top = TopDoc::between(&earlier, &later);
        assert_eq!(top.interval.0, Duration::from_secs(2));
        let [web, db] = top.pods.as_slice() else {
            panic!("two pods: {top:?}");
        };
        assert_eq!((web.retransmits, web.bytes_sent), (2.0, 2000.0));
        assert_eq!(web.rtt_p50, Some(Span(Duration::from_millis(50))));
        assert_eq!(web.rtt_p99, None, "beyond the last bound");
        assert_eq!((db.retransmits, db.rtt_p50), (1.0, None));
        let calls: Vec<_> = top
            .syscalls
            .iter()
            .map(|call| {
                (
                    call.syscall.as_str(),
                    call.calls,
                    call.mean.map(|mean| mean.0.as_millis()),
                )
            })
            .collect();
        assert_eq!(calls, [("write", 2.0, Some(20)), ("read", 1.0, Some(5))]);
        // Ten slow ones were before.
        let p99 = top.syscalls.iter().map(|call| call.p99);
        assert_eq!(
            p99.collect::<Vec<_>>(),
            [None, Some(Span(Duration::from_millis(5)))]
        );
    }

    #[test]
    fn pods_that_hurt_come_first_and_counters_that_begin_anew_are_no_rate() {
        let earlier = v1::GetSnapshotResponse {
            tcp: vec![tcp("busy", 9, 0, &[]), tcp("hurt", 0, 0, &[])],
            ..at(1)
        };
        let target = v1::TargetStatus {
            target: Some(v1::TargetRef {
                pod_namespace: "shop".into(),
                pod_name: "hurt".into(),
                ..v1::TargetRef::default()
            }),
            phase: v1::TargetPhase::Injected.into(),
            ..v1::TargetStatus::default()
        };
        let fault = v1::Fault {
            metadata: Some(v1::Metadata {
                namespace: "shop".into(),
                name: "cut".into(),
            }),
            status: Some(v1::FaultStatus {
                targets: vec![target.clone(), target],
                ..v1::FaultStatus::default()
            }),
            ..v1::Fault::default()
        };
        let later = v1::GetSnapshotResponse {
            tcp: vec![tcp("busy", 0, 4000, &[]), tcp("hurt", 0, 0, &[])],
            faults: vec![fault],
            ..at(2)
        };
        let top = TopDoc::between(&earlier, &later);
        assert_eq!(top.pods[0].faults, ["shop/cut"]);
        assert_eq!((top.pods[1].retransmits, top.pods[1].bytes_sent), (0.0, 4000.0));
    }
}
