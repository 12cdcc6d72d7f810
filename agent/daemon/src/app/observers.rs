//! All observers, as the operator wants them; a machine that can't have one does without.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{cri, following, syscalls, tcp, traffic};
use crate::config::{Config, MeasureMode, ObserveMode};
use crate::engine::handle::Handle;
use crate::kernel::Injector;
use crate::kernel::features::Feature;
use crate::observe::event::EventHub;
use crate::observe::identity::Identities;
use crate::observe::measurement::Measurement;
use crate::observe::observers::Observers;
use crate::observe::udp::{DEFAULT_ROOM, UdpFlows};
use crate::targets::{TargetsHandle, Told};

/// Begins to observe, and says of each observer how that went. Those that read what the fault programs say are not among them.
pub(super) fn start(
    config: &Config,
    targets: &TargetsHandle,
    told: mpsc::Receiver<Told>,
    identities: &Identities,
    hub: &EventHub,
    injector: &Arc<Injector>,
) -> (Observers, Vec<Feature>) {
    let (syscalls, syscall_feature) = syscalls::start(config, identities, hub);
    let (cri, cri_feature) = cri::start(config, targets, identities, hub);
    let (tcp, tcp_feature) = tcp::start(config, identities.clone(), hub);
    let (drops, drop_feature) = traffic::start_drops(identities, hub, injector);
    let (queries, query_feature) = traffic::start_queries(identities, hub);
    let observers = Observers {
        syscalls,
        cri,
        containers: Some(cri::start_containers(told, targets, identities, hub)),
        tcp,
        udp: Some(UdpFlows::new(identities.clone(), DEFAULT_ROOM)),
        drops,
        queries,
        names: identities.containers().clone(),
        only_during_faults: only_during_faults(config),
        ..Observers::default()
    };
    let features = [syscall_feature, cri_feature, tcp_feature];
    let always = [drop_feature, query_feature];
    (observers, features.into_iter().flatten().chain(always).collect())
}

fn only_during_faults(config: &Config) -> Vec<&'static str> {
    let modes = [("syscalls", config.syscalls), ("TCP connections", config.tcp)];
    let active = modes.into_iter().filter(|(_, mode)| *mode == ObserveMode::Active);
    active.map(|(what, _)| what).collect()
}

/// Observers learn what the engine knows, and rest while there is no fault where that is wanted.
pub(super) fn follow(config: &Config, handle: &Handle, observers: &Arc<Observers>) {
    let classes = config.peer_classes.clone();
    tokio::spawn(tcp::follow_world(handle.clone(), Arc::clone(observers), classes));
    if config.syscalls == ObserveMode::Active {
        let observers = Arc::clone(observers);
        let change = move |wanted| {
            if let Some(observer) = &observers.syscalls {
                syscalls::set_attached(observer, wanted);
            }
        };
        tokio::spawn(following::follow_faults(handle.clone(), change));
    }
    if config.tcp == ObserveMode::Active {
        let observers = Arc::clone(observers);
        let change = move |wanted| {
            if let Some(observer) = &observers.tcp {
                tcp::set_attached(observer, wanted);
            }
        };
        tokio::spawn(following::follow_faults(handle.clone(), change));
    }
}

/// A kernel that can't measure programs has them run unmeasured.
pub(super) fn measure(config: &Config) -> Option<Measurement> {
    let measurement = match config.measure_programs {
        MeasureMode::Never => return None,
        MeasureMode::Sampled => Measurement::sampled(),
        MeasureMode::Always => Measurement::always(),
    };
    measurement
        .inspect_err(|error| tracing::warn!(%error, "what the programs cost is not measured"))
        .ok()
}
