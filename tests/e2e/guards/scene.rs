//! A daemon on a node of pods that a runtime describes as a test wants it to.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, socket_in};
use sabot_testkit::traffic::ping;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Daemon, DaemonOptions, Lab, NetnsRef};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const FAILED: i32 = 1;
pub(crate) const USAGE: i32 = 2;
pub(crate) const NOT_REACHABLE: i32 = 3;
pub(crate) const REFUSED: i32 = 4;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// A connection in the lab takes a fraction of a millisecond; a SYN that is lost is sent again after a second.
const CONNECT: Duration = Duration::from_millis(2500);

pub(crate) struct Scene {
    // What is above ends before what is below.
    pub(crate) daemon: Daemon,
    pub(crate) runtime: FakeRuntime,
    pub(crate) folder: TempDir,
    pub(crate) lab: Lab,
}

impl Scene {
    pub(crate) fn new(pods: usize, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::in_folder(folder, pods, flags)
    }

    /// With files that the flags name.
    pub(crate) fn in_folder(folder: TempDir, pods: usize, flags: &[&str]) -> Self {
        let lab = Lab::new(pods).expect("a lab can be made (root is needed)");
        let socket = socket_in(&folder);
        let runtime = FakeRuntime::start(&socket, "1.6.20", Events::Unimplemented);
        let options = DaemonOptions::built().expect("the daemon is built");
        let options = options.netns(lab.node()).runtime(&socket);
        let options = options.flags(&["--runtime-poll", "50ms"]).flags(flags);
        let daemon = Daemon::start(options).expect("the daemon starts");
        Self {
            daemon,
            runtime,
            folder,
            lab,
        }
    }

    /// The runtime runs a pod in this namespace of the lab from now on.
    pub(crate) fn run(&self, index: usize, name: &str, change: impl FnOnce(&mut FakeSandbox)) {
        let pod = self.lab.pod(index);
        let mut sandbox = FakeSandbox::ready(name, pod.netns().path());
        sandbox.addresses = vec![pod.ipv4().to_string()];
        change(&mut sandbox);
        let namespace = sandbox.namespace.clone();
        self.runtime.put(&format!("sandbox-{index}"), sandbox);
        let known = || {
            let targets = self.daemon.sabot_json(&["targets", "--namespace", &namespace]);
            let targets = targets.expect("they are listed");
            let pods = targets["targets"].as_array().expect("a list").clone();
            pods.iter().any(|pod| pod["pod"]["name"] == name)
        };
        assert!(wait_until(PATIENCE, LOOK, known), "{name} isn't seen");
    }

    pub(crate) fn sabot(&self, line: &str) -> Output {
        let words: Vec<_> = line.split_whitespace().collect();
        self.daemon.sabot(&words).expect("sabot runs")
    }

    pub(crate) fn ok(&self, line: &str) -> String {
        let output = self.sabot(line);
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The command must be refused with exit code 4, say all of these, and leave no fault.
    pub(crate) fn assert_refused(&self, line: &str, says: &[&str]) {
        let before = self.faults();
        let output = self.sabot(line);
        assert_says(&output, REFUSED, says);
        assert_eq!(self.faults(), before, "{line} changed what is known");
    }

    /// What they are and how it is with them; their counters aside, which go on.
    pub(crate) fn faults(&self) -> Value {
        let mut listed = self.daemon.sabot_json(&["get"]).expect("they are listed");
        for fault in listed["faults"].as_array_mut().expect("a list") {
            fault["status"] = fault["status"]["phase"].take();
        }
        listed
    }

    /// Whether one pod gets an answer from another.
    pub(crate) fn answers(&self, from: usize, to: usize) -> bool {
        answers(self.lab.pod(from).netns(), self.lab.pod(to).ipv4())
    }
}

pub(crate) fn answers(netns: &NetnsRef, to: IpAddr) -> bool {
    let report = ping(netns, to, 3, Duration::from_millis(20)).expect("ping runs");
    !report.round_trips.is_empty()
}

/// Whether a TCP connection is made.
pub(crate) fn connects(from: &NetnsRef, to: SocketAddr) -> bool {
    from.run(|| TcpStream::connect_timeout(&to, CONNECT).is_ok())
}

/// Accepts connections inside a namespace until the test ends.
pub(crate) fn listen(netns: &NetnsRef, port: u16) {
    let listener = netns.run(|| TcpListener::bind(("0.0.0.0", port)).expect("the port is free"));
    thread::spawn(move || for _connection in listener.incoming() {});
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn assert_says(output: &Output, exit: i32, says: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(exit), "{said}");
    for part in says {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

/// A command's words after others.
pub(crate) fn with_words(mut command: Command, line: &str) -> Command {
    command.args(line.split_whitespace());
    command
}
