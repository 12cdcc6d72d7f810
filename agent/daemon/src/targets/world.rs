//! The one writer of the world: puts together what the runtime and the cluster say and what is read here.

mod compose;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sabot_core::model::{ApiServer, BootTime, PodSet, TargetDevice};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use self::compose::{compose, server};
use super::cri::CriState;
use super::interface::{self, NodeNetwork};
use super::kube::{self, Connection, KubeState, KubeWorld};
use super::names::{Addresses, Names};
use super::netns::target_devices;
use super::{RuntimeContainers, TargetsHandle, Wanted, WorldUpdate};
use crate::kernel::boot_time;
use crate::kernel::nsfs::netns_id;

/// Refreshes that may wait; each waits for a few milliseconds at most.
const REFRESH_QUEUE: usize = 64;

/// What the container runtime says, and a way to make it look at once.
pub(super) struct Runtime {
    pub(super) pods: watch::Receiver<CriState>,
    pub(super) containers: watch::Receiver<Arc<RuntimeContainers>>,
    pub(super) poke: Arc<Notify>,
}

pub(super) fn start(
    node_name: String,
    runtime: Runtime,
    cluster: Connection,
    every: Duration,
) -> TargetsHandle {
    let Runtime {
        pods: cri,
        containers,
        poke,
    } = runtime;
    let names = Names::default();
    let addresses = names.watch();
    let kube_state = cluster.status().watch();
    let mut initial = compose(
        &node_name,
        &cri.borrow(),
        &Local::default(),
        &Addresses::new(),
        &PodSet::default(),
        &kube_state.borrow(),
    );
    initial.world.cluster.server = server(&initial.kubernetes, ApiServer::default(), false);
    let (updates, receiver) = watch::channel(Arc::new(initial));
    let (wanted_sender, wanted) = watch::channel(Wanted::default());
    let kube = kube::start(cluster, wanted.clone());
    let (refreshes, requests) = mpsc::channel(REFRESH_QUEUE);
    let task = Task {
        node_name,
        cri,
        told: kube.borrow().clone(),
        kube: kube.clone(),
        kube_state: kube_state.clone(),
        poke: poke.clone(),
        wanted,
        requests,
        updates,
        local: Local::default(),
        turn: PathBuf::new(),
        names: names.clone(),
        addresses,
    };
    let handle = TargetsHandle {
        updates: receiver,
        wanted: Arc::new(wanted_sender),
        containers,
        poke,
        names,
        refreshes,
        kube,
        kube_state,
    };
    tokio::spawn(task.run(every));
    handle
}

/// Somebody waits for these to be read.
pub(super) struct Refresh {
    pub(super) namespaces: BTreeSet<PathBuf>,
    pub(super) reply: oneshot::Sender<Arc<WorldUpdate>>,
}

/// Namespaces whose devices are read anew in one tick. A reading takes some 0.3 ms, so hundreds of namespaces take turns,
/// while one that is gone, replaced or without devices is found out at every tick.
const TURN: usize = 4;

struct Task {
    node_name: String,
    cri: watch::Receiver<CriState>,
    kube: watch::Receiver<Arc<KubeWorld>>,
    /// What the last update said of the cluster.
    told: Arc<KubeWorld>,
    kube_state: watch::Receiver<KubeState>,
    poke: Arc<Notify>,
    wanted: watch::Receiver<Wanted>,
    requests: mpsc::Receiver<Refresh>,
    updates: watch::Sender<Arc<WorldUpdate>>,
    local: Local,
    /// The last namespace that had its turn.
    turn: PathBuf,
    names: Names,
    addresses: watch::Receiver<Arc<Addresses>>,
}

