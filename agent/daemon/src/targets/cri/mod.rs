//! Pods, from the container runtime of this node over CRI.
//!
//! The list of ready sandboxes, read again and again, is the truth. Events, where the runtime offers them, only make the
//! next look come sooner. A runtime that is down leaves the pods as they were last known.

mod containers;
mod endpoint;
mod events;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod sandbox;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use sabot_core::model::Pod;
use sabot_proto::runtime::v1::{
    ListPodSandboxRequest, PodSandboxFilter, PodSandboxState, PodSandboxStateValue, PodSandboxStatusRequest,
    VersionRequest, VersionResponse,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use tonic::{Response, Status};

pub use self::containers::{RuntimeContainer, RuntimeContainers};
pub use self::endpoint::{DEFAULT_SOCKETS, EndpointError, RuntimeEndpoint};
pub use self::events::Told;

use self::endpoint::{Client, connect};
use self::events::Follower;
use self::sandbox::{Description, Sandbox};
use crate::engine::handle::RuntimeState;

/// Between attempts to connect; doubled up to the bound.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Status calls under way at once.
const PARALLEL: usize = 8;
/// The devices of a sandbox that is known are read again after this.
const REINSPECT_AFTER: Duration = Duration::from_secs(30);

/// How often to look, and how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) without_events: Duration,
    pub(super) with_events: Duration,
    /// A runtime that doesn't answer one call for this long is down.
    pub(super) call_timeout: Duration,
}

/// What the runtime says now, or said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CriState {
    /// By sandbox id; ready ones only.
    pub(super) pods: BTreeMap<String, Pod>,
    pub(super) runtime: RuntimeState,
}

/// Where what the runtime says goes.
pub(super) struct Outlets {
    pub(super) state: watch::Sender<CriState>,
    pub(super) containers: watch::Sender<Arc<RuntimeContainers>>,
    /// Is told what the runtime says of its own accord.
    pub(super) listener: Option<mpsc::Sender<Told>>,
}

/// Follows the runtime until nobody receives the state any more. `poke` makes it look at once.
pub(super) async fn run(endpoint: RuntimeEndpoint, pace: Pace, outlets: Outlets, poke: Arc<Notify>) {
    let closed = outlets.state.clone();
    let mut source = Source {
        pace,
        outlets,
        poke,
        known: BTreeMap::new(),
        failing: BTreeSet::new(),
        was_ready: false,
        backoff: BACKOFF.0,
    };
    tokio::select! {
        () = closed.closed() => {}
        () = source.follow(endpoint) => {}
    }
}

struct Source {
    pace: Pace,
    outlets: Outlets,
    poke: Arc<Notify>,
    known: BTreeMap<String, Sandbox>,
    /// Ready sandboxes that could not be resolved; tried again on each look.
    failing: BTreeSet<String>,
    was_ready: bool,
    backoff: Duration,
}

impl Source {
    async fn follow(&mut self, endpoint: RuntimeEndpoint) {
        loop {
            let state = match endpoint.locate() {
                Ok(socket) => RuntimeState::Down(match connect(&socket).await {
                    Ok(client) => format!("{}: {}", socket.display(), self.session(client).await),
                    Err(reason) => reason,
                }),
                Err(reason) if self.was_ready => RuntimeState::Down(reason),
                Err(reason) => RuntimeState::Absent(reason),
            };
            self.publish_runtime(state);
            sleep(self.backoff).await;
            self.backoff = (self.backoff * 2).min(BACKOFF.1);
        }
    }

    /// One connection, from its first call to the one that fails; returns why that failed.
    async fn session(&mut self, mut client: Client) -> String {
        let version = match call(self.pace, "Version", client.version(VersionRequest::default())).await {
            Ok(version) => version,
            Err(reason) => return reason,
        };
        let (offered, mut events) = watch::channel(false);
        let follower = Follower {
            client: client.clone(),
            offered,
            poke: self.poke.clone(),
            listener: self.outlets.listener.clone(),
        };
        let follower = tokio::spawn(follower.run());
        let _follower = AbortOnDrop(follower.abort_handle());
        let mut poked = false;
        loop {
            if let Err(reason) = self.look(&mut client).await {
                return reason;
            }
            self.was_ready = true;
            self.backoff = BACKOFF.0;
            let with_events = *events.borrow_and_update();
            self.publish_runtime(ready(&version, with_events));
            containers::look(&mut client, self.pace, &self.outlets.containers).await;
            // A runtime may tell of a sandbox a moment before it lists it as ready: the look after the one that was
            // poked doesn't wait for the slow pace.
            let pause = if with_events && !poked && self.failing.is_empty() {
                self.pace.with_events
            } else {
                self.pace.without_events
            };
            poked = tokio::select! {
                () = sleep(pause) => false,
                () = self.poke.notified() => true,
            };
        }
    }

