//! All calls of each traced process, as timelines compare them.

use std::collections::BTreeMap;

use super::{CallKey, SLOW_EXEMPT, SyscallObserver};
use crate::kernel::syscalls::SyscallProgramError;
use crate::observe::durations::Sparse;
use crate::observe::names::{errno_name, syscall_name};

/// The calls of one (process name or cgroup, syscall) pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallTotals {
    /// Of all calls.
    pub durations: Sparse,
    /// Failed calls by errno, as `ENOENT`; what there was none of is left out.
    pub errors: BTreeMap<&'static str, u64>,
}

impl CallTotals {
    pub fn calls(&self) -> u64 {
        self.durations.count()
    }

    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Whether a syscall waits by design: a thread that has nothing to do is not slow.
pub fn waits(syscall: &str) -> bool {
    SLOW_EXEMPT.contains(&syscall)
}

impl SyscallObserver {
    /// Reads the kernel's counters of calls and errors now: some hundred system calls.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn totals(&self) -> Result<BTreeMap<CallKey, CallTotals>, SyscallProgramError> {
        // A call is counted before its error is: in this order no errors are without their calls.
        let errnos = self.traced.programs().errnos()?;
        let latencies = self.traced.programs().latencies()?;
        let label = |number| self.traced.label(number);
        let mut totals: BTreeMap<CallKey, CallTotals> = BTreeMap::new();
        for (key, latency) in latencies {
            if let Some(process) = label(key.process) {
                let durations = &mut totals
                    .entry((process, syscall_name(key.syscall)))
                    .or_default()
                    .durations;
                // Two numbers may have no name.
                *durations = durations.with(&latency);
            }
        }
        for (key, count) in errnos {
            if let Some(process) = label(key.process) {
                let call = totals.entry((process, syscall_name(key.syscall))).or_default();
                *call.errors.entry(errno_name(key.errno)).or_default() += count;
            }
        }
        Ok(totals)
    }
}
