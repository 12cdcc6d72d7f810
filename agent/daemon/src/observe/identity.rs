//! Whose traffic it is: pods, namespaces that faults name, and the node, by numbers that are never used twice.
//!
//! What happens in the kernel is told apart by the cookie of its network namespace, which no other namespace gets until the
//! machine restarts, and on the node's own network by the socket's cgroup.

pub mod containers;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sabot_abi::{NODE_OWNER, OwnerKey};
use sabot_core::model::{Pod, World};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use self::containers::{Container, Containers};
use self::keys::{Cookies, cgroup_key};
use super::ring::OwnedTask;
use crate::engine::handle::RuntimeState;
use crate::kernel::nsfs::OWN_NETNS;
use crate::targets::WorldUpdate;

/// An owner that went is still known for this long, since what it did may be told late.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How often what can change without the world's saying so is looked at: the namespaces behind paths.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Who it is, as labels and events say it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    Node,
    Pod {
        namespace: String,
        name: String,
    },
    /// A network namespace that a fault names by its path.
    Netns(PathBuf),
}

impl Identity {
    /// The label `namespace`; empty for what is no pod.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Pod { namespace, .. } => namespace,
            Self::Node | Self::Netns(_) => "",
        }
    }

    /// The label `pod`: a pod's name, `node`, or `netns:` and a path.
    pub fn label(&self) -> String {
        match self {
            Self::Node => "node".to_owned(),
            Self::Pod { name, .. } => name.clone(),
            Self::Netns(path) => format!("netns:{}", path.display()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Node | Self::Netns(_) => f.write_str(&self.label()),
        }
    }
}

/// Somebody who is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Never used for another one while the daemon lives; [`NODE_OWNER`] is the node.
    pub number: u32,
    pub identity: Arc<Identity>,
    /// What the kernel knows it by.
    pub keys: Vec<OwnerKey>,
    /// Paths by which faults name its network namespace.
    pub paths: Vec<PathBuf>,
}

/// Everybody who is there now, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners(BTreeMap<u32, Owner>);

impl Owners {
    /// For tests and for those who know their owners from elsewhere.
    pub fn new(owners: impl IntoIterator<Item = Owner>) -> Self {
        Self(owners.into_iter().map(|owner| (owner.number, owner)).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Owner> {
        self.0.values()
    }

    pub fn get(&self, number: u32) -> Option<&Owner> {
        self.0.get(&number)
    }

    /// The number of an owner by name.
    pub fn find(&self, identity: &Identity) -> Option<u32> {
        self.iter()
            .find(|owner| *owner.identity == *identity)
            .map(|owner| owner.number)
    }

    /// The number of the owner of the network namespace that a fault names by this path.
    pub fn find_netns(&self, path: &Path) -> Option<u32> {
        self.iter()
            .find(|owner| owner.paths.iter().any(|known| known == path))
            .map(|owner| owner.number)
    }

    /// Before the runtime's pods are known, nobody can say that something is the node's own.
    fn without_node(mut self) -> Self {
        self.0.remove(&NODE_OWNER);
        self
    }

    pub fn keys(&self) -> impl Iterator<Item = (OwnerKey, u32)> {
        self.iter()
            .flat_map(|owner| owner.keys.iter().map(move |&key| (key, owner.number)))
    }
}

/// A cheap clone for each observer.
#[derive(Clone)]
pub struct Identities {
    owners: watch::Receiver<Arc<Owners>>,
    gone: Arc<Mutex<Gone>>,
    containers: Containers,
    _task: Option<Arc<OwnedTask>>,
}

impl Identities {
    /// Owners that somebody else says.
    pub fn from_watch(owners: watch::Receiver<Arc<Owners>>) -> Self {
        Self {
            owners,
            gone: Arc::default(),
            containers: Containers::default(),
            _task: None,
        }
    }

    /// Names containers, too.
    pub fn with_containers(self, containers: Containers) -> Self {
        Self { containers, ..self }
    }

    pub fn containers(&self) -> &Containers {
        &self.containers
    }

    /// The container of a socket in this cgroup (0: it isn't known in which).
    pub fn container(&self, cgroup: u64) -> Option<Arc<Container>> {
        self.containers.of_cgroup(cgroup, 0)
    }

    pub fn watch(&self) -> watch::Receiver<Arc<Owners>> {
        self.owners.clone()
    }

    pub fn current(&self) -> Arc<Owners> {
        self.owners.borrow().clone()
    }

    /// Who has, or a moment ago had, this number.
    pub fn get(&self, number: u32) -> Option<Arc<Identity>> {
        if let Some(owner) = self.owners.borrow().get(number) {
            return Some(Arc::clone(&owner.identity));
        }
        lock(&self.gone).get(number)
    }
}

/// Begins to follow the world. Must be called within a tokio runtime.
pub fn start(world: watch::Receiver<Arc<WorldUpdate>>) -> Identities {
    let (sender, owners) = watch::channel(Arc::new(Owners::default()));
    let gone = Arc::new(Mutex::new(Gone::default()));
    let follower = Follower {
        world,
        owners: sender,
        gone: Arc::clone(&gone),
        registry: Registry::default(),
    };
    let task = tokio::spawn(follower.run());
    Identities {
        owners,
        gone,
        containers: Containers::default(),
        _task: Some(Arc::new(OwnedTask::new(&task))),
    }
}

fn lock(gone: &Mutex<Gone>) -> MutexGuard<'_, Gone> {
    gone.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those who went a moment ago.
#[derive(Default)]
struct Gone(HashMap<u32, (Arc<Identity>, Instant)>);

impl Gone {
    fn get(&self, number: u32) -> Option<Arc<Identity>> {
        self.0.get(&number).map(|(identity, _)| Arc::clone(identity))
    }

    fn follow(&mut self, before: &Owners, now: &Owners, moment: Instant) {
        self.0
            .retain(|_, (_, since)| moment.duration_since(*since) < REMEMBERED);
        for owner in before.iter().filter(|owner| now.get(owner.number).is_none()) {
            self.0.insert(owner.number, (Arc::clone(&owner.identity), moment));
        }
    }
}

/// One who may own traffic, as the world describes it; equal ones are the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Subject {
    Node,
    /// A sandbox's id is never used again.
    Sandbox(String),
    /// By its cookie, for the namespace behind a path may become another one.
    Namespace(u64),
}

/// What is known of a subject.
struct Found {
    identity: Identity,
    keys: Vec<OwnerKey>,
    paths: Vec<PathBuf>,
}

impl Found {
    fn new(identity: Identity, keys: Vec<OwnerKey>) -> Self {
        Self {
            identity,
            keys,
            paths: Vec::new(),
        }
    }
}

/// What is kept from one look to the next.
#[derive(Default)]
struct Registry {
    cookies: Cookies,
    numbers: HashMap<Subject, u32>,
    last: u32,
}

struct Follower {
    world: watch::Receiver<Arc<WorldUpdate>>,
    owners: watch::Sender<Arc<Owners>>,
    gone: Arc<Mutex<Gone>>,
    registry: Registry,
}

impl Follower {
    async fn run(mut self) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let update = self.world.borrow_and_update().clone();
            let mut registry = std::mem::take(&mut self.registry);
            let read = spawn_blocking(move || {
                let owners = registry.owners(&update.world);
                let is_known = update.runtime != RuntimeState::Connecting;
                let owners = if is_known { owners } else { owners.without_node() };
                (registry, owners, !update.world.namespaces.is_empty())
            });
            let Ok((registry, owners, looked_at)) = read.await else {
                tracing::error!(
                    "reading who owns which network namespace failed; what is observed gets no new names"
                );
                return;
            };
            self.registry = registry;
            self.publish(owners);
            tokio::select! {
                changed = self.world.changed() => if changed.is_err() {
                    return;
                },
                _ = looks.tick(), if looked_at => {}
            }
        }
    }

    fn publish(&self, owners: Owners) {
        self.owners.send_if_modified(|current| {
            let changed = **current != owners;
            if changed {
                lock(&self.gone).follow(current, &owners, Instant::now());
                *current = Arc::new(owners);
            }
            changed
        });
    }
}

