//! What a scraper sees of a real daemon under faults.

mod costs;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use sabot_testkit::metrics::Scrape;
use sabot_testkit::traffic::{Bulk, INTERVAL, ProbeServer, Prober, UdpLoad, UdpReceiver};
use sabot_testkit::wait::{wait_for, wait_until};
use sabot_testkit::{Daemon, DaemonOptions, Lab, LabPod};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);
const QUIET: Duration = Duration::from_millis(300);

/// Families with their types: the contract with dashboards and alerts.
const FAMILIES: [(&str, &str); 28] = [
    ("sabot_build_info", "gauge"),
    ("sabot_datapath_incidents_total", "counter"),
    ("sabot_delay_seconds", "histogram"),
    ("sabot_events_lost_total", "counter"),
    ("sabot_fault_active", "gauge"),
    ("sabot_fault_bytes_total", "counter"),
    ("sabot_fault_expiry_timestamp_seconds", "gauge"),
    ("sabot_fault_held_bytes", "gauge"),
    ("sabot_fault_held_packets", "gauge"),
    ("sabot_fault_packets_total", "counter"),
    ("sabot_fault_targets", "gauge"),
    ("sabot_kernel_feature", "gauge"),
    ("sabot_kubernetes_connected", "gauge"),
    ("sabot_kubernetes_watches", "gauge"),
    ("sabot_reconcile_duration_seconds", "histogram"),
    ("sabot_scrape_errors_total", "counter"),
    ("sabot_syscall_duration_seconds", "histogram"),
    ("sabot_syscall_errors_total", "counter"),
    ("sabot_syscalls_in_flight", "gauge"),
    ("sabot_tcp_bytes_total", "counter"),
    ("sabot_tcp_connections_lost_total", "counter"),
    ("sabot_tcp_handshake_seconds", "histogram"),
    ("sabot_tcp_resets_total", "counter"),
    ("sabot_tcp_retransmits_total", "counter"),
    ("sabot_tcp_rtos_total", "counter"),
    ("sabot_tcp_rtt_seconds", "histogram"),
    ("sabot_tcp_untracked_total", "counter"),
    ("sabot_unresolved_total", "counter"),
];

/// Outcomes in metrics, and in a fault's ledgers.
const OUTCOMES: [(&str, &str); 15] = [
    ("matched", "matched"),
    ("passed", "passed"),
    ("dropped", "dropped"),
    ("bypassed", "bypassed"),
    ("rejected", "rejected"),
    ("released", "released"),
    ("duplicated", "duplicated"),
    ("replied", "replied"),
    ("corrupted", "corrupted"),
    ("delayed", "delayed"),
    ("lost_segmenter", "lostSegmenter"),
    ("lost_queue", "lostQueue"),
    ("lost_bound", "lostBound"),
    ("lost_write", "lostWrite"),
    ("lost_late", "lostLate"),
];

const LOAD: UdpLoad = UdpLoad {
    datagrams: 500,
    payload: 200,
    per_second: 5000,
};

struct Scene {
    // Ends before the lab does.
    daemon: Daemon,
    lab: Lab,
}

impl Scene {
    fn new(pods: usize, flags: &[&str]) -> Self {
        let lab = Lab::new(pods).expect("a lab can be made (root is needed)");
        let options = DaemonOptions::built().expect("the daemon is built");
        let daemon = Daemon::start(options.netns(lab.node()).flags(flags)).expect("the daemon starts");
        Self { daemon, lab }
    }

    /// `sabot ACTION --target … --peer … --for 120s`, between two pods of the lab.
    fn apply(&self, action: &str, target: usize, peer: usize) {
        let mut words: Vec<&str> = action.split(' ').collect();
        let (target, peer) = (
            self.lab.pod(target).target(),
            format!("ip:{}", self.lab.pod(peer).ipv4()),
        );
        words.extend(["--target", &target, "--peer", &peer, "--for", "120s"]);
        self.daemon
            .sabot_ok(&words)
            .unwrap_or_else(|error| panic!("{error:#}"));
    }

    fn scrape(&self) -> Scrape {
        self.daemon.scrape().expect("metrics are served")
    }

    fn faults(&self) -> Value {
        self.daemon.sabot_json(&["get"]).expect("faults are listed")
    }

    /// The faults, and metrics of a moment at which nothing moved.
    fn at_rest(&self) -> (Value, Scrape) {
        let rest = wait_for(PATIENCE, LOOK, || {
            let before = self.faults();
            let scrape = self.scrape();
            let is_held = scrape.sum("sabot_fault_held_packets", &[]) > 0.0;
            (!is_held && self.faults() == before).then_some((before, scrape))
        });
        rest.expect("the counters come to rest")
    }

