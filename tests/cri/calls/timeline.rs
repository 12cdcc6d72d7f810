//! What a fault's timeline tells of the node: syscalls and calls of the runtime before, during and after it.

use std::ffi::CString;
use std::thread;
use std::time::Duration;

use sabot_testkit::cri::fake::{Events, FakeRuntime, ask, socket_in};
use sabot_testkit::wait::{wait_for, wait_until};
use sabot_testkit::{Daemon, DaemonOptions, Lab, Spec};
use serde_json::Value;

use crate::scene::{LOOK, PATIENCE};

/// The node is looked at each five seconds.
const BEFORE: Duration = Duration::from_secs(6);
/// For how long a recovery is waited for where there is no traffic.
const RECOVERY: Duration = Duration::from_secs(60);

/// As many failing opens, on a thread of this name.
fn open_missing(name: &str, times: u64) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let name = CString::new(name).expect("a name");
            nix::sys::prctl::set_name(&name).expect("it is taken");
            for _ in 0..times {
                // SAFETY: the path is a valid string.
                let opened = unsafe { libc::open(c"/no/such/file".as_ptr(), libc::O_RDONLY) };
                assert_eq!(opened, -1);
            }
            // What the thread does to end isn't part of the test.
            nix::sys::prctl::set_name(c"finished").expect("it is taken");
        });
    });
}

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

#[test]
fn a_timeline_tells_what_the_node_did_before_during_and_after() {
    let name = format!("meanwhile{}", std::process::id());
    let lab = Lab::new(1).expect("a lab can be made (root is needed)");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = socket_in(&folder);
    let _runtime = FakeRuntime::start(&socket, "1.6.20", Events::Unimplemented);
    let options = DaemonOptions::built().expect("the daemon is built");
    let options = options.runtime(&socket).flags(&["--syscall-process", &name]);
    let daemon = Daemon::start(options).expect("the daemon starts");
    let timeline = || daemon.sabot_json(&["timeline", "cut"]).expect("it is known")["node"].clone();
    let does = |opens: u64, asks: usize| {
        open_missing(&name, opens);
        for _ in 0..asks {
            ask(&socket).expect("the runtime answers");
        }
    };

    // The first look at the node; what is done after it is done before the fault.
    thread::sleep(BEFORE);
    does(10, 1);
    // Calls are read a moment after they were made.
    let is_counted = || {
        let scrape = daemon.scrape().expect("metrics are served");
        scrape.sum("sabot_cri_operations_total", &[("operation", "RunPodSandbox")]) == 1.0
    };
    assert!(wait_until(PATIENCE, LOOK, is_counted), "the calls aren't read");
    let cut = Spec::partition(lab.pod(0)).lasting(Duration::from_secs(60));
    let client = daemon.client().expect("the daemon answers");
    client.apply("cut", cut.into(), PATIENCE).expect("it is injected");
    assert!(
        wait_until(PATIENCE, LOOK, || !timeline().is_null()),
        "it isn't recorded"
    );
    does(20, 2);
    does(10, 0);
    let seen = wait_for(PATIENCE, LOOK, || {
        let node = timeline();
        (work(&node["during"], &name) == [(30, 30), (2, 0), (2, 2)]).then_some(node)
    });
    let node = seen.unwrap_or_else(|| panic!("{:#}", timeline()));
    assert_eq!(
        work(&node["before"], &name),
        [(10, 10), (1, 0), (1, 1)],
        "{node:#}"
    );
    assert!(node["after"].is_null(), "{node:#}");
    let p99 = node["during"]["processes"][&name]["durations"]["p99"].as_str();
    assert!(
        p99.is_some_and(|text| humantime::parse_duration(text).is_ok()),
        "{node:#}"
    );
    assert!(
        node["during"]["operations"]["RunPodSandbox"]["mean"].is_string(),
        "{node:#}"
    );
    let text = daemon.sabot_ok(&["timeline", "cut"]).expect("it is told");
    assert!(
        text.contains("The node meanwhile") && text.contains(&name),
        "{text}"
    );

    daemon.sabot_ok(&["delete", "cut"]).expect("it is there");
    does(5, 3);
    let is_told = || work(&timeline()["after"], &name) == [(5, 5), (3, 0), (3, 3)];
    assert!(wait_until(PATIENCE, LOOK, is_told), "{:#}", timeline());
    assert_eq!(work(&timeline()["during"], &name), [(30, 30), (2, 0), (2, 2)]);
    // When the target's recovery has been given up, nothing more belongs to it.
    let is_over = || {
        let told = daemon.sabot_json(&["timeline", "cut"]).expect("it is known");
        told["targets"][0]["recovery"] != "watching"
    };
    assert!(
        wait_until(RECOVERY + PATIENCE, LOOK * 10, is_over),
        "it never ends"
    );
    let closed = timeline();
    does(7, 1);
    assert_eq!(timeline(), closed);
}
