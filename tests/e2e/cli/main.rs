//! Every command of `sabot` against a real daemon, as scripts and people use it.

mod faults;
mod refusals;
mod scene;

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use self::scene::{Scene, Stream, code, stderr, stdout};

#[test]
fn streams_show_what_happens_as_it_happens() {
    let scene = Scene::new(&[]);
    let ends = scene.ends();
    let watch = Stream::start(&scene, "watch -o json --interval 100ms");
    watch.wait("the beginning", |change| change["change"] == "synced");
    let events = Stream::start(&scene, "events -o json --type packet --type fault --fault cut");
    let dropped = Stream::start(&scene, "events -o json --type packet --outcome passed");

    // Events come from now on: an event of a fault's change tells that the stream is open.
    let mut number = 0;
    let opened = loop {
        number += 1;
        scene.ok(&format!("partition --name cut --sample-every 1 {ends}"));
        if let Ok(event) = events.documents.recv_timeout(Duration::from_millis(500)) {
            break event;
        }
        scene.ok("delete cut");
        assert!(number < 20, "no event comes");
    };
    assert_eq!(opened["type"], "fault", "{opened}");
    assert_eq!(opened["fault"]["name"], "cut", "{opened}");
    watch.wait("the fault", |change| change["fault"]["metadata"]["name"] == "cut");
    let own = Stream::start(&scene, "watch cut -o json");
    own.wait("the beginning", |change| change["change"] == "synced");

    assert!(!scene.answers());
    let packet = events.wait("a packet", |event| event["type"] == "packet");
    let (client, server) = (scene.lab.pod(0), scene.lab.pod(1));
    assert_eq!(packet["outcome"], "dropped", "{packet}");
    assert_eq!(packet["direction"], "egress", "{packet}");
    assert_eq!(packet["source"], client.ipv4().to_string(), "{packet}");
    assert_eq!(packet["destination"], server.ipv4().to_string(), "{packet}");
    assert_eq!(
        (&packet["protocol"], &packet["wirePackets"]),
        (&Value::from(1), &Value::from(1))
    );
    // 56 bytes of data, 8 of ICMP, 20 of IP and 14 of Ethernet.
    assert_eq!(packet["wireBytes"], 98, "{packet}");
    assert_eq!(packet["device"], "eth0", "{packet}");
    let moved = watch.wait("counters", |change| change["change"] == "counters");
    assert_eq!(
        moved["fault"]["status"]["ledgers"].as_array().map(Vec::len),
        Some(2),
        "{moved:#}"
    );

    scene.ok("delete cut");
    watch.wait("the end", |change| change["change"] == "deleted");
    events.wait("the end", |event| event["change"] == "deleted");
    assert_eq!(own.end(), Some(0), "a watch of one fault ends with it");
    assert!(
        dropped.documents.try_iter().next().is_none(),
        "nothing has passed a partition"
    );
    assert_eq!(code(&scene.run("watch nobody")), Some(1));
}

#[test]
fn the_node_and_its_targets_are_shown() {
    let scene = Scene::new(&[]);
    let node = scene.json("node");
    assert_eq!(node["name"], "node-a");
    assert_eq!(node["runtime"]["state"], "absent", "{node:#}");
    let table = scene.ok("node");
    for word in ["node-a", "tcx", "absent"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert!(scene.ok("node -o yaml").contains("kernelRelease:"));

    assert_eq!(scene.json("targets")["targets"], Value::Array(Vec::new()));
    scene.ok(&format!("partition --name cut {}", scene.ends()));
    let targets = scene.json("targets");
    let path = scene.lab.pod(0).netns().path().display().to_string();
    assert_eq!(targets["targets"][0]["netns"], path.as_str(), "{targets:#}");
    assert_eq!(targets["targets"][0]["faults"][0]["name"], "cut", "{targets:#}");
    assert!(scene.ok("targets").contains(&path));
    assert_eq!(scene.json("node")["activeFaults"], 1);
}

#[test]
fn completions_are_printed_for_each_shell() {
    let scene = Scene::new(&[]);
    for (shell, mark) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef sabot"),
        ("fish", "complete -c sabot"),
    ] {
        let script = scene.ok(&format!("completions {shell}"));
        assert!(
            script.contains(mark) && script.contains("partition"),
            "{shell}: {script}"
        );
    }
    // The shell itself is the judge.
    let script = scene.ok("completions bash");
    let checked = Command::new("bash")
        .args(["-n", "-c", &script])
        .output()
        .expect("bash runs");
    assert!(checked.status.success(), "{}", stderr(&checked));
    assert_eq!(code(&scene.run("completions perl")), Some(2));
}

#[test]
fn kubectl_finds_it_as_a_plugin() {
    let scene = Scene::new(&[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plugin = folder.path().join("kubectl-sabot");
    let sabot = scene.daemon.sabot_command::<&str>(&[]).get_program().to_owned();
    symlink(&sabot, &plugin).expect("a link");
    let help = Command::new(&plugin).arg("--help").output().expect("it runs");
    assert!(
        stdout(&help).contains("Usage: kubectl sabot"),
        "{}",
        stdout(&help)
    );
    let get = Command::new(&plugin)
        .arg("--socket")
        .arg(scene.daemon.socket())
        .arg("get")
        .output();
    assert_eq!(stdout(&get.expect("it runs")).trim(), "no faults");
    let wrong = Command::new(&plugin).arg("explode").output().expect("it runs");
    assert_eq!(code(&wrong), Some(2));
    assert!(stderr(&wrong).contains("kubectl sabot"), "{}", stderr(&wrong));
}
