//! All calls of each traced process together.

use std::collections::BTreeMap;
use std::sync::Arc;

use sabot_abi::Histogram;

use super::{SLOW_EXEMPT, SyscallObserver, read};
use crate::kernel::syscalls::SyscallProgramError;
use crate::observe::durations;
use crate::observe::names::syscall_name;

/// The calls of one process name, or of one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessStats {
    pub calls: u64,
    pub errors: u64,
    /// Of those that don't wait by design: a thread that has nothing to do is not slow.
    pub durations: Histogram,
}

impl ProcessStats {
    /// What was added since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            errors: self.errors.saturating_sub(earlier.errors),
            durations: durations::since(&self.durations, &earlier.durations),
        }
    }
}

impl SyscallObserver {
    /// Reads the kernel's counters of calls and errors now: some hundred system calls.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn by_process(&self) -> Result<BTreeMap<Arc<str>, ProcessStats>, SyscallProgramError> {
        // A call is counted before its error is: in this order no errors are without their calls.
        let errnos = self.programs.errnos()?;
        let latencies = self.programs.latencies()?;
        let label = |number| read(&self.numbers, |n| n.is_live(number).then(|| n.label(number)));
        let mut processes: BTreeMap<Arc<str>, ProcessStats> = BTreeMap::new();
        for (key, latency) in latencies {
            let Some(process) = label(key.process) else {
                continue;
            };
            let stats = processes.entry(process).or_default();
            stats.calls += latency.count();
            if !SLOW_EXEMPT.contains(&syscall_name(key.syscall)) {
                stats.durations.add(&latency);
            }
        }
        for (key, count) in errnos {
            if let Some(process) = label(key.process) {
                processes.entry(process).or_default().errors += count;
            }
        }
        Ok(processes)
    }
}
