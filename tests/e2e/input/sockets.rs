//! The container runtime's socket: absent, dead, or something else. It is a state of the node, not an end of the daemon.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use sabot_testkit::wait::wait_for;
use sabot_testkit::{Daemon, DaemonOptions, Lab};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);

/// What the node says about its runtime, once it has looked.
fn runtime(daemon: &Daemon, says: &str) -> String {
    let look = || {
        let table = daemon.sabot_ok(&["node"]).expect("it answers");
        let line = table
            .lines()
            .find(|line| line.starts_with("Runtime:"))
            .expect("it is shown");
        line.contains(says).then(|| line.to_owned())
    };
    let seen = wait_for(PATIENCE, Duration::from_millis(50), look);
    seen.unwrap_or_else(|| {
        panic!(
            "`{says}` isn't in {}",
            daemon.sabot_ok(&["node"]).expect("it answers")
        )
    })
}

fn phase(daemon: &Daemon, arguments: &[&str]) -> (String, String) {
    let said = daemon
        .sabot_ok(&[arguments, &["-o", "json"]].concat())
        .expect("it is accepted");
    let fault: Value = serde_json::from_str(&said).expect("JSON");
    let text = |field: &str| fault["status"][field].as_str().unwrap_or_default().to_owned();
    (text("phase"), text("message"))
}

/// Faults on namespaces work, faults on pods wait and say why.
fn assert_works_without_pods(socket: &Path, says: &str) {
    let lab = Lab::new(1).expect("a lab can be made (root is needed)");
    let options = DaemonOptions::built().expect("they are built");
    let daemon = Daemon::start(options.runtime(socket)).expect("a runtime isn't needed to start");
    let line = runtime(&daemon, says);
    assert!(line.contains(&socket.display().to_string()), "{line}");
    let on_netns = [
        "partition",
        "--target",
        &lab.pod(0).target(),
        "--for",
        "1m",
        "--wait",
        "10s",
    ];
    assert_eq!(phase(&daemon, &on_netns).0, "Injected");
    let (phase, message) = phase(
        &daemon,
        &["partition", "--target", "pod:team-a/web", "--for", "1m"],
    );
    assert_eq!(phase, "Pending");
    assert!(
        message.contains("no pod team-a/web") && message.contains(says),
        "{message}"
    );
    let (status, _) = daemon.http("/healthz").expect("it answers");
    assert_eq!(status, 200, "it is alive");
    assert_eq!(
        daemon
            .sabot_ok(&["targets", "-o", "json"])
            .map(|text| text.contains("team-a"))
            .ok(),
        Some(false)
    );
}

#[test]
fn absent() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert_works_without_pods(&folder.path().join("containerd.sock"), "does not exist");
}

#[test]
fn dead() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("containerd.sock");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert_works_without_pods(&path, "refused");
}

#[test]
fn a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("containerd.sock");
    fs::write(&path, "").expect("there is room");
    assert_works_without_pods(&path, "refused");
}

#[test]
fn silent() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("containerd.sock");
    // It takes connections and never answers.
    let _listener = UnixListener::bind(&path).expect("a socket");
    assert_works_without_pods(&path, "Version was not answered");
}
