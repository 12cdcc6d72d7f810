//! Who a selector means: pods from the container runtime, network namespaces and devices of the node, the addresses of
//! names that the targets' own lookups answer, and of the cluster what its API server says.
//!
//! [`start`] begins to watch, and [`TargetsHandle`] is what the engine sees: the [`World`] as it is now, and a way to say
//! which namespaces and devices to look at.

pub(crate) mod cri;
mod interface;
pub mod kube;
mod names;
pub mod netns;
#[cfg(test)]
pub(crate) mod test_netns;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sabot_core::model::{ClusterWanted, World};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;

pub use self::cri::{
    DEFAULT_SOCKETS, EndpointError, RuntimeContainer, RuntimeContainers, RuntimeEndpoint, Told,
};
pub use self::names::{LEAST_LIFETIME, MAX_ADDRESSES, Names};

use self::cri::{CriState, Outlets, Pace};
use self::kube::{Connection, KubeState, KubeWorld};
use crate::engine::handle::RuntimeState;

/// How long a command waits for what it wants of the cluster.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(2);

/// Settings of this room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetsConfig {
    /// What the cluster calls this node.
    pub node_name: String,
    pub runtime_endpoint: RuntimeEndpoint,
    /// How often the runtime's sandboxes are listed where it offers no events.
    pub runtime_poll: Duration,
    /// The same where it does; events make a look come at once.
    pub runtime_poll_with_events: Duration,
    /// A runtime that doesn't answer a call for this long is down.
    pub runtime_timeout: Duration,
    /// How often the node's addresses, wanted devices and wanted namespaces are looked at again; of many namespaces the devices
    /// of some, in turns.
    pub inspect_interval: Duration,
}

impl Default for TargetsConfig {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            runtime_endpoint: RuntimeEndpoint::Auto,
            runtime_poll: Duration::from_millis(500),
            runtime_poll_with_events: Duration::from_secs(5),
            runtime_timeout: Duration::from_secs(2),
            inspect_interval: Duration::from_secs(1),
        }
    }
}

/// The targets beside pods, and the peers beside pods and addresses, that desired faults name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub netns_paths: BTreeSet<PathBuf>,
    /// Names of devices of the node.
    pub interfaces: BTreeSet<String>,
    /// The node's own devices, those with a default route.
    pub node: bool,
    /// DNS names, in lower case and without the last dot.
    pub names: BTreeSet<String>,
    pub cluster: ClusterWanted,
}

/// Everything that this room has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldUpdate {
    pub world: World,
    pub runtime: RuntimeState,
    pub kubernetes: KubeState,
    /// Why wanted namespaces are not in the world.
    pub netns_failures: BTreeMap<PathBuf, String>,
    /// Why wanted devices are not in the world.
    pub interface_failures: BTreeMap<String, String>,
}

impl WorldUpdate {
    /// The cluster may hold tens of thousands of pods: it is neither copied nor compared for every little thing.
    pub fn is_same_beside_cluster(&self, other: &Self) -> bool {
        let Self {
            world,
            runtime,
            kubernetes,
            netns_failures,
            interface_failures,
        } = self;
        world.is_same_here(&other.world)
            && *runtime == other.runtime
            && *kubernetes == other.kubernetes
            && *netns_failures == other.netns_failures
            && *interface_failures == other.interface_failures
    }
}

/// A cheap clone for each user. The watch ends with the last of them.
#[derive(Clone, Debug)]
pub struct TargetsHandle {
    updates: watch::Receiver<Arc<WorldUpdate>>,
    wanted: Arc<watch::Sender<Wanted>>,
    containers: watch::Receiver<Arc<RuntimeContainers>>,
    poke: Arc<Notify>,
    names: Names,
    refreshes: mpsc::Sender<world::Refresh>,
    kube: watch::Receiver<Arc<KubeWorld>>,
    kube_state: watch::Receiver<KubeState>,
}

impl TargetsHandle {
    /// The world as last read.
    pub fn current(&self) -> Arc<WorldUpdate> {
        self.updates.borrow().clone()
    }

    /// Changes of the world.
    pub fn watch(&self) -> watch::Receiver<Arc<WorldUpdate>> {
        self.updates.clone()
    }

    /// The containers that the runtime has. No part of the world: no fault depends on them.
    pub fn containers(&self) -> watch::Receiver<Arc<RuntimeContainers>> {
        self.containers.clone()
    }

    /// Makes the next look at the runtime come at once.
    pub fn look(&self) {
        self.poke.notify_one();
    }

    /// What learns the addresses of names.
    pub fn names(&self) -> Names {
        self.names.clone()
    }

    /// Says which namespaces and devices to look at from now on, and which names to learn.
    pub fn want(&self, wanted: Wanted) {
        self.names.want(&wanted.names);
        self.wanted.send_if_modified(|old| {
            let changed = *old != wanted;
            *old = wanted;
            changed
        });
    }

    /// Like [`Self::want`], and reads these namespaces, and those that never were, before it answers, which takes a few
    /// milliseconds. Pods are those last known: the runtime is made to look at once, but not waited for. What is wanted of
    /// the cluster is waited for if its API server answers, though not for long.
    pub async fn refresh(&self, wanted: Wanted, namespaces: BTreeSet<PathBuf>) -> Arc<WorldUpdate> {
        let cluster = wanted.cluster.clone();
        self.want(wanted);
        self.learn(&cluster).await;
        let (reply, answer) = oneshot::channel();
        // The world's task outlives its handles; if it panicked, the last update is the best there is.
        match self.refreshes.send(world::Refresh { namespaces, reply }).await {
            Ok(()) => answer.await.unwrap_or_else(|_| self.current()),
            Err(_) => self.current(),
        }
    }

    async fn learn(&self, wanted: &ClusterWanted) {
        if !matches!(*self.kube_state.borrow(), KubeState::Ready { .. }) {
            return;
        }
        let mut kube = self.kube.clone();
        // What isn't known in time becomes known later, and changes the world then.
        let _ = timeout(CLUSTER_PATIENCE, kube.wait_for(|world| world.knows(wanted))).await;
    }
}

/// Begins to watch a node without a cluster; must be called inside a tokio runtime.
pub fn start(config: TargetsConfig) -> TargetsHandle {
    start_in(config, Connection::absent("none is wanted".to_owned()), None)
}

/// Begins to watch a node of a cluster, and passes on what the container runtime says of its own accord; a listener that is
/// slow holds up no pods. Must be called inside a tokio runtime.
pub fn start_in(
    config: TargetsConfig,
    cluster: Connection,
    listener: Option<mpsc::Sender<Told>>,
) -> TargetsHandle {
    let poke = Arc::new(Notify::new());
    let (cri, pods) = watch::channel(CriState {
        pods: BTreeMap::new(),
        runtime: RuntimeState::Connecting,
    });
    let pace = Pace {
        without_events: config.runtime_poll,
        with_events: config.runtime_poll_with_events,
        call_timeout: config.runtime_timeout,
    };
    let (sender, containers) = watch::channel(Arc::default());
    let outlets = Outlets {
        state: cri,
        containers: sender,
        listener,
    };
    tokio::spawn(cri::run(config.runtime_endpoint, pace, outlets, poke.clone()));
    let runtime = world::Runtime {
        pods,
        containers,
        poke,
    };
    world::start(config.node_name, runtime, cluster, config.inspect_interval)
}
