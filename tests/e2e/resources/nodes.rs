//! Several nodes and one resource.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use sabot_testkit::wait::wait_until;
use serde_json::json;

use crate::scene::{IN_FLIGHT, LOOK, PATIENCE, Scene, apart, cut, nodes, part, text, time};

const BOTH: [(&str, usize); 2] = [("node-a", 1), ("node-b", 1)];

#[test]
fn each_node_writes_its_own_part_and_all_end_together() {
    let scene = Scene::new(&BOTH);
    scene.cluster.apply(cut("cut", "7s"));
    let status = scene.wait_status("cut", "both parts", |status| {
        status["targets"] == 2 && status["phase"] == "Injected"
    });
    assert_eq!(nodes(&status), ["node-a", "node-b"]);
    scene.wait_cut(0);
    scene.wait_cut(1);
    let end = time(&status["expiresAt"]);
    let ends = || {
        scene.nodes.iter().all(|node| {
            let fault = node.fault("cut").expect("it is there");
            apart(time(&fault["status"]["expiresAt"]), end) <= Duration::from_millis(2)
        })
    };
    assert!(wait_until(PATIENCE, LOOK, ends), "they don't end together");
    for pod in [0, 1] {
        assert!(scene.wait_pass(pod) >= end);
    }
    let over = scene.wait_status("cut", "both ends", |status| {
        ["node-a", "node-b"]
            .iter()
            .all(|node| !part(status, node)["packets"].is_null())
    });
    assert_eq!(over["phase"], "Expired");
    for write in scene.writes() {
        let node = text(&json!(write.query["fieldManager"])).replace("sabot-", "");
        assert_eq!(
            nodes(&write.body["status"]),
            [node],
            "a node writes for another one"
        );
        assert_eq!(write.query.get("force").map(String::as_str), Some("true"));
    }
    for node in ["node-a", "node-b"] {
        assert!(
            part(&over, node)["packets"]["dropped"].as_u64() > Some(0),
            "{over:#}"
        );
    }
}

#[test]
fn one_pod_of_all_is_picked_without_talking() {
    let scene = Scene::new(&[("node-a", 2), ("node-b", 2)]);
    let mut picked = BTreeSet::new();
    for seed in 1..=3 {
        let name = format!("pick-{seed}");
        let mut fault = cut(&name, "10m");
        fault["spec"]["seed"] = json!(seed);
        fault["spec"]["target"]["pods"]["pick"] = json!({"count": 1});
        let begin = Instant::now();
        scene.cluster.apply(fault);
        let status = scene.wait_phase(&name, "Injected");
        let cut = || (0..4).filter(|pod| scene.is_cut(*pod)).collect::<Vec<_>>();
        assert!(
            wait_until(PATIENCE, LOOK, || !cut().is_empty()),
            "no pod is cut off"
        );
        // A node that picked wrongly would not be silent for long.
        thread::sleep(Duration::from_millis(500));
        let hit = cut();
        assert_eq!(hit.len(), 1, "{hit:?} are cut off");
        // Nor was it for a moment, before it knew the other's pods.
        for pod in (0..4).filter(|pod| *pod != hit[0]) {
            let outages = scene.prober(pod).outages(begin, Instant::now() - IN_FLIGHT, 3);
            assert!(outages.is_empty(), "pod {pod} was cut off too: {outages:?}");
        }
        let node = if hit[0] < 2 { "node-a" } else { "node-b" };
        assert_eq!(nodes(&status), [node]);
        assert_eq!(scene.status(&name)["targets"], 1);
        picked.insert(hit[0]);
        scene.cluster.delete("networkfaults", "shop", &name);
        scene.wait_pass(hit[0]);
    }
    eprintln!("picked: {picked:?}");
}

#[test]
fn a_node_that_is_gone_keeps_its_word() {
    let mut scene = Scene::new(&BOTH);
    scene.cluster.apply(cut("cut", "7s"));
    let status = scene.wait_status("cut", "both parts", |status| {
        ["node-a", "node-b"]
            .iter()
            .all(|node| part(status, node)["phase"] == "Injected")
    });
    scene.wait_cut(0);
    scene.wait_cut(1);
    // The first node writes the sum; without it the other one does, after a while.
    scene.kill(1);
    scene.wait_pass(1);
    assert!(scene.is_cut(0), "the other node goes on");
    scene.wait_phase("cut", "Expired");
    let over = scene.status("cut");
    assert_eq!(part(&over, "node-b"), part(&status, "node-b"));
    // Once it is back it says how it ended.
    scene.begin(1);
    scene.wait_status("cut", "the other's end", |status| {
        part(status, "node-b")["phase"] == "Expired"
    });
    assert_eq!(scene.nodes[1].fault("cut"), None);
}
