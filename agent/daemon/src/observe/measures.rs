//! What all observers together know of one owner, as timelines compare it.

use std::collections::{BTreeSet, HashMap};

use sabot_abi::{CONNECTION_ACCEPTED, CONNECTION_CLOSED, CONNECTION_OPENED};

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
        let EventKind::Cri(call) = &event.kind else {
            return None;
        };
        if call.pod_name.is_empty() || !REACTIONS.contains(&call.operation) {
            return None;
        }
        let pod = Identity::Pod {
            namespace: call.pod_namespace.clone(),
            name: call.pod_name.clone(),
        };
        let reaction = Reaction {
            at: clock::instant(event.time),
            what: format!("{} by {}: {}", call.operation, call.process, call.outcome),
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
    totals.opened = tcp.connections(CONNECTION_OPENED);
    totals.accepted = tcp.connections(CONNECTION_ACCEPTED);
    totals.closed = tcp.connections(CONNECTION_CLOSED);
    totals.failed = tcp.failed();
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
