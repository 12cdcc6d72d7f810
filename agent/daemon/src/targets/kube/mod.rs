//! The cluster, from its API server: pods of this node, and of the rest what desired faults name.
//!
//! Each scope of what is wanted is listed once and watched from there on, and forgotten when nobody wants it any more. Nothing
//! of it is needed for pods of this node: the container runtime knows those. While the server is away, what was known
//! last stays.

mod client;
mod follow;
mod gate;
mod lacks;
mod objects;
mod scopes;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use sabot_core::model::{Cluster, ClusterPod, ClusterWanted, ObjectName, Service};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

pub use self::client::{KubeConfig, KubeError, RequestKind, Requests, reason};
pub use self::gate::{Backoff, KubeState};
pub use self::lacks::{Lack, Lacks, UNKNOWN_VERSION, too_old};

use self::client::client;
use self::follow::{Api, OpenWatches, follow};
use self::gate::Gate;
use self::objects::Item;
use self::scopes::{Resource, Scope};
use self::table::{News, Table};
use super::Wanted;
use super::cri::AbortOnDrop;

/// Between attempts at a server that doesn't answer; several requests fail before it is the longest.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(250),
    longest: Duration::from_secs(15),
};
/// News that may wait.
const QUEUE: usize = 256;
/// News that come together are told together.
const TOGETHER: Duration = Duration::from_millis(10);
/// The same where putting the world together takes long: at most a tenth of the time goes into it.
const TOGETHER_AT_MOST: Duration = Duration::from_millis(500);

/// The cluster's API, for others than the source of the world.
#[derive(Clone)]
pub struct KubeHandle {
    /// Its requests are counted; none is retried.
    pub client: Client,
    pub state: watch::Receiver<KubeState>,
    /// For what else can't be followed.
    pub lacks: Lacks,
}

/// How it goes with the cluster's API.
#[derive(Clone, Debug)]
pub struct KubeStatus {
    state: watch::Receiver<KubeState>,
    requests: Requests,
    watches: OpenWatches,
    lacks: Lacks,
}

impl KubeStatus {
    /// Of a daemon that has no API server.
    pub fn absent(reason: String) -> Self {
        Self {
            state: watch::Sender::new(KubeState::Absent(reason)).subscribe(),
            requests: Requests::default(),
            watches: OpenWatches::default(),
            lacks: Lacks::default(),
        }
    }

    pub fn state(&self) -> KubeState {
        self.state.borrow().clone()
    }

    /// Its changes.
    pub fn watch(&self) -> watch::Receiver<KubeState> {
        self.state.clone()
    }

    /// All requests so far.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// What can't be followed although the server answers.
    pub fn lacks(&self) -> &Lacks {
        &self.lacks
    }

    /// Watches that are open now.
    pub fn watches(&self) -> usize {
        self.watches.count()
    }
}

/// An API server that may be asked; nothing was asked yet.
pub struct Connection {
    status: KubeStatus,
    api: Option<Api>,
    /// This node's name.
    node: String,
}

impl Connection {
    /// # Errors
    ///
    /// The configuration's certificates or keys can't be used.
    pub fn new(config: KubeConfig, node: &str) -> Result<Self, KubeError> {
        Self::with_backoff(config, node, BACKOFF)
    }

    fn with_backoff(config: KubeConfig, node: &str, backoff: Backoff) -> Result<Self, KubeError> {
        let config = match config {
            KubeConfig::At(config) => config,
            KubeConfig::Absent(reason) => return Ok(Self::absent(reason)),
        };
        let gate = Arc::new(Gate::new(backoff));
        let requests = Requests::default();
        let client = client(&config, gate.clone(), requests.clone())?;
        let watches = OpenWatches::default();
        let lacks = Lacks::default();
        Ok(Self {
            status: KubeStatus {
                state: gate.state(),
                requests,
                watches: watches.clone(),
                lacks: lacks.clone(),
            },
            api: Some(Api {
                client,
                gate,
                backoff,
                watches,
                lacks,
            }),
            node: node.to_owned(),
        })
    }

    /// There is no API server.
    pub fn absent(reason: String) -> Self {
        Self {
            status: KubeStatus::absent(reason),
            api: None,
            node: String::new(),
        }
    }

    /// `None` without an API server.
    pub fn handle(&self) -> Option<KubeHandle> {
        let api = self.api.as_ref()?;
        Some(KubeHandle {
            client: api.client.clone(),
            state: self.status.state.clone(),
            lacks: self.status.lacks.clone(),
        })
    }

    pub fn status(&self) -> KubeStatus {
        self.status.clone()
    }
}

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KubeWorld {
    /// Pods of this node, by uid.
    pub(super) own: BTreeMap<String, ClusterPod>,
    pub(super) cluster: Cluster,
    /// What was listed, or can't be.
    answered: BTreeSet<Scope>,
}

impl KubeWorld {
    /// Everything that is wanted was looked for: nothing more comes by waiting.
    pub(super) fn knows(&self, wanted: &ClusterWanted) -> bool {
        let all_nodes = self.answered.contains(&Scope::nodes());
        let is_answered =
            |scope: &Scope| self.answered.contains(scope) || all_nodes && scope.resource == Resource::Nodes;
        Scope::wanted(wanted).iter().all(is_answered)
    }
}

