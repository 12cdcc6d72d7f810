//! What the chart's pod may do, and that it is enough.

use std::collections::BTreeSet;
use std::fs;

use sabot_testkit::cri::{Pod, PodSpec};
use sabot_testkit::{Daemon, DaemonOptions, NetnsRef};
use serde_json::{Value, json};

use crate::scene::{NODE, Scene, both};

/// By the numbers of the kernel's `capability.h`.
const CAPABILITIES: [(&str, u32); 6] = [
    ("NET_ADMIN", 12),
    ("SYS_PTRACE", 19),
    ("SYS_ADMIN", 21),
    ("SYS_NICE", 23),
    ("PERFMON", 38),
    ("BPF", 39),
];

fn status(pod: &Pod, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", pod.pid)).expect("the container runs");
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {text}"))
        .trim()
        .to_owned()
}

/// What works on a node, by its name.
fn features(node: &Value) -> Vec<(String, bool)> {
    let features = node["features"].as_array().expect("a list").iter();
    let mut all: Vec<_> = features
        .map(|feature| {
            let name = feature["name"].as_str().expect("it has a name");
            (name.to_owned(), feature["available"] == true)
        })
        .collect();
    all.sort();
    all
}

/// The counters of a fault's directions, added up.
fn counted(scene: &Scene, fault: &str, counter: &str) -> u64 {
    let document = scene.sabot_json(&format!("get {fault}"));
    let mut sum = 0;
    let mut pending = vec![&document];
    while let Some(value) = pending.pop() {
        match value {
            Value::Object(map) => {
                sum += map
                    .get(counter)
                    .and_then(|tally| tally["packets"].as_u64())
                    .unwrap_or_default();
                pending.extend(map.values());
            }
            Value::Array(list) => pending.extend(list),
            _ => {}
        }
    }
    sum
}

fn pods(scene: &Scene) -> [Pod; 2] {
    [("team-a", "web"), ("team-b", "cli")].map(|(namespace, name)| {
        let spec = PodSpec::web(namespace, name).label("app", name);
        let pod = scene.containerd.run_pod(&spec).expect("the pod runs");
        scene.wait_known(&pod);
        pod
    })
}

#[test]
fn the_charts_pod_has_its_rights_and_no_more_and_injects() {
    let scene = Scene::start(&json!({}));
    let wanted: BTreeSet<_> = scene.container()["securityContext"]["capabilities"]["add"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|name| name.as_str().expect("a name"))
        .collect();
    let mask = CAPABILITIES.iter().filter(|(name, _)| wanted.contains(name));
    let mask: Vec<_> = mask.map(|(_, number)| 1u64 << number).collect();
    assert_eq!(
        mask.len(),
        wanted.len(),
        "a capability that this test doesn't know"
    );
    let mask = format!("{:016x}", mask.iter().sum::<u64>());
    for field in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(&scene.sabotd, field), mask, "{field}");
    }
    assert_eq!(status(&scene.sabotd, "Seccomp"), "2", "a filter is in force");
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", scene.sabotd.pid)).expect("it runs");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"));
    let options = root.and_then(|line| line.split(' ').nth(5)).expect("a root");
    assert!(options.split(',').any(|option| option == "ro"), "{options}");

    // Everything works that works for root on the node itself.
    let node = NetnsRef::open(scene.containerd.node_netns()).expect("the node has a namespace");
    let options = DaemonOptions::built().expect("the daemon is built");
    let outside = Daemon::start(options.runtime(&scene.containerd.socket()).netns(&node))
        .and_then(|daemon| daemon.sabot_json(&["node"]))
        .expect("a daemon runs on the node");
    let inside = scene.sabot_json("node");
    assert_eq!(inside["name"], NODE);
    assert_eq!(features(&inside), features(&outside), "{inside:#}");
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let answer = scene.probe(probe);
        assert_eq!(answer.status, 200, "{probe}: {answer:?}");
    }

    let [web, cli] = pods(&scene);
    scene.wait_reaches(&cli, &web);
    scene.sabot_ok("partition --name cut --target pods:team-a/app=web --peer pods:team-b/app=cli --for 2m");
    let reached = both(|| scene.fetch(&cli, &web), || scene.fetch(&web, &cli));
    assert_eq!(reached, [None, None]);
    scene.sabot_ok("delete cut");
    scene.wait_reaches(&cli, &web);
    assert!(counted(&scene, "cut", "dropped") > 0);

    scene.sabot_ok("delay 30ms --name late --target pod:team-a/web --for 2m");
    scene.wait_reaches(&cli, &web);
    assert!(counted(&scene, "late", "released") > 0, "through /dev/net/tun");

    // What the pod has in force goes with it.
    scene.sabot_ok("partition --name again --target pod:team-a/web --for 2m");
    assert_eq!(scene.fetch(&cli, &web), None);
    scene.containerd.stop_pod(&scene.sabotd).expect("the pod ends");
    scene.wait_reaches(&cli, &web);
}

#[test]
fn without_the_device_what_needs_it_is_refused_and_the_rest_works() {
    let scene = Scene::start(&json!({"tun": false}));
    let [web, cli] = pods(&scene);
    scene.wait_reaches(&cli, &web);
    let refused = scene.sabot("delay 30ms --target pod:team-a/web --for 2m");
    assert_eq!(refused.exit_code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("tun"), "{refused:?}");
    scene.sabot_ok("partition --name cut --target pod:team-a/web --for 2m");
    assert_eq!(scene.fetch(&cli, &web), None);
}
