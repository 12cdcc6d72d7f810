//! What a fault did, as people read it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{or_dash, properties, table, time};
use crate::view::{
    AggregateDoc, LatenciesDoc, MomentDoc, NodeAggregateDoc, NodeTimelineDoc, Span, TargetTimelineDoc,
    TimelineDoc, full_name,
};

pub(crate) fn timeline(timeline: &TimelineDoc) -> String {
    let head = properties([
        ("Fault", full_name(&timeline.fault)),
        ("Applied", time(timeline.applied_at)),
    ]);
    if timeline.targets.is_empty() {
        return format!("{head}\n\nIt has not been in force on any target yet.");
    }
    let parts = timeline.targets.iter().map(target);
    let parts: Vec<_> = parts.chain(timeline.activity.as_ref().and_then(node)).collect();
    format!("{head}\n\n{}", parts.join("\n\n"))
}

/// `None` where nobody did anything.
fn node(node: &NodeTimelineDoc) -> Option<String> {
    let columns = [&node.before, &node.during, &node.after].map(Option::as_ref);
    let processes = node_rows(
        columns,
        |aggregate| aggregate.processes.keys(),
        |aggregate, name| {
            let process = aggregate.processes.get(name)?;
            let p99 = process.durations.map_or_else(|| "-".to_owned(), |d| upper(d.p99));
            Some(format!("{} / {} / {p99}", process.calls, process.errors))
        },
    );
    let operations = node_rows(
        columns,
        |aggregate| aggregate.operations.keys(),
        |aggregate, name| {
            let operation = aggregate.operations.get(name)?;
            let mean = operation
                .mean
                .map_or_else(|| "-".to_owned(), |Span(mean)| short(mean));
            Some(format!("{} / {} / {mean}", operation.calls, operation.failures))
        },
    );
    if processes.is_empty() && operations.is_empty() {
        return None;
    }
    let length = |aggregate: &NodeAggregateDoc| aggregate.length.map(|Span(length)| short(length));
    let lengths = columns.map(|column| or_dash(column.and_then(length).unwrap_or_default()));
    let mut rows = vec![row("length", lengths)];
    for (title, found) in [
        ("SYSCALLS / FAILED / P99", processes),
        ("RUNTIME CALLS / FAILED / MEAN", operations),
    ] {
        if !found.is_empty() {
            rows.push(row(title, Default::default()));
            rows.extend(found);
        }
    }
    Some(format!(
        "The node meanwhile\n{}",
        table(["", "BEFORE", "DURING", "AFTER"], rows)
    ))
}

