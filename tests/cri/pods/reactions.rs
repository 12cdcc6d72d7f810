//! What the runtime does about a pod that hurts, and whose the traffic of pods on the node's network is.

use std::env;
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::Duration;

use sabot_testkit::cri::{Containerd, PodSpec};
use sabot_testkit::wait::wait_until;
use serde_json::Value;

use crate::node::{LOOK, Node, PATIENCE, is_injected};

/// Within this time the daemon knows the containers that there are.
const LISTED: Duration = Duration::from_secs(4);
/// Connections of the pod on the node's network.
const CONNECTIONS: usize = 7;

fn moments(node: &Node, fault: &str) -> Vec<(String, String)> {
    let timeline = node.daemon.sabot_json(&["timeline", fault]).expect("it is known");
    let targets = timeline["targets"].as_array().expect("a list").iter();
    let moments = targets.flat_map(|target| target["moments"].as_array().cloned().unwrap_or_default());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    moments
        .map(|moment| (text(&moment["kind"]), text(&moment["detail"])))
        .collect()
}

#[test]
fn the_end_of_a_container_that_is_older_than_the_daemon_is_its_pods() {
    let containerd = Containerd::start(&env::temp_dir()).expect("containerd starts");
    let pod = containerd
        .run_pod(&PodSpec::idle("team-a", "web"))
        .expect("the pod runs");
    let node = Node::on(containerd, &[]);
    node.wait_known(&pod);
    node.sabot("partition --name cut --target pod:team-a/web --for 60s");
    node.wait_status("cut", "its target", is_injected);
    let is_recorded = || !moments(&node, "cut").is_empty();
    assert!(wait_until(PATIENCE, LOOK, is_recorded));
    // Containers are asked for once a second, which nothing outside shows.
    thread::sleep(LISTED);
    node.containerd.stop_container(&pod).expect("it ends");
    let reacted = || {
        let moments = moments(&node, "cut");
        let reaction = moments.iter().find(|(kind, _)| kind == "runtimeReaction");
        reaction
            .is_some_and(|(_, detail)| detail.starts_with("StopContainer by ") && detail.ends_with(": OK"))
    };
    assert!(wait_until(PATIENCE, LOOK, reacted), "{:?}", moments(&node, "cut"));
}

#[test]
fn connections_of_a_pod_on_the_nodes_network_are_its_own() {
    let node = Node::start();
    let listener = node
        .netns()
        .run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .expect("an address");
    let port = listener.local_addr().expect("an address").port();
    let pod = node.pod(&PodSpec::idle("team-a", "agent").host_network());
    let opened = || {
        let scrape = node.daemon.scrape().expect("metrics are served");
        let labels = [("pod", "agent"), ("outcome", "opened")];
        scrape.sum("sabot_tcp_connections_total", &labels)
    };
    // It has counters as soon as the observers know it.
    let is_known = || {
        let scrape = node.daemon.scrape().expect("metrics are served");
        let series = scrape.samples("sabot_tcp_rtos_total", &[("pod", "agent")]);
        series.count() > 0
    };
    assert!(wait_until(PATIENCE, LOOK, is_known), "it has no counters");
    let before = opened();
    let answering = thread::spawn(move || {
        for _ in 0..CONNECTIONS {
            drop(listener.accept().expect("a connection"));
        }
    });
    let url = format!("http://127.0.0.1:{port}/");
    for _ in 0..CONNECTIONS {
        // There is no page; that it connects is what matters.
        node.containerd
            .exec(&pod, &["wget", "-q", "-O", "-", &url], PATIENCE)
            .expect("the runtime runs it");
    }
    answering.join().expect("all have come");
    let grown = || opened() - before;
    assert!(
        wait_until(PATIENCE, LOOK, || grown() == CONNECTIONS as f64),
        "{}",
        grown()
    );
}
