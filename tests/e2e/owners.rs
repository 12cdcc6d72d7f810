//! Pods that come and go under a daemon that observes them leave nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, socket_in};
use sabot_testkit::traffic::{Echo, echo_once};
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Daemon, DaemonOptions, Lab};

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
/// Pods at once, and how often all of them are replaced.
const PODS: usize = 10;
const ROUNDS: usize = 20;

struct Scene {
    // What is above ends before what is below.
    daemon: Daemon,
    runtime: FakeRuntime,
    _folder: tempfile::TempDir,
    lab: Lab,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new(PODS).expect("a lab can be made (root is needed)");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = socket_in(&folder);
        let runtime = FakeRuntime::start(&socket, "1.6.20", Events::Unimplemented);
        let options = DaemonOptions::built().expect("the daemon is built");
        let options = options.netns(lab.node()).runtime(&socket);
        let daemon = Daemon::start(options.flags(&["--runtime-poll", "50ms"])).expect("the daemon starts");
        Self {
            daemon,
            runtime,
            _folder: folder,
            lab,
        }
    }

    /// Pods that the metrics name.
    fn named(&self) -> usize {
        let scrape = self.daemon.scrape().expect("metrics are served");
        scrape
            .samples("sabot_tcp_rtos_total", &[("namespace", "shop")])
            .count()
    }

    fn wait_named(&self, count: usize) {
        let done = wait_until(PATIENCE, LOOK, || self.named() == count);
        assert!(done, "{} pods are named instead of {count}", self.named());
    }

    fn descriptors(&self) -> BTreeMap<String, usize> {
        let folder = format!("/proc/{}/fd", self.daemon.pid());
        let mut kinds = BTreeMap::new();
        for entry in fs::read_dir(folder).expect("the daemon runs").flatten() {
            // One that was closed meanwhile.
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            let target = target.to_string_lossy();
            let kind = target.split(':').next().unwrap_or_default();
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
        // Connections of whoever asks for the metrics, and the daemon's own to the runtime.
        kinds.remove("socket");
        kinds
    }

    /// Lines of `/metrics` that name any pod.
    fn series(&self) -> usize {
        let (_, text) = self.daemon.http("/metrics").expect("metrics are served");
        text.lines().filter(|line| line.contains("pod=\"pod-")).count()
    }
}

#[test]
fn pods_that_come_and_go_leave_no_series_and_no_descriptor() {
    let scene = Scene::new();
    scene.wait_named(0);
    let before = scene.descriptors();
    let echo = Echo::start(scene.lab.pod(0).netns(), scene.lab.pod(0).ipv4()).expect("the echo starts");
    for round in 0..ROUNDS {
        for (number, pod) in scene.lab.pods().iter().enumerate() {
            let sandbox = FakeSandbox::ready(&format!("pod-{round}-{number}"), pod.netns().path());
            scene.runtime.put(&format!("sandbox-{round}-{number}"), sandbox);
        }
        scene.wait_named(PODS);
        for pod in &scene.lab.pods()[1..] {
            echo_once(pod.netns(), echo.address(), b"hello", PATIENCE).expect("it is answered");
        }
        let opened = || {
            let scrape = scene.daemon.scrape().expect("metrics are served");
            let labels = [("namespace", "shop"), ("outcome", "opened")];
            scrape.sum("sabot_tcp_connections_total", &labels)
        };
        // Those of the round before, in the same namespaces, are not among them.
        let done = wait_until(PATIENCE, LOOK, || opened() == (PODS - 1) as f64);
        assert!(done, "round {round}: {} connections", opened());
        for number in 0..PODS {
            scene.runtime.remove(&format!("sandbox-{round}-{number}"));
        }
        scene.wait_named(0);
    }
    assert_eq!(scene.series(), 0);
    let rests = wait_until(PATIENCE, LOOK, || scene.descriptors() == before);
    assert!(rests, "{:?} instead of {before:?}", scene.descriptors());
}
