//! The observers of the container runtime, as the operator wants them: of its calls, and of what it tells by itself.

use tokio::sync::mpsc;

use crate::config::Config;
use crate::kernel::features::{CRI_CALLS, Feature};
use crate::observe::cri::containers::{self, ContainerObserver};
use crate::observe::cri::{self, CriObserver, Known, PodName, Sandboxes};
use crate::observe::event::EventHub;
use crate::observe::identity::{self, Identities, containers::Containers};
use crate::targets::{RuntimeEndpoint, TargetsHandle, Told};

const FOUND: &str = "the container runtime's calls are read where clients send and receive (tracepoints sock_send_length and \
    sock_recv_length); on a connection older than the daemon a call whose name isn't sent in full is known by its \
    messages, or by an earlier one's, or else it is `unknown`; io_uring isn't seen";

/// Begins to observe unless told not to, and says how that went; a machine that can't do it does without.
pub(super) fn start(
    config: &Config,
    targets: &TargetsHandle,
    identities: &Identities,
    hub: &EventHub,
) -> (Option<CriObserver>, Option<Feature>) {
    if !config.cri_calls || config.runtime_endpoint == RuntimeEndpoint::Disabled {
        return (None, None);
    }
    let endpoint = config.runtime_endpoint.clone();
    let locate = Box::new(move || endpoint.locate().ok());
    match cri::start(locate, known(targets, identities), hub.clone()) {
        Ok(observer) => (Some(observer), Some(feature(Ok(FOUND.to_owned())))),
        Err(error) => {
            tracing::warn!(%error, "the container runtime's calls are not observed");
            (None, Some(feature(Err(error.to_string()))))
        }
    }
}

/// Begins to listen to what the runtime tells by itself, if it does.
pub(super) fn start_containers(
    told: mpsc::Receiver<Told>,
    targets: &TargetsHandle,
    identities: &Identities,
    hub: &EventHub,
) -> ContainerObserver {
    containers::start(told, known(targets, identities), hub.clone())
}

/// Begins to follow the runtime's containers, for whatever is observed.
pub(super) fn start_names(targets: &TargetsHandle) -> Containers {
    let poked = targets.clone();
    identity::containers::start(targets.containers(), pods(targets), move || poked.look())
}

fn known(targets: &TargetsHandle, identities: &Identities) -> Known {
    Known::new(pods(targets)).with_containers(identities.containers().clone())
}

fn pods(targets: &TargetsHandle) -> Sandboxes {
    let targets = targets.clone();
    Box::new(move |sandbox| pod(&targets, sandbox))
}

fn pod(targets: &TargetsHandle, sandbox: &str) -> Option<PodName> {
    let update = targets.current();
    let pod = update.world.pods.get(sandbox)?;
    Some((pod.namespace.clone(), pod.name.clone()))
}

fn feature(found: Result<String, String>) -> Feature {
    let consequence = "who asks the container runtime for what, and how long that takes, is not observed";
    Feature::new(CRI_CALLS, found, consequence)
}
