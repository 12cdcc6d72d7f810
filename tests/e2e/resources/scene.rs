//! Nodes with a daemon and pods each, one API server for all of them, and somebody outside whom every pod asks.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, socket_in};
use sabot_testkit::kube::{FakeCluster, Recorded, Verb};
use sabot_testkit::traffic::{ProbeServer, Prober};
use sabot_testkit::wait::{wait_for, wait_until};
use sabot_testkit::{Daemon, DaemonOptions, Lab};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const LOOK: Duration = Duration::from_millis(10);
const PACE: Duration = Duration::from_millis(5);
/// An answer takes less than that.
pub(crate) const IN_FLIGHT: Duration = Duration::from_millis(50);
/// So long without an answer is a cut.
const SILENCE: Duration = Duration::from_millis(150);

/// One node: its daemon, and the runtime that describes its pods.
pub(crate) struct Node {
    name: &'static str,
    flags: Vec<String>,
    /// `None`: it was killed.
    daemon: Option<Daemon>,
    runtime: FakeRuntime,
    folder: TempDir,
}

impl Node {
    /// # Panics
    ///
    /// It isn't running.
    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it runs")
    }

    fn options(&self, lab: &Lab) -> DaemonOptions {
        let mut options = DaemonOptions::built().expect("the daemon is built");
        options.node_name = self.name.to_owned();
        let options = options.netns(lab.node()).runtime(&socket_in(&self.folder));
        let flags: Vec<_> = self.flags.iter().map(String::as_str).collect();
        options.flags(&["--runtime-poll", "50ms"]).flags(&flags)
    }

    /// What `sabot get` says of a fault of the namespace shop, while it is known.
    pub(crate) fn fault(&self, name: &str) -> Option<Value> {
        let words = ["get", name, "--namespace", "shop", "--output", "json"];
        let output = self.daemon().sabot(&words).expect("sabot runs");
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).expect("a document"))
    }
}

pub(crate) struct Scene {
    // What is above ends before what is below.
    probers: Vec<Prober>,
    server: ProbeServer,
    pub(crate) nodes: Vec<Node>,
    pub(crate) cluster: FakeCluster,
    pub(crate) lab: Lab,
}

