//! The source against a real HTTP server that behaves as badly as the network and API servers do.

mod breaks;
mod ranges;
mod refusals;
mod scopes;
mod world;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sabot_core::model::{
    ClusterPod, ClusterWanted, LabelRequirement, LabelSelector, ObjectName, PodSelector,
};
use sabot_testkit::kube::{FakeCluster, Recorded, Verb};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::limit::ANSWER;
use super::{Backoff, Connection, KubeConfig, KubeState, KubeStatus, KubeWorld, start};
use crate::targets::Wanted;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(20),
    longest: Duration::from_millis(200),
};
const NODE: &str = "node-a";

/// A cluster, and a source that follows it.
struct Rig {
    cluster: FakeCluster,
    wanted: watch::Sender<Wanted>,
    world: watch::Receiver<Arc<KubeWorld>>,
    status: KubeStatus,
}

impl Rig {
    async fn new(wanted: ClusterWanted) -> Self {
        Self::with(FakeCluster::start(), wanted, BACKOFF).await
    }

    async fn with(cluster: FakeCluster, wanted: ClusterWanted, backoff: Backoff) -> Self {
        let config = KubeConfig::find(Some(&cluster.kubeconfig()))
            .await
            .expect("a kubeconfig");
        let connection = Connection::with_times(config, NODE, backoff, ANSWER).expect("a client");
        let status = connection.status();
        let wanted = watch::Sender::new(Wanted {
            cluster: wanted,
            ..Wanted::default()
        });
        let world = start(connection, wanted.subscribe());
        Self {
            cluster,
            wanted,
            world,
            status,
        }
    }

    fn want(&self, cluster: ClusterWanted) {
        self.wanted.send_modify(|wanted| wanted.cluster = cluster);
    }

    fn world(&self) -> Arc<KubeWorld> {
        self.world.borrow().clone()
    }

    /// Waits until the world is as it should be.
    async fn until(&mut self, what: &str, holds: impl FnMut(&KubeWorld) -> bool) -> Arc<KubeWorld> {
        let mut holds = holds;
        let found = timeout(PATIENCE, self.world.wait_for(|world| holds(world))).await;
        let found = found.map(|world| world.expect("the source goes on").clone());
        found.unwrap_or_else(|_| panic!("{what}: {:#?}", self.world()))
    }

    /// Waits until exactly these pods of other nodes are known.
    async fn until_pods(&mut self, names: &[&str]) {
        let expected: BTreeSet<&str> = names.iter().copied().collect();
        self.until(&format!("{names:?}"), |world| {
            let known = elsewhere(world).map(|pod| pod.name.as_str());
            known.collect::<BTreeSet<_>>() == expected
        })
        .await;
    }

    async fn until_state(&self, what: &str, holds: impl Fn(&KubeState) -> bool) {
        until(what, async || holds(&self.status.state())).await;
    }

    async fn until_watches(&self, plural: &str, count: usize) {
        until(&format!("{count} watches of {plural}"), async || {
            self.cluster.watches(plural) == count
        })
        .await;
    }

    fn requests(&self, verb: Verb, plural: &str) -> Vec<Recorded> {
        let mut requests = self.cluster.requests();
        requests.retain(|request| request.verb == verb && request.resource == plural);
        requests
    }
}

/// The pods of other nodes.
fn elsewhere(world: &KubeWorld) -> impl Iterator<Item = &ClusterPod> {
    let sets = world.cluster.pods.values();
    sets.flat_map(|pods| pods.values().map(Arc::as_ref))
}

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let wait = async {
        while !holds().await {
            sleep(LOOK).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "{what} didn't come true");
}

fn pod(name: &str, app: &str, node: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

fn shop(name: &str) -> ObjectName {
    ObjectName {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

fn labelled(app: &str) -> PodSelector {
    PodSelector {
        namespace: "shop".to_owned(),
        name: None,
        labels: LabelSelector {
            requirements: vec![LabelRequirement::In {
                key: "app".to_owned(),
                values: [app.to_owned()].into(),
            }],
        },
    }
}

/// The pods of an app, of all nodes.
fn wanting(app: &str) -> ClusterWanted {
    ClusterWanted {
        pods: vec![labelled(app)],
        ..ClusterWanted::default()
    }
}
