//! What a target's traffic went through.

use std::collections::BTreeSet;

use super::super::table;
use super::{BEYOND, quantiles, row, short};
use crate::view::{AggregateDoc, ConnectionsDoc, Counts, LatenciesDoc, TargetTimelineDoc};

/// A line of numbers, and the lines of what they are made of.
struct Line {
    name: &'static str,
    count: fn(&AggregateDoc) -> u64,
    parts: fn(&AggregateDoc) -> Counts,
}

const fn line(name: &'static str, count: fn(&AggregateDoc) -> u64) -> Line {
    Line {
        name,
        count,
        parts: |_| Counts::new(),
    }
}

impl Line {
    const fn of(self, parts: fn(&AggregateDoc) -> Counts) -> Self {
        Self { parts, ..self }
    }
}

const LINES: [Line; 18] = [
    line("connections opened", |a| a.connections_opened).of(|a| peers(a, "to", |c| c.opened)),
    line("connections accepted", |a| a.connections_accepted).of(|a| peers(a, "from", |c| c.accepted)),
    line("connections closed", |a| a.connections_closed).of(|a| peers(a, "with", |c| c.closed)),
    line("connections failed", |a| a.connections_failed).of(failed),
    line("connections lost", |a| a.connections_lost),
    line("segments retransmitted", |a| a.retransmits),
    line("retransmission timeouts", |a| a.rtos),
    line("resets sent", |a| a.resets_sent),
    line("resets received", |a| a.resets_received),
    line("bytes sent", |a| a.bytes_sent),
    line("bytes received", |a| a.bytes_received),
    line("packets dropped by faults", |a| a.drops_injected).of(|a| drops(a, true)),
    line("packets dropped otherwise", |a| a.drops_other).of(|a| drops(a, false)),
    line("DNS queries", |a| a.dns_queries).of(|a| a.dns_answers.clone()),
    line("DNS failures", |a| a.dns_failed),
    line("DNS unanswered", |a| a.dns_unanswered),
    line("DNS retries", |a| a.dns_retries),
    line("DNS late answers", |a| a.dns_late),
];

type Times = (&'static str, fn(&AggregateDoc) -> Option<LatenciesDoc>);
const TIMES: [Times; 3] = [
    ("round trip p50 / p99", |a| a.rtt),
    ("handshake p50 / p99", |a| a.handshake),
    ("DNS answer p50 / p99", |a| a.dns),
];

/// Classes of peers.
fn peers(aggregate: &AggregateDoc, way: &str, count: fn(&ConnectionsDoc) -> u64) -> Counts {
    let classes = aggregate.connections.iter();
    let named = classes.map(|(peer, connections)| (format!("{way} {peer}"), count(connections)));
    named.filter(|(_, count)| *count > 0).collect()
}

/// By errno, and once more by class of peers.
fn failed(aggregate: &AggregateDoc) -> Counts {
    let mut counts = aggregate.connect_errors.clone();
    counts.extend(peers(aggregate, "to", |c| c.failed));
    counts
}

fn drops(aggregate: &AggregateDoc, injected: bool) -> Counts {
    let drops = aggregate.drops.iter().filter(|drops| drops.injected == injected);
    let named = drops.map(|drops| (format!("{} {}", drops.direction, drops.reason), drops.packets));
    named.collect()
}

/// Before, during and after, side by side; rows without any number are left out.
pub(super) fn aggregates(target: &TargetTimelineDoc) -> String {
    let columns = [&target.before, &target.during, &target.after].map(Option::as_ref);
    let length = |a: &AggregateDoc| a.length.map_or_else(String::new, |length| short(length.0));
    let mut rows = vec![row("length", cells(columns, length))];
    for line in &LINES {
        if columns.iter().flatten().any(|a| (line.count)(a) > 0) {
            rows.push(row(line.name, cells(columns, |a| (line.count)(a).to_string())));
            rows.extend(parts(columns.map(|column| column.map(line.parts))));
        }
    }
    for (name, times) in TIMES {
        if columns.iter().flatten().any(|a| times(a).is_some()) {
            let cell =
                |a: &AggregateDoc| times(a).map_or_else(|| "-".to_owned(), |times| quantiles(times, BEYOND));
            rows.push(row(name, cells(columns, cell)));
        }
    }
    table(["", "BEFORE", "DURING", "AFTER"], rows)
}

fn cells(columns: [Option<&AggregateDoc>; 3], read: impl Fn(&AggregateDoc) -> String) -> [String; 3] {
    columns.map(|column| column.map_or_else(|| "-".to_owned(), &read))
}

/// A row for each name that a column has.
pub(super) fn parts(columns: [Option<Counts>; 3]) -> Vec<[String; 4]> {
    let names: BTreeSet<&String> = columns.iter().flatten().flat_map(Counts::keys).collect();
    let counts = |name: &str| {
        columns.each_ref().map(|column| match column {
            Some(counts) => counts.get(name).copied().unwrap_or_default().to_string(),
            None => "-".to_owned(),
        })
    };
    names
        .into_iter()
        .map(|name| row(&format!("  {name}"), counts(name)))
        .collect()
}
