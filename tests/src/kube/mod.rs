//! A Kubernetes API server that does what a test tells it: lists, gets, writes and real watch streams over HTTP/1.1, from a
//! store in memory. It knows no authentication and no validation.

mod apply;
mod resources;
mod script;
mod select;
mod serve;
mod store;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};

use self::apply::Managed;
use self::resources::{RESOURCES, Resource};
use self::script::Script;
use self::serve::{Shared, lock};
use self::store::{Key, Object, Store, key_of, resource_of};
use self::watch::Watches;
use crate::netns::NetnsRef;
use crate::wait::wait_until;

pub use self::resources::Verb;
pub use self::script::{Effect, Recorded, Rule};
pub use self::watch::Order;

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);

/// What the server is made of, behind one lock: whoever watches has seen all that is stored, or will.
#[derive(Debug, Default)]
struct Core {
    store: Store,
    managed: BTreeMap<Key, Managed>,
    watches: Watches,
    script: Script,
    /// Resources that aren't installed.
    missing: BTreeSet<&'static str>,
}

impl Core {
    /// Writes what no manager owns.
    fn replace(&mut self, resource: &'static Resource, value: Value) {
        let key = key_of(resource, &value);
        let mut managed = self.managed.get(&key).cloned().unwrap_or_default();
        managed.replace(value, resource.has_status);
        self.write(resource, &key, managed);
    }

    fn write(&mut self, resource: &'static Resource, key: &Key, managed: Managed) {
        if let Some(change) = self.store.put(resource, managed.value()) {
            self.watches.tell(&change);
        }
        self.managed.insert(key.clone(), managed);
    }

    /// Returns its last state.
    fn delete(&mut self, key: &Key) -> Option<Arc<Object>> {
        self.managed.remove(key);
        let change = self.store.delete(key)?;
        self.watches.tell(&change);
        Some(change.new)
    }
}

/// Drop it to take the server down. It may be used with and without a tokio runtime around it.
#[derive(Debug)]
pub struct FakeCluster {
    core: Shared,
    netns: Option<NetnsRef>,
    address: SocketAddr,
    /// Its own, so that its connections end with it; `None` while the server is away.
    server: Option<Runtime>,
    folder: TempDir,
}

impl FakeCluster {
    /// An empty cluster on a port of the loopback address.
    ///
    /// # Panics
    ///
    /// It can't be served.
    pub fn start() -> Self {
        Self::serve(None).expect("the API server can't be started")
    }

    /// The same inside a network namespace, on its loopback address.
    ///
    /// # Panics
    ///
    /// It can't be served.
    pub fn start_in(netns: &NetnsRef) -> Self {
        Self::serve(Some(netns.clone())).expect("the API server can't be started")
    }

    fn serve(netns: Option<NetnsRef>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("sabot-kube-").tempdir()?;
        let core: Shared = Arc::new(Mutex::new(Core::default()));
        let listener = bind(netns.as_ref(), (Ipv4Addr::LOCALHOST, 0).into())?;
        let address = listener.local_addr()?;
        let server = Some(spawn(listener, core.clone())?);
        let cluster = Self {
            core,
            netns,
            address,
            server,
            folder,
        };
        fs::write(cluster.kubeconfig(), cluster.kubeconfig_text()).context("no kubeconfig")?;
        Ok(cluster)
    }

