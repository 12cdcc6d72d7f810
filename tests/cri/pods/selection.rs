//! Whom a selector means.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;
use std::thread;
use std::time::Duration;

use sabot_proto::sabot::v1::Phase;
use sabot_testkit::cri::{Pod, PodSpec};
use sabot_testkit::traffic::ping;
use serde_json::Value;

use crate::node::{Node, netns};

const PODS: usize = 4;

fn answers(from: &Pod, to: &Pod) -> bool {
    let report = ping(&netns(from), to.ip(), 1, Duration::from_millis(10)).expect("ping runs");
    report.median().is_some()
}

/// The pods that a fault is in force on.
fn hit(node: &Node, fault: &str) -> BTreeSet<String> {
    let status = node.status(fault);
    let targets = status.targets.into_iter().filter_map(|target| target.target);
    targets.map(|target| target.pod_name).collect()
}

#[test]
fn a_pick_takes_so_many_and_always_the_same() {
    let node = Node::start();
    let cli = node.pod(&PodSpec::idle("team-b", "cli"));
    let pods: BTreeMap<String, Pod> = (0..PODS)
        .map(|number| format!("web-{number}"))
        .map(|name| {
            let pod = node.pod(&PodSpec::idle("team-a", &name).label("app", "web"));
            (name, pod)
        })
        .collect();
    let mut picked = BTreeMap::new();
    // A percent is rounded up.
    for (pick, count) in [("2", 2), ("25%", 1), ("30%", 2), ("100%", PODS), ("9", PODS)] {
        node.sabot(&format!(
            "partition --name some --target pods:team-a/app=web --pick {pick} --seed 7 --for 60s"
        ));
        let hit = hit(&node, "some");
        assert_eq!(hit.len(), count, "--pick {pick}: {hit:?}");
        // At once: those that are hit are waited for in vain.
        thread::scope(|scope| {
            for (name, pod) in &pods {
                let (cli, hit) = (&cli, &hit);
                scope.spawn(move || {
                    let expected = !hit.contains(name);
                    assert_eq!(answers(cli, pod), expected, "--pick {pick}: {name}");
                });
            }
        });
        picked.insert(pick, hit);
        node.sabot("delete some");
    }
    assert_eq!(
        picked["2"], picked["30%"],
        "the seed decides, not how the number is said"
    );
    assert!(
        picked["25%"].is_subset(&picked["2"]),
        "a larger pick keeps the smaller one: {picked:?}"
    );
    // Enough seeds take different pods; the same one never does.
    let mut all = BTreeSet::new();
    for seed in 0..16 {
        node.sabot(&format!(
            "partition --name some --target pods:team-a/app=web --pick 1 --seed {seed} --for 60s"
        ));
        all.extend(hit(&node, "some"));
    }
    assert!(all.len() > 1, "sixteen seeds picked {all:?} alone");
}

/// `sabot partition`, of which some fail.
fn partition(node: &Node, name: &str, target: &str, more: &[&str]) -> Output {
    let mut words = vec!["partition", "--name", name, "--target", target, "--for", "60s"];
    words.extend(more);
    node.daemon.sabot(&words).expect("sabot runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn what_cannot_be_hit_is_said_and_nothing_else_is_hit() {
    let node = Node::start();
    let web = node.pod(&PodSpec::idle("team-a", "web").label("app", "web"));
    let cli = node.pod(&PodSpec::idle("team-b", "cli"));
    node.pod(&PodSpec::idle("monitoring", "proxy").host_network());

    let reason = "the pod monitoring/proxy uses the node's network; a fault on it would hit the whole node";
    let refused = partition(&node, "host", "pod:monitoring/proxy", &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(stdout(&refused).contains(reason), "{refused:?}");
    let shown = node.sabot("get host");
    for word in ["Failed", "Refused", reason] {
        assert!(shown.contains(word), "{shown}");
    }
    assert_eq!(node.status("host").phase(), Phase::Failed);

    for (name, target, reason) in [
        (
            "nobody",
            "pods:team-a/app=db",
            "no pod in namespace team-a matches app=db",
        ),
        ("unknown", "pod:team-a/db-0", "there is no pod team-a/db-0"),
    ] {
        let accepted = partition(&node, name, target, &[]);
        assert_eq!(accepted.status.code(), Some(0), "{accepted:?}");
        let said = stdout(&accepted);
        assert!(said.contains("Pending") && said.contains(reason), "{said}");
        let document = node.daemon.sabot_json(&["get", name]).expect("it is there");
        assert_eq!(document["status"]["phase"], "Pending");
        assert_eq!(document["status"]["message"], reason);
        assert_eq!(document["status"]["targets"], Value::Array(Vec::new()));
        let waited = partition(&node, name, target, &["--wait", "100ms"]);
        assert_eq!(waited.status.code(), Some(1), "whoever waits is told: {waited:?}");
    }
    assert!(answers(&cli, &web), "none of them is about this pod");
}

#[test]
fn targets_are_listed_as_the_runtime_made_them() {
    let node = Node::start();
    let web = node.pod(&PodSpec::idle("team-a", "web").label("app", "web"));
    let host = node.pod(&PodSpec::idle("kube-system", "proxy").host_network());
    node.sabot("partition --name cut --target pods:team-a/app=web --for 60s");
    let targets = node.targets();
    assert_eq!(targets.len(), 2, "{targets:#?}");
    let of = |pod: &Pod| {
        let mut found = targets.iter();
        let found = found.find(|target| target["pod"]["sandbox"] == pod.sandbox.as_str());
        found.unwrap_or_else(|| panic!("{} isn't listed: {targets:#?}", pod.spec.name))
    };
    let listed = of(&web);
    assert_eq!(listed["pod"]["namespace"], "team-a");
    assert_eq!(listed["pod"]["labels"]["app"], "web");
    assert_eq!(listed["pod"]["uid"], web.uid.as_str());
    assert_eq!(listed["pod"]["hostNetwork"], false);
    assert_eq!(listed["devices"][0]["name"], "eth0");
    assert_eq!(listed["devices"][0]["netns"], netns(&web).inode());
    assert_eq!(listed["faults"][0]["name"], "cut");
    assert_eq!(listed.get("refusal"), None);
    let addresses = listed["pod"]["addresses"].as_array().into_iter().flatten();
    let addresses: BTreeSet<_> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    assert_eq!(addresses, [web.ip().to_string(), web.ipv6().to_string()].into());

    let listed = of(&host);
    assert_eq!(listed["pod"]["hostNetwork"], true);
    let refusal = listed["refusal"].as_str().unwrap_or_default();
    assert!(refusal.contains("the node's own network"), "{listed:#}");
    let only = node.sabot("targets -n team-a");
    assert!(only.contains("team-a/web") && !only.contains("proxy"), "{only}");
}
