//! Timelines, as the API says them.

use std::time::Duration;

use sabot_abi::{CONNECTION_ACCEPTED, CONNECTION_CLOSED, CONNECTION_FAILED, CONNECTION_OPENED, Histogram};
use sabot_core::model::FaultName;
use sabot_proto::convert::{duration_to_proto, timestamp_to_proto};
use sabot_proto::sabot::v1;

use super::tcp::connections;
use super::traffic::direction;
use crate::observe::clock::system_time;
use crate::observe::durations::{mean, quantile};
use crate::observe::timeline::{
    Named, NodeTimeline, NodeWindow, OperationTotals, Recovery, TargetTimeline, Timeline, What, Window,
};

pub(super) fn timeline(fault: &FaultName, timeline: &Timeline) -> v1::Timeline {
    v1::Timeline {
        fault: Some(v1::Metadata {
            name: fault.name.clone(),
            namespace: fault.namespace.clone(),
        }),
        applied_at: Some(timestamp_to_proto(system_time(timeline.applied))),
        targets: timeline.targets.iter().map(target).collect(),
        activity: timeline.activity.as_ref().map(node),
    }
}

fn node(node: &NodeTimeline) -> v1::NodeTimeline {
    v1::NodeTimeline {
        before: node.before.as_ref().map(node_aggregate),
        during: Some(node_aggregate(&node.during)),
        after: node.after.as_ref().map(node_aggregate),
    }
}

fn node_aggregate(window: &NodeWindow) -> v1::NodeAggregate {
    let processes = window.processes.iter();
    let calls = window.calls.iter();
    let operations = window.operations.iter();
    v1::NodeAggregate {
        from: Some(timestamp_to_proto(system_time(window.from))),
        length: Some(duration_to_proto(window.length())),
        processes: processes
            .map(|(name, stats)| v1::ProcessAggregate {
                process: name.to_string(),
                calls: stats.calls,
                errors: stats.errors,
                durations: latencies(&stats.durations),
            })
            .collect(),
        operations: operations
            .map(|(&name, totals)| v1::OperationAggregate {
                operation: name.to_owned(),
                calls: totals.calls(),
                failures: totals.failures(),
                outcomes: named(&totals.outcomes),
                durations: operation_latencies(totals),
            })
            .collect(),
        calls: calls
            .map(|((process, syscall), call)| v1::CallAggregate {
                process: process.to_string(),
                syscall: (*syscall).to_owned(),
                calls: call.calls(),
                errors: named(&call.errors),
                durations: latencies(&Histogram::from(&call.durations)),
            })
            .collect(),
    }
}

fn operation_latencies(totals: &OperationTotals) -> Option<v1::Latencies> {
    let mean = totals.mean()?;
    let at = |share| totals.quantile(share).map(duration_to_proto);
    Some(v1::Latencies {
        count: totals.timed(),
        mean: Some(duration_to_proto(mean)),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
    })
}

fn named(counts: &Named) -> Vec<v1::NamedCount> {
    let counts = counts.iter();
    counts
        .map(|(&name, &count)| v1::NamedCount {
            name: name.to_owned(),
            count,
        })
        .collect()
}

fn target(target: &TargetTimeline) -> v1::TargetTimeline {
    v1::TargetTimeline {
        namespace: target.identity.namespace().to_owned(),
        name: target.identity.label(),
        moments: moments(target),
        recovery: target.recovery.map_or(v1::Recovery::Unspecified, recovery).into(),
        before: target.before.as_ref().map(aggregate),
        during: Some(aggregate(&target.during)),
        after: target.after.as_ref().map(aggregate),
    }
}

fn moments(target: &TargetTimeline) -> Vec<v1::Moment> {
    let mut previous = None;
    target
        .moments
        .iter()
        .map(|moment| {
            let since = previous.replace(moment.at).map(|before| moment.at.0 - before.0);
            v1::Moment {
                kind: kind(moment.what).into(),
                time: Some(timestamp_to_proto(system_time(moment.at))),
                since_previous: since.map(|ns| duration_to_proto(Duration::from_nanos(ns))),
                detail: moment.detail.clone(),
            }
        })
        .collect()
}

fn kind(what: What) -> v1::MomentKind {
    match what {
        What::Applied => v1::MomentKind::Applied,
        What::Injected => v1::MomentKind::Injected,
        What::FirstMatch => v1::MomentKind::FirstMatch,
        What::FirstRetransmit => v1::MomentKind::FirstRetransmit,
        What::FirstRto => v1::MomentKind::FirstRto,
        What::FirstReset => v1::MomentKind::FirstReset,
        What::FirstConnectFailure => v1::MomentKind::FirstConnectFailure,
        What::FirstConnectionLost => v1::MomentKind::FirstConnectionLost,
        What::RuntimeReaction => v1::MomentKind::RuntimeReaction,
        What::Ended => v1::MomentKind::Ended,
        What::Recovered => v1::MomentKind::Recovered,
    }
}

fn recovery(recovery: Recovery) -> v1::Recovery {
    match recovery {
        Recovery::Watching => v1::Recovery::Watching,
        Recovery::Recovered(_) => v1::Recovery::Recovered,
        Recovery::TooSlow => v1::Recovery::TooSlow,
        Recovery::NoTraffic => v1::Recovery::NoTraffic,
    }
}

fn aggregate(window: &Window) -> v1::Aggregate {
    let totals = &window.totals;
    let drops = totals.drops.iter();
    v1::Aggregate {
        from: Some(timestamp_to_proto(system_time(window.from))),
        length: Some(duration_to_proto(window.length())),
        connections_opened: totals.connections(CONNECTION_OPENED),
        connections_accepted: totals.connections(CONNECTION_ACCEPTED),
        connections_failed: totals.connections(CONNECTION_FAILED),
        connections_lost: totals.lost,
        retransmits: totals.retransmits,
        rtos: totals.rtos,
        resets_sent: totals.resets_sent,
        resets_received: totals.resets_received,
        bytes_sent: totals.bytes_sent,
        bytes_received: totals.bytes_received,
        drops_injected: totals.dropped(true),
        drops_other: totals.dropped(false),
        dns_queries: totals.dns_queries,
        dns_failed: totals.dns_failed(),
        dns_unanswered: totals.dns_unanswered,
        rtt: latencies(&totals.rtts),
        handshake: latencies(&totals.handshakes),
        dns: latencies(&totals.dns),
        connections_closed: totals.connections(CONNECTION_CLOSED),
        connect_errors: named(&totals.connect_errors),
        drops: drops
            .map(|(kind, &packets)| v1::DropAggregate {
                direction: direction(kind.egress).into(),
                reason: kind.reason.clone(),
                injected: kind.injected,
                packets,
            })
            .collect(),
        dns_answers: named(&totals.dns_answers),
        dns_retries: totals.dns_retries,
        dns_late: totals.dns_late,
        connections: connections(&totals.connections),
    }
}

/// `None` without any.
pub(super) fn latencies(histogram: &Histogram) -> Option<v1::Latencies> {
    let mean = mean(histogram)?;
    let at = |share| quantile(histogram, share).map(duration_to_proto);
    Some(v1::Latencies {
        count: histogram.count(),
        mean: Some(duration_to_proto(mean)),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
    })
}
