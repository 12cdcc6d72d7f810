//! What all observers together know of one owner, as timelines compare it.

use std::collections::{BTreeSet, HashMap};

use super::clock;
use super::cri::{CriObserver, OperationStats};
use super::event::{Event, EventKind};
use super::identity::Identity;
use super::observers::Observers;
use super::queries::QueryStats;
use super::tcp::{TcpMoments, TcpTotals};
use super::timeline::{Firsts, Measure, NodeTotals, OperationTotals, Reaction, Totals};

/// Calls of the runtime that change a pod; the others only look.
const REACTIONS: [&str; 9] = [
    "RunPodSandbox",
    "StopPodSandbox",
    "RemovePodSandbox",
    "CreateContainer",
    "StartContainer",
    "StopContainer",
    "RemoveContainer",
    "PullImage",
    "UpdateContainerResources",
];

/// What the runtime tells of containers and sandboxes of its own accord, which something made it do or made them end.
const CONTAINER_REACTIONS: [&str; 4] = ["created", "started", "stopped", "deleted"];

/// An observer that is absent, or can't be read now, knows nothing.
impl Measure for Observers {
    fn totals(&self, owners: &BTreeSet<u32>) -> HashMap<u32, Totals> {
        let drops = self
            .drops
            .as_ref()
            .and_then(|drops| known(drops.totals().map(Some)));
        let mut drops = drops.unwrap_or_default();
        let queries = self
            .queries
            .as_ref()
            .and_then(|queries| known(queries.totals().map(Some)));
        let mut queries = queries.unwrap_or_default();
        let totals = owners.iter().map(|&owner| {
            let mut totals = Totals::default();
            if let Some(tcp) = self.tcp.as_ref().and_then(|tcp| known(tcp.totals(owner))) {
                add_tcp(&mut totals, tcp);
            }
            totals.drops = drops.remove(&owner).unwrap_or_default();
            if let Some(queries) = queries.remove(&owner) {
                add_queries(&mut totals, queries);
            }
            (owner, totals)
        });
        totals.collect()
    }

    fn node(&self) -> NodeTotals {
        let calls = self.syscalls.as_ref();
        let calls = calls.and_then(|syscalls| known(syscalls.totals().map(Some)));
        let operations = self.cri.as_ref().map(CriObserver::snapshot).unwrap_or_default();
        let operations = operations.operations.iter();
        NodeTotals {
            calls: calls.unwrap_or_default(),
            operations: operations
                .map(|(&name, stats)| (name, OperationTotals::from(stats)))
                .collect(),
        }
    }

    fn firsts(&self, owner: u32) -> Firsts {
        let moments = self.tcp.as_ref().and_then(|tcp| known(tcp.firsts(owner)));
        moments.map(Firsts::from).unwrap_or_default()
    }

    fn forget_firsts(&self, owner: u32) {
        if let Some(tcp) = self.tcp.as_ref()
            && let Err(error) = tcp.reset_firsts(owner)
        {
            tracing::warn!(%error, owner, "what happens first to a pod's connections can't be looked for again");
        }
    }

    fn reaction(&self, event: &Event) -> Option<(Identity, Reaction)> {
        let (namespace, name, what) = match &event.kind {
            EventKind::Cri(call) if REACTIONS.contains(&call.operation) => {
                let what = format!("{} by {}: {}", call.operation, call.process, call.outcome);
                (&call.pod_namespace, &call.pod_name, what)
            }
            // Where the kernel doesn't show the calls, this is all that there is.
            EventKind::Container(told) if CONTAINER_REACTIONS.contains(&told.change) => {
                let whose = if told.container.is_empty() {
                    "sandbox"
                } else {
                    "container"
                };
                let what = format!("{whose} {}, says the runtime", told.change);
                (&told.pod_namespace, &told.pod_name, what)
            }
            _ => return None,
        };
        if name.is_empty() {
            return None;
        }
        let pod = Identity::Pod {
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let reaction = Reaction {
            at: clock::instant(event.time),
            what,
        };
        Some((pod, reaction))
    }
}

fn known<T, E: std::fmt::Display>(read: Result<Option<T>, E>) -> Option<T> {
    read.inspect_err(|error| tracing::warn!(%error, "counters can't be read for a timeline"))
        .ok()
        .flatten()
}

impl From<&OperationStats> for OperationTotals {
    fn from(stats: &OperationStats) -> Self {
        Self {
            outcomes: stats.outcomes.clone(),
            total: stats.total,
            buckets: stats.buckets,
        }
    }
}

fn add_queries(totals: &mut Totals, queries: QueryStats) {
    totals.dns_queries = queries.queries;
    totals.dns_answers = queries.responses.into_iter().collect();
    totals.dns_retries = queries.retries;
    totals.dns_late = queries.late;
    totals.dns_unanswered = queries.unanswered;
    totals.dns = queries.latency;
}

fn add_tcp(totals: &mut Totals, tcp: TcpTotals) {
    totals.connections = tcp.connections;
    totals.connect_errors = tcp.connect_errors.into_iter().collect();
    totals.lost = tcp.lost;
    totals.retransmits = tcp.retransmits + tcp.synack_retransmits;
    totals.rtos = tcp.rtos;
    totals.resets_sent = tcp.resets_sent;
    totals.resets_received = tcp.resets_received;
    totals.bytes_sent = tcp.bytes_sent;
    totals.bytes_received = tcp.bytes_received;
    totals.rtts = tcp.rtts;
    totals.handshakes = tcp.handshakes;
}

impl From<TcpMoments> for Firsts {
    fn from(moments: TcpMoments) -> Self {
        Self {
            retransmit: moments.retransmit,
            rto: moments.rto,
            reset: moments.reset,
            connect_failure: moments.connect_failure,
            connection_lost: moments.loss,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::observe::event::{ContainerEvent, CriEvent};

    fn reaction(kind: EventKind) -> Option<(String, String)> {
        let event = Event {
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000),
            container: None,
            kind,
        };
        let (identity, reaction) = Observers::default().reaction(&event)?;
        Some((identity.to_string(), reaction.what))
    }

    fn call(operation: &'static str, pod: &str) -> EventKind {
        EventKind::Cri(CriEvent {
            operation,
            pod_namespace: "shop".to_owned(),
            pod_name: pod.to_owned(),
            process: "kubelet".to_owned(),
            outcome: "OK",
            ..CriEvent::default()
        })
    }

    fn told(change: &'static str, container: &str) -> EventKind {
        EventKind::Container(ContainerEvent {
            change,
            pod_namespace: "shop".to_owned(),
            pod_name: "web".to_owned(),
            container: container.to_owned(),
            ..ContainerEvent::default()
        })
    }

    #[test]
    fn the_runtime_reacts_by_calls_and_by_what_it_tells() {
        for (kind, what) in [
            (call("StopContainer", "web"), Some("StopContainer by kubelet: OK")),
            (call("ListContainers", "web"), None),
            (call("StopContainer", ""), None),
            (told("stopped", "c1"), Some("container stopped, says the runtime")),
            (told("deleted", ""), Some("sandbox deleted, says the runtime")),
            (told("other", "c1"), None),
        ] {
            let seen = reaction(kind.clone());
            let expected = what.map(|what| ("shop/web".to_owned(), what.to_owned()));
            assert_eq!(seen, expected, "{kind:?}");
        }
    }
}
