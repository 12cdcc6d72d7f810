//! Documents as people read them.

mod cri;
mod event;
mod merged;
mod syscall;
mod tcp;
mod timeline;
mod top;

use std::time::SystemTime;

use comfy_table::{Table, presets};

pub(crate) use self::event::event_line;
pub(crate) use self::merged::{
    fault_details_on_nodes, faults_on_nodes, nodes, previews_on_nodes, targets_on_nodes, timelines_on_nodes,
    top_on_nodes,
};
pub(crate) use self::syscall::tracing;
pub(crate) use self::tcp::flows;
pub(crate) use self::timeline::timeline;
pub(crate) use self::top::top;
use crate::text;
use crate::view::{
    ChangeDoc, FaultDoc, FaultsDoc, NodeDoc, PreviewDoc, Tally, TargetDoc, TargetKind, TargetPhase,
    TargetStatusDoc, TargetsDoc, Time, WatchDoc, full_name,
};

/// Between columns.
const GAP: u16 = 2;

/// Columns without lines, as kubectl prints them.
fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    columns(header, rows)
}

fn columns<'a>(
    header: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = impl IntoIterator<Item = String>>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table.trim_fmt()
}

/// Aligned `Key: value` lines.
fn properties<'a>(properties: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let lines: Vec<_> = properties
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{:<13}{value}", format!("{key}:")))
        .collect();
    lines.join("\n")
}

fn or_dash(text: impl Into<String>) -> String {
    let text = text.into();
    if text.is_empty() { "-".to_owned() } else { text }
}

fn time(time: Option<Time>) -> String {
    time.map(|t| t.to_string()).unwrap_or_default()
}

/// `2/3`: in force, of those that it means.
fn target_count(fault: &FaultDoc) -> String {
    format!(
        "{}/{}",
        fault.status.injected_targets(),
        fault.status.targets.len()
    )
}

pub(crate) fn faults(faults: &FaultsDoc, now: SystemTime) -> String {
    fault_table(&faults.faults, now)
}

pub(crate) fn fault_table<'a>(faults: impl IntoIterator<Item = &'a FaultDoc>, now: SystemTime) -> String {
    let rows: Vec<_> = faults.into_iter().map(|fault| fault_row(fault, now)).collect();
    if rows.is_empty() {
        return "no faults".to_owned();
    }
    table(FAULT_COLUMNS, rows)
}

const FAULT_COLUMNS: [&str; 8] = [
    "NAME",
    "ACTION",
    "TARGETS",
    "PHASE",
    "REMAINING",
    "MATCHED",
    "EFFECT",
    "MESSAGE",
];

fn fault_row(fault: &FaultDoc, now: SystemTime) -> [String; 8] {
    let total = fault.status.total();
    [
        full_name(&fault.metadata),
        text::action(&fault.spec.action),
        target_count(fault),
        text::phase(fault.status.phase).to_owned(),
        text::remaining(fault, now),
        total.matched.packets.to_string(),
        text::effect(&fault.spec.action, &total),
        fault.status.message.clone(),
    ]
}

pub(crate) fn fault_detail(fault: &FaultDoc, now: SystemTime) -> String {
    let status = &fault.status;
    let mut sections = vec![properties([
        ("Name", full_name(&fault.metadata)),
        ("Phase", text::phase(status.phase).to_owned()),
        ("Message", status.message.clone()),
        ("Action", text::action(&fault.spec.action)),
        ("Target", text::target(&fault.spec)),
        ("Peers", text::peers(&fault.spec)),
        ("Traffic", text::traffic(&fault.spec)),
        ("Course", text::course(&fault.spec)),
        (
            "Seed",
            status.seed.map(|seed| seed.to_string()).unwrap_or_default(),
        ),
        (
            "Loss",
            status.expected_loss.map(expected_loss).unwrap_or_default(),
        ),
        ("Remaining", text::remaining(fault, now)),
        ("Created", time(status.created_at)),
        ("Starts", time(status.starts_at)),
        ("Expires", time(status.expires_at)),
        ("Injected", time(status.injected_at)),
        ("Ended", time(status.ended_at)),
    ])];
    if !status.targets.is_empty() {
        sections.push(target_statuses(&status.targets));
    }
    if !status.names.is_empty() {
        let rows = status.names.iter().map(|name| {
            let addresses = text::few(name.addresses.iter().cloned());
            [name.name.clone(), or_dash(addresses)]
        });
        sections.push(table(["HOST", "ADDRESSES"], rows));
    }
    if !status.ledgers.is_empty() {
        sections.push(ledgers(fault));
    }
    sections.join("\n\n")
}

