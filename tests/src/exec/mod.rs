//! An API server that knows pods and runs commands in them: as much of it as the cluster-wide client needs.
//!
//! The list of pods is answered in pages, and `exec` is the real WebSocket protocol. What runs in a pod is a real process
//! on this machine, with the pod's own environment.

mod http;
mod process;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The versions of the protocol; only the newer one can close one direction of a stream alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    V4,
    V5,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4.channel.k8s.io",
            Self::V5 => "v5.channel.k8s.io",
        }
    }
}

/// A pod, and what there is in it.
#[derive(Clone, Debug)]
pub struct ExecPod {
    pub name: String,
    pub node: String,
    pub labels: BTreeMap<String, String>,
    /// `Running`, unless it is about something else.
    pub phase: String,
    /// The commands that its container has, each with the program that it really is.
    pub programs: BTreeMap<String, PathBuf>,
    pub environment: BTreeMap<String, String>,
    /// Whoever wants to run something in it is told that they may not.
    pub forbidden: bool,
}

impl ExecPod {
    /// A daemon's pod as the manifests make it, which runs `sabotd`; its daemon serves this socket.
    pub fn daemon(node: &str, sabotd: &Path, socket: &Path) -> Self {
        let labels = [("name", "sabot"), ("component", "daemon")];
        Self {
            name: format!("sabot-{node}"),
            node: node.to_owned(),
            labels: labels
                .map(|(key, value)| (format!("app.kubernetes.io/{key}"), value.to_owned()))
                .into(),
            phase: "Running".to_owned(),
            programs: [("sabotd".to_owned(), sabotd.to_owned())].into(),
            environment: [("SABOT_SOCKET".to_owned(), socket.display().to_string())].into(),
            forbidden: false,
        }
    }

    fn object(&self, namespace: &str) -> Value {
        json!({
            "metadata": {"name": self.name, "namespace": namespace, "labels": self.labels},
            "spec": {"nodeName": self.node, "containers": [{"name": "sabotd", "image": "sabot"}]},
            "status": {"phase": self.phase},
        })
    }
}

/// Dropping it ends it, its connections and what runs in its pods.
pub struct ExecServer {
    shared: Arc<Shared>,
    folder: TempDir,
    runtime: Option<Runtime>,
}

struct Shared {
    namespace: String,
    protocol: Protocol,
    /// Pods in one answer at most.
    page: usize,
    pods: Mutex<Vec<ExecPod>>,
    running: AtomicUsize,
    most_running: AtomicUsize,
    ran: AtomicUsize,
}

impl Shared {
    fn pods(&self) -> MutexGuard<'_, Vec<ExecPod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one command as running while it lives.
struct Running(Arc<Shared>);

impl Running {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.ran.fetch_add(1, Ordering::SeqCst);
        let now = shared.running.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_running.fetch_max(now, Ordering::SeqCst);
        Self(shared.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ExecServer {
    /// Serves a cluster whose daemons are in `namespace`.
    ///
    /// # Errors
    ///
    /// No port is free, or the kubeconfig can't be written.
    pub fn start(namespace: &str, protocol: Protocol, page: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .context("no free port")?;
        let folder = tempfile::tempdir()?;
        fs::write(
            folder.path().join("kubeconfig"),
            kubeconfig(listener.local_addr()?),
        )?;
        let shared = Arc::new(Shared {
            namespace: namespace.to_owned(),
            protocol,
            page,
            pods: Mutex::default(),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            ran: AtomicUsize::new(0),
        });
        runtime.spawn(http::serve(listener, shared.clone()));
        Ok(Self {
            shared,
            folder,
            runtime: Some(runtime),
        })
    }

    /// Adds a pod, or replaces the one of its name.
    pub fn put(&self, pod: ExecPod) {
        let mut pods = self.shared.pods();
        pods.retain(|other| other.name != pod.name);
        pods.push(pod);
    }

    /// The way to this server; its contexts are `main`, which is the current one, and `dead`, where nobody answers.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Commands that run in its pods now.
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::SeqCst)
    }

    /// The most that ran at one moment.
    pub fn most_running(&self) -> usize {
        self.shared.most_running.load(Ordering::SeqCst)
    }

    /// All that were ever started.
    pub fn ran(&self) -> usize {
        self.shared.ran.load(Ordering::SeqCst)
    }
}

impl Drop for ExecServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn kubeconfig(address: SocketAddr) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "main", "cluster": {"server": format!("http://{address}")}},
            {"name": "dead", "cluster": {"server": "http://127.0.0.1:9"}},
        ],
        "users": [{"name": "somebody", "user": {}}],
        "contexts": [
            {"name": "main", "context": {"cluster": "main", "user": "somebody"}},
            {"name": "dead", "context": {"cluster": "dead", "user": "somebody"}},
        ],
        "current-context": "main",
    });
    config.to_string()
}
