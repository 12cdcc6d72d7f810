//! Nodes with engines of their own around one scripted API server, in real time.

use std::time::{Duration, Instant};

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use sabot_core::Limits;
use sabot_testkit::kube::FakeCluster;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::audit::AuditLog;
use crate::engine::handle::FaultView;
use crate::engine::tests::rig::{Rig, pod};
use crate::resources::{Parts, start};
use crate::targets::kube::{KubeState, Lacks};
use sabot_core::model::FaultName;

pub(super) const PATIENCE: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(10);

/// A node's daemon without a kernel.
pub(super) struct Node {
    pub(super) rig: Rig,
    task: JoinHandle<()>,
}

impl Node {
    pub(super) async fn start(cluster: &FakeCluster, name: &str) -> Self {
        let rig = Rig::new();
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("a configuration");
        // So that the pauses between tries are ours.
        config.default_retry = false;
        let version = "v1.33.1".to_owned();
        let (_, state) = tokio::sync::watch::channel(KubeState::Ready { version });
        let task = start(Parts {
            state,
            lacks: Lacks::default(),
            client: Client::try_from(config).expect("a client"),
            node: name.to_owned(),
            engine: rig.handle.clone(),
            limits: Limits::default(),
            audit: AuditLog::default(),
        });
        Self { rig, task }
    }

    /// One that has a pod of the label `app: web`.
    pub(super) async fn with_web(cluster: &FakeCluster, name: &str) -> Self {
        let node = Self::start(cluster, name).await;
        node.rig.world.add_pod(pod(&format!("web-{name}"), "web", 1));
        node
    }

    /// As if it were killed: nothing more is written.
    pub(super) async fn kill(self) {
        self.task.abort();
        self.rig.stop().await.expect("the engine ends");
    }

    pub(super) fn fault(&self, namespace: &str, name: &str) -> Option<FaultView> {
        let name = FaultName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        self.rig.handle.snapshot().faults.get(&name).cloned()
    }
}

/// A partition of the namespace's `app: web`, for this long.
pub(super) fn cut(name: &str, duration: &str) -> Value {
    json!({
        "apiVersion": "sabot.dev/v1alpha1",
        "kind": "NetworkFault",
        "metadata": {"name": name, "namespace": "shop", "generation": 1},
        "spec": {
            "duration": duration,
            "target": {"pods": {"selector": {"matchLabels": {"app": "web"}}}},
            "action": {"partition": {}},
        },
    })
}

pub(super) fn status(cluster: &FakeCluster, name: &str) -> Value {
    let fault = cluster.get("networkfaults", "shop", name).expect("the resource");
    fault["status"].clone()
}

pub(super) fn node_part(status: &Value, node: &str) -> Value {
    let mut nodes = status["nodes"].as_array().into_iter().flatten();
    nodes
        .rfind(|part| part["node"] == node)
        .cloned()
        .unwrap_or_default()
}

pub(super) fn condition(status: &Value, kind: &str) -> Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut found = conditions.filter(|condition| condition["type"] == kind);
    found.next().cloned().unwrap_or_default()
}

/// Waits until it is true.
pub(super) async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_true() {
        assert!(begin.elapsed() < PATIENCE, "{what} didn't come true");
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn until_phase(cluster: &FakeCluster, name: &str, phase: &str) -> Value {
    let begin = Instant::now();
    loop {
        let status = status(cluster, name);
        if status["phase"] == phase {
            return status;
        }
        assert!(begin.elapsed() < PATIENCE, "{name} is not {phase} but {status:#}");
        tokio::time::sleep(LOOK).await;
    }
}