/// What is asked for, to be held against what the ledgers count.
fn expected_loss(loss: f64) -> String {
    format!("{} expected while it is in force", text::share(loss))
}

fn target_statuses(targets: &[TargetStatusDoc]) -> String {
    table(TARGET_STATUS_COLUMNS, targets.iter().map(target_status_row))
}

const TARGET_STATUS_COLUMNS: [&str; 3] = ["TARGET", "PHASE", "REASON"];

fn target_status_row(status: &TargetStatusDoc) -> [String; 3] {
    [
        text::target_ref(&status.target),
        target_phase(status.phase).to_owned(),
        status.reason.clone(),
    ]
}

fn target_phase(phase: TargetPhase) -> &'static str {
    match phase {
        TargetPhase::Unknown => "Unknown",
        TargetPhase::Attaching => "Attaching",
        TargetPhase::Injected => "Injected",
        TargetPhase::Failed => "Failed",
        TargetPhase::Refused => "Refused",
    }
}

fn ledgers(fault: &FaultDoc) -> String {
    table(LEDGER_COLUMNS, ledger_rows(fault))
}

const LEDGER_COLUMNS: [&str; 14] = [
    "TARGET",
    "DIRECTION",
    "MATCHED",
    "PASSED",
    "DROPPED",
    "DELAYED",
    "HELD",
    "RELEASED",
    "CORRUPTED",
    "DUPLICATED",
    "REJECTED",
    "REPLIED",
    "BYPASSED",
    "LOST",
];

/// One row for each target and direction; packets, and bytes in parentheses.
fn ledger_rows(fault: &FaultDoc) -> impl Iterator<Item = [String; 14]> {
    let cell = |tally: Tally| match tally.packets {
        0 => "0".to_owned(),
        packets => format!("{packets} ({})", bytes(tally.bytes)),
    };
    fault.status.ledgers.iter().map(move |entry| {
        let ledger = &entry.ledger;
        [
            text::target_ref(&entry.target),
            entry.direction.to_owned(),
            cell(ledger.matched),
            cell(ledger.passed),
            cell(ledger.dropped),
            cell(ledger.delayed),
            cell(ledger.held),
            cell(ledger.released),
            cell(ledger.corrupted),
            cell(ledger.duplicated),
            cell(ledger.rejected),
            cell(ledger.replied),
            cell(ledger.bypassed),
            cell(ledger.lost()),
        ]
    })
}

/// `999 B`, `1.5 kB`, `20.1 MB`.
fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // Three digits are shown, so that the precision of a float is enough.
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `fault team-a/cut applied: Injected on 2/2 targets, 20s left`, and what stands in the way below it.
pub(crate) fn applied(fault: &FaultDoc, now: SystemTime) -> String {
    let left = text::remaining(fault, now);
    let left = if left.starts_with("starts") {
        left
    } else {
        format!("{left} left")
    };
    let mut line = format!(
        "fault {} applied: {} on {} targets, {left}",
        full_name(&fault.metadata),
        text::phase(fault.status.phase),
        target_count(fault),
    );
    if !fault.status.message.is_empty() {
        line.push_str(&format!(" ({})", fault.status.message));
    }
    for target in fault.status.targets.iter().filter(|t| !t.reason.is_empty()) {
        line.push_str(&format!(
            "\n  {}: {}: {}",
            text::target_ref(&target.target),
            target_phase(target.phase),
            target.reason
        ));
    }
    line
}

/// `fault team-a/cut deleted: 12 matched, 12 dropped`.
pub(crate) fn deleted(fault: &FaultDoc) -> String {
    let total = fault.status.total();
    format!(
        "fault {} deleted: {} matched, {}",
        full_name(&fault.metadata),
        total.matched.packets,
        text::effect(&fault.spec.action, &total)
    )
}

pub(crate) fn preview(preview: &PreviewDoc) -> String {
    let peers = if preview.peers.is_empty() {
        text::peers(&preview.spec)
    } else {
        text::few(preview.peers.iter().cloned())
    };
    let mut sections = vec![properties([
        ("Would apply", full_name(&preview.metadata)),
        ("Action", text::action(&preview.spec.action)),
        ("Target", text::target(&preview.spec)),
        ("Peers", peers),
        ("Traffic", text::traffic(&preview.spec)),
        ("Course", text::course(&preview.spec)),
        ("Starts", time(preview.starts_at)),
        ("Expires", time(preview.expires_at)),
    ])];
    sections.push(if preview.targets.is_empty() {
        "nothing matches now".to_owned()
    } else {
        target_statuses(&preview.targets)
    });
    if !preview.warnings.is_empty() {
        let warnings: Vec<_> = preview.warnings.iter().map(|w| format!("warning: {w}")).collect();
        sections.push(warnings.join("\n"));
    }
    sections.join("\n\n")
}

