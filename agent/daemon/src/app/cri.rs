//! The observers of the container runtime, as the operator wants them: of its calls, and of what it tells by itself.

use tokio::sync::mpsc;

use crate::config::Config;
use crate::kernel::features::{CRI_CALLS, Feature};
use crate::observe::cri::containers::{self, ContainerObserver};
use crate::observe::cri::{self, CriObserver, PodName};
use crate::observe::event::EventHub;
use crate::targets::{RuntimeEndpoint, TargetsHandle, Told};

const FOUND: &str = "the container runtime's calls are read where clients send and receive (tracepoints sock_send_length and \
    sock_recv_length); on a connection older than the daemon a call whose name isn't sent in full is `unknown`; io_uring \
    isn't seen";

/// Begins to observe unless told not to, and says how that went; a machine that can't do it does without.
pub(super) fn start(
    config: &Config,
    targets: TargetsHandle,
    hub: &EventHub,
) -> (Option<CriObserver>, Option<Feature>) {
    if !config.cri_calls || config.runtime_endpoint == RuntimeEndpoint::Disabled {
        return (None, None);
    }
    let endpoint = config.runtime_endpoint.clone();
    let locate = Box::new(move || endpoint.locate().ok());
    let pods = Box::new(move |sandbox: &str| pod(&targets, sandbox));
    match cri::start(locate, pods, hub.clone()) {
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
    targets: TargetsHandle,
    hub: &EventHub,
) -> ContainerObserver {
    let pods = Box::new(move |sandbox: &str| pod(&targets, sandbox));
    containers::start(told, pods, hub.clone())
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
