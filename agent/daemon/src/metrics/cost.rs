//! What observing costs.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use prometheus_client::registry::Registry;

use super::family::{Count, Family, Seconds};
use crate::kernel::cost::Cost;

/// The daemon's own time on the processors, in user space and in the kernel.
pub(super) fn register_time(registry: &mut Registry) {
    let mut family = Family::new(
        "observer_cpu_seconds",
        "Time that the daemon has spent on processors; what its programs cost others is not in it.",
        [],
    );
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        family.push([], Seconds(spent(&usage)));
    }
    family.register(registry);
}

fn spent(usage: &Usage) -> Duration {
    let all = [usage.user_time(), usage.system_time()].map(|time| {
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or_default());
        seconds + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())
    });
    all.into_iter().sum()
}

/// What the kernel measures of our programs, where it was asked to, and for how long it has.
pub(super) fn register_programs(registry: &mut Registry, costs: &BTreeMap<String, Cost>, measured: Duration) {
    let mut time = Family::new(
        "observer_program_seconds",
        "Time that the daemon's programs in the kernel have taken while they were measured, whoever's processor it was.",
        ["program"],
    );
    let mut runs = Family::new(
        "observer_program_runs",
        "How often the daemon's programs in the kernel have run while they were measured.",
        ["program"],
    );
    let mut all = Family::new(
        "observer_measured_seconds",
        "For how long the daemon has had its programs in the kernel measured.",
        [],
    );
    all.push([], Seconds(measured));
    for (name, cost) in costs {
        time.push([name], Seconds(cost.time));
        runs.push([name], Count(cost.runs));
    }
    time.register(registry);
    runs.register(registry);
    all.register(registry);
}

/// What the kernel counts of our programs in any case.
pub(super) fn register_misses(registry: &mut Registry, costs: &BTreeMap<String, Cost>) {
    let mut misses = Family::new(
        "observer_program_misses",
        "How often the kernel left out a run of the daemon's programs, because the program was running on that processor.",
        ["program"],
    );
    for (name, cost) in costs {
        misses.push([name], Count(cost.misses));
    }
    misses.register(registry);
}