pub(crate) fn targets(targets: &TargetsDoc) -> String {
    if targets.targets.is_empty() {
        return "no targets".to_owned();
    }
    table(TARGET_COLUMNS, targets.targets.iter().map(target_row))
}

const TARGET_COLUMNS: [&str; 6] = ["TARGET", "DEVICES", "ADDRESSES", "LABELS", "FAULTS", "NOTE"];

fn target_row(target: &TargetDoc) -> [String; 6] {
    let (name, addresses, labels) = match &target.kind {
        TargetKind::Pod(pod) => {
            let labels: Vec<_> = pod
                .labels
                .iter()
                // The runtime's own names of the pod, which stand in the first column.
                .filter(|(key, _)| !key.starts_with("io.kubernetes."))
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            (
                format!("pod:{}/{}", pod.namespace, pod.name),
                pod.addresses.join(","),
                labels.join(","),
            )
        }
        TargetKind::Netns(path) => (format!("netns:{path}"), String::new(), String::new()),
        TargetKind::Interface(name) => (format!("interface:{name}"), String::new(), String::new()),
        TargetKind::Unknown => ("?".to_owned(), String::new(), String::new()),
    };
    let devices: Vec<_> = target.devices.iter().map(|d| d.name.as_str()).collect();
    let faults: Vec<_> = target.faults.iter().map(full_name).collect();
    [
        name,
        or_dash(devices.join(",")),
        or_dash(addresses),
        or_dash(labels),
        or_dash(faults.join(",")),
        target.refusal.clone(),
    ]
}

fn runtime(node: &NodeDoc) -> String {
    let runtime = &node.runtime;
    match runtime.state {
        "ready" => {
            let how = if runtime.events {
                "pushes changes"
            } else {
                "is polled"
            };
            format!("{} {}, {how}", runtime.name, runtime.version)
        }
        state if runtime.message.is_empty() => state.to_owned(),
        state => format!("{state}: {}", runtime.message),
    }
}

pub(crate) fn node(node: &NodeDoc) -> String {
    let limits = &node.limits;
    let longest = limits.max_duration.map(|d| d.to_string()).unwrap_or_default();
    let overview = properties([
        ("Node", node.name.clone()),
        ("Sabotd", node.version.clone()),
        ("Kernel", node.kernel_release.clone()),
        ("Started", time(node.started_at)),
        ("Faults", format!("{} active", node.active_faults)),
        ("Runtime", runtime(node)),
        (
            "Limits",
            format!(
                "{longest} a fault, {} faults, {} targets, {} faults a target",
                limits.max_faults, limits.max_targets, limits.max_faults_per_target
            ),
        ),
    ]);
    let features = table(
        ["FEATURE", "WORKS", "DETAIL", "CONSEQUENCE"],
        node.features.iter().map(|f| {
            let works = if f.available { "yes" } else { "no" };
            [
                f.name.clone(),
                works.to_owned(),
                f.detail.clone(),
                f.consequence.clone(),
            ]
        }),
    );
    let sources = table(
        ["RUNTIME SEEN BY", "IN USE", "DETAIL", "CAN'T SEE"],
        node.runtime.sources.iter().map(|source| {
            let in_use = if source.in_use { "yes" } else { "no" };
            [
                source.name.clone(),
                in_use.to_owned(),
                source.detail.clone(),
                source.blind_spots.clone(),
            ]
        }),
    );
    format!("{overview}\n\n{features}\n\n{sources}")
}

/// One line of a watch without a terminal.
pub(crate) fn watch_line(item: &WatchDoc, now: SystemTime) -> String {
    let Some(fault) = &item.fault else {
        return format!("{} synced", Time(now));
    };
    let change = match item.change {
        ChangeDoc::Unknown => "unknown",
        ChangeDoc::Added => "added",
        ChangeDoc::Modified => "modified",
        ChangeDoc::Deleted => "deleted",
        ChangeDoc::Synced => "synced",
        ChangeDoc::Counters => "counters",
    };
    let total = fault.status.total();
    let mut line = format!(
        "{} {change} {} {} {} targets={} matched={} {}",
        Time(now),
        full_name(&fault.metadata),
        text::action(&fault.spec.action),
        text::phase(fault.status.phase),
        target_count(fault),
        total.matched.packets,
        text::effect(&fault.spec.action, &total),
    );
    if !fault.status.message.is_empty() {
        line.push_str(&format!(" ({})", fault.status.message));
    }
    line
}

#[cfg(test)]
pub(crate) mod fixtures;

#[cfg(test)]
mod tests;