impl Task {
    async fn run(mut self, every: Duration) {
        // Read once before anything is answered, so that no turn is due while the first requests come.
        self.read(BTreeSet::new()).await;
        self.publish();
        let mut tick = interval_at(Instant::now() + every, every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = self.requests.recv() => {
                    let Some(request) = request else { return };
                    self.refresh(request).await;
                }
                Ok(()) = self.wanted.changed() => {
                    self.read(BTreeSet::new()).await;
                    self.publish();
                }
                Ok(()) = self.cri.changed() => {
                    self.publish();
                }
                Ok(()) = self.kube.changed() => {
                    self.publish();
                }
                Ok(()) = self.kube_state.changed() => {
                    self.publish();
                }
                Ok(()) = self.addresses.changed() => {
                    self.publish();
                }
                () = until(self.names.expires_at()) => {
                    // What has changed by it comes back as a change.
                    self.names.expire(boot_time());
                }
                _ = tick.tick() => {
                    let turn = self.next_turn();
                    self.read(turn).await;
                    self.publish();
                }
            }
        }
    }

    /// Answers all that wait with one reading.
    async fn refresh(&mut self, first: Refresh) {
        let mut namespaces = first.namespaces;
        let mut replies = vec![first.reply];
        while let Ok(next) = self.requests.try_recv() {
            namespaces.extend(next.namespaces);
            replies.push(next.reply);
        }
        self.read(namespaces).await;
        self.poke.notify_one();
        let update = self.publish();
        for reply in replies {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(Arc::clone(&update));
        }
    }

    /// Those that come after the last turn's, in their order.
    fn next_turn(&mut self) -> BTreeSet<PathBuf> {
        let wanted = self.wanted.borrow();
        let later = wanted
            .netns_paths
            .range(self.turn.clone()..)
            .filter(|path| **path != self.turn);
        let turn: Vec<_> = later.chain(&wanted.netns_paths).take(TURN).cloned().collect();
        if let Some(last) = turn.last() {
            self.turn.clone_from(last);
        }
        turn.into_iter().collect()
    }

    /// Reads the node's devices, these namespaces, and those of which no devices are known that are there now.
    async fn read(&mut self, namespaces: BTreeSet<PathBuf>) {
        let wanted = self.wanted.borrow_and_update().clone();
        let previous = self.local.clone();
        let mut reading = pin!(spawn_blocking(move || Local::read(
            &wanted,
            &namespaces,
            previous
        )));
        let read = loop {
            tokio::select! {
                read = &mut reading => break read,
                // A target may use an address as soon as it has the answer.
                Ok(()) = self.addresses.changed() => {
                    self.publish();
                }
            }
        };
        match read {
            Ok(local) => self.local = local,
            Err(e) => tracing::error!(error = %e, "reading namespaces and devices failed"),
        }
    }

    fn publish(&mut self) -> Arc<WorldUpdate> {
        let kube = self.kube.borrow_and_update().clone();
        let is_told = Arc::ptr_eq(&kube, &self.told);
        let mut update = compose(
            &self.node_name,
            &self.cri.borrow_and_update(),
            &self.local,
            &self.addresses.borrow_and_update(),
            &kube.own,
            &self.kube_state.borrow_and_update(),
        );
        let told_all = kube.knows(&self.wanted.borrow().cluster);
        self.updates.send_if_modified(|current| {
            let server = server(&update.kubernetes, current.world.cluster.server, told_all);
            let changed = !is_told
                || server != current.world.cluster.server
                || !current.is_same_beside_cluster(&update);
            if changed {
                update.world.cluster = kube.cluster.clone();
                update.world.cluster.server = server;
                *current = Arc::new(update);
            }
            changed
        });
        self.told = kube;
        self.updates.borrow().clone()
    }
}

/// Waits for an instant; without one, for ever.
async fn until(instant: Option<BootTime>) {
    match instant {
        // A timer has a resolution of a millisecond: one that rings early would ring again at once.
        Some(at) => {
            let nanos = at.0.saturating_sub(boot_time().0);
            tokio::time::sleep(Duration::from_nanos(nanos) + Duration::from_millis(1)).await;
        }
        None => pending().await,
    }
}

/// What is read on this node without the runtime.
#[derive(Clone, Debug, Default)]
struct Local {
    node: NodeNetwork,
    node_failure: Option<String>,
    namespaces: BTreeMap<PathBuf, Result<Vec<TargetDevice>, String>>,
}

impl Local {
    /// `previous` tells what failed before already, and gives the node's addresses where they can't be read now: to spare
    /// those that it had is safer than to spare none.
    fn read(wanted: &Wanted, anew: &BTreeSet<PathBuf>, previous: Self) -> Self {
        let read = |path: &PathBuf| {
            let known = previous.namespaces.get(path);
            let known = known.filter(|devices| !anew.contains(path) && is_current(path, devices));
            let read = || target_devices(path).map_err(|e| e.to_string());
            (path.clone(), known.cloned().unwrap_or_else(read))
        };
        let namespaces: BTreeMap<_, _> = wanted.netns_paths.iter().map(read).collect();
        for (path, result) in &namespaces {
            if let Err(reason) = result
                && previous.namespaces.get(path) != Some(result)
            {
                tracing::info!(path = %path.display(), reason, "a network namespace that a fault names can't be read");
            }
        }
        let (node, node_failure) = match interface::read(&wanted.interfaces, wanted.node) {
            Ok(node) => (node, None),
            Err(e) => {
                let reason = e.to_string();
                if previous.node_failure.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "the node's own devices and addresses can't be read");
                }
                let interfaces = wanted
                    .interfaces
                    .iter()
                    .map(|name| (name.clone(), Err(reason.clone())));
                let node = NodeNetwork {
                    interfaces: interfaces.collect(),
                    ..previous.node
                };
                (node, Some(reason))
            }
        };
        Self {
            node,
            node_failure,
            namespaces,
        }
    }
}

