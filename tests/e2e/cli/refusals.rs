//! What goes wrong is said, and has its exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sabot_testkit::DaemonOptions;

use crate::scene::{Scene, code, stderr, stdout};

#[test]
fn exit_codes_and_messages_say_what_went_wrong() {
    let options = DaemonOptions::built().expect("the daemon is built");
    let options = options.runtime(Path::new("/nonexistent/cri.sock"));
    let scene = Scene::with(options.flags(&["--max-duration", "10m"]));
    for (line, expected, why) in wrong_lines(&scene) {
        let output = scene.run(&line);
        assert_eq!(code(&output), Some(expected), "sabot {line}: {}", stderr(&output));
        assert!(stderr(&output).contains(why), "sabot {line}: {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "sabot {line}: {}", stdout(&output));
    }
    let helped = scene.run("--help");
    assert!(code(&helped) == Some(0) && stdout(&helped).contains("Usage: sabot"));

    // Accepted, and said why it is pending.
    let said = scene.ok("partition --target pods:a/b=c --for 5s");
    assert!(
        said.contains("Pending") && said.contains("/nonexistent/cri.sock"),
        "{said}"
    );
}

/// Command lines that are refused, their exit codes, and what must be in the message.
fn wrong_lines(scene: &Scene) -> Vec<(String, i32, &'static str)> {
    let ends = scene.ends();
    let (target, peer) = (scene.lab.pod(0).target(), scene.lab.pod(1).ipv4());
    vec![
        ("get nobody".to_owned(), 1, "nobody"),
        ("delete nobody".to_owned(), 1, "nobody"),
        (String::new(), 2, "Usage"),
        ("explode".to_owned(), 2, "explode"),
        (format!("partition --target {target}"), 2, "--for"),
        (
            format!("partition --target {target} --for 20m"),
            2,
            "spec.duration",
        ),
        (
            format!("partition --target {target} --for 0s"),
            2,
            "spec.duration",
        ),
        (format!("drop 101 {ends}"), 2, "101"),
        (
            format!("delay 5ms --jitter 6ms {ends}"),
            2,
            "spec.action.delay.jitter",
        ),
        (format!("partition --port 0 {ends}"), 2, "port"),
        (
            format!("partition --target {target} --peer cidr:10.0.0.0/33 --for 5s"),
            2,
            "10.0.0.0/33",
        ),
        (
            format!("partition --target {target} --peer cidr:10.0.0.0/8,except=11.0.0.0/8 --for 5s"),
            2,
            "11.0.0.0/8",
        ),
        (
            format!("partition --target pods:a --peer ip:{peer} --for 5s"),
            2,
            "pods:",
        ),
        (
            format!("corrupt 5% --kind colour {ends}"),
            2,
            "[possible values: payload, wire]",
        ),
    ]
}

#[test]
fn a_daemon_that_is_not_there_has_a_code_and_a_hint() {
    let scene = Scene::new(&[]);
    let sabot = scene.daemon.sabot_command::<&str>(&[]).get_program().to_owned();
    let get = |socket: &Path| {
        Command::new(&sabot)
            .arg("--socket")
            .arg(socket)
            .arg("get")
            .output()
            .expect("sabot runs")
    };
    let absent = get(Path::new("/nonexistent.sock"));
    assert_eq!(code(&absent), Some(3));
    assert!(
        stderr(&absent).contains("is sabotd running"),
        "{}",
        stderr(&absent)
    );
    scene.daemon.pause().expect("it stops");
    let silent = scene.run("get --timeout 300ms");
    scene.daemon.resume().expect("it goes on");
    assert_eq!(code(&silent), Some(3), "{}", stderr(&silent));
    assert!(
        stderr(&silent).contains("didn't answer within 300ms"),
        "{}",
        stderr(&silent)
    );
    assert_eq!(code(&get(&scene.daemon.socket())), Some(0));
}

/// A daemon on a machine where TUN is something else: it opens, and is none.
#[test]
fn what_this_machine_cannot_do_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wrapper = folder.path().join("sabotd");
    let mut options = DaemonOptions::built().expect("the daemon is built");
    let script = format!(
        "#!/bin/sh\nmount --bind /dev/null /dev/net/tun && exec {} \"$@\"\n",
        options.sabotd.display()
    );
    let unshared = format!(
        "#!/bin/sh\nexec unshare --mount {}.inner \"$@\"\n",
        wrapper.display()
    );
    for (path, text) in [
        (wrapper.with_extension("inner"), script),
        (wrapper.clone(), unshared),
    ] {
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("its mode");
    }
    options.sabotd = wrapper;
    let scene = Scene::with(options);
    let ends = scene.ends();

    let refused = scene.run(&format!("delay 5ms --name late {ends}"));
    assert_eq!(
        code(&refused),
        Some(4),
        "{}{}",
        stdout(&refused),
        stderr(&refused)
    );
    assert!(stderr(&refused).contains("/dev/net/tun"), "{}", stderr(&refused));
    assert!(scene.names().is_empty(), "a refused fault isn't there");
    let node = scene.json("node");
    let features = node["features"].as_array().expect("features are listed");
    let tun = features
        .iter()
        .find(|feature| feature["name"] == "tun")
        .expect("TUN is one");
    assert_eq!(tun["available"], false, "{tun}");
    assert!(
        tun["consequence"]
            .as_str()
            .is_some_and(|what| what.contains("delay")),
        "{tun}"
    );
    // The rest works.
    scene.ok(&format!("partition --name cut {ends}"));
    assert!(!scene.answers());
}
