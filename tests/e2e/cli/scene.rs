//! A daemon with two pods, and `sabot` run against it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use sabot_testkit::traffic::ping;
use sabot_testkit::{Daemon, DaemonOptions, Lab};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Scene {
    // Ends before the lab does.
    pub(crate) daemon: Daemon,
    pub(crate) lab: Lab,
}

impl Scene {
    pub(crate) fn new(flags: &[&str]) -> Self {
        Self::with(DaemonOptions::built().expect("the daemon is built").flags(flags))
    }

    pub(crate) fn with(options: DaemonOptions) -> Self {
        let lab = Lab::new(2).expect("a lab can be made (root is needed)");
        let daemon = Daemon::start(options.netns(lab.node())).expect("the daemon starts");
        Self { daemon, lab }
    }

    /// The options that name the first pod as the target and the second one as its peer.
    pub(crate) fn ends(&self) -> String {
        format!(
            "--target {} --peer ip:{} --for 60s",
            self.lab.pod(0).target(),
            self.lab.pod(1).ipv4()
        )
    }

    pub(crate) fn run(&self, line: &str) -> Output {
        let words: Vec<_> = line.split_whitespace().collect();
        self.daemon.sabot(&words).expect("sabot runs")
    }

    /// What a command that succeeds prints.
    pub(crate) fn ok(&self, line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().collect();
        self.daemon
            .sabot_ok(&words)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub(crate) fn json(&self, line: &str) -> Value {
        let words: Vec<_> = line.split_whitespace().collect();
        self.daemon
            .sabot_json(&words)
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn with_input(&self, line: &str, input: &str) -> Output {
        let words: Vec<_> = line.split_whitespace().collect();
        let mut child = self
            .daemon
            .sabot_command(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sabot runs");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("sabot reads");
        drop(stdin);
        child.wait_with_output().expect("sabot ends")
    }

    /// A document of `apply -f`.
    pub(crate) fn manifest(&self, name: &str, action: &str) -> String {
        let (target, peer) = (self.lab.pod(0).netns().path().display(), self.lab.pod(1).ipv4());
        format!(
            "---\napiVersion: sabot.dev/v1alpha1\nkind: NetworkFault\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  duration: 60s\n  target: {{netns: {target}}}\n  peers: [{{ip: {peer}}}]\n  action: {action}\n"
        )
    }

    pub(crate) fn answers(&self) -> bool {
        let report = ping(
            self.lab.pod(0).netns(),
            self.lab.pod(1).ipv4(),
            1,
            Duration::from_millis(10),
        );
        report.expect("ping runs").median().is_some()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let faults = self.json("get --active");
        let faults = faults["faults"].as_array().expect("a list");
        let name = |fault: &Value| fault["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        faults.iter().map(name).collect()
    }
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

/// A command that runs beside the test; its lines are documents. It is killed with its guard.
pub(crate) struct Stream {
    child: Child,
    pub(crate) documents: Receiver<Value>,
}

impl Stream {
    pub(crate) fn start(scene: &Scene, line: &str) -> Self {
        let words: Vec<_> = line.split_whitespace().collect();
        let mut command = scene.daemon.sabot_command(&words);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("sabot runs");
        let output = child.stdout.take().expect("it is piped");
        let (sender, documents) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let document = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no document: {line}"));
                // Nobody listens any more when the test is over.
                let _ = sender.send(document);
            }
        });
        Self { child, documents }
    }

    /// The next document that is as `holds` says.
    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let document = self.documents.recv_timeout(PATIENCE);
            let document = document.unwrap_or_else(|_| panic!("waited in vain for {what}"));
            if holds(&document) {
                return document;
            }
        }
    }

    /// How it ends by itself.
    pub(crate) fn end(mut self) -> Option<i32> {
        self.child.wait().expect("it can be waited for").code()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
