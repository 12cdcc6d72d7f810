//! What the node's processes and its container runtime did meanwhile.

use std::collections::BTreeSet;

use super::super::{or_dash, table};
use super::aggregates::parts;
use super::{BEYOND, quantiles, row, short};
use crate::view::{Counts, LatenciesDoc, NodeAggregateDoc, NodeTimelineDoc, Span};

/// The outcome that is no news.
const OK: &str = "OK";
/// What is longer than the last bound of the runtime's calls.
const BEYOND_RUNTIME: &str = "> 300s";

type Columns<'a> = [Option<&'a NodeAggregateDoc>; 3];
/// What stands in one cell: how many calls, how many of them failed and of what, and how long they took.
type Cell = (u64, u64, Counts, Option<LatenciesDoc>);

/// `None` where nobody did anything.
pub(super) fn node(node: &NodeTimelineDoc) -> Option<String> {
    let columns = [&node.before, &node.during, &node.after].map(Option::as_ref);
    let sections = [
        ("SYSCALLS / FAILED / P50 / P99", processes(columns)),
        ("BY SYSCALL", calls(columns)),
        ("RUNTIME CALLS / FAILED / P50 / P99", operations(columns)),
    ];
    if sections.iter().all(|(_, rows)| rows.is_empty()) {
        return None;
    }
    let length = |aggregate: &NodeAggregateDoc| aggregate.length.map(|Span(length)| short(length));
    let lengths = columns.map(|column| or_dash(column.and_then(length).unwrap_or_default()));
    let mut rows = vec![row("length", lengths)];
    for (title, found) in sections {
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

fn processes(columns: Columns<'_>) -> Vec<[String; 4]> {
    let names = columns
        .into_iter()
        .flatten()
        .flat_map(|a| a.processes.keys().cloned());
    section(columns, BEYOND, names.collect(), |aggregate, name| {
        let process = aggregate.processes.get(name)?;
        Some((process.calls, process.errors, Counts::new(), process.durations))
    })
}

fn calls(columns: Columns<'_>) -> Vec<[String; 4]> {
    let all = columns.into_iter().flatten().flat_map(|a| &a.calls);
    let names =
        all.flat_map(|(process, calls)| calls.keys().map(move |syscall| format!("{process} {syscall}")));
    section(columns, BEYOND, names.collect(), |aggregate, name| {
        // A process's name may have spaces, a syscall's has none.
        let (process, syscall) = name.rsplit_once(' ')?;
        let call = aggregate.calls.get(process)?.get(syscall)?;
        let failed = call.errors.values().sum();
        Some((call.calls, failed, call.errors.clone(), call.durations))
    })
}

fn operations(columns: Columns<'_>) -> Vec<[String; 4]> {
    let names = columns
        .into_iter()
        .flatten()
        .flat_map(|a| a.operations.keys().cloned());
    section(columns, BEYOND_RUNTIME, names.collect(), |aggregate, name| {
        let operation = aggregate.operations.get(name)?;
        let mut failures = operation.outcomes.clone();
        failures.remove(OK);
        Some((operation.calls, operation.failures, failures, operation.durations))
    })
}

/// A row for each name, and one for each way to fail below it.
fn section(
    columns: Columns<'_>,
    beyond: &str,
    names: BTreeSet<String>,
    read: impl Fn(&NodeAggregateDoc, &str) -> Option<Cell>,
) -> Vec<[String; 4]> {
    let rows = names.iter().flat_map(|name| {
        let cells = columns.map(|column| read(column?, name));
        let shown = cells.each_ref().map(|cell| match cell {
            Some((calls, failed, _, durations)) => {
                let quantiles =
                    durations.map_or_else(|| "-".to_owned(), |durations| quantiles(durations, beyond));
                format!("{calls} / {failed} / {quantiles}")
            }
            None => "-".to_owned(),
        });
        let failures = cells.map(|cell| cell.map(|(_, _, failures, _)| failures));
        [row(name, shown)].into_iter().chain(parts(failures))
    });
    rows.collect()
}
