//! What a fault did, as people read it.

mod aggregates;
mod node;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::aggregates::aggregates;
use self::node::node;
use super::{or_dash, properties, table, time};
use crate::view::{LatenciesDoc, MomentDoc, Span, TargetTimelineDoc, TimelineDoc, full_name};

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

fn row(name: &str, [before, during, after]: [String; 3]) -> [String; 4] {
    [name.to_owned(), before, during, after]
}

/// What is longer than the last bound.
const BEYOND: &str = "> 17s";

/// The median and the 99th percentile.
fn quantiles(latencies: LatenciesDoc, beyond: &str) -> String {
    let [p50, p99] = [latencies.p50, latencies.p99]
        .map(|quantile| quantile.map_or_else(|| beyond.to_owned(), |Span(time)| short(time)));
    format!("{p50} / {p99}")
}

/// Three digits or so: `1.25ms`, `42.0s`.
fn short(duration: Duration) -> String {
    format!("{duration:.3?}")
}
