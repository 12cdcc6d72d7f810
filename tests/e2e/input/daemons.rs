//! Several daemons on one node.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use sabot_testkit::traffic::ping;
use sabot_testkit::{Daemon, DaemonOptions, LabPod};
use serde_json::Value;

use crate::scene::{Scene, assert_says, attached};

/// The words that cut two pods off from each other, by a fault named `cut`.
fn cut(pod: &LabPod, other: &LabPod) -> Vec<String> {
    let peer = format!("ip:{}", other.ipv4());
    let words = ["partition", "--target", &pod.target(), "--peer", &peer];
    let rest = ["--for", "1m", "--name", "cut", "--wait", "10s"];
    words.iter().chain(&rest).map(|&word| word.to_owned()).collect()
}

/// Starts the daemon's binary on another one's socket; it must end by itself.
fn second(socket: &std::path::Path) -> std::process::Output {
    let options = DaemonOptions::built().expect("they are built");
    Command::new(options.sabotd)
        .arg("--socket")
        .arg(socket)
        .args(["--metrics-address", "none", "--runtime-endpoint", "none"])
        .output()
        .expect("it runs")
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_and_touches_nothing() {
    let scene = Scene::new();
    let (pod, other) = (scene.lab.pod(0), scene.lab.pod(1));
    let arguments = cut(pod, other);
    scene.daemon.sabot_ok(&arguments).expect("it is applied");
    let links = attached(scene.netns());
    assert!(links > 0);
    let known = || {
        let text = scene.known();
        let mut faults: Value = serde_json::from_str(&text).expect("JSON");
        for fault in faults["faults"].as_array_mut().expect("a list") {
            fault["status"]["ledgers"] = Value::Null;
        }
        faults
    };
    let before = known();
    for _ in 0..3 {
        let output = second(&scene.daemon.socket());
        let says = [
            "another sabotd is running on this node",
            &format!(
                "process {} serves {}",
                scene.daemon.pid(),
                scene.daemon.socket().display()
            ),
        ];
        assert_says(&output, 1, &says, "a second daemon");
        assert_eq!(known(), before);
        assert_eq!(attached(scene.netns()), links);
        let interval = Duration::from_millis(10);
        let cut = ping(pod.netns(), other.ipv4(), 3, interval).expect("ping runs");
        assert_eq!(cut.round_trips.len(), 0, "the fault is no more");
    }
}

#[test]
fn a_daemon_takes_the_place_of_one_that_was_killed() {
    let mut scene = Scene::new();
    scene.daemon.kill9().expect("it runs");
    let socket = scene.daemon.socket();
    assert!(socket.exists(), "nobody could have removed it");
    let options = DaemonOptions::built().expect("they are built");
    let path = socket.display().to_string();
    let mut child = Command::new(options.sabotd)
        .args([
            "--socket",
            &path,
            "--metrics-address",
            "none",
            "--runtime-endpoint",
            "none",
        ])
        .stderr(Stdio::null())
        .spawn()
        .expect("it can be started");
    let answers = sabot_testkit::wait::wait_until(Duration::from_secs(20), Duration::from_millis(20), || {
        scene.daemon.sabot_ok(&["get", "-o", "json"]).is_ok()
    });
    let known = scene.daemon.sabot_ok(&["get", "-o", "json"]);
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it runs");
    let ended = child.wait().expect("it ends");
    assert!(answers, "it doesn't answer on the dead one's socket");
    assert!(
        known.expect("it answers").contains("\"faults\": []"),
        "faults given over gRPC end with their daemon"
    );
    assert!(ended.success());
    assert!(!socket.exists(), "its socket is left");
}

#[test]
fn a_file_in_the_sockets_place_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("sabotd.sock");
    fs::write(&path, "precious").expect("there is room");
    let output = second(&path);
    let says = [&*path.display().to_string(), "exists and is not a socket"];
    assert_says(&output, 1, &says, "a daemon on a file");
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
}

#[test]
fn daemons_on_different_sockets_leave_each_other_alone() {
    let scene = Scene::new();
    let options = DaemonOptions::built().expect("they are built");
    let mut other = Daemon::start(options).expect("another socket is another daemon");
    let (pod, end) = (scene.lab.pod(0), scene.lab.pod(1));
    let arguments = cut(pod, end);
    let interval = Duration::from_millis(10);
    let reaches = || {
        ping(pod.netns(), end.ipv4(), 3, interval)
            .expect("ping runs")
            .round_trips
            .len()
            == 3
    };
    for daemon in [&scene.daemon, &other] {
        daemon.sabot_ok(&arguments).expect("it is applied");
        assert!(!reaches());
    }
    scene.daemon.sabot_ok(&["delete", "cut"]).expect("it goes");
    assert!(!reaches(), "the other daemon's fault went too");
    scene.daemon.sabot_ok(&arguments).expect("it is applied");
    assert!(other.terminate().expect("it ends").success());
    assert!(!reaches(), "the first daemon's fault went with the other daemon");
    scene.daemon.sabot_ok(&["delete", "cut"]).expect("it goes");
    assert!(reaches());
}
