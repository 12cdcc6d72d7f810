//! What a fault did to its targets, as `sabot timeline` prints it.

use std::collections::BTreeMap;

use sabot_core::spec::Metadata;
use sabot_proto::sabot::v1;
use serde::Serialize;

use super::event::direction;
use super::{Span, Time, metadata, span, time};
use crate::error::CliError;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TimelineDoc {
    pub(crate) fault: Metadata,
    pub(crate) applied_at: Option<Time>,
    pub(crate) targets: Vec<TargetTimelineDoc>,
    /// Absent as long as it has been in force on nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) activity: Option<NodeTimelineDoc>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NodeTimelineDoc {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<NodeAggregateDoc>,
    pub(crate) during: Option<NodeAggregateDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<NodeAggregateDoc>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NodeAggregateDoc {
    pub(crate) from: Option<Time>,
    pub(crate) length: Option<Span>,
    /// Syscalls, by the process's name.
    pub(crate) processes: BTreeMap<String, ProcessAggregateDoc>,
    /// Those that say most, by the process's name and the syscall's.
    pub(crate) calls: BTreeMap<String, BTreeMap<String, CallAggregateDoc>>,
    /// Calls of the container runtime, by operation.
    pub(crate) operations: BTreeMap<String, OperationAggregateDoc>,
}

/// By name.
pub(crate) type Counts = BTreeMap<String, u64>;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct ProcessAggregateDoc {
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    /// Of calls that don't wait by design.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durations: Option<LatenciesDoc>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct CallAggregateDoc {
    pub(crate) calls: u64,
    /// By errno.
    pub(crate) errors: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durations: Option<LatenciesDoc>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct OperationAggregateDoc {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) outcomes: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) durations: Option<LatenciesDoc>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetTimelineDoc {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) moments: Vec<MomentDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recovery: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<AggregateDoc>,
    pub(crate) during: Option<AggregateDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<AggregateDoc>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MomentDoc {
    pub(crate) kind: &'static str,
    pub(crate) time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since_previous: Option<Span>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AggregateDoc {
    pub(crate) from: Option<Time>,
    pub(crate) length: Option<Span>,
    pub(crate) connections_opened: u64,
    pub(crate) connections_accepted: u64,
    pub(crate) connections_closed: u64,
    pub(crate) connections_failed: u64,
    /// Those, by errno.
    pub(crate) connect_errors: Counts,
    /// What the four are made of, by the peer's class.
    pub(crate) connections: BTreeMap<String, ConnectionsDoc>,
    pub(crate) connections_lost: u64,
    pub(crate) retransmits: u64,
    pub(crate) rtos: u64,
    pub(crate) resets_sent: u64,
    pub(crate) resets_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) drops_injected: u64,
    pub(crate) drops_other: u64,
    /// What both are made of.
    pub(crate) drops: Vec<DropAggregateDoc>,
    pub(crate) dns_queries: u64,
    /// By response code.
    pub(crate) dns_answers: Counts,
    pub(crate) dns_failed: u64,
    pub(crate) dns_unanswered: u64,
    pub(crate) dns_retries: u64,
    pub(crate) dns_late: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rtt: Option<LatenciesDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handshake: Option<LatenciesDoc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dns: Option<LatenciesDoc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct ConnectionsDoc {
    pub(crate) opened: u64,
    pub(crate) accepted: u64,
    pub(crate) closed: u64,
    pub(crate) failed: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DropAggregateDoc {
    pub(crate) direction: &'static str,
    pub(crate) reason: String,
    /// By a fault.
    pub(crate) injected: bool,
    pub(crate) packets: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct LatenciesDoc {
    pub(crate) count: u64,
    pub(crate) mean: Option<Span>,
    pub(crate) p50: Option<Span>,
    pub(crate) p90: Option<Span>,
    pub(crate) p99: Option<Span>,
}

impl TryFrom<v1::Timeline> for TimelineDoc {
    type Error = CliError;

    fn try_from(timeline: v1::Timeline) -> Result<Self, CliError> {
        Ok(Self {
            fault: metadata(timeline.fault),
            applied_at: time("timeline.appliedAt", timeline.applied_at)?,
            targets: timeline
                .targets
                .into_iter()
                .map(target)
                .collect::<Result<_, _>>()?,
            activity: timeline.activity.map(node).transpose()?,
        })
    }
}

fn node(node: v1::NodeTimeline) -> Result<NodeTimelineDoc, CliError> {
    Ok(NodeTimelineDoc {
        before: node.before.map(node_aggregate).transpose()?,
        during: node.during.map(node_aggregate).transpose()?,
        after: node.after.map(node_aggregate).transpose()?,
    })
}

fn node_aggregate(aggregate: v1::NodeAggregate) -> Result<NodeAggregateDoc, CliError> {
    let process = |process: v1::ProcessAggregate| {
        let doc = ProcessAggregateDoc {
            calls: process.calls,
            errors: process.errors,
            durations: process.durations.map(latencies).transpose()?,
        };
        Ok((process.process, doc))
    };
    let operation = |operation: v1::OperationAggregate| {
        let doc = OperationAggregateDoc {
            calls: operation.calls,
            failures: operation.failures,
            outcomes: counts(operation.outcomes),
            durations: operation.durations.map(latencies).transpose()?,
        };
        Ok((operation.operation, doc))
    };
    let mut calls: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for call in aggregate.calls {
        let doc = CallAggregateDoc {
            calls: call.calls,
            errors: counts(call.errors),
            durations: call.durations.map(latencies).transpose()?,
        };
        calls.entry(call.process).or_default().insert(call.syscall, doc);
    }
    Ok(NodeAggregateDoc {
        calls,
        from: time("aggregate.from", aggregate.from)?,
        length: span("aggregate.length", aggregate.length)?,
        processes: aggregate
            .processes
            .into_iter()
            .map(process)
            .collect::<Result<_, CliError>>()?,
        operations: aggregate
            .operations
            .into_iter()
            .map(operation)
            .collect::<Result<_, CliError>>()?,
    })
}

fn counts(counts: Vec<v1::NamedCount>) -> Counts {
    let counts = counts.into_iter();
    counts.map(|named| (named.name, named.count)).collect()
}

fn target(target: v1::TargetTimeline) -> Result<TargetTimelineDoc, CliError> {
    let recovery = match target.recovery() {
        v1::Recovery::Unspecified => None,
        v1::Recovery::Watching => Some("watching"),
        v1::Recovery::Recovered => Some("recovered"),
        v1::Recovery::TooSlow => Some("notWithinAMinute"),
        v1::Recovery::NoTraffic => Some("noTraffic"),
    };
    Ok(TargetTimelineDoc {
        namespace: target.namespace,
        name: target.name,
        moments: target.moments.into_iter().map(moment).collect::<Result<_, _>>()?,
        recovery,
        before: target.before.map(aggregate).transpose()?,
        during: target.during.map(aggregate).transpose()?,
        after: target.after.map(aggregate).transpose()?,
    })
}

fn moment(moment: v1::Moment) -> Result<MomentDoc, CliError> {
    Ok(MomentDoc {
        kind: kind(moment.kind()),
        time: time("moment.time", moment.time)?,
        since_previous: span("moment.sincePrevious", moment.since_previous)?,
        detail: moment.detail,
    })
}

fn kind(kind: v1::MomentKind) -> &'static str {
    match kind {
        v1::MomentKind::Unspecified => "unknown",
        v1::MomentKind::Applied => "applied",
        v1::MomentKind::Injected => "injected",
        v1::MomentKind::FirstMatch => "firstMatch",
        v1::MomentKind::FirstRetransmit => "firstRetransmit",
        v1::MomentKind::FirstRto => "firstRto",
        v1::MomentKind::FirstReset => "firstReset",
        v1::MomentKind::FirstConnectFailure => "firstConnectFailure",
        v1::MomentKind::FirstConnectionLost => "firstConnectionLost",
        v1::MomentKind::RuntimeReaction => "runtimeReaction",
        v1::MomentKind::Ended => "ended",
        v1::MomentKind::Recovered => "recovered",
    }
}

fn aggregate(aggregate: v1::Aggregate) -> Result<AggregateDoc, CliError> {
    Ok(AggregateDoc {
        from: time("aggregate.from", aggregate.from)?,
        length: span("aggregate.length", aggregate.length)?,
        connections_opened: aggregate.connections_opened,
        connections_accepted: aggregate.connections_accepted,
        connections_closed: aggregate.connections_closed,
        connections_failed: aggregate.connections_failed,
        connect_errors: counts(aggregate.connect_errors),
        connections: aggregate.connections.into_iter().map(connections).collect(),
        connections_lost: aggregate.connections_lost,
        retransmits: aggregate.retransmits,
        rtos: aggregate.rtos,
        resets_sent: aggregate.resets_sent,
        resets_received: aggregate.resets_received,
        bytes_sent: aggregate.bytes_sent,
        bytes_received: aggregate.bytes_received,
        drops_injected: aggregate.drops_injected,
        drops_other: aggregate.drops_other,
        drops: aggregate.drops.into_iter().map(drops).collect(),
        dns_queries: aggregate.dns_queries,
        dns_answers: counts(aggregate.dns_answers),
        dns_failed: aggregate.dns_failed,
        dns_unanswered: aggregate.dns_unanswered,
        dns_retries: aggregate.dns_retries,
        dns_late: aggregate.dns_late,
        rtt: aggregate.rtt.map(latencies).transpose()?,
        handshake: aggregate.handshake.map(latencies).transpose()?,
        dns: aggregate.dns.map(latencies).transpose()?,
    })
}

fn connections(connections: v1::TcpConnections) -> (String, ConnectionsDoc) {
    let doc = ConnectionsDoc {
        opened: connections.opened,
        accepted: connections.accepted,
        closed: connections.closed,
        failed: connections.failed,
    };
    (connections.peer, doc)
}

fn drops(drops: v1::DropAggregate) -> DropAggregateDoc {
    DropAggregateDoc {
        direction: direction(drops.direction()),
        reason: drops.reason,
        injected: drops.injected,
        packets: drops.packets,
    }
}

fn latencies(latencies: v1::Latencies) -> Result<LatenciesDoc, CliError> {
    Ok(LatenciesDoc {
        count: latencies.count,
        mean: span("latencies.mean", latencies.mean)?,
        p50: span("latencies.p50", latencies.p50)?,
        p90: span("latencies.p90", latencies.p90)?,
        p99: span("latencies.p99", latencies.p99)?,
    })
}