/// Whether it is known what devices there are, and the namespace is still the same.
fn is_current(path: &Path, devices: &Result<Vec<TargetDevice>, String>) -> bool {
    devices.as_ref().is_ok_and(|devices| {
        let id = netns_id(path);
        !devices.is_empty() && devices.iter().all(|device| Some(device.key.netns) == id)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;
    use std::time::Duration;

    use tokio::time::timeout;

    use crate::kernel::boot_time;
    use crate::observe::dns::Answer;
    use crate::targets::test_netns::TestNetns;
    use crate::targets::{RuntimeEndpoint, TargetsConfig, TargetsHandle, Wanted, start};

    const PATIENCE: Duration = Duration::from_secs(30);

    fn watch_without_runtime(every: Duration) -> TargetsHandle {
        start(TargetsConfig {
            runtime_endpoint: RuntimeEndpoint::Disabled,
            inspect_interval: every,
            ..TargetsConfig::default()
        })
    }

    fn wanting(netns: &TestNetns) -> Wanted {
        Wanted {
            netns_paths: [netns.path().to_owned()].into(),
            interfaces: ["lo".to_owned(), "missing0".to_owned()].into(),
            ..Wanted::default()
        }
    }

    #[tokio::test]
    async fn a_refresh_answers_with_exactly_what_is_there() {
        let targets = watch_without_runtime(Duration::from_secs(3600));
        let netns = TestNetns::new();
        let mut wanted = wanting(&netns);
        wanted.netns_paths.insert("/run/netns/missing".into());

        let update = targets.refresh(wanted.clone(), wanted.netns_paths.clone()).await;
        assert_eq!(update.world.namespaces[netns.path()], []);
        assert!(
            update.netns_failures["/run/netns/missing".as_ref() as &std::path::Path].contains("No such file")
        );
        assert!(update.world.interfaces["lo"].node_device);
        assert_eq!(
            update.interface_failures["missing0"],
            "the node has no device named `missing0`"
        );

        netns.ip("link add eth0 type veth peer name far0");
        let update = targets.refresh(wanted.clone(), wanted.netns_paths).await;
        assert_eq!(update.world.namespaces[netns.path()].len(), 2);

        // What isn't asked for stays as it was read last.
        netns.ip("link add eth1 type veth peer name far1");
        let update = targets.refresh(wanting(&netns), BTreeSet::new()).await;
        assert_eq!(update.world.namespaces[netns.path()].len(), 2);

        let update = targets.refresh(Wanted::default(), BTreeSet::new()).await;
        assert!(update.world.namespaces.is_empty() && update.world.interfaces.is_empty());
    }

    #[tokio::test]
    async fn what_is_wanted_is_read_again_and_again() {
        let targets = watch_without_runtime(Duration::from_millis(20));
        let netns = TestNetns::new();
        let path = netns.path().to_owned();
        let mut updates = targets.watch();
        targets.want(wanting(&netns));
        let seen = timeout(
            PATIENCE,
            updates.wait_for(|u| u.world.namespaces.contains_key(&path)),
        );
        seen.await.expect("the namespace is found").unwrap();

        netns.ip("link add eth0 type veth peer name far0");
        let seen = timeout(
            PATIENCE,
            updates.wait_for(|u| u.world.namespaces[&path].len() == 2),
        );
        seen.await.expect("its devices are found").unwrap();

        drop(netns);
        let seen = timeout(
            PATIENCE,
            updates.wait_for(|u| !u.world.namespaces.contains_key(&path)),
        );
        seen.await.expect("it leaves the world").unwrap();
    }

    #[tokio::test]
    async fn names_are_learnt_at_once_and_forgotten_in_time() {
        let targets = watch_without_runtime(Duration::from_secs(3600));
        let name = "api.shop.test".to_owned();
        targets.want(Wanted {
            names: [name.clone()].into(),
            ..Wanted::default()
        });
        let mut updates = targets.watch();
        let answer = Answer {
            names: vec![(name.clone(), Duration::MAX)],
            addresses: vec![([192, 0, 2, 1].into(), Duration::ZERO)],
            is_partial: false,
        };
        assert!(targets.names().learn(boot_time(), &answer));
        let seen = timeout(PATIENCE, updates.wait_for(|u| u.world.names.contains_key(&name)));
        let addresses = seen.await.expect("it is learnt").unwrap().world.names[&name].clone();
        assert_eq!(addresses, [IpAddr::from([192, 0, 2, 1])].into());
        let seen = timeout(PATIENCE, updates.wait_for(|u| u.world.names.is_empty()));
        seen.await.expect("it is forgotten").unwrap();
    }

    #[tokio::test]
    async fn the_watch_ends_with_its_last_handle() {
        let targets = watch_without_runtime(Duration::from_millis(20));
        let mut updates = targets.watch();
        drop(targets);
        let ended = timeout(PATIENCE, async { while updates.changed().await.is_ok() {} });
        ended.await.expect("the task ends");
    }
}
