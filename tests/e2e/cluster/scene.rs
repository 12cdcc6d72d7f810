//! Several nodes, each with a daemon and two pods, and the API server that leads to them.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, socket_in};
use sabot_testkit::exec::{ExecPod, ExecServer, Protocol};
use sabot_testkit::traffic::ping;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Daemon, DaemonOptions, Lab};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const LOOK: Duration = Duration::from_millis(20);
const PODS: [&str; 2] = ["a", "b"];
const NAMESPACE: &str = "sabot";

/// A node with the pods shop/a and shop/b, whose labels are `app=a` and `app=b`.
pub(crate) struct Node {
    // What is above ends before what is below.
    pub(crate) daemon: Daemon,
    _runtime: FakeRuntime,
    _folder: TempDir,
    pub(crate) lab: Lab,
    pub(crate) name: String,
}

impl Node {
    fn new(name: &str, flags: &[&str]) -> Self {
        let lab = Lab::new(PODS.len()).expect("a lab can be made (root is needed)");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = socket_in(&folder);
        let runtime = FakeRuntime::start(&socket, "1.6.20", Events::Unimplemented);
        for (pod, name) in lab.pods().iter().zip(PODS) {
            let sandbox = FakeSandbox {
                addresses: vec![pod.ipv4().to_string(), pod.ipv6().to_string()],
                ..FakeSandbox::ready(name, pod.netns().path())
            };
            runtime.put(name, sandbox);
        }
        let mut options = DaemonOptions::built().expect("the daemon is built");
        options.node_name = name.to_owned();
        let options = options.netns(lab.node()).runtime(&socket).flags(flags);
        let daemon = Daemon::start(options).expect("the daemon starts");
        let node = Self {
            daemon,
            _runtime: runtime,
            _folder: folder,
            lab,
            name: name.to_owned(),
        };
        let knows = || node.targets() == PODS.len();
        assert!(wait_until(PATIENCE, LOOK, knows), "{name} doesn't find its pods");
        node
    }

    fn targets(&self) -> usize {
        let targets = self.daemon.sabot_json(&["targets"]).expect("it answers");
        targets["targets"].as_array().map_or(0, Vec::len)
    }

    pub(crate) fn exec_pod(&self) -> ExecPod {
        ExecPod::daemon(&self.name, &sabotd(), &self.daemon.socket())
    }

    /// Whether one of its pods reaches the other.
    pub(crate) fn answers(&self) -> bool {
        let report = ping(
            self.lab.pod(0).netns(),
            self.lab.pod(1).ipv4(),
            1,
            Duration::from_millis(10),
        );
        report.expect("ping runs").median().is_some()
    }
}

pub(crate) fn sabotd() -> PathBuf {
    DaemonOptions::built().expect("the daemon is built").sabotd
}

pub(crate) struct Scene {
    pub(crate) server: ExecServer,
    pub(crate) nodes: Vec<Node>,
}

impl Scene {
    pub(crate) fn new(nodes: &[&str]) -> Self {
        Self::with(nodes, Protocol::V5, &[])
    }

    pub(crate) fn with(nodes: &[&str], protocol: Protocol, flags: &[&str]) -> Self {
        // Two pods a page, so that the client has to go on.
        let server = ExecServer::start(NAMESPACE, protocol, 2).expect("the server starts");
        let nodes: Vec<_> = nodes.iter().map(|name| Node::new(name, flags)).collect();
        for node in &nodes {
            server.put(node.exec_pod());
        }
        Self { server, nodes }
    }

    /// `sabot` with these words, against the cluster.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(DaemonOptions::built().expect("sabot is built").sabot);
        command
            .env_remove("KUBECONFIG")
            .env_remove("SABOT_SOCKET")
            .arg("--kubeconfig")
            .arg(self.server.kubeconfig())
            .args(line.split_whitespace())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("sabot runs")
    }

    /// What a command that succeeds prints.
    pub(crate) fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(code(&output), Some(0), "sabot {line}: {}", stderr(&output));
        assert!(stderr(&output).is_empty(), "sabot {line}: {}", stderr(&output));
        stdout(&output)
    }

    pub(crate) fn json(&self, line: &str) -> Value {
        let text = self.ok(&format!("{line} -o json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("sabot {line}: {error}: {text}"))
    }

    pub(crate) fn answers(&self) -> Vec<bool> {
        self.nodes.iter().map(Node::answers).collect()
    }
}

/// A field of every item of a list, as text.
pub(crate) fn column(list: &Value, field: &str) -> Vec<String> {
    let text = |item: &Value| item[field].as_str().unwrap_or_default().to_owned();
    list.as_array().expect("a list").iter().map(text).collect()
}

pub(crate) fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
