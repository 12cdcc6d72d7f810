//! Faults on all nodes at once.

use std::io::Write;
use std::process::Stdio;

use sabot_testkit::exec::ExecPod;
use sabot_testkit::wait::wait_until;
use serde_json::Value;

use crate::scene::{LOOK, PATIENCE, Scene, code, column, sabotd, stderr, stdout};

const ENDS: &str = "--target pods:shop/app=a --peer pods:shop/app=b --for 60s";

#[test]
fn a_fault_is_applied_shown_and_deleted_on_all_nodes() {
    let scene = Scene::new(&["one", "two"]);
    let preview = scene.ok(&format!("partition --name cut -n shop --dry-run {ENDS}"));
    assert!(
        preview.contains("Would apply: shop/cut") && preview.contains("NODE  TARGET"),
        "{preview}"
    );
    assert_eq!(scene.json("get")["faults"], Value::Array(Vec::new()));

    let applied = scene.ok(&format!("partition --name cut -n shop {ENDS}"));
    let lines: Vec<_> = applied.lines().collect();
    assert!(
        lines.len() == 3 && lines[0].starts_with("NODE  NAME"),
        "{applied}"
    );
    assert!(
        lines[1].starts_with("one ") && lines[1].contains("Injected"),
        "{applied}"
    );
    assert_eq!(scene.answers(), [false, false]);

    let faults = scene.json("get");
    assert_eq!(column(&faults["faults"], "node"), ["one", "two"]);
    assert_eq!(faults["faults"][1]["metadata"]["name"], "cut");
    assert_eq!(faults["faults"][1]["status"]["phase"], "Injected");
    let detail = scene.ok("get shop/cut");
    for word in ["DIRECTION", "MATCHED", "shop/a"] {
        assert!(detail.contains(word), "{word}: {detail}");
    }
    let timelines = scene.json("timeline shop/cut");
    assert_eq!(column(&timelines["timelines"], "node"), ["one", "two"]);
    assert!(scene.ok("timeline shop/cut").contains("Node two\n"));

    // Known to one node only: that is nobody's failure.
    scene.ok("delete shop/cut --on-node two");
    assert_eq!(scene.answers(), [false, true]);
    assert_eq!(column(&scene.json("get --active")["faults"], "node"), ["one"]);
    // Where it has ended before, deleting it again tells that.
    let deleted = scene.json("delete shop/cut");
    assert_eq!(column(&deleted["faults"], "node"), ["one", "two"]);
    assert_eq!(scene.answers(), [true, true]);
    assert_eq!(scene.ok("delete --all").trim(), "no active faults");

    for line in ["get nobody", "delete nobody", "timeline nobody"] {
        let absent = scene.run(line);
        assert_eq!(code(&absent), Some(1), "{line}");
        assert!(stdout(&absent).is_empty(), "{line}: {}", stdout(&absent));
        assert_eq!(stderr(&absent).lines().count(), 1, "{line}: {}", stderr(&absent));
    }
}

#[test]
fn a_file_is_applied_nowhere_where_one_node_refuses() {
    // The second node allows less.
    let scene = Scene::new(&["one"]);
    let strict = Scene::with(
        &["two"],
        sabot_testkit::exec::Protocol::V5,
        &["--max-duration", "30s"],
    );
    scene.server.put(strict.nodes[0].exec_pod());
    let manifest = |duration: &str| {
        format!(
            "apiVersion: sabot.dev/v1alpha1\nkind: NetworkFault\nmetadata: {{name: cut}}\nspec:\n  \
             duration: {duration}\n  target: {{pods: {{namespace: shop, selector: {{matchLabels: {{app: a}}}}}}}}\n  \
             action: {{partition: {{}}}}\n"
        )
    };
    let apply = |text: &str| {
        let mut command = scene.command("apply -f -");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("sabot runs");
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(text.as_bytes()).expect("sabot reads");
        drop(input);
        child.wait_with_output().expect("sabot ends")
    };
    let refused = apply(&manifest("60s"));
    assert_eq!(code(&refused), Some(2), "{}", stderr(&refused));
    let said = stderr(&refused);
    assert!(
        said.contains("node two: ") && said.contains("spec.duration"),
        "{said}"
    );
    assert!(said.contains("nothing was applied"), "{said}");
    assert_eq!(scene.json("get")["faults"], Value::Array(Vec::new()));
    assert_eq!(scene.answers(), [true]);

    let applied = apply(&manifest("20s"));
    assert_eq!(code(&applied), Some(0), "{}", stderr(&applied));
    assert_eq!(column(&scene.json("get")["faults"], "node"), ["one", "two"]);

    // A node that can't be reached keeps nobody else from it.
    scene.server.put(ExecPod {
        phase: "Failed".to_owned(),
        ..ExecPod::daemon("down", &sabotd(), &scene.nodes[0].daemon.socket())
    });
    let partly = scene.run("drop 5% --name some --target pods:shop/app=b --for 20s -o json");
    assert_eq!(code(&partly), Some(1));
    assert!(stderr(&partly).contains("node down: "), "{}", stderr(&partly));
    let document: Value = serde_json::from_str(&stdout(&partly)).expect("a document");
    assert_eq!(column(&document["faults"], "node"), ["one", "two"]);
    assert_eq!(column(&document["errors"], "node"), ["down"]);
}

