//! What happens now, as a table that is drawn again and again.

use super::{or_dash, table};
use crate::view::{PodTopDoc, Span, SyscallTopDoc, TopDoc};

/// Rows of each part.
pub(super) const PODS: usize = 20;
pub(super) const SYSCALLS: usize = 15;

pub(super) const POD_COLUMNS: [&str; 15] = [
    "POD",
    "RTT P50",
    "P99",
    "RETX/s",
    "RTO/s",
    "RST/s",
    "CONN/s",
    "FAIL/s",
    "SENT/s",
    "RECV/s",
    "DROPS/s",
    "INJECTED/s",
    "DNS/s",
    "LOST/s",
    "FAULTS",
];
pub(super) const SYSCALL_COLUMNS: [&str; 6] = ["PROCESS", "SYSCALL", "CALLS/s", "ERRORS/s", "MEAN", "P99"];

pub(crate) fn top(top: &TopDoc) -> String {
    let time = top.time.map(|time| time.to_string()).unwrap_or_default();
    let lost = if top.events_lost > 0 {
        format!(", {} events lost", top.events_lost)
    } else {
        String::new()
    };
    let pods = table(POD_COLUMNS, top.pods.iter().take(PODS).map(pod_row));
    let syscalls = table(
        SYSCALL_COLUMNS,
        top.syscalls.iter().take(SYSCALLS).map(syscall_row),
    );
    format!(
        "{time}, {:.1} s{lost}\n\n{pods}{}\n\n{syscalls}{}",
        top.interval.0.as_secs_f64(),
        more(top.pods.len(), PODS),
        more(top.syscalls.len(), SYSCALLS),
    )
}

pub(super) fn more(all: usize, shown: usize) -> String {
    match all.saturating_sub(shown) {
        0 => String::new(),
        more => format!("\nand {more} more"),
    }
}

pub(super) fn pod_row(pod: &PodTopDoc) -> [String; 15] {
    let name = pod.pod.as_ref().map_or_else(
        || "node".to_owned(),
        |pod| {
            if pod.namespace.is_empty() {
                pod.name.clone()
            } else {
                format!("{}/{}", pod.namespace, pod.name)
            }
        },
    );
    [
        name,
        latency(pod.rtt_p50),
        latency(pod.rtt_p99),
        rate(pod.retransmits),
        rate(pod.rtos),
        rate(pod.resets),
        rate(pod.connections),
        rate(pod.connections_failed),
        super::bytes(pod.bytes_sent as u64),
        super::bytes(pod.bytes_received as u64),
        rate(pod.drops_other),
        rate(pod.drops_injected),
        rate(pod.dns_queries),
        rate(pod.dns_unanswered),
        or_dash(pod.faults.join(" ")),
    ]
}

pub(super) fn syscall_row(call: &SyscallTopDoc) -> [String; 6] {
    [
        call.process.clone(),
        call.syscall.clone(),
        rate(call.calls),
        rate(call.errors),
        latency(call.mean),
        latency(call.p99),
    ]
}

fn latency(latency: Option<Span>) -> String {
    latency.map_or_else(|| "-".to_owned(), |Span(latency)| format!("{latency:.1?}"))
}

/// Nothing is a dash, so that what happens stands out.
fn rate(rate: f64) -> String {
    if rate == 0.0 {
        "-".to_owned()
    } else if rate < 10.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}
