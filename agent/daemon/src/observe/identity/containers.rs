//! The container in which something happened, or that it is about.
//!
//! What happens is known by its cgroup, whose id no other cgroup gets until the machine restarts. The last parts of a
//! container's cgroup's path are its id, which the runtime gives to no other container, and has a name for. A process's id is
//! only a way to the path, and what is found there must be the same cgroup.

mod groups;
mod searches;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use self::groups::Groups;
pub use self::groups::unified_root;
use self::searches::{Missing, Searches};
use crate::observe::ring::OwnedTask;
use crate::targets::{RuntimeContainer, RuntimeContainers};

/// A container that went is still known for this long, since what it did may be told late.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Between two looks at all cgroups, which take some ten microseconds each.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A container, or a pod's sandbox itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    /// Empty for a sandbox.
    pub name: String,
    /// Empty where the pod isn't known.
    pub pod_namespace: String,
    pub pod_name: String,
}

/// Namespace and name of the pod that a sandbox is of.
pub type Pods = Box<dyn Fn(&str) -> Option<(String, String)> + Send + Sync>;

/// A cheap clone for each observer. The default knows none, for those who have no runtime to ask.
#[derive(Clone, Default)]
pub struct Containers {
    shared: Option<Arc<Shared>>,
    _task: Option<Arc<OwnedTask>>,
}

struct Shared {
    known: Mutex<Known>,
    groups: Mutex<Groups>,
    searches: Mutex<Searches>,
    pods: Pods,
    unresolved: AtomicU64,
    /// Somebody met a cgroup or a container that isn't known, and may be found.
    missed: Notify,
}

/// Containers by id: those that the runtime lists, and those that it doesn't list yet, or no longer.
#[derive(Default)]
struct Known {
    listed: Arc<RuntimeContainers>,
    beside: HashMap<String, (RuntimeContainer, Instant)>,
    /// Those that were named with their pods, which may go before they do, and when they were last there.
    named: HashMap<String, (Arc<Container>, Instant)>,
}

impl Known {
    fn get(&self, id: &str) -> Option<&RuntimeContainer> {
        let beside = || self.beside.get(id).map(|(container, _)| container);
        self.listed.get(id).or_else(beside)
    }

    /// The whole of an id of which the beginning is given; as it is where no container, or several have it.
    fn whole<'a>(&'a self, id: &'a str) -> &'a str {
        let mut listed = self
            .listed
            .range::<str, _>((Bound::Included(id), Bound::Unbounded));
        match (listed.next(), listed.next()) {
            (Some((first, _)), second)
                if first.starts_with(id) && second.is_none_or(|(next, _)| !next.starts_with(id)) =>
            {
                first
            }
            _ => id,
        }
    }

    fn follow(&mut self, listed: Arc<RuntimeContainers>, pods: &Pods, now: Instant) {
        let is_fresh = |since: Instant| now.duration_since(since) < REMEMBERED;
        let gone = self.listed.iter().filter(|(id, _)| !listed.contains_key(*id));
        self.beside
            .extend(gone.map(|(id, container)| (id.clone(), (container.clone(), now))));
        self.beside
            .retain(|id, (_, since)| !listed.contains_key(id) && is_fresh(*since));
        self.named.retain(|id, (_, since)| {
            if listed.contains_key(id) || pods(id).is_some() {
                *since = now;
            }
            is_fresh(*since)
        });
        self.listed = listed;
    }
}

/// Begins to follow the runtime's containers. `look` makes the runtime be asked at once. Must be called within a tokio runtime.
pub fn start(
    mut listed: watch::Receiver<Arc<RuntimeContainers>>,
    pods: Pods,
    look: impl Fn() + Send + 'static,
) -> Containers {
    let shared = Arc::new(Shared {
        known: Mutex::default(),
        groups: Mutex::new(Groups::new(unified_root())),
        searches: Mutex::default(),
        pods,
        unresolved: AtomicU64::new(0),
        missed: Notify::new(),
    });
    // Those that are listed already are known to whoever asks next.
    let now = listed.borrow_and_update().clone();
    lock(&shared.known).follow(now, &shared.pods, Instant::now());
    let task = tokio::spawn(follow(Arc::clone(&shared), listed, look));
    Containers {
        shared: Some(shared),
        _task: Some(Arc::new(OwnedTask::new(&task))),
    }
}

async fn follow(
    shared: Arc<Shared>,
    mut listed: watch::Receiver<Arc<RuntimeContainers>>,
    look: impl Fn() + Send + 'static,
) {
    loop {
        let reading = Arc::clone(&shared);
        if spawn_blocking(move || reading.read_groups()).await.is_err() {
            tracing::error!("reading cgroups failed; what is observed gets no new containers");
            return;
        }
        sleep(LOOK_INTERVAL).await;
        tokio::select! {
            changed = listed.changed() => if changed.is_err() {
                return;
            },
            () = shared.missed.notified() => look(),
        }
        let now = listed.borrow_and_update().clone();
        lock(&shared.known).follow(now, &shared.pods, Instant::now());
    }
}

