//! Pods that come and go under a daemon that observes them, some with faults, leave nothing behind.

use std::collections::BTreeSet;
use std::time::Duration;

use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, socket_in};
use sabot_testkit::metrics::Scrape;
use sabot_testkit::traffic::Counterpart;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Daemon, DaemonOptions, Lab, LabPod, Remains};

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
/// Pods at once, and how often all of them are replaced: 200 of them come and go.
const PODS: usize = 10;
const ROUNDS: usize = 20;
/// In which everything is used for the first time.
const WARM_UP: usize = 2;

/// Families that every pod has a series of from the moment on in which it is observed.
const NAMING: [&str; 2] = ["sabot_tcp_rtos_total", "sabot_dns_queries_total"];
/// Maps that have entries for pods with such traffic and such faults.
const FILLED: [&str; 11] = [
    "OWNERS",
    "STATS",
    "FIRSTS",
    "PEERS",
    "QUERY_COUNTS",
    "OPEN",
    "COUNTERS",
    "STREAMS",
    "CONNECTIONS",
    "PORTS",
    "PEERS_V4",
];

struct Scene {
    // What is above ends before what is below.
    daemon: Daemon,
    runtime: FakeRuntime,
    counterpart: Counterpart,
    _folder: tempfile::TempDir,
    lab: Lab,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new(PODS + 1).expect("a lab can be made (root is needed)");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = socket_in(&folder);
        let runtime = FakeRuntime::start(&socket, "1.6.20", Events::Unimplemented);
        let options = DaemonOptions::built().expect("the daemon is built");
        let options = options.netns(lab.node()).runtime(&socket);
        let flags = [
            "--runtime-poll",
            "50ms",
            "--keep-warm",
            "1s",
            "--keep-ended",
            "1s",
        ];
        let daemon = Daemon::start(options.flags(&flags)).expect("the daemon starts");
        let outside = lab.pod(PODS);
        Self {
            daemon,
            runtime,
            counterpart: Counterpart::start(outside.netns(), outside.ipv4()).expect("it can be bound"),
            _folder: folder,
            lab,
        }
    }

    fn pods(&self) -> &[LabPod] {
        &self.lab.pods()[..PODS]
    }

    fn scrape(&self) -> Scrape {
        self.daemon.scrape().expect("metrics are served")
    }

    fn remains(&self) -> Remains {
        Remains::of(self.daemon.pid()).expect("the daemon runs")
    }

    fn sabot(&self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        let said = self.daemon.sabot_ok(&words);
        said.unwrap_or_else(|error| panic!("{line}: {error:#}"));
    }

    fn wait_named(&self, count: usize) {
        let named = || {
            let scrape = self.scrape();
            NAMING.map(|family| scrape.samples(family, &[("namespace", "shop")]).count())
        };
        let done = wait_until(PATIENCE, LOOK, || named() == [count; NAMING.len()]);
        assert!(done, "{:?} pods are named instead of {count}", named());
    }

    /// Waits until all that each pod has done is counted as its own, and nobody else's.
    fn wait_counted(&self) {
        let shop = [("namespace", "shop")];
        let opened = [("namespace", "shop"), ("outcome", "opened")];
        let mut last = (0.0, 0.0, BTreeSet::new());
        let done = wait_until(PATIENCE, LOOK, || {
            let scrape = self.scrape();
            let drops = scrape.samples("sabot_packet_drops_total", &shop);
            let droppers: BTreeSet<String> =
                drops.filter_map(|drop| drop.labels.get("pod").cloned()).collect();
            last = (
                scrape.sum("sabot_tcp_connections_total", &opened),
                scrape.sum("sabot_dns_queries_total", &shop),
                droppers,
            );
            // That the observer of drops knows a pod is seen by the first one that it counts.
            self.bother_all();
            (last.0, last.1, last.2.len()) == (2.0 * PODS as f64, 2.0 * PODS as f64, PODS)
        });
        assert!(done, "connections, queries and pods with drops: {last:?}");
    }

    fn bother_all(&self) {
        for pod in self.pods() {
            self.counterpart.bother(pod.ipv4()).expect("it is sent");
        }
    }

    /// Each on a pod of its own; the last one ends by itself.
    fn apply_faults(&self, round: usize) {
        let closed = format!("UDP:{}", Counterpart::CLOSED_PORT);
        let peer = self.lab.pod(PODS).ipv4();
        let faults = [
            ("loss", format!("drop 100% --port {closed} --for 60s")),
            ("start", format!("drop --first 1 --port {closed} --for 60s")),
            ("late", format!("delay 1ms --peer ip:{peer} --for 60s")),
            ("refusal", "reject --peer ip:192.0.2.7 --for 2s".to_owned()),
        ];
        for (pod, (name, action)) in faults.iter().enumerate() {
            self.sabot(&format!(
                "{action} --name {name}-{round} --target pod:shop/pod-{round}-{pod}"
            ));
        }
    }

    /// All pods are replaced: they come, have traffic and some of them faults, and go. What the daemon held meanwhile.
    fn replace_all(&self, round: usize) -> Remains {
        for (number, pod) in self.pods().iter().enumerate() {
            let sandbox = FakeSandbox {
                addresses: vec![pod.ipv4().to_string()],
                ..FakeSandbox::ready(&format!("pod-{round}-{number}"), pod.netns().path())
            };
            self.runtime.put(&format!("sandbox-{round}-{number}"), sandbox);
        }
        self.wait_named(PODS);
        self.apply_faults(round);
        let meet = |pod: &LabPod| self.counterpart.meet(pod.netns(), PATIENCE);
        let connections: Vec<_> = self.pods().iter().map(meet).collect();
        assert!(connections.iter().all(Result::is_ok), "{connections:?}");
        self.wait_counted();
        let during = self.remains();

        // One fault ends before its pod, others after it; and connections outlive the pods that they are known by.
        self.sabot(&format!("delete loss-{round}"));
        for number in 0..PODS {
            self.runtime.remove(&format!("sandbox-{round}-{number}"));
        }
        self.wait_named(0);
        let outlives = wait_until(PATIENCE, LOOK, || self.remains().entries("SOCKETS") > 0);
        assert!(
            outlives,
            "no connection of a pod that has gone is seen: {connections:?}"
        );
        self.sabot(&format!("delete late-{round} start-{round}"));
        during
    }

    /// Lines of `/metrics` that name any pod, or a fault.
    fn series(&self) -> Vec<String> {
        let (_, text) = self.daemon.http("/metrics").expect("metrics are served");
        let lines = text.lines();
        lines
            .filter(|line| line.contains("pod=\"pod-") || line.contains("fault=\""))
            .map(str::to_owned)
            .collect()
    }
}

#[test]
fn pods_that_come_and_go_leave_no_series_no_descriptor_and_no_map_entry() {
    let scene = Scene::new();
    scene.wait_named(0);
    for round in 0..WARM_UP {
        scene.replace_all(round);
    }
    let before = Remains::at_rest(scene.daemon.pid(), PATIENCE).expect("the daemon runs");
    let before = before.expect("it comes to rest");
    assert_eq!(scene.series(), Vec::<String>::new());

    for round in WARM_UP..WARM_UP + ROUNDS {
        let during = scene.replace_all(round);
        for map in FILLED {
            let [now, then] = [&during, &before].map(|remains| remains.entries(map));
            assert!(
                now > then,
                "round {round}: {map} has {now} entries, and had {then}"
            );
        }
    }
    let rests = || scene.remains().beyond(&before).is_empty() && scene.series().is_empty();
    assert!(
        wait_until(PATIENCE, LOOK, rests),
        "{:#?}\n{:#?}",
        scene.remains().beyond(&before),
        scene.series()
    );
}