    /// Brings what is known level with the runtime's list. An error is one of the runtime, not of a sandbox.
    async fn look(&mut self, client: &mut Client) -> Result<(), String> {
        let filter = PodSandboxFilter {
            state: Some(PodSandboxStateValue {
                state: PodSandboxState::SandboxReady.into(),
            }),
            ..PodSandboxFilter::default()
        };
        let request = ListPodSandboxRequest { filter: Some(filter) };
        let listed = call(self.pace, "ListPodSandbox", client.list_pod_sandbox(request)).await?;
        // The filter is a request; the state is the answer.
        let listed: BTreeSet<String> = listed
            .items
            .into_iter()
            .filter(|item| item.state() == PodSandboxState::SandboxReady)
            .map(|item| item.id)
            .collect();
        self.failing.retain(|id| listed.contains(id));
        self.known.retain(|id, sandbox| {
            let stays = listed.contains(id) && sandbox.is_there();
            if !stays {
                let Pod { namespace, name, .. } = &sandbox.pod;
                tracing::debug!(sandbox = id, namespace, name, "the sandbox is gone");
            }
            stays
        });
        self.publish_pods();
        self.reinspect().await;
        let unknown = listed.into_iter().filter(|id| !self.known.contains_key(id));
        let (client, pace) = (&*client, self.pace);
        let mut resolutions = stream::iter(unknown.collect::<Vec<_>>())
            .map(|id| async move { (id.clone(), resolve(client.clone(), pace, id).await) })
            .buffer_unordered(PARALLEL)
            .ready_chunks(PARALLEL);
        // One sandbox that hangs must not keep the others waiting.
        while let Some(batch) = resolutions.next().await {
            for (id, resolution) in batch {
                self.learn(id, resolution);
            }
            self.publish_pods();
        }
        Ok(())
    }

    fn learn(&mut self, id: String, resolution: Result<Sandbox, String>) {
        match resolution {
            Ok(sandbox) => {
                let Pod { namespace, name, .. } = &sandbox.pod;
                tracing::debug!(sandbox = id, namespace, name, devices = ?sandbox.pod.devices, "found a sandbox");
                self.failing.remove(&id);
                self.known.insert(id, sandbox);
            }
            Err(reason) => {
                if self.failing.insert(id.clone()) {
                    tracing::warn!(sandbox = id, reason, "skipped a sandbox; it is tried again");
                }
            }
        }
    }

    /// Reads the devices of sandboxes again that were read long ago: nobody tells when one changes.
    async fn reinspect(&mut self) {
        let Some(limit) = Instant::now().checked_sub(REINSPECT_AFTER) else {
            return;
        };
        let (fresh, stale) = std::mem::take(&mut self.known)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, sandbox)| sandbox.is_fresh(limit));
        self.known = fresh;
        if stale.is_empty() {
            return;
        }
        let read = move || {
            stale
                .into_iter()
                .map(|(id, sandbox)| (id, sandbox.reinspected().map_err(|e| e.to_string())))
                .collect::<Vec<_>>()
        };
        match spawn_blocking(read).await {
            Ok(resolutions) => resolutions.into_iter().for_each(|(id, r)| self.learn(id, r)),
            // They are unknown now, and so resolved from the start.
            Err(e) => tracing::warn!(error = %e, "reading the devices of sandboxes failed"),
        }
        self.publish_pods();
    }

    fn publish_pods(&self) {
        let known = &self.known;
        self.outlets.state.send_if_modified(|state| {
            let same = state.pods.len() == known.len()
                && state
                    .pods
                    .iter()
                    .zip(known)
                    .all(|((a, pod), (b, sandbox))| a == b && *pod == sandbox.pod);
            if !same {
                state.pods = known
                    .iter()
                    .map(|(id, sandbox)| (id.clone(), sandbox.pod.clone()))
                    .collect();
            }
            !same
        });
    }

    fn publish_runtime(&self, runtime: RuntimeState) {
        self.outlets.state.send_if_modified(|state| {
            let changed = state.runtime != runtime;
            if changed {
                match &runtime {
                    RuntimeState::Ready {
                        name,
                        version,
                        events,
                    } => {
                        tracing::info!(name, version, events, "the container runtime is ready");
                    }
                    RuntimeState::Down(reason) => tracing::warn!(reason, "the container runtime is down"),
                    RuntimeState::Absent(reason) => tracing::info!(reason, "there is no container runtime"),
                    RuntimeState::Connecting => {}
                }
                state.runtime = runtime;
            }
            changed
        });
    }
}

/// Asks the runtime about one sandbox, and looks at its devices.
async fn resolve(mut client: Client, pace: Pace, id: String) -> Result<Sandbox, String> {
    let request = PodSandboxStatusRequest {
        pod_sandbox_id: id,
        verbose: true,
    };
    let status = call(pace, "PodSandboxStatus", client.pod_sandbox_status(request)).await?;
    let discover = || Description::try_from(status).and_then(Sandbox::discover);
    match spawn_blocking(discover).await {
        Ok(sandbox) => sandbox.map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

async fn call<T>(
    pace: Pace,
    name: &str,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, String> {
    match timeout(pace.call_timeout, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(format!("{name} failed: {}: {}", status.code(), status.message())),
        Err(_) => Err(format!("{name} was not answered within {:?}", pace.call_timeout)),
    }
}

fn ready(version: &VersionResponse, events: bool) -> RuntimeState {
    RuntimeState::Ready {
        name: version.runtime_name.clone(),
        version: version.runtime_version.clone(),
        events,
    }
}

/// Ends a task with the scope that needs it.
pub(super) struct AbortOnDrop(pub(super) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
