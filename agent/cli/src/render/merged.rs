//! Documents of several nodes as one: a table whose first column is the node.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::{
    FAULT_COLUMNS, LEDGER_COLUMNS, TARGET_COLUMNS, TARGET_STATUS_COLUMNS, columns, fault_row, ledger_rows,
    or_dash, properties, runtime, target_row, target_status_row, time, top,
};
use crate::text;
use crate::view::{
    FaultDoc, Merged, NodeDoc, OnNode, PodTopDoc, PreviewDoc, SyscallTopDoc, TargetDoc, TimelineDoc, TopDoc,
    full_name,
};

/// A table with the node before its other columns.
fn node_table<'a, const N: usize>(
    header: [&'a str; N],
    rows: impl IntoIterator<Item = (&'a str, [String; N])>,
) -> String {
    let rows = rows
        .into_iter()
        .map(|(node, row)| std::iter::once(node.to_owned()).chain(row));
    columns(std::iter::once("NODE").chain(header), rows)
}

fn pairs<T>(items: &[OnNode<T>]) -> impl Iterator<Item = (&str, &T)> {
    items.iter().map(|item| (item.node.as_str(), &item.document))
}

pub(crate) fn faults_on_nodes(faults: &[OnNode<FaultDoc>], now: SystemTime) -> String {
    if faults.is_empty() {
        return "no faults".to_owned();
    }
    node_table(
        FAULT_COLUMNS,
        pairs(faults).map(|(node, fault)| (node, fault_row(fault, now))),
    )
}

/// The same with each target, and each target's counters.
pub(crate) fn fault_details_on_nodes(faults: &Merged<FaultDoc>, now: SystemTime) -> String {
    let mut sections = vec![faults_on_nodes(&faults.items, now)];
    let statuses = pairs(&faults.items).flat_map(|(node, fault)| {
        let rows = fault.status.targets.iter().map(target_status_row);
        rows.map(move |row| (node, row))
    });
    let statuses: Vec<_> = statuses.collect();
    if !statuses.is_empty() {
        sections.push(node_table(TARGET_STATUS_COLUMNS, statuses));
    }
    let ledgers = pairs(&faults.items)
        .flat_map(|(node, fault)| ledger_rows(fault).map(move |row| (node, row)))
        .collect::<Vec<_>>();
    if !ledgers.is_empty() {
        sections.push(node_table(LEDGER_COLUMNS, ledgers));
    }
    sections.join("\n\n")
}

/// One section for each fault: what is the same on all nodes, then what would be touched on each of them.
pub(crate) fn previews_on_nodes(previews: &Merged<PreviewDoc>) -> String {
    let mut by_fault: BTreeMap<String, Vec<(&str, &PreviewDoc)>> = BTreeMap::new();
    for (node, preview) in pairs(&previews.items) {
        let name = full_name(&preview.metadata);
        by_fault.entry(name).or_default().push((node, preview));
    }
    let sections: Vec<_> = by_fault.iter().map(|(name, on)| preview(name, on)).collect();
    sections.join("\n\n")
}

fn preview(name: &str, on_nodes: &[(&str, &PreviewDoc)]) -> String {
    let mut sections = Vec::new();
    if let Some((_, first)) = on_nodes.first() {
        sections.push(properties([
            ("Would apply", name.to_owned()),
            ("Action", text::action(&first.spec.action)),
            ("Target", text::target(&first.spec)),
            ("Peers", text::peers(&first.spec)),
            ("Traffic", text::traffic(&first.spec)),
            ("Course", text::course(&first.spec)),
            ("Starts", time(first.starts_at)),
            ("Expires", time(first.expires_at)),
        ]));
    }
    let targets = on_nodes.iter().flat_map(|(node, preview)| {
        let rows = preview.targets.iter().map(target_status_row);
        rows.map(move |row| (*node, row))
    });
    let targets: Vec<_> = targets.collect();
    sections.push(if targets.is_empty() {
        "nothing matches now".to_owned()
    } else {
        node_table(TARGET_STATUS_COLUMNS, targets)
    });
    let mut warnings: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, preview) in on_nodes {
        for warning in &preview.warnings {
            warnings.entry(warning).or_default().push(node);
        }
    }
    if !warnings.is_empty() {
        let line = |(warning, nodes): (&str, Vec<&str>)| {
            let nodes = text::few(nodes.iter().map(|node| (*node).to_owned()));
            format!("warning: {warning} (on {nodes})")
        };
        let lines: Vec<_> = warnings.into_iter().map(line).collect();
        sections.push(lines.join("\n"));
    }
    sections.join("\n\n")
}

