//! The syscall observer, as the operator wants it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task;

use crate::config::{Config, SyscallMode};
use crate::engine::handle::{Handle, Phase, Snapshot};
use crate::kernel::features::Feature;
use crate::observe::event::EventHub;
use crate::observe::observers::Observers;
use crate::observe::syscalls::{self, DEFAULT_PROCESSES, SyscallObserver, SyscallsConfig, Tracing};

/// The feature's name, as GetNode and the metrics say it.
const FEATURE: &str = "raw_tracepoints";
/// Faults often follow each other; programs that come and go with each would cost more than they spare.
const LINGER: Duration = Duration::from_secs(1);

/// Begins to observe unless told never to, and says how that went; a machine that can't do it does without.
pub(super) fn start(config: &Config, hub: &EventHub) -> (Option<SyscallObserver>, Option<Feature>) {
    if config.syscalls == SyscallMode::Never {
        return (None, None);
    }
    let processes = DEFAULT_PROCESSES.map(str::to_owned).into_iter();
    let settings = SyscallsConfig {
        tracing: Tracing {
            processes: processes
                .chain(config.syscall_processes.iter().cloned())
                .collect(),
            cgroups: config.syscall_cgroups.clone(),
            ..Tracing::default()
        },
        slow_threshold: Some(config.slow_syscall),
        ..SyscallsConfig::default()
    };
    match syscalls::start(&settings, hub.clone()) {
        Ok(observer) => {
            if config.syscalls == SyscallMode::Active {
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

fn feature(result: Result<String, String>) -> Feature {
    let available = result.is_ok();
    Feature {
        name: FEATURE,
        available,
        detail: result.unwrap_or_else(|reason| reason),
        consequence: if available {
            String::new()
        } else {
            "syscalls of the kubelet and of the container runtime are not observed".to_owned()
        },
    }
}

/// Observes while a fault is active, and not otherwise; ends with the engine.
pub(super) async fn follow_faults(engine: Handle, observers: Arc<Observers>) {
    let mut snapshots = engine.watch();
    let mut attached = false;
    loop {
        let wanted = is_active(&snapshots.borrow_and_update());
        if wanted != attached {
            if !wanted {
                tokio::time::sleep(LINGER).await;
                if is_active(&snapshots.borrow_and_update()) {
                    continue;
                }
            }
            let observers = Arc::clone(&observers);
            let change = move || {
                if let Some(observer) = observers.syscall_observer() {
                    set_attached(observer, wanted);
                }
            };
            if let Err(error) = task::spawn_blocking(change).await {
                tracing::error!(%error, "the syscall observer could not be told");
            }
            attached = wanted;
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

fn set_attached(observer: &SyscallObserver, wanted: bool) {
    match observer.set_attached(wanted) {
        Ok(()) => tracing::debug!(observing = wanted, "syscalls"),
        Err(error) => {
            tracing::warn!(%error, observing = wanted, "the syscall observer could not be changed");
        }
    }
}

fn is_active(snapshot: &Snapshot) -> bool {
    snapshot
        .faults
        .values()
        .any(|view| !matches!(view.phase, Phase::Expired | Phase::Deleted))
}