#[test]
fn two_ends_are_cut_off_from_each_other_at_one_moment_on_all_nodes() {
    let scene = Scene::new(&["one", "two", "three"]);
    let line = "partition --between pods:shop/app=a --and pods:shop/app=b --name cut --for 12s";
    let applied = scene.json(line);
    let faults = &applied["faults"];
    assert_eq!(
        column(faults, "node"),
        ["one", "one", "three", "three", "two", "two"],
        "{applied:#}"
    );
    let names = faults
        .as_array()
        .expect("a list")
        .iter()
        .map(|f| f["metadata"]["name"].as_str());
    let names: Vec<_> = names.flatten().collect();
    assert_eq!(names, ["cut-a", "cut-b", "cut-a", "cut-b", "cut-a", "cut-b"]);
    // Whoever applies by hand would have each of them begin when it is its turn.
    let statuses: Vec<_> = faults
        .as_array()
        .expect("a list")
        .iter()
        .map(|f| &f["status"])
        .collect();
    for status in &statuses {
        assert_eq!(status["startsAt"], statuses[0]["startsAt"], "{applied:#}");
        assert_eq!(status["expiresAt"], statuses[0]["expiresAt"], "{applied:#}");
        assert_eq!(status["targets"].as_array().map(Vec::len), Some(1), "{applied:#}");
    }
    // One end is the target of the one, the other end that of the other.
    assert_eq!(statuses[0]["targets"][0]["podName"], "a", "{applied:#}");
    assert_eq!(statuses[1]["targets"][0]["podName"], "b", "{applied:#}");

    assert!(
        wait_until(PATIENCE, LOOK, || scene.answers() == [false; 3]),
        "they are never cut all: {:?}",
        phases(&scene)
    );
    assert!(
        wait_until(PATIENCE, LOOK, || scene.answers() == [true; 3]),
        "they don't heal: {:?}",
        phases(&scene)
    );
    assert!(
        wait_until(PATIENCE, LOOK, || phases(&scene) == ["Expired"; 6]),
        "{:?}",
        phases(&scene)
    );
    // The one end has counted the requests that the other never saw.
    for fault in scene.json("get cut-a")["faults"].as_array().expect("a list") {
        assert!(dropped(fault) > 0, "{fault:#}");
    }
}

/// In both directions together.
fn dropped(fault: &Value) -> u64 {
    let ledgers = fault["status"]["ledgers"].as_array().expect("a list");
    let packets = |ledger: &Value| ledger["dropped"]["packets"].as_u64().unwrap_or_default();
    ledgers.iter().map(packets).sum()
}

fn phases(scene: &Scene) -> Vec<String> {
    let faults = scene.json("get");
    let phase = |fault: &Value| fault["status"]["phase"].as_str().unwrap_or_default().to_owned();
    faults["faults"]
        .as_array()
        .expect("a list")
        .iter()
        .map(phase)
        .collect()
}

/// The same on one node, with its own daemon and at once.
#[test]
fn two_ends_are_cut_off_from_each_other_on_this_node() {
    let scene = Scene::new(&["one"]);
    let daemon = &scene.nodes[0].daemon;
    let line = "partition --between pods:shop/app=a --and pods:shop/app=b --name cut --for 60s";
    let words: Vec<_> = line.split(' ').collect();
    let said = daemon
        .sabot_ok(&words)
        .unwrap_or_else(|error| panic!("{error:#}"));
    let lines: Vec<_> = said.lines().collect();
    assert!(
        lines.len() == 2
            && lines[0].starts_with("fault cut-a applied: Injected on 1/1 targets")
            && lines[1].starts_with("fault cut-b applied: Injected on 1/1 targets"),
        "{said}"
    );
    assert_eq!(scene.answers(), [false]);
    daemon.sabot_ok(&["delete", "cut-a"]).expect("it is deleted");
    assert_eq!(scene.answers(), [false], "the other end still cuts");
    daemon.sabot_ok(&["delete", "cut-b"]).expect("it is deleted");
    assert_eq!(scene.answers(), [true]);

    let wrong = daemon.sabot(&[
        "partition",
        "--between",
        "pods:shop/app=a",
        "--and",
        "ip:10.0.0.1",
        "--for",
        "5s",
    ]);
    let wrong = wrong.expect("sabot runs");
    assert_eq!(code(&wrong), Some(2));
    assert!(stderr(&wrong).contains("ip:10.0.0.1"), "{}", stderr(&wrong));
}