impl Registry {
    /// Blocks for a fraction of a millisecond for each namespace that is new.
    fn owners(&mut self, world: &World) -> Owners {
        let mut found: BTreeMap<Subject, Found> = BTreeMap::new();
        let node = self.cookies.of_path(OWN_NETNS.as_ref());
        if let Some(cookie) = node {
            let key = OwnerKey { cookie, cgroup: 0 };
            found.insert(Subject::Node, Found::new(Identity::Node, vec![key]));
        }
        for (sandbox, pod) in &world.pods {
            let keys = self.pod_keys(sandbox, pod, node);
            let identity = Identity::Pod {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
            };
            if !keys.is_empty() {
                found.insert(Subject::Sandbox(sandbox.clone()), Found::new(identity, keys));
            }
        }
        let taken: BTreeMap<u64, Subject> = found
            .iter()
            .flat_map(|(subject, found)| found.keys.iter().map(|key| (key.cookie, subject.clone())))
            .collect();
        for path in world.namespaces.keys() {
            let Some(cookie) = self.cookies.of_path(path) else {
                continue;
            };
            // A path that leads to a pod's or to the node's own namespace names nobody new; the node's is its own before it
            // is that of pods on its network.
            let subject = match taken.get(&cookie) {
                Some(_) if Some(cookie) == node => Subject::Node,
                Some(subject) => subject.clone(),
                None => Subject::Namespace(cookie),
            };
            let owner = found.entry(subject).or_insert_with(|| Found {
                identity: Identity::Netns(path.clone()),
                keys: vec![OwnerKey { cookie, cgroup: 0 }],
                paths: Vec::new(),
            });
            owner.paths.push(path.clone());
        }
        self.cookies.keep(
            |sandbox| world.pods.contains_key(sandbox),
            |path| path == OWN_NETNS || world.namespaces.contains_key(path),
        );
        self.numbered(found)
    }

    fn pod_keys(&mut self, sandbox: &str, pod: &Pod, node: Option<u64>) -> Vec<OwnerKey> {
        if pod.host_network {
            let key = node
                .zip(pod.process)
                .and_then(|(cookie, process)| cgroup_key(cookie, process, &pod.uid));
            return key.into_iter().collect();
        }
        let path = pod.netns_path.as_deref();
        let cookie = path.and_then(|path| self.cookies.of_sandbox(sandbox, path));
        cookie
            .map(|cookie| OwnerKey { cookie, cgroup: 0 })
            .into_iter()
            .collect()
    }

    fn numbered(&mut self, found: BTreeMap<Subject, Found>) -> Owners {
        self.numbers.retain(|subject, _| found.contains_key(subject));
        Owners::new(found.into_iter().map(|(subject, found)| Owner {
            number: self.number(subject),
            identity: Arc::new(found.identity),
            keys: found.keys,
            paths: found.paths,
        }))
    }

    fn number(&mut self, subject: Subject) -> u32 {
        if subject == Subject::Node {
            return NODE_OWNER;
        }
        *self.numbers.entry(subject).or_insert_with(|| {
            self.last += 1;
            self.last
        })
    }
}
