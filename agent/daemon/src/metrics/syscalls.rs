//! The syscalls of watched processes.

use prometheus_client::registry::Registry;
use sabot_abi::{SUB_BITS, SYSCALL_LOSS_EVENT, SYSCALL_LOSS_NAMES};

use super::family::{Count, Distribution, Family, Level};
use crate::observe::syscalls::SyscallSnapshot;

/// Kernel buckets in one bucket of the metric, where there may be hundreds of pairs: a factor of four between its bounds
/// tells latencies apart well enough, at fifteen series for each. The API has what is between them as quantiles.
const MERGED: usize = 2 << SUB_BITS;

pub(super) fn register(registry: &mut Registry, snapshot: &SyscallSnapshot) {
    let mut durations = Family::new(
        "syscall_duration_seconds",
        "Durations of the syscalls of watched processes.",
        ["process", "syscall"],
    );
    for ((process, syscall), stats) in &snapshot.calls {
        durations.push([process, syscall], Distribution::of(&stats.durations, MERGED));
    }
    durations.register(registry);

    let mut errors = Family::new(
        "syscall_errors",
        "Failed syscalls of watched processes; EINTR includes those that a signal makes the kernel restart.",
        ["process", "syscall", "errno"],
    );
    for (((process, syscall), errno), &count) in &snapshot.errors {
        errors.push([process, syscall, errno], Count(count));
    }
    errors.register(registry);

    let mut in_flight = Family::new(
        "syscalls_in_flight",
        "Syscalls of watched processes that have begun and not ended.",
        [],
    );
    in_flight.push([], Level(snapshot.in_flight as f64));
    in_flight.register(registry);

    let mut unrecorded = Family::new(
        "syscall_unrecorded",
        "Syscalls of watched processes that a full table kept out of the other metrics.",
        ["table"],
    );
    // Lost events are in the family of lost events.
    for (index, (name, &count)) in SYSCALL_LOSS_NAMES.iter().zip(&snapshot.losses).enumerate() {
        if index != SYSCALL_LOSS_EVENT as usize {
            unrecorded.push([name], Count(count));
        }
    }
    unrecorded.register(registry);
}