    fn kubeconfig_text(&self) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "fake", "user": {}}],
        })
        .to_string()
    }

    /// The file that leads clients here; it goes with the cluster.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes the server away: its connections break, and new ones are refused.
    pub fn go_away(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }

    /// Serves again at the same address, with everything that was written before and in the meantime.
    ///
    /// # Panics
    ///
    /// The address was taken.
    pub fn come_back(&mut self) {
        let mut listener = None;
        // The old one's socket closes in the background.
        wait_until(PATIENCE, LOOK, || {
            listener = bind(self.netns.as_ref(), self.address).ok();
            listener.is_some()
        });
        let listener = listener.expect("the API server's address is taken");
        let server = spawn(listener, self.core.clone());
        self.server = Some(server.expect("the API server can't be started again"));
    }

    /// Creates an object, or replaces it but for what managers have applied; `metadata`'s uid, versions and times are filled
    /// in where they aren't given. A status that isn't given stays.
    ///
    /// # Panics
    ///
    /// Its kind is unknown.
    pub fn apply(&self, object: Value) {
        let resource = resource_of(&object);
        lock(&self.core).replace(resource, object);
    }

    /// Deletes an object, with an empty namespace if it is one of the cluster; whether it was there.
    ///
    /// # Panics
    ///
    /// No resource has this plural.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) -> bool {
        let key = (known(plural), namespace.to_owned(), name.to_owned());
        lock(&self.core).delete(&key).is_some()
    }

    /// An object as it is now.
    ///
    /// # Panics
    ///
    /// No resource has this plural.
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (known(plural), namespace.to_owned(), name.to_owned());
        lock(&self.core).store.get(&key).map(|object| object.value())
    }

    /// All objects of a resource.
    ///
    /// # Panics
    ///
    /// No resource has this plural.
    pub fn objects(&self, plural: &str) -> Vec<Value> {
        let scope = store::Scope {
            plural: known(plural),
            namespace: None,
            labels: select::Selector::default(),
            fields: select::Selector::default(),
        };
        lock(&self.core)
            .store
            .list(&scope)
            .map(|object| object.value())
            .collect()
    }

    /// Makes requests for a resource fail as before its CRD is there.
    ///
    /// # Panics
    ///
    /// No resource has this plural.
    pub fn uninstall(&self, plural: &str) {
        lock(&self.core).missing.insert(known(plural));
    }

    /// The opposite of [`Self::uninstall`].
    ///
    /// # Panics
    ///
    /// No resource has this plural.
    pub fn install(&self, plural: &str) {
        lock(&self.core).missing.remove(known(plural));
    }

    /// From now on, some requests aren't answered as they should be.
    pub fn script(&self, rule: Rule) {
        lock(&self.core).script.add(rule);
    }

    /// Every request is answered well again.
    pub fn clear_script(&self) {
        lock(&self.core).script.clear();
    }

    /// Every request for a resource that was made so far; those that weren't even read are not among them.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.core).script.records()
    }

    /// Watches of a resource that are open, as far as the server has noticed.
    pub fn watches(&self, plural: &str) -> usize {
        lock(&self.core).watches.count(plural)
    }

    /// Waits until so many watches of a resource are open; whether that came true.
    pub fn wait_for_watches(&self, plural: &str, count: usize) -> bool {
        wait_until(PATIENCE, LOOK, || self.watches(plural) == count)
    }

    /// Ends the watches of a resource in an orderly way, as after their time.
    pub fn end_watches(&self, plural: &str) {
        lock(&self.core).watches.end(plural);
    }

    /// Breaks their connections in the middle of an event.
    pub fn cut_watches(&self, plural: &str) {
        lock(&self.core).watches.cut(plural);
    }

    /// Forgets what has happened so far, to everything, and says so to the watches of a resource: 410 Gone.
    pub fn expire_watches(&self, plural: &str) {
        let mut core = lock(&self.core);
        core.store.compact();
        core.watches.expire(plural);
    }

    /// Forgets what has happened so far, to everything: watches from older versions are refused with 410 Gone.
    pub fn compact(&self) {
        lock(&self.core).store.compact();
    }

    /// Sends a bookmark to those watches of a resource that want some.
    pub fn bookmark(&self, plural: &str) {
        let mut core = lock(&self.core);
        let version = core.store.version();
        core.watches.bookmark(plural, version);
    }

    /// Sends the last events of each watch of a resource again, up to 16 of them.
    pub fn repeat_events(&self, plural: &str) {
        lock(&self.core).watches.repeat(plural);
    }

    /// Keeps the events of a resource back until they are released.
    ///
    /// # Panics
    ///
    /// No resource has this plural.
    pub fn hold_events(&self, plural: &str) {
        lock(&self.core).watches.hold(known(plural));
    }

    /// Sends the events that were held.
    ///
    /// # Panics
    ///
    /// No resource has this plural.
    pub fn release_events(&self, plural: &str, order: Order) {
        lock(&self.core).watches.release(known(plural), order);
    }
}

impl Drop for FakeCluster {
    fn drop(&mut self) {
        self.go_away();
    }
}

fn known(plural: &str) -> &'static str {
    let known = RESOURCES.iter().find(|r| r.plural == plural);
    known
        .unwrap_or_else(|| panic!("no such resource: {plural}"))
        .plural
}

fn bind(netns: Option<&NetnsRef>, address: SocketAddr) -> io::Result<TcpListener> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    match netns {
        Some(netns) => netns.run(bind),
        None => bind(),
    }
}

fn spawn(listener: TcpListener, core: Shared) -> io::Result<Runtime> {
    let server = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("fake-kube")
        .enable_all()
        .build()?;
    let context = server.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    drop(context);
    let router = Router::new().fallback(serve::handle).with_state(core);
    server.spawn(async move { axum::serve(listener, router).await });
    Ok(server)
}
