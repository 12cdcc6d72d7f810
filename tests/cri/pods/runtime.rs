//! A runtime that is down for a while.

use std::time::Instant;

use sabot_testkit::cri::PodSpec;
use sabot_testkit::wait::wait_until;
use serde_json::Value;

use crate::node::{LOOK, Node, PATIENCE, Probes, is_injected};

/// `sabot node -o json`: what it says about the runtime.
fn runtime(node: &Node) -> Value {
    node.daemon.sabot_json(&["node"]).expect("the daemon answers")["runtime"].clone()
}

fn wait_runtime(node: &Node, state: &str) -> Value {
    let reached = wait_until(PATIENCE, LOOK, || runtime(node)["state"] == state);
    assert!(reached, "the runtime isn't {state}: {:#}", runtime(node));
    runtime(node)
}

#[test]
fn faults_go_on_without_the_runtime_and_pods_are_known_again_after_its_return() {
    let mut node = Node::start();
    let web = node.pod(&PodSpec::web("team-a", "web").label("app", "web"));
    let cli = node.pod(&PodSpec::web("team-b", "cli").label("app", "cli"));
    let third = node.pod(&PodSpec::web("team-b", "third"));
    assert_eq!(wait_runtime(&node, "ready")["name"], "containerd");
    let (cut, free) = (
        Probes::start(&cli, &web, web.ip()),
        Probes::start(&third, &web, web.ip()),
    );
    node.sabot("partition --name cut --target pods:team-a/app=web --peer pods:team-b/app=cli --for 300s");
    let since = Instant::now() + LOOK;

    node.containerd.kill().expect("containerd is killed");
    let down = wait_runtime(&node, "down");
    assert!(
        down["message"].as_str().is_some_and(|why| !why.is_empty()),
        "{down}"
    );
    assert_eq!(node.daemon.http("/healthz").expect("it answers").0, 200);
    assert_eq!(node.targets().len(), 3, "the last known pods stay");
    assert!(is_injected(&node.status("cut")));
    // New faults on known pods work, and what is pending says what may be the reason.
    node.sabot("partition --name more --target pod:team-b/third --for 300s");
    assert!(is_injected(&node.status("more")));
    node.sabot("delete more");
    let said = node.sabot("partition --name none --target pods:team-a/app=db --for 300s");
    assert!(said.contains("the container runtime is down"), "{said}");
    free.prober
        .wait_pass(Instant::now(), PATIENCE)
        .expect("the third pod is free");

    node.containerd.start_again().expect("containerd starts again");
    wait_runtime(&node, "ready");
    cut.assert_cut(since, Instant::now());
    assert!(is_injected(&node.status("cut")));
    node.assert_cut(&[(&cli, &web)]);
    for pod in [&web, &cli, &third] {
        node.wait_known(pod);
    }
    // What starts from now on is known as before.
    let late = node.pod(&PodSpec::web("team-a", "late").label("app", "web"));
    node.wait_status("cut", "the late pod", |status| {
        is_injected(status) && status.targets.len() == 2
    });
    node.assert_cut(&[(&cli, &late)]);
    node.assert_reaches(&[(&third, &late)]);
    node.sabot("delete cut");
    node.assert_reaches(&[(&cli, &web)]);
    assert!(
        !node.status("none").message.contains("is down"),
        "{}",
        node.status("none").message
    );
}
