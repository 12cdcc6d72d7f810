//! What a fault's timeline tells of the node: syscalls and calls of the runtime before, during and after it.

use std::thread;
use std::time::Duration;

use sabot_testkit::cri::fake::{Events, FakeRuntime, ask, socket_in};
use sabot_testkit::traced::open_missing;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Daemon, DaemonOptions, Lab, Spec};
use serde_json::Value;
use tempfile::TempDir;

use crate::scene::{LOOK, PATIENCE};

/// The node is looked at each ten seconds.
const BEFORE: Duration = Duration::from_secs(11);
/// For how long a recovery is waited for where there is no traffic.
const RECOVERY: Duration = Duration::from_secs(60);

/// Calls and failures of the process, and the same of two operations of the runtime.
fn work(window: &Value, process: &str) -> [(u64, u64); 3] {
    let read = |doc: &Value, failed: &str| {
        let number = |field: &str| doc[field].as_u64().unwrap_or_default();
        (number("calls"), number(failed))
    };
    [
        read(&window["processes"][process], "errors"),
        read(&window["operations"]["ListPodSandbox"], "failures"),
        read(&window["operations"]["RunPodSandbox"], "failures"),
    ]
}

struct Scene {
    /// Of the traced process.
    name: String,
    // Ends before the runtime does.
    daemon: Daemon,
    _runtime: FakeRuntime,
    folder: TempDir,
    lab: Lab,
}

impl Scene {
    fn start() -> Self {
        let name = format!("meanwhile{}", std::process::id());
        let lab = Lab::new(1).expect("a lab can be made (root is needed)");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = socket_in(&folder);
        let runtime = FakeRuntime::start(&socket, "1.6.20", Events::Unimplemented);
        let options = DaemonOptions::built().expect("the daemon is built");
        let options = options.runtime(&socket).flags(&["--syscall-process", &name]);
        Self {
            name,
            daemon: Daemon::start(options).expect("the daemon starts"),
            _runtime: runtime,
            folder,
            lab,
        }
    }

    /// Failing syscalls, and pairs of a call of the runtime that succeeds and one that fails.
    fn does(&self, opens: u64, asks: usize) {
        open_missing(&self.name, opens);
        for _ in 0..asks {
            ask(&socket_in(&self.folder)).expect("the runtime answers");
        }
    }

    fn timeline(&self) -> Value {
        self.daemon.sabot_json(&["timeline", "cut"]).expect("it is known")
    }

    fn node(&self) -> Value {
        self.timeline()["activity"].clone()
    }

    fn work(&self, window: &str) -> [(u64, u64); 3] {
        work(&self.node()[window], &self.name)
    }

    /// The work of ten failing opens and one pair of calls, and what comes after it is not before the fault.
    fn cut_after_some_work(&self) {
        // The first look at the node comes before it.
        thread::sleep(BEFORE);
        self.does(10, 1);
        // Calls are read a moment after they were made.
        let is_counted = || {
            let scrape = self.daemon.scrape().expect("metrics are served");
            scrape.sum("sabot_cri_operations_total", &[("operation", "RunPodSandbox")]) == 1.0
        };
        assert!(wait_until(PATIENCE, LOOK, is_counted), "the calls aren't read");
        let cut = Spec::partition(self.lab.pod(0)).lasting(Duration::from_secs(60));
        let client = self.daemon.client().expect("the daemon answers");
        client.apply("cut", cut.into(), PATIENCE).expect("it is injected");
        let is_recorded = || !self.node().is_null();
        assert!(wait_until(PATIENCE, LOOK, is_recorded), "it isn't recorded");
    }
}

#[test]
fn a_timeline_tells_what_the_node_did_before_during_and_after() {
    let scene = Scene::start();
    scene.cut_after_some_work();
    scene.does(20, 2);
    scene.does(10, 0);
    let is_seen = || scene.work("during") == [(30, 30), (2, 0), (2, 2)];
    assert!(wait_until(PATIENCE, LOOK, is_seen), "{:#}", scene.node());
    let node = scene.node();
    assert_eq!(scene.work("before"), [(10, 10), (1, 0), (1, 1)], "{node:#}");
    assert!(node["after"].is_null(), "{node:#}");
    let p99 = node["during"]["processes"][&scene.name]["durations"]["p99"].as_str();
    assert!(
        p99.is_some_and(|text| humantime::parse_duration(text).is_ok()),
        "{node:#}"
    );
    assert!(
        node["during"]["operations"]["RunPodSandbox"]["durations"]["p99"].is_string(),
        "{node:#}"
    );
    let open = &node["during"]["calls"][&scene.name]["openat"];
    assert_eq!(
        (&open["calls"], &open["errors"]["ENOENT"]),
        (&30.into(), &30.into()),
        "{node:#}"
    );
    let text = scene.daemon.sabot_ok(&["timeline", "cut"]).expect("it is told");
    assert!(
        text.contains("The node meanwhile") && text.contains(&scene.name),
        "{text}"
    );

    scene.daemon.sabot_ok(&["delete", "cut"]).expect("it is there");
    scene.does(5, 3);
    let is_told = || scene.work("after") == [(5, 5), (3, 0), (3, 3)];
    assert!(wait_until(PATIENCE, LOOK, is_told), "{:#}", scene.node());
    assert_eq!(scene.work("during"), [(30, 30), (2, 0), (2, 2)]);
    // When the target's recovery has been given up, nothing more belongs to it.
    let is_over = || scene.timeline()["targets"][0]["recovery"] != "watching";
    assert!(
        wait_until(RECOVERY + PATIENCE, LOOK * 10, is_over),
        "it never ends"
    );
    let closed = scene.node();
    scene.does(7, 1);
    assert_eq!(scene.node(), closed);
}