impl Shared {
    /// The lock is not held while they are read.
    fn read_groups(&self) {
        let root = lock(&self.groups).root();
        let found = root.map(groups::read_all).unwrap_or_default();
        lock(&self.groups).replace(found);
        lock(&self.searches).looked(Instant::now());
    }

    fn named(&self, id: &str) -> Option<Arc<Container>> {
        let mut known = lock(&self.known);
        if let Some((container, _)) = known.named.get(id) {
            return Some(Arc::clone(container));
        }
        let (name, pod) = match known.get(id) {
            Some(container) => (container.name.clone(), (self.pods)(&container.sandbox)),
            // A sandbox's own process.
            None => (String::new(), Some((self.pods)(id)?)),
        };
        let is_complete = pod.is_some();
        let (pod_namespace, pod_name) = pod.unwrap_or_default();
        let container = Arc::new(Container {
            id: id.to_owned(),
            name,
            pod_namespace,
            pod_name,
        });
        if is_complete {
            let entry = (Arc::clone(&container), Instant::now());
            known.named.insert(id.to_owned(), entry);
        }
        Some(container)
    }

    fn miss(&self, missing: Missing) {
        self.unresolved.fetch_add(1, Ordering::Relaxed);
        if lock(&self.searches).meet(missing, Instant::now()) {
            self.missed.notify_one();
        }
    }
}

impl Containers {
    /// The container of what happened in a cgroup (0: it isn't known in which), by a process if it is known (else 0).
    /// `None` outside of containers, and where the container can't be found, which is counted.
    pub fn of_cgroup(&self, cgroup: u64, process: u32) -> Option<Arc<Container>> {
        let shared = self.shared.as_ref().filter(|_| cgroup != 0)?;
        let ids = lock(&shared.groups).container_ids(cgroup, process);
        let Some(ids) = ids else {
            shared.miss(Missing::Cgroup(cgroup));
            return None;
        };
        let found = ids.iter().find_map(|id| shared.named(id));
        if let (None, Some(innermost)) = (&found, ids.first()) {
            shared.miss(Missing::Container(innermost.clone()));
        }
        found
    }

    /// The container of this id, or of the only one that begins like this, if the runtime has it, or had it a moment ago. A sandbox is none.
    pub fn of_id(&self, id: &str) -> Option<Arc<Container>> {
        let shared = self.shared.as_ref().filter(|_| !id.is_empty())?;
        let id = lock(&shared.known).whole(id).to_owned();
        shared.named(&id).filter(|container| !container.name.is_empty())
    }

    /// The directories of the cgroups of all containers of this name, in pods of this namespace.
    pub fn cgroups(&self, namespace: &str, name: &str) -> Vec<PathBuf> {
        let Some(shared) = self.shared.as_ref() else {
            return Vec::new();
        };
        let known = lock(&shared.known);
        let beside = known.beside.iter().map(|(id, (container, _))| (id, container));
        let of_name = known.listed.iter().chain(beside).filter(|(_, container)| {
            let pod = || (shared.pods)(&container.sandbox);
            container.name == name && pod().is_some_and(|(of, _)| of == namespace)
        });
        let groups = lock(&shared.groups);
        of_name
            .filter_map(|(id, _)| groups.place(id).map(Path::to_owned))
            .collect()
    }

    /// The sandbox of the container of this id, or of the only one that begins like this.
    pub fn sandbox(&self, id: &str) -> Option<String> {
        let shared = self.shared.as_ref().filter(|_| !id.is_empty())?;
        let known = lock(&shared.known);
        known
            .get(known.whole(id))
            .map(|container| container.sandbox.clone())
    }

    /// Learns of a container before the runtime is asked the next time.
    pub fn learn(&self, id: &str, name: &str, sandbox: &str) {
        let Some(shared) = self
            .shared
            .as_ref()
            .filter(|_| !id.is_empty() && !name.is_empty())
        else {
            return;
        };
        let container = RuntimeContainer {
            name: name.to_owned(),
            sandbox: sandbox.to_owned(),
        };
        let mut known = lock(&shared.known);
        known.beside.insert(id.to_owned(), (container, Instant::now()));
    }

    /// How often the container could not be found of what happened in one.
    pub fn unresolved(&self) -> u64 {
        let shared = self.shared.as_ref();
        shared.map_or(0, |shared| shared.unresolved.load(Ordering::Relaxed))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
