//! The runtime's system calls, seen while pods start and stop.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use sabot_testkit::cri::PodSpec;
use sabot_testkit::metrics::Scrape;
use sabot_testkit::wait::{wait_for, wait_until};
use serde_json::Value;

use crate::node::{LOOK, Node, PATIENCE};

const COUNT: &str = "sabot_syscall_duration_seconds_count";
const SUM: &str = "sabot_syscall_duration_seconds_sum";
const BUCKET: &str = "sabot_syscall_duration_seconds_bucket";
/// Without an event for this long after a pod's end, none comes any more.
const QUIET: Duration = Duration::from_secs(2);

/// The last ones live for some milliseconds at a time: they are known by their name when it is theirs.
const PROCESSES: [&str; 5] = ["containerd", "containerd-shim", "runc", "bridge", "host-local"];
/// Pods that are started, at most, until a failed call of each process was streamed.
const PODS: usize = 5;

/// Failed calls as they happen, until it is dropped.
struct Failures {
    child: Child,
    events: Receiver<Value>,
}

impl Failures {
    fn follow(node: &Node) -> Self {
        let mut child = node
            .daemon
            .sabot_command(&["events", "-o", "json", "--type", "syscall", "--failed"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("sabot runs");
        let output = child.stdout.take().expect("it is piped");
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).expect("each line is a document");
                // Nobody listens any more when the test is over.
                let _ = sender.send(event);
            }
        });
        Self { child, events }
    }

    /// The next failed call of a process.
    fn of(&self, process: &str) -> Option<Value> {
        let is_of = |event: &Value| event["type"] == "syscall" && event["process"] == process;
        wait_for(QUIET, LOOK, || self.events.try_iter().find(is_of))
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn calls(scrape: &Scrape, process: &str) -> f64 {
    scrape.sum(COUNT, &[("process", process)])
}

#[test]
fn syscalls_are_counted_while_pods_start_and_stop() {
    let node = Node::start();
    let before = node.daemon.scrape().expect("metrics are served");
    let pod = node.pod(&PodSpec::idle("team-a", "web"));
    let started = node.daemon.scrape().expect("metrics are served");
    node.containerd.stop_pod(&pod).expect("the pod ends");
    let stopped = node.daemon.scrape().expect("metrics are served");
    for process in PROCESSES {
        let counts = [&before, &started, &stopped].map(|scrape| calls(scrape, process));
        assert!(
            counts.windows(2).all(|pair| pair[0] < pair[1]),
            "{process}: {counts:?} calls before, after the start and after the stop of a pod"
        );
        for syscall in ["read", "openat", "futex"] {
            let labels = [("process", process), ("syscall", syscall)];
            let (count, sum) = (stopped.value(COUNT, &labels), stopped.value(SUM, &labels));
            assert!(
                count > Some(0.0) && sum > Some(0.0),
                "{process} {syscall}: {count:?} calls in {sum:?} s"
            );
            let infinite = [labels[0], labels[1], ("le", "+Inf")];
            assert_eq!(stopped.value(BUCKET, &infinite), count, "{process} {syscall}");
        }
    }
}

/// Starting a pod, each of them looks for files that aren't there.
#[test]
fn failed_syscalls_are_streamed_and_counted_while_pods_start_and_stop() {
    let node = Node::start();
    for process in PROCESSES {
        let failures = Failures::follow(&node);
        // Events come from some moment on, which isn't told: a pod that is started too early is followed by another one.
        let seen = (0..PODS).find_map(|number| {
            let pod = node.pod(&PodSpec::idle("team-a", &format!("{process}-{number}")));
            node.containerd.stop_pod(&pod).expect("the pod ends");
            failures.of(process)
        });
        let event = seen.unwrap_or_else(|| panic!("no failed call of {process} is streamed"));
        assert!(
            event["result"].as_i64().is_some_and(|result| result < 0),
            "{event}"
        );
        assert!(event["pid"].as_u64().is_some_and(|pid| pid > 0), "{event}");
        assert!(
            event["comm"].as_str().is_some_and(|comm| !comm.is_empty()),
            "{event}"
        );
        let (Some(syscall), Some(errno)) = (event["syscall"].as_str(), event["errno"].as_str()) else {
            panic!("a failed call has a name and an errno: {event}");
        };
        let labels = [("process", process), ("syscall", syscall), ("errno", errno)];
        let scrape = node.daemon.scrape().expect("metrics are served");
        let counted = scrape.value("sabot_syscall_errors_total", &labels);
        assert!(counted >= Some(1.0), "{event} is counted {counted:?} times");
    }
}

/// A container that brings a file to the disk, again and again, as etcd does.
const WRITER: &str =
    "while :; do dd if=/dev/zero of=/tmp/wal bs=512 count=1 conv=fsync 2>/dev/null; usleep 20000; done";
const ETCD: &str = "kube-system/etcd";

fn synced(node: &Node, process: &str) -> f64 {
    let scrape = node.daemon.scrape().expect("metrics are served");
    scrape.sum(COUNT, &[("process", process), ("syscall", "fsync")])
}

/// As an etcd that is a static pod: in a pid namespace of its own, where its name is nobody's on the node.
#[test]
fn a_container_is_traced_by_its_name_in_whatever_sandbox_it_is() {
    let node = Node::with(&["--syscall-container", ETCD, "--syscall-process", "dd"]);
    let writer = |namespace: &str, pod: &str| PodSpec::idle(namespace, pod).container("etcd").running(WRITER);
    let stranger = node.pod(&writer("team-a", "etcd-node-a"));
    let etcd = node.pod(&writer("kube-system", "etcd-node-a"));
    let grows = |before: f64| {
        wait_for(PATIENCE, LOOK, || {
            Some(synced(&node, ETCD)).filter(|now| *now > before)
        })
    };
    let first = grows(0.0).expect("its calls are counted");
    let again = node.containerd.restart_sandbox(&etcd).expect("it starts again");
    // The first one's last calls are counted by now, and nothing is lost with it.
    let before = synced(&node, ETCD);
    assert!(before >= first, "{before} after {first}");
    grows(before).expect("those of the new one too");
    assert_eq!(
        synced(&node, "dd"),
        0.0,
        "a name in another pid namespace is another one's"
    );

    node.containerd.stop_pod(&again).expect("the pod ends");
    let is_gone = || node.sandboxes(&again.spec).is_empty();
    assert!(wait_until(PATIENCE, LOOK, is_gone), "the pod is still known");
    let last = synced(&node, ETCD);
    thread::sleep(QUIET);
    assert_eq!(
        synced(&node, ETCD),
        last,
        "the same name in another namespace is another container"
    );
    assert!(node.containerd.stop_pod(&stranger).is_ok());
}
