//! The syscall observer, as the operator wants it.

use crate::config::{Config, ObserveMode};
use crate::kernel::features::Feature;
use crate::observe::event::EventHub;
use crate::observe::identity::Identities;
use crate::observe::syscalls::{
    self, DEFAULT_CONTAINERS, DEFAULT_PROCESSES, SyscallObserver, SyscallsConfig, Tracing,
};

/// The feature's name, as GetNode and the metrics say it.
const FEATURE: &str = "raw_tracepoints";

/// Begins to observe unless told never to, and says how that went; a machine that can't do it does without.
pub(super) fn start(
    config: &Config,
    identities: &Identities,
    hub: &EventHub,
) -> (Option<SyscallObserver>, Option<Feature>) {
    if config.syscalls == ObserveMode::Never {
        return (None, None);
    }
    let processes = DEFAULT_PROCESSES.map(str::to_owned).into_iter();
    let containers = DEFAULT_CONTAINERS.map(str::to_owned).into_iter();
    let settings = SyscallsConfig {
        tracing: Tracing {
            processes: processes
                .chain(config.syscall_processes.iter().cloned())
                .collect(),
            cgroups: config.syscall_cgroups.clone(),
            containers: containers
                .chain(config.syscall_containers.iter().cloned())
                .collect(),
            ..Tracing::default()
        },
        slow_threshold: Some(config.slow_syscall),
        ..SyscallsConfig::default()
    };
    match syscalls::start(&settings, identities.containers().clone(), hub.clone()) {
        Ok(observer) => {
            if config.syscalls == ObserveMode::Active {
                set_attached(&observer, false);
            }
            let detail = found(&observer);
            (Some(observer), Some(feature(Ok(detail))))
        }
        Err(error) => {
            tracing::warn!(%error, "syscalls are not observed");
            (None, Some(feature(Err(error.to_string()))))
        }
    }
}

/// What can be traced, and what this kernel keeps from the events.
fn found(observer: &SyscallObserver) -> String {
    let missing: Vec<_> = observer
        .missing_details()
        .iter()
        .map(ToString::to_string)
        .collect();
    if missing.is_empty() {
        "syscalls can be traced".to_owned()
    } else {
        let missing = missing.join("; ");
        format!("syscalls can be traced; events lack what leads to files and sockets: {missing}")
    }
}

fn feature(found: Result<String, String>) -> Feature {
    let consequence = "syscalls of the kubelet and of the container runtime are not observed";
    Feature::new(FEATURE, found, consequence)
}

pub(super) fn set_attached(observer: &SyscallObserver, wanted: bool) {
    match observer.set_attached(wanted) {
        Ok(()) => tracing::debug!(observing = wanted, "syscalls"),
        Err(error) => {
            tracing::warn!(%error, observing = wanted, "the syscall observer could not be changed");
        }
    }
}