    /// A load between two pods, as far as it arrives.
    fn load(&self, from: usize, to: usize) {
        let (from, to): (&LabPod, &LabPod) = (self.lab.pod(from), self.lab.pod(to));
        let receiver = UdpReceiver::start(to.netns(), to.ipv4()).expect("the receiver starts");
        LOAD.send(from.netns(), receiver.address())
            .expect("the load is sent");
        receiver.finish(LOAD.datagrams, QUIET);
    }
}

/// Gives promtool a page; panics with what it finds wrong.
fn assert_lint(page: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs (Debian's package prometheus)");
    let mut input = promtool.stdin.take().expect("it is piped");
    input.write_all(page.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "promtool: {said}"
    );
}

/// The sum over a fault's targets of one of its ledgers' fields.
fn total(fault: &Value, direction: &str, field: &str, unit: &str) -> f64 {
    let ledgers = fault["status"]["ledgers"]
        .as_array()
        .expect("a fault has ledgers");
    let entries = ledgers.iter().filter(|entry| entry["direction"] == direction);
    let values = entries.map(|entry| entry[field][unit].as_u64().expect("ledgers hold numbers"));
    values.sum::<u64>() as f64
}

/// Every series of a fault says what its ledgers say.
fn assert_same(fault: &Value, scrape: &Scrape) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (
        text(&fault["metadata"]["namespace"]),
        text(&fault["metadata"]["name"]),
    );
    let own = [("namespace", namespace.as_str()), ("fault", name.as_str())];
    for direction in ["egress", "ingress"] {
        for (outcome, field) in OUTCOMES {
            let labels = [own[0], own[1], ("direction", direction), ("outcome", outcome)];
            for (family, unit) in [
                ("sabot_fault_packets_total", "packets"),
                ("sabot_fault_bytes_total", "bytes"),
            ] {
                let expected = Some(total(fault, direction, field, unit));
                assert_eq!(scrape.value(family, &labels), expected, "{family}{labels:?}");
            }
        }
    }
    assert_eq!(
        scrape.samples("sabot_fault_packets_total", &own).count(),
        2 * OUTCOMES.len()
    );
    assert_eq!(scrape.value("sabot_fault_targets", &own), Some(1.0), "{name}");
    assert_eq!(scrape.value("sabot_fault_active", &own), Some(1.0), "{name}");
    let expires = fault["status"]["expiresAt"].as_str().expect("it has a deadline");
    let expires: SystemTime = humantime::parse_rfc3339(expires).expect("it is a time");
    let expires = expires
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("it is later")
        .as_secs_f64();
    let shown = scrape
        .value("sabot_fault_expiry_timestamp_seconds", &own)
        .expect("it is shown");
    assert!((shown - expires).abs() < 0.002, "{name}: {shown} and {expires}");
}

#[test]
fn faults_are_shown_exactly_as_they_are_and_go_when_they_go() {
    let scene = Scene::new(3, &["--keep-ended", "1s"]);
    scene.apply("drop 50% --name some --namespace shop", 0, 1);
    scene.apply("delay 20ms --name late --direction egress", 1, 2);
    scene.apply("partition --name cut --direction ingress", 2, 0);
    scene.load(1, 0);
    scene.load(1, 2);
    scene.load(0, 2);

    let (faults, scrape) = scene.at_rest();
    for fault in faults["faults"].as_array().expect("a list") {
        assert_same(fault, &scrape);
    }
    let packets = |labels: &[(&str, &str)]| scrape.value("sabot_fault_packets_total", labels);
    let datagrams = LOAD.datagrams as f64;
    let own = |fault, direction, outcome| [("fault", fault), ("direction", direction), ("outcome", outcome)];
    assert_eq!(packets(&own("some", "ingress", "matched")), Some(datagrams));
    assert_eq!(packets(&own("cut", "ingress", "dropped")), Some(datagrams));
    assert_eq!(packets(&own("late", "egress", "released")), Some(datagrams));
    for (fault, action) in [("some", "drop"), ("late", "delay"), ("cut", "partition")] {
        let labels = [("fault", fault), ("action", action)];
        assert_eq!(scrape.value("sabot_fault_active", &labels), Some(1.0), "{fault}");
    }

    scene
        .daemon
        .sabot_ok(&["delete", "--all"])
        .expect("faults are deleted");
    let ended = scene.scrape();
    assert_eq!(ended.sum("sabot_fault_active", &[]), 0.0);
    let gone = wait_until(PATIENCE, LOOK, || {
        let scrape = scene.scrape();
        let left = FAMILIES.iter().map(|(family, _)| family).filter(|family| {
            ["late", "some", "cut"]
                .iter()
                .any(|fault| scrape.samples(family, &[("fault", fault)]).next().is_some())
        });
        left.count() == 0
    });
    assert!(gone, "series stay after their faults: {:#?}", scene.faults());
    assert!(
        scene
            .scrape()
            .samples("sabot_delay_seconds_count", &[])
            .next()
            .is_none()
    );
}

