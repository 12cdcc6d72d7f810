//! Whose syscalls are traced, and what they did.

use super::properties;
use crate::view::{SyscallDoc, TracingDoc};

pub(crate) fn tracing(tracing: &TracingDoc) -> String {
    let list = |names: &[String], none: &str| {
        if names.is_empty() {
            none.to_owned()
        } else {
            names.join(", ")
        }
    };
    properties([
        ("Processes", list(&tracing.processes, "none")),
        ("Cgroups", list(&tracing.cgroups, "none")),
        ("Containers", list(&tracing.containers, "none")),
        ("Syscalls", list(&tracing.syscalls, "all")),
    ])
}

pub(super) fn line(syscall: &SyscallDoc) -> String {
    let result = match &syscall.errno {
        Some(errno) => format!("{} {errno}", syscall.result),
        None => syscall.result.to_string(),
    };
    let took = syscall.duration.map(|d| format!(" in {d}")).unwrap_or_default();
    let comm = if syscall.comm.is_empty() || syscall.process.starts_with(&syscall.comm) {
        String::new()
    } else {
        format!(" {}", syscall.comm)
    };
    // A path may hold anything, and a line is to stay one.
    let details: Vec<_> = syscall
        .detail
        .iter()
        .map(|(name, value)| format!("{name}={}", value.escape_debug()))
        .collect();
    format!(
        "syscall {}{comm}[{}/{}] {}({}) = {result}{took}",
        syscall.process,
        syscall.pid,
        syscall.tid,
        syscall.syscall,
        details.join(", ")
    )
}
