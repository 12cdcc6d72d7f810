//! The syscall observer, as the operator wants it.

use crate::config::{Config, ObserveMode};
use crate::kernel::features::Feature;
use crate::observe::event::EventHub;
use crate::observe::syscalls::{self, DEFAULT_PROCESSES, SyscallObserver, SyscallsConfig};

/// The feature's name, as GetNode and the metrics say it.
const FEATURE: &str = "raw_tracepoints";

/// Begins to observe unless told never to, and says how that went; a machine that can't do it does without.
pub(super) fn start(config: &Config, hub: &EventHub) -> (Option<SyscallObserver>, Option<Feature>) {
    if config.syscalls == ObserveMode::Never {
        return (None, None);
    }
    let processes = DEFAULT_PROCESSES.map(str::to_owned).into_iter();
    let settings = SyscallsConfig {
        processes: processes
            .chain(config.syscall_processes.iter().cloned())
            .collect(),
        slow_threshold: Some(config.slow_syscall),
        ..SyscallsConfig::default()
    };
    match syscalls::start(&settings, hub.clone()) {
        Ok(observer) => {
            if config.syscalls == ObserveMode::Active {
                set_attached(&observer, false);
            }
            (Some(observer), Some(feature(Ok(()))))
        }
        Err(error) => {
            tracing::warn!(%error, "syscalls are not observed");
            (None, Some(feature(Err(error.to_string()))))
        }
    }
}

fn feature(result: Result<(), String>) -> Feature {
    let available = result.is_ok();
    Feature {
        name: FEATURE,
        available,
        detail: result
            .err()
            .unwrap_or_else(|| "syscalls can be traced".to_owned()),
        consequence: if available {
            String::new()
        } else {
            "syscalls of the kubelet and of the container runtime are not observed".to_owned()
        },
    }
}

pub(super) fn set_attached(observer: &SyscallObserver, wanted: bool) {
    match observer.set_attached(wanted) {
        Ok(()) => tracing::debug!(observing = wanted, "syscalls"),
        Err(error) => {
            tracing::warn!(%error, observing = wanted, "the syscall observer could not be changed");
        }
    }
}