impl Scene {
    /// Nodes by their names, with as many pods of the label `app=web` each; all pods are of the namespace shop and called
    /// `web-0`, `web-1` and so on. The lab's last pod is nobody's.
    pub(crate) fn new(nodes: &[(&'static str, usize)]) -> Self {
        Self::with_flags(nodes, &[])
    }

    pub(crate) fn with_flags(nodes: &[(&'static str, usize)], flags: &[&str]) -> Self {
        let pods = nodes.iter().map(|(_, pods)| pods).sum();
        let lab = Lab::new(pods + 1).expect("a lab can be made (root is needed)");
        let cluster = FakeCluster::start_in(lab.node());
        let outside = lab.pod(pods);
        let server = ProbeServer::start(outside.netns(), outside.ipv4()).expect("it is started");
        let prober = |pod| Prober::start(lab.pod(pod).netns(), &server, PACE).expect("there is a route");
        let probers = (0..pods).map(prober).collect();
        let kubeconfig = cluster.kubeconfig().display().to_string();
        let mut scene = Self {
            probers,
            server,
            nodes: Vec::new(),
            cluster,
            lab,
        };
        let mut first = 0;
        for &(name, count) in nodes {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let ours = ["--kubeconfig", &kubeconfig];
            let flags = ours.iter().chain(flags);
            scene.nodes.push(Node {
                name,
                flags: flags.map(|&flag| flag.to_owned()).collect(),
                daemon: None,
                runtime: FakeRuntime::start(&socket_in(&folder), "1.6.20", Events::Unimplemented),
                folder,
            });
            let node = scene.nodes.len() - 1;
            for pod in first..first + count {
                scene.run(node, pod, |_| {});
            }
            first += count;
            scene.begin(node);
        }
        scene
    }

    /// A pod begins on a node, as its runtime and the API server tell it; `change` is for the object.
    pub(crate) fn run(&self, node: usize, pod: usize, change: impl FnOnce(&mut Value)) {
        let address = self.lab.pod(pod).ipv4().to_string();
        let name = format!("web-{pod}");
        let mut object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "labels": {"app": "web"}},
            "spec": {"nodeName": self.nodes[node].name, "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        });
        change(&mut object);
        let mut sandbox = FakeSandbox::ready(&name, self.lab.pod(pod).netns().path());
        sandbox.addresses = vec![address];
        sandbox.namespace = text(&object["metadata"]["namespace"]);
        sandbox.labels = serde_json::from_value(object["metadata"]["labels"].clone()).expect("labels");
        self.nodes[node].runtime.put(&name, sandbox);
        self.cluster.apply(object);
    }

    /// The node's daemon begins, and has found its pods when this returns.
    pub(crate) fn begin(&mut self, node: usize) {
        let options = self.nodes[node].options(&self.lab);
        let daemon = Daemon::start(options).expect("the daemon starts");
        let pods = self.nodes[node].runtime.state().sandboxes.len();
        let knows = || {
            let targets = daemon.sabot_json(&["targets"]).expect("it answers");
            targets["targets"]
                .as_array()
                .is_some_and(|list| list.len() == pods)
        };
        assert!(wait_until(PATIENCE, LOOK, knows), "it doesn't find its pods");
        self.nodes[node].daemon = Some(daemon);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, node: usize) {
        let mut daemon = self.nodes[node].daemon.take().expect("it runs");
        daemon.kill9().expect("it ends");
    }

    pub(crate) fn status(&self, name: &str) -> Value {
        let fault = self.cluster.get("networkfaults", "shop", name);
        fault.expect("the resource is there")["status"].clone()
    }

    /// Waits for the first status that is as it should be.
    pub(crate) fn wait_status(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let found = wait_for(PATIENCE, LOOK, || Some(self.status(name)).filter(&holds));
        found.unwrap_or_else(|| panic!("{name}: {what} is not seen: {:#}", self.status(name)))
    }

    pub(crate) fn wait_phase(&self, name: &str, phase: &str) -> Value {
        self.wait_status(name, phase, |status| status["phase"] == phase)
    }

    /// Where the probes go to.
    pub(crate) fn outside(&self) -> SocketAddr {
        self.server.address()
    }

    pub(crate) fn prober(&self, pod: usize) -> &Prober {
        &self.probers[pod]
    }

    /// No probe of the pod was answered for a while.
    pub(crate) fn is_cut(&self, pod: usize) -> bool {
        let until = Instant::now() - IN_FLIGHT;
        let seen = self.probers[pod].passage(until - SILENCE, until);
        seen.sent > 5 && seen.answered == 0
    }

    pub(crate) fn wait_cut(&self, pod: usize) {
        assert!(
            wait_until(PATIENCE, LOOK, || self.is_cut(pod)),
            "pod {pod} isn't cut off"
        );
    }

    /// Waits until a probe that is sent from now on passes; returns when.
    pub(crate) fn wait_pass(&self, pod: usize) -> SystemTime {
        let passed = self.probers[pod].wait_pass(Instant::now(), PATIENCE);
        passed.unwrap_or_else(|| panic!("pod {pod} is still cut off"));
        SystemTime::now()
    }

    /// Waits for an event with this reason about this kind of object.
    pub(crate) fn wait_event(&self, reason: &str, kind: &str, name: &str) -> Value {
        let find = || {
            let events = self.cluster.objects("events");
            events.into_iter().find(|event| {
                let about = &event["regarding"];
                event["reason"] == reason && about["kind"] == kind && about["name"] == name
            })
        };
        let found = wait_for(PATIENCE, LOOK, find);
        found.unwrap_or_else(|| panic!("no {reason} about {name}: {:#?}", self.cluster.objects("events")))
    }

    /// The writes to statuses, with their codes.
    pub(crate) fn writes(&self) -> Vec<Recorded> {
        let mut requests = self.cluster.requests();
        requests.retain(|request| request.verb == Verb::Patch && request.resource == "networkfaults");
        requests
    }
}

/// A partition of the namespace's `app: web`.
pub(crate) fn cut(name: &str, duration: &str) -> Value {
    json!({
        "apiVersion": "sabot.dev/v1alpha1",
        "kind": "NetworkFault",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "duration": duration,
            "target": {"pods": {"selector": {"matchLabels": {"app": "web"}}}},
            "action": {"partition": {}},
        },
    })
}

/// What a node has written.
pub(crate) fn part(status: &Value, node: &str) -> Value {
    let mut parts = status["nodes"].as_array().into_iter().flatten();
    let part = parts.find(|part| part["node"] == node);
    part.cloned().unwrap_or_default()
}

pub(crate) fn nodes(status: &Value) -> Vec<String> {
    let parts = status["nodes"].as_array().into_iter().flatten();
    parts.map(|part| text(&part["node"])).collect()
}

pub(crate) fn condition(status: &Value, kind: &str) -> Value {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let condition = conditions.find(|condition| condition["type"] == kind);
    condition.cloned().unwrap_or_default()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An RFC 3339 time.
pub(crate) fn time(value: &Value) -> SystemTime {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    humantime::parse_rfc3339(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// How far two instants are apart.
pub(crate) fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}