/// The histogram counts what the delay line holds: frames. A frame is one wire packet, or a super-packet of several.
#[test]
fn the_histogram_of_delays_has_every_frame_that_was_released() {
    const ASKED: f64 = 0.02;
    const BYTES: u64 = 4 << 20;
    let scene = Scene::new(2, &[]);
    scene.apply("delay 20ms --name late --direction egress", 0, 1);
    let values = || {
        let (_, scrape) = scene.at_rest();
        let own = [("fault", "late")];
        let released = [
            ("fault", "late"),
            ("direction", "egress"),
            ("outcome", "released"),
        ];
        (
            scrape
                .value("sabot_delay_seconds_count", &own)
                .expect("it has been delayed"),
            scrape
                .value("sabot_delay_seconds_sum", &own)
                .expect("it has been delayed"),
            scrape
                .value("sabot_fault_packets_total", &released)
                .expect("it is counted"),
            scrape.sum("sabot_delay_seconds_bucket", &[("fault", "late"), ("le", "+Inf")]),
        )
    };
    scene.load(0, 1);
    let (frames, seconds, released, all) = values();
    assert_eq!(released, LOAD.datagrams as f64);
    assert_eq!(frames, released, "each datagram is a frame of its own");
    assert_eq!(all, frames);
    assert!(
        seconds >= frames * ASKED,
        "{frames} frames were held for {seconds} s in all"
    );

    let (client, server) = (scene.lab.pod(0), scene.lab.pod(1));
    let bulk = Bulk::listen(server.netns(), server.ipv4(), PATIENCE).expect("the server starts");
    bulk.send_from(client.netns(), BYTES, PATIENCE)
        .expect("it arrives");
    let (later, _, wire, _) = values();
    let (frames, packets) = (later - frames, wire - released);
    assert!(
        packets > (BYTES / 1500) as f64,
        "{packets} wire packets for {BYTES} bytes"
    );
    assert!(
        frames > 0.0 && frames < packets,
        "{frames} frames of {packets} wire packets"
    );
}

#[test]
fn every_family_is_there_and_promtool_accepts_the_page() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let reader = folder.path().join("sabot-reader");
    fs::copy("/bin/cat", &reader).expect("cat can be copied");
    let scene = Scene::new(2, &["--syscall-process", "sabot-reader"]);
    scene.apply("delay 10ms --name late", 0, 1);
    let (client, server) = (scene.lab.pod(1), scene.lab.pod(0));
    let answers = ProbeServer::start(server.netns(), server.ipv4()).expect("the server starts");
    let prober = Prober::start(client.netns(), &answers, INTERVAL).expect("the prober starts");
    thread::sleep(QUIET);
    // Under faults and traffic, as a scraper meets it.
    let (status, page) = scene.daemon.http("/metrics").expect("metrics are served");
    assert_eq!(status, 200);
    assert_lint(&page);
    drop(prober);

    assert_syscalls(&scene, &reader);
    assert_tracing(&scene, &reader);
    assert_families(&scene.scrape());
    assert_node(&scene);
}

/// Who is no longer traced has no series, and comes back with none of the old counts.
fn assert_tracing(scene: &Scene, reader: &Path) {
    let traced = |arguments: &[&str]| {
        let document = scene.daemon.sabot_json(arguments).expect("sabot answers");
        let names = document["processes"].as_array().expect("names").clone();
        names.iter().any(|name| name == "sabot-reader")
    };
    let calls = || {
        let labels = [("process", "sabot-reader")];
        scene
            .scrape()
            .sum("sabot_syscall_duration_seconds_count", &labels)
    };
    let before = calls();
    assert!(traced(&["trace"]) && before > 0.0);
    assert!(!traced(&["trace", "remove", "--process", "sabot-reader"]));
    assert_eq!(calls(), 0.0);
    let wrong = [
        "trace",
        "add",
        "--process",
        "sabot-reader",
        "--syscall",
        "no_such_call",
    ];
    let refused = scene.daemon.sabot(&wrong).expect("sabot runs");
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(
        message.contains("tracing.syscalls[0]") && message.contains("no_such_call"),
        "{message}"
    );
    assert!(!traced(&["trace"]), "nothing of it is in force");
    assert!(traced(&["trace", "add", "--process", "sabot-reader"]));
    let read = Command::new(reader).arg("/dev/null").env("LC_ALL", "C").status();
    assert!(read.expect("it runs").success());
    let after = calls();
    assert!(
        after > 0.0 && after < before,
        "{after} calls after, {before} before"
    );
}