/// A row for each name that a column has.
fn node_rows<'a, Names: Iterator<Item = &'a String>>(
    columns: [Option<&'a NodeAggregateDoc>; 3],
    names: impl Fn(&'a NodeAggregateDoc) -> Names,
    cell: impl Fn(&'a NodeAggregateDoc, &str) -> Option<String>,
) -> Vec<[String; 4]> {
    let names: BTreeSet<_> = columns.into_iter().flatten().flat_map(names).collect();
    names
        .into_iter()
        .map(|name| {
            let cells = columns.map(|column| column.and_then(|aggregate| cell(aggregate, name)));
            row(name, cells.map(|cell| or_dash(cell.unwrap_or_default())))
        })
        .collect()
}

fn target(target: &TargetTimelineDoc) -> String {
    let name = if target.namespace.is_empty() {
        target.name.clone()
    } else {
        format!("{}/{}", target.namespace, target.name)
    };
    let moments = table(
        ["TIME", "AFTER", "WHAT", "DETAIL"],
        target.moments.iter().map(moment_row),
    );
    let recovery = match target.recovery {
        Some("watching") => "\nRecovery: not yet; it is still compared with the time before",
        Some("notWithinAMinute") => "\nRecovery: not within a minute after the end",
        Some("noTraffic") => "\nRecovery: there was no TCP traffic to tell by",
        _ => "",
    };
    format!("Target {name}\n{moments}{recovery}\n\n{}", aggregates(target))
}

fn moment_row(moment: &MomentDoc) -> [String; 4] {
    let what = match moment.kind {
        "firstMatch" => "first packet matched",
        "firstRetransmit" => "first retransmit",
        "firstRto" => "first retransmission timeout",
        "firstReset" => "first reset",
        "firstConnectFailure" => "first failed connect",
        "firstConnectionLost" => "first connection lost",
        "runtimeReaction" => "the runtime is asked",
        other => other,
    };
    let after = moment
        .since_previous
        .map(|Span(after)| format!("+{}", short(after)));
    [
        or_dash(time(moment.time)),
        after.unwrap_or_default(),
        what.to_owned(),
        moment.detail.clone(),
    ]
}

/// Before, during and after, side by side; rows without any number are left out.
fn aggregates(target: &TargetTimelineDoc) -> String {
    let columns = [&target.before, &target.during, &target.after];
    let cell = |read: &dyn Fn(&AggregateDoc) -> String| {
        columns.map(|column| column.as_ref().map_or_else(|| "-".to_owned(), read))
    };
    let mut rows = vec![row(
        "length",
        cell(&|a| a.length.map_or_else(String::new, |length| short(length.0))),
    )];
    type Count = (&'static str, fn(&AggregateDoc) -> u64);
    const COUNTS: [Count; 15] = [
        ("connections opened", |a| a.connections_opened),
        ("connections accepted", |a| a.connections_accepted),
        ("connections failed", |a| a.connections_failed),
        ("connections lost", |a| a.connections_lost),
        ("segments retransmitted", |a| a.retransmits),
        ("retransmission timeouts", |a| a.rtos),
        ("resets sent", |a| a.resets_sent),
        ("resets received", |a| a.resets_received),
        ("bytes sent", |a| a.bytes_sent),
        ("bytes received", |a| a.bytes_received),
        ("packets dropped by faults", |a| a.drops_injected),
        ("packets dropped otherwise", |a| a.drops_other),
        ("DNS queries", |a| a.dns_queries),
        ("DNS failures", |a| a.dns_failed),
        ("DNS unanswered", |a| a.dns_unanswered),
    ];
    for (name, count) in COUNTS {
        if columns
            .iter()
            .any(|column| column.as_ref().is_some_and(|a| count(a) > 0))
        {
            rows.push(row(name, cell(&|a| count(a).to_string())));
        }
    }
    type Times = (&'static str, fn(&AggregateDoc) -> Option<LatenciesDoc>);
    const TIMES: [Times; 3] = [
        ("round trip p50 / p99", |a| a.rtt),
        ("handshake p50 / p99", |a| a.handshake),
        ("DNS answer p50 / p99", |a| a.dns),
    ];
    for (name, times) in TIMES {
        if columns
            .iter()
            .any(|column| column.as_ref().and_then(times).is_some())
        {
            rows.push(row(
                name,
                cell(&|a| times(a).map_or_else(|| "-".to_owned(), quantiles)),
            ));
        }
    }
    table(["", "BEFORE", "DURING", "AFTER"], rows)
}

fn row(name: &str, [before, during, after]: [String; 3]) -> [String; 4] {
    [name.to_owned(), before, during, after]
}

fn quantiles(latencies: LatenciesDoc) -> String {
    format!("{} / {}", upper(latencies.p50), upper(latencies.p99))
}

fn upper(quantile: Option<Span>) -> String {
    quantile.map_or_else(|| "> 17s".to_owned(), |Span(time)| short(time))
}

/// Three digits or so: `1.25ms`, `42.0s`.
fn short(duration: Duration) -> String {
    format!("{duration:.3?}")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use sabot_proto::convert::{duration_to_proto, timestamp_to_proto};
    use sabot_proto::sabot::v1;

    use super::*;

    fn document(targets: Vec<v1::TargetTimeline>) -> TimelineDoc {
        let timeline = v1::Timeline {
            fault: Some(v1::Metadata {
                name: "cut".into(),
                namespace: "shop".into(),
            }),
            applied_at: Some(timestamp_to_proto(SystemTime::UNIX_EPOCH)),
            targets,
            activity: None,
        };
        TimelineDoc::try_from(timeline).expect("it is understood")
    }

    fn moment(kind: v1::MomentKind, millis: u64, after: Option<u64>) -> v1::Moment {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        v1::Moment {
            kind: kind.into(),
            time: Some(timestamp_to_proto(time)),
            since_previous: after.map(|millis| duration_to_proto(Duration::from_millis(millis))),
            detail: String::new(),
        }
    }

    #[test]
    fn a_timeline_reads_from_top_to_bottom_with_what_was_before_during_and_after() {
        let rtt = v1::Latencies {
            count: 9,
            mean: Some(duration_to_proto(Duration::from_millis(40))),
            p50: Some(duration_to_proto(Duration::from_millis(41))),
            p90: None,
            p99: None,
        };
        let during = v1::Aggregate {
            length: Some(duration_to_proto(Duration::from_secs(10))),
            retransmits: 12,
            rtt: Some(rtt),
            ..v1::Aggregate::default()
        };
        let target = v1::TargetTimeline {
            namespace: "shop".into(),
            name: "web-0".into(),
            moments: vec![
                moment(v1::MomentKind::Applied, 0, None),
                moment(v1::MomentKind::FirstRetransmit, 205, Some(205)),
            ],
            recovery: v1::Recovery::TooSlow.into(),
            before: Some(v1::Aggregate::default()),
            during: Some(during),
            after: None,
        };
        let text = timeline(&document(vec![target]));
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "Fault: shop/cut",
                "Applied: 1970-01-01T00:00:00.000Z",
                "",
                "Target shop/web-0",
                "TIME AFTER WHAT DETAIL",
                "1970-01-01T00:00:00.000Z applied",
                "1970-01-01T00:00:00.205Z +205.000ms first retransmit",
                "Recovery: not within a minute after the end",
                "",
                "BEFORE DURING AFTER",
                "length 10.000s -",
                "segments retransmitted 0 12 -",
                "round trip p50 / p99 - 41.000ms / > 17s -",
            ],
            "{text}"
        );
    }

    #[test]
    fn a_fault_that_waits_has_no_targets_yet() {
        assert!(timeline(&document(Vec::new())).ends_with("It has not been in force on any target yet."));
    }

    fn process(name: &str, calls: u64, errors: u64, p99_micros: u64) -> v1::ProcessAggregate {
        v1::ProcessAggregate {
            process: name.into(),
            calls,
            errors,
            durations: Some(v1::Latencies {
                count: calls,
                p99: Some(duration_to_proto(Duration::from_micros(p99_micros))),
                ..v1::Latencies::default()
            }),
        }
    }

    #[test]
    fn what_the_node_did_meanwhile_stands_side_by_side() {
        let stop = v1::OperationAggregate {
            operation: "StopContainer".into(),
            calls: 2,
            failures: 1,
            mean: Some(duration_to_proto(Duration::from_millis(300))),
        };
        let before = v1::NodeAggregate {
            length: Some(duration_to_proto(Duration::from_secs(30))),
            processes: vec![process("kubelet", 900, 0, 40)],
            ..v1::NodeAggregate::default()
        };
        let during = v1::NodeAggregate {
            length: Some(duration_to_proto(Duration::from_secs(10))),
            processes: vec![process("kubelet", 400, 20, 2500), process("runc", 7, 0, 12)],
            operations: vec![stop],
            ..v1::NodeAggregate::default()
        };
        let mut document = document(vec![v1::TargetTimeline::default()]);
        let node = v1::NodeTimeline {
            before: Some(before),
            during: Some(during),
            after: None,
        };
        let meanwhile = v1::Timeline {
            activity: Some(node),
            ..v1::Timeline::default()
        };
        document.activity = TimelineDoc::try_from(meanwhile)
            .expect("it is understood")
            .activity;
        let text = timeline(&document);
        let (_, text) = text.split_once("The node meanwhile\n").expect("it is told");
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "BEFORE DURING AFTER",
                "length 30.000s 10.000s -",
                "SYSCALLS / FAILED / P99",
                "kubelet 900 / 0 / 40.000µs 400 / 20 / 2.500ms -",
                "runc - 7 / 0 / 12.000µs -",
                "RUNTIME CALLS / FAILED / MEAN",
                "StopContainer - 2 / 1 / 300.000ms -",
            ],
            "{text}"
        );
        document.activity = None;
        assert!(!timeline(&document).contains("meanwhile"));
    }
}
