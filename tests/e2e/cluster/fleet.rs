//! Which daemons are asked, how, and what is told of those that don't answer.

use std::process::{Command, Stdio};

use sabot_testkit::DaemonOptions;
use sabot_testkit::exec::{ExecPod, Protocol};
use sabot_testkit::wait::wait_until;
use serde_json::Value;

use crate::scene::{LOOK, PATIENCE, Scene, code, column, sabotd, stderr, stdout};

#[test]
fn one_table_holds_what_all_nodes_say() {
    let scene = Scene::new(&["one", "two", "three"]);
    let nodes = scene.json("node");
    assert_eq!(column(&nodes["nodes"], "node"), ["one", "three", "two"]);
    assert_eq!(column(&nodes["nodes"], "name"), ["one", "three", "two"]);
    assert_eq!(nodes["errors"], Value::Array(Vec::new()));
    let table = scene.ok("node");
    let lines: Vec<_> = table.lines().collect();
    assert!(lines.len() == 4 && lines[0].starts_with("NODE "), "{table}");
    assert!(
        lines[0].contains("KERNEL") && lines[1].starts_with("one "),
        "{table}"
    );

    let targets = scene.json("targets");
    assert_eq!(
        column(&targets["targets"], "node"),
        ["one", "one", "three", "three", "two", "two"]
    );
    let two = scene.json("targets --on-node two --on-node one");
    assert_eq!(column(&two["targets"], "node"), ["one", "one", "two", "two"]);
    assert!(scene.ok("targets -o yaml").starts_with("targets:\n- node: one\n"));

    assert_eq!(scene.ok("get").trim(), "no faults");
    assert_eq!(scene.json("get")["faults"], Value::Array(Vec::new()));
    // The server hears a little later that the client has gone.
    assert!(
        wait_until(PATIENCE, LOOK, || scene.server.running() == 0),
        "{} bridges outlive their calls",
        scene.server.running()
    );

    // What is about one node only.
    assert!(scene.ok("flows --on-node two").contains("no open connections"));
    let which = scene.run("flows");
    assert_eq!(code(&which), Some(2));
    assert!(
        stderr(&which).contains("there are 3; name one by --on-node"),
        "{}",
        stderr(&which)
    );
}

#[test]
fn the_older_protocol_works_too() {
    let scene = Scene::with(&["one"], Protocol::V4, &[]);
    assert_eq!(column(&scene.json("node")["nodes"], "node"), ["one"]);
}

#[test]
fn nodes_that_do_not_answer_are_named_and_the_others_are_shown() {
    let scene = Scene::new(&["one", "two"]);
    let pod = |node: &str| ExecPod::daemon(node, &sabotd(), &scene.nodes[0].daemon.socket());
    scene.server.put(ExecPod {
        phase: "Pending".to_owned(),
        ..pod("waits")
    });
    scene.server.put(ExecPod {
        forbidden: true,
        ..pod("closed")
    });
    scene.server.put(ExecPod {
        environment: [("SABOT_SOCKET".to_owned(), "/nonexistent.sock".to_owned())].into(),
        ..pod("silent")
    });
    scene.server.put(ExecPod {
        programs: [].into(),
        ..pod("bare")
    });
    let output = scene.run("node -o json");
    assert_eq!(code(&output), Some(1));
    let nodes: Value = serde_json::from_str(&stdout(&output)).expect("a document");
    assert_eq!(column(&nodes["nodes"], "node"), ["one", "two"]);
    assert_eq!(
        column(&nodes["errors"], "node"),
        ["bare", "closed", "silent", "waits"]
    );
    let said = stderr(&output);
    for (node, why) in [
        ("bare", "executable file not found"),
        ("closed", "cannot create resource \"pods/exec\""),
        ("silent", "can't reach the daemon on /nonexistent.sock"),
        ("waits", "it is Pending"),
    ] {
        let told = said
            .lines()
            .any(|line| line.starts_with(&format!("error: node {node}: ")) && line.contains(why));
        assert!(told, "{node}, {why}: {said}");
    }
    assert!(said.contains("4 of 6 nodes failed"), "{said}");

    // Where all that are asked fail alike, the code says how.
    for (node, expected) in [("closed", 4), ("silent", 3), ("waits", 3)] {
        let alone = scene.run(&format!("get --on-node {node}"));
        assert_eq!(code(&alone), Some(expected), "{node}: {}", stderr(&alone));
    }
    let unknown = scene.run("get --on-node nobody");
    assert_eq!(code(&unknown), Some(2));
    assert!(
        stderr(&unknown).contains("`nobody`") && stderr(&unknown).contains("one"),
        "{}",
        stderr(&unknown)
    );
}

#[test]
fn what_is_wrong_with_the_cluster_itself_is_said() {
    let scene = Scene::new(&[]);
    let none = scene.run("get");
    assert_eq!(code(&none), Some(3), "{}", stderr(&none));
    assert!(stderr(&none).contains("--sabot-namespace"), "{}", stderr(&none));
    let elsewhere = scene.run("get --sabot-namespace ops");
    assert!(
        stderr(&elsewhere).contains("namespace ops"),
        "{}",
        stderr(&elsewhere)
    );
    let dead = scene.run("get --context dead");
    assert_eq!(code(&dead), Some(3), "{}", stderr(&dead));
    for line in ["get --context nobody", "get --kubeconfig /nonexistent"] {
        let wrong = Command::new(DaemonOptions::built().expect("sabot is built").sabot)
            .env("KUBECONFIG", scene.server.kubeconfig())
            .args(line.split(' '))
            .output()
            .expect("sabot runs");
        assert_eq!(code(&wrong), Some(2), "{line}: {}", stderr(&wrong));
        assert!(
            stderr(&wrong).contains("kubeconfig"),
            "{line}: {}",
            stderr(&wrong)
        );
    }
}

/// Many nodes are asked some at a time; they are one daemon here.
#[test]
fn not_all_nodes_are_asked_at_once() {
    let scene = Scene::new(&["real"]);
    for number in 0..49 {
        let node = format!("node-{number:02}");
        scene
            .server
            .put(ExecPod::daemon(&node, &sabotd(), &scene.nodes[0].daemon.socket()));
    }
    let nodes = scene.json("node");
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(50));
    assert_eq!(scene.server.ran(), 50);
    let most = scene.server.most_running();
    assert!((2..=16).contains(&most), "{most} at once");
}

#[test]
fn the_kubeconfig_of_the_environment_is_used() {
    let scene = Scene::new(&["one"]);
    let output = Command::new(DaemonOptions::built().expect("sabot is built").sabot)
        .env("KUBECONFIG", scene.server.kubeconfig())
        .args(["get", "--cluster"])
        .stdin(Stdio::null())
        .output()
        .expect("sabot runs");
    assert_eq!(stdout(&output).trim(), "no faults", "{}", stderr(&output));
    // Without any of the flags it is this node's daemon that is asked.
    let local = Command::new(DaemonOptions::built().expect("sabot is built").sabot)
        .env("KUBECONFIG", scene.server.kubeconfig())
        .env("SABOT_SOCKET", "/nonexistent.sock")
        .arg("get")
        .output()
        .expect("sabot runs");
    assert_eq!(code(&local), Some(3));
    assert!(stderr(&local).contains("/nonexistent.sock"), "{}", stderr(&local));
}