/// Follows what is wanted until nobody receives it any more.
pub(super) fn start(
    connection: Connection,
    wanted: watch::Receiver<Wanted>,
) -> watch::Receiver<Arc<KubeWorld>> {
    let (world, receiver) = watch::channel(Arc::default());
    if let Some(api) = connection.api {
        let (sender, news) = mpsc::channel(QUEUE);
        let source = Source {
            own: Scope::pods_of(&connection.node),
            node: connection.node,
            api,
            sender,
            wanted: ClusterWanted::default(),
            following: BTreeMap::new(),
            spawned: 0,
            due: None,
            took: Duration::ZERO,
        };
        tokio::spawn(source.run(world, wanted, news));
    }
    receiver
}

/// One scope that is followed.
struct Following {
    /// Tells news of this follower from those of an earlier one of the same scope.
    id: u64,
    table: Table,
    _task: AbortOnDrop,
}

struct Source {
    node: String,
    own: Scope,
    api: Api,
    sender: mpsc::Sender<(u64, News)>,
    wanted: ClusterWanted,
    following: BTreeMap<Scope, Following>,
    /// Followers so far.
    spawned: u64,
    /// When the world is to be put together anew.
    due: Option<Instant>,
    /// How long that took the last time.
    took: Duration,
}

impl Source {
    async fn run(
        mut self,
        world: watch::Sender<Arc<KubeWorld>>,
        mut wanted: watch::Receiver<Wanted>,
        mut news: mpsc::Receiver<(u64, News)>,
    ) {
        self.want(wanted.borrow_and_update().cluster.clone());
        loop {
            tokio::select! {
                () = world.closed() => return,
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = wanted.borrow_and_update().cluster.clone();
                    if now != self.wanted {
                        self.want(now);
                    }
                }
                Some((id, news)) = news.recv() => self.learn(id, news),
                () = until(self.due) => {
                    let start = Instant::now();
                    world.send_replace(Arc::new(self.world()));
                    (self.due, self.took) = (None, start.elapsed());
                }
            }
        }
    }

    /// Follows what is wanted now, and forgets everything else.
    fn want(&mut self, wanted: ClusterWanted) {
        let mut scopes: BTreeSet<Scope> = Scope::wanted(&wanted);
        scopes.insert(self.own.clone());
        self.wanted = wanted;
        self.following.retain(|scope, _| scopes.contains(scope));
        for scope in scopes {
            if !self.following.contains_key(&scope) {
                self.spawned += 1;
                let task = follow(self.api.clone(), scope.clone(), self.spawned, self.sender.clone());
                let following = Following {
                    id: self.spawned,
                    table: Table::default(),
                    _task: AbortOnDrop(tokio::spawn(task).abort_handle()),
                };
                self.following.insert(scope, following);
            }
        }
        self.due = Some(Instant::now());
    }

    fn learn(&mut self, id: u64, news: News) {
        let mut following = self.following.values_mut();
        let Some(following) = following.find(|following| following.id == id) else {
            return;
        };
        if following.table.learn(news) && self.due.is_none() {
            let pause = (self.took * 9).clamp(TOGETHER, TOGETHER_AT_MOST);
            self.due = Some(Instant::now() + pause);
        }
    }

    fn table(&self, scope: &Scope) -> Option<&Table> {
        let table = &self.following.get(scope)?.table;
        table.is_known.then_some(table)
    }

    fn world(&self) -> KubeWorld {
        let mut world = KubeWorld::default();
        let answered = self.following.iter().filter(|(_, f)| f.table.is_answered());
        for (scope, following) in answered {
            world.answered.insert(scope.clone());
            for (name, item) in following.table.items() {
                match item {
                    Item::Pod(pod) if *scope == self.own => {
                        world.own.insert(pod.uid.clone(), pod.clone());
                    }
                    Item::Pod(pod) if pod.node != self.node => {
                        world.cluster.pods.insert(pod.uid.clone(), pod.clone());
                    }
                    Item::Node(addresses) => {
                        world.cluster.nodes.insert(name.name.clone(), addresses.clone());
                    }
                    Item::Pod(_) | Item::Service(_) | Item::Endpoints(..) => {}
                }
            }
        }
        self.add_services(&mut world.cluster);
        world
    }

    /// Services with all their endpoints; none of a namespace or a name of which one or the other isn't known.
    fn add_services(&self, cluster: &mut Cluster) {
        let wanted = &self.wanted;
        let whole = |namespace: &String| (Scope::services_in(namespace), Scope::endpoints_in(namespace));
        let one = |name: &ObjectName| (Scope::service(name), Scope::endpoints(name));
        let scopes = wanted.service_namespaces.iter().map(whole);
        for (services, slices) in scopes.chain(wanted.services.iter().map(one)) {
            let (Some(services), Some(slices)) = (self.table(&services), self.table(&slices)) else {
                continue;
            };
            let found = services.items().filter_map(|(name, item)| match item {
                Item::Service(service) => Some((name.clone(), service.clone())),
                Item::Pod(_) | Item::Endpoints(..) | Item::Node(_) => None,
            });
            let mut found: BTreeMap<ObjectName, Service> = found.collect();
            for (slice, item) in slices.items() {
                if let Item::Endpoints(service, endpoints) = item {
                    let name = ObjectName {
                        namespace: slice.namespace.clone(),
                        name: service.clone(),
                    };
                    if let Some(service) = found.get_mut(&name) {
                        service.endpoints.extend(endpoints.iter().cloned());
                    }
                }
            }
            cluster.services.extend(found);
        }
    }
}

/// Waits for an instant; without one, for ever.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
