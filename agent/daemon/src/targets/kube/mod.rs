//! The cluster, from its API server: pods of this node, the ranges of Services, and of the rest what desired faults name.
//!
//! Each scope of what is wanted is listed once and watched from there on, and forgotten when nobody wants it any more. Nothing
//! of it is needed for pods of this node: the container runtime knows those. While the server is away, what was known
//! last stays.

mod client;
mod follow;
mod gate;
mod lacks;
mod limit;
mod objects;
mod scopes;
mod shown;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use sabot_core::model::{Cluster, ClusterPod, ClusterWanted, PodSet};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

pub use self::client::{KubeConfig, KubeError, RequestKind, Requests, reason};
pub use self::gate::{Backoff, KubeState};
pub use self::lacks::{Lack, Lacks, UNKNOWN_VERSION, too_old};

use self::client::client;
use self::follow::{Api, OpenWatches, follow};
use self::gate::Gate;
use self::limit::ANSWER;
use self::objects::Item;
use self::scopes::{Resource, Scope};
use self::shown::Shown;
use self::table::{Change, News, Table};
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
        Self::with_times(config, node, BACKOFF, ANSWER)
    }

    /// `limit`: how long an answer may take.
    pub(crate) fn with_times(
        config: KubeConfig,
        node: &str,
        backoff: Backoff,
        limit: Duration,
    ) -> Result<Self, KubeError> {
        let config = match config {
            KubeConfig::At(config) => config,
            KubeConfig::Absent(reason) => return Ok(Self::absent(reason)),
        };
        let gate = Arc::new(Gate::new(backoff));
        let requests = Requests::default();
        let client = client(&config, gate.clone(), requests.clone(), limit)?;
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

/// What is known of the cluster; a copy takes no time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KubeWorld {
    /// Pods of this node.
    pub(super) own: Arc<PodSet>,
    pub(super) cluster: Cluster,
}

impl KubeWorld {
    /// Everything that is wanted was looked for: nothing more comes by waiting.
    pub(super) fn knows(&self, wanted: &ClusterWanted) -> bool {
        self.cluster.answered.contains(wanted)
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
            shown: Shown::default(),
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
    /// Of a scope of pods: those that the world shows.
    pods: Arc<PodSet>,
    _task: AbortOnDrop,
}

struct Source {
    node: String,
    own: Scope,
    api: Api,
    sender: mpsc::Sender<(u64, News)>,
    wanted: ClusterWanted,
    following: BTreeMap<Scope, Following>,
    shown: Shown,
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
        self.wanted = wanted;
        let scopes = self.scopes();
        for scope in &scopes {
            if !self.following.contains_key(scope) {
                self.spawned += 1;
                let task = follow(self.api.clone(), scope.clone(), self.spawned, self.sender.clone());
                let following = Following {
                    id: self.spawned,
                    table: Table::default(),
                    pods: Arc::default(),
                    _task: AbortOnDrop(tokio::spawn(task).abort_handle()),
                };
                self.following.insert(scope.clone(), following);
            }
        }
        self.leave(&scopes);
        self.shown.all_moved();
        self.due = Some(Instant::now());
    }

    fn scopes(&self) -> BTreeSet<Scope> {
        let mut scopes: BTreeSet<Scope> = Scope::wanted(&self.wanted);
        scopes.extend([self.own.clone(), Scope::service_ranges()]);
        scopes
    }

    /// Leaves what isn't among these scopes, but for what stands in until its successor was read: all Services of a namespace
    /// take over from one of them, say, and the other way round.
    fn leave(&mut self, scopes: &BTreeSet<Scope>) {
        let is_read = |scope: &Scope| self.following.get(scope).is_some_and(|f| f.table.is_known);
        let unread: Vec<&Scope> = scopes.iter().filter(|scope| !is_read(scope)).collect();
        let stands_in = |scope: &Scope| unread.iter().any(|unread| unread.may_follow(scope));
        let leaving = self.following.keys();
        let leaving = leaving.filter(|scope| !scopes.contains(scope) && !stands_in(scope));
        for scope in leaving.cloned().collect::<Vec<_>>() {
            self.following.remove(&scope);
        }
    }

    fn learn(&mut self, id: u64, news: News) {
        let mut following = self.following.iter_mut();
        let Some((scope, following)) = following.find(|(_, following)| following.id == id) else {
            return;
        };
        let change = following.table.learn(news);
        if matches!(change, Change::Nothing) {
            return;
        }
        if scope.resource == Resource::Pods {
            let own = *scope == self.own;
            following.show_pods(&change, |pod| own || pod.node != self.node);
        } else {
            self.shown.moved(scope.resource, &change);
        }
        if matches!(change, Change::All) {
            let scopes = self.scopes();
            self.leave(&scopes);
        }
        if self.due.is_none() {
            let pause = (self.took * 9).clamp(TOGETHER, TOGETHER_AT_MOST);
            self.due = Some(Instant::now() + pause);
        }
    }

    /// Puts together what has changed, and shares the rest with the world before.
    fn world(&mut self) -> KubeWorld {
        let cluster = self.shown.update(&self.wanted, &self.following);
        let own = self.following.get(&self.own);
        KubeWorld {
            own: own.map(|own| Arc::clone(&own.pods)).unwrap_or_default(),
            cluster,
        }
    }
}

impl Following {
    /// Brings the pods that are shown up to date; `is_shown` says which of them may be.
    fn show_pods(&mut self, change: &Change, is_shown: impl Fn(&ClusterPod) -> bool) {
        let shown = |item: &Item| match item {
            Item::Pod(pod) if is_shown(pod) => Some(Arc::clone(pod)),
            Item::Pod(_)
            | Item::Service(_)
            | Item::Endpoints(..)
            | Item::Node(_)
            | Item::ServiceRanges(_) => None,
        };
        match change {
            Change::Nothing => {}
            Change::All => {
                let pods = self.table.items().filter_map(|(_, item)| shown(item));
                self.pods = Arc::new(pods.map(|pod| (pod.uid.clone(), pod)).collect());
            }
            Change::One(one) => {
                let (before, after) = (one.before.as_ref(), one.after.as_ref());
                let (before, after) = (before.and_then(shown), after.and_then(shown));
                if before.is_none() && after.is_none() {
                    return;
                }
                let pods = Arc::make_mut(&mut self.pods);
                if let Some(before) = before {
                    pods.remove_mut(&before.uid);
                }
                if let Some(after) = after {
                    pods.insert_mut(after.uid.clone(), after);
                }
            }
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