/// The calls of a process that reads a file in vain are counted, each time again.
fn assert_syscalls(scene: &Scene, reader: &Path) {
    let absent = reader.with_extension("absent");
    let read = || {
        let read = Command::new(reader).arg(&absent).env("LC_ALL", "C").output();
        assert!(!read.expect("it runs").status.success(), "there is no such file");
        let scrape = scene.scrape();
        let open = [("process", "sabot-reader"), ("syscall", "openat")];
        let failed = [open[0], open[1], ("errno", "ENOENT")];
        (
            scrape
                .value("sabot_syscall_duration_seconds_count", &open)
                .unwrap_or_default(),
            scrape
                .value("sabot_syscall_errors_total", &failed)
                .unwrap_or_default(),
        )
    };
    let once = read();
    assert!(
        once.1 >= 1.0 && once.0 > once.1,
        "{once:?} calls of openat, and of them in vain"
    );
    assert_eq!(
        read(),
        (2.0 * once.0, 2.0 * once.1),
        "the same again is counted again"
    );
}

fn assert_families(scrape: &Scrape) {
    for (family, kind) in FAMILIES {
        assert_eq!(scrape.kind(family), Some(kind), "{family}");
        let name = match kind {
            "histogram" => format!("{family}_count"),
            _ => family.to_owned(),
        };
        assert!(
            scrape.samples(&name, &[]).next().is_some(),
            "{family} has no series"
        );
    }
}

/// What is said of the daemon and its machine is what `sabot node` says.
fn assert_node(scene: &Scene) {
    let scrape = scene.scrape();
    let node = scene.daemon.sabot_json(&["node"]).expect("the daemon answers");
    let version = node["version"].as_str().expect("it has a version");
    assert_eq!(
        scrape.value("sabot_build_info", &[("version", version)]),
        Some(1.0)
    );
    let features = node["features"].as_array().expect("features are listed");
    // The cluster comes and goes, and has families of its own.
    let (cluster, features): (Vec<_>, Vec<_>) = features.iter().partition(|f| f["name"] == "kubernetes");
    assert_eq!(
        (cluster.len(), &cluster[0]["available"]),
        (1, &Value::Bool(false))
    );
    assert_eq!(scrape.value("sabot_kubernetes_connected", &[]), Some(0.0));
    assert_eq!(
        scrape.samples("sabot_kernel_feature", &[]).count(),
        features.len()
    );
    for feature in features {
        let name = feature["name"].as_str().expect("features have names");
        let value = f64::from(u8::from(feature["available"] == true));
        assert_eq!(
            scrape.value("sabot_kernel_feature", &[("feature", name)]),
            Some(value),
            "{name}"
        );
    }
    for stream in ["dns", "packets", "syscalls", "tcp", "subscribers"] {
        assert_eq!(
            scrape.value("sabot_events_lost_total", &[("stream", stream)]),
            Some(0.0),
            "{stream}"
        );
    }
    assert!(scrape.sum("sabot_reconcile_duration_seconds_count", &[]) > 0.0);
    assert_eq!(scrape.sum("sabot_scrape_errors_total", &[]), 0.0);
}

#[test]
fn the_endpoint_speaks_as_it_is_asked_to() {
    let scene = Scene::new(1, &[]);
    let open = scene
        .daemon
        .http_as(
            "/metrics",
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
        )
        .expect("it answers");
    assert_eq!(open.status, 200);
    assert!(
        open.content_type.starts_with("application/openmetrics-text"),
        "{}",
        open.content_type
    );
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    assert!(
        open.body.contains("# TYPE sabot_fault_packets counter\n"),
        "{}",
        open.body
    );
    let text = scene
        .daemon
        .http_as("/metrics", "text/plain")
        .expect("it answers");
    assert!(
        text.content_type.starts_with("text/plain; version=0.0.4"),
        "{}",
        text.content_type
    );
    assert!(!text.body.contains("# EOF"), "{}", text.body);

    for (path, body) in [("/healthz", "alive\n"), ("/readyz", "ready\n")] {
        let answer = scene.daemon.http(path).expect("it answers");
        assert_eq!(answer, (200, body.to_owned()), "{path}");
    }
    assert_eq!(scene.daemon.http("/nothing").expect("it answers").0, 404);
}