pub(crate) fn targets_on_nodes(targets: &Merged<TargetDoc>) -> String {
    if targets.items.is_empty() {
        return "no targets".to_owned();
    }
    node_table(
        TARGET_COLUMNS,
        pairs(&targets.items).map(|(node, target)| (node, target_row(target))),
    )
}

/// A line for each node; what doesn't work is named.
pub(crate) fn nodes(nodes: &Merged<NodeDoc>) -> String {
    let rows = pairs(&nodes.items).map(|(name, node)| {
        let missing = node.features.iter().filter(|f| !f.available);
        let missing: Vec<_> = missing.map(|f| f.name.as_str()).collect();
        let row = [
            node.version.clone(),
            node.kernel_release.clone(),
            node.active_faults.to_string(),
            runtime(node),
            or_dash(missing.join(",")),
        ];
        (name, row)
    });
    node_table(["SABOTD", "KERNEL", "FAULTS", "RUNTIME", "LACKS"], rows)
}

/// One after the other: each is a table of its own.
pub(crate) fn timelines_on_nodes(timelines: &Merged<TimelineDoc>) -> String {
    let told = pairs(&timelines.items).filter(|(_, timeline)| !timeline.targets.is_empty());
    let told: Vec<_> = told
        .map(|(node, timeline)| format!("Node {node}\n{}", super::timeline(timeline)))
        .collect();
    if told.is_empty() {
        return "It has not been in force on any target yet.".to_owned();
    }
    told.join("\n\n")
}

/// The pods and processes of all nodes, those that hurt and the busiest first.
pub(crate) fn top_on_nodes(tops: &[OnNode<TopDoc>]) -> String {
    let mut pods: Vec<(&str, &PodTopDoc)> = Vec::new();
    let mut syscalls: Vec<(&str, &SyscallTopDoc)> = Vec::new();
    for (node, top) in pairs(tops) {
        pods.extend(top.pods.iter().map(|pod| (node, pod)));
        syscalls.extend(top.syscalls.iter().map(|call| (node, call)));
    }
    pods.sort_by(|(_, a), (_, b)| PodTopDoc::order(a, b));
    syscalls.sort_by(|(_, a), (_, b)| SyscallTopDoc::order(a, b));
    let latest = tops.iter().filter_map(|on| on.document.time).max();
    let lost: u64 = tops.iter().map(|on| on.document.events_lost).sum();
    let lost = match lost {
        0 => String::new(),
        lost => format!(", {lost} events lost"),
    };
    let shown_pods = pods.iter().take(top::PODS);
    let shown_syscalls = syscalls.iter().take(top::SYSCALLS);
    format!(
        "{}, {} nodes{lost}\n\n{}{}\n\n{}{}",
        or_dash(time(latest)),
        tops.len(),
        node_table(
            top::POD_COLUMNS,
            shown_pods.map(|(node, pod)| (*node, top::pod_row(pod)))
        ),
        top::more(pods.len(), top::PODS),
        node_table(
            top::SYSCALL_COLUMNS,
            shown_syscalls.map(|(node, call)| (*node, top::syscall_row(call)))
        ),
        top::more(syscalls.len(), top::SYSCALLS),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixtures;

    #[test]
    fn the_node_stands_before_what_it_says() {
        let on = |node: &str| OnNode {
            node: node.to_owned(),
            document: fixtures::fault(),
        };
        let merged = Merged {
            key: "faults",
            items: vec![on("a"), on("worker-2")],
            errors: Vec::new(),
        };
        let one = super::super::fault_table([&fixtures::fault()], fixtures::now());
        let table = faults_on_nodes(&merged.items, fixtures::now());
        let wanted: Vec<_> = std::iter::zip(["NODE", "a", "worker-2"], [0, 1, 1])
            .map(|(node, line)| format!("{node:<8}  {}", one.lines().nth(line).unwrap_or_default()))
            .collect();
        assert_eq!(table.lines().collect::<Vec<_>>(), wanted);
        let detail = fault_details_on_nodes(&merged, fixtures::now());
        assert!(detail.starts_with(&table), "{detail}");
        for header in ["NODE      TARGET", "DIRECTION"] {
            assert!(detail.contains(header), "{detail}");
        }
        assert_eq!(faults_on_nodes(&[], fixtures::now()), "no faults");
    }
}
