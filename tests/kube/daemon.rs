//! A running daemon beside the server; needs root.

use std::time::Duration;

use sabot_testkit::kube::FakeCluster;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Daemon, DaemonOptions, Netns};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// What `sabot node` says of the cluster.
fn said(daemon: &Daemon) -> Value {
    let node = daemon.sabot_json(&["node"]).expect("the daemon answers");
    let features = node["features"].as_array().expect("features are listed");
    let found = features.iter().find(|feature| feature["name"] == "kubernetes");
    found.expect("the cluster is among them").clone()
}

fn wait_said(daemon: &Daemon, what: &str, holds: impl Fn(&Value) -> bool) {
    let seen = wait_until(PATIENCE, LOOK, || holds(&said(daemon)));
    assert!(seen, "{what}: {}", said(daemon));
}

#[test]
fn a_daemon_says_how_it_goes_with_its_cluster() {
    let node = Netns::new("kube").expect("root is needed");
    let mut cluster = FakeCluster::start_in(&node);
    cluster.apply(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"nodeName": "node-a"}, "status": {"phase": "Running"},
    }));
    let kubeconfig = cluster.kubeconfig();
    let options = DaemonOptions::built().expect("the daemon is built").netns(&node);
    let daemon = Daemon::start(options.flags(&["--kubeconfig", &kubeconfig.to_string_lossy()]));
    let daemon = daemon.expect("the daemon starts");
    let is_ready = |said: &Value| said["available"] == true && said["detail"] == "the API server is v1.33.1";
    wait_said(&daemon, "it is found", is_ready);
    assert!(cluster.wait_for_watches("pods", 1));
    assert!(cluster.wait_for_watches("servicecidrs", 1));
    let scrape = daemon.scrape().expect("it is scraped");
    assert_eq!(scrape.value("sabot_kubernetes_connected", &[]), Some(1.0));
    assert_eq!(scrape.value("sabot_kubernetes_watches", &[]), Some(2.0));
    let lists = [("verb", "list"), ("resource", "pods"), ("code", "200")];
    assert_eq!(scrape.value("sabot_kubernetes_requests_total", &lists), Some(1.0));

    cluster.go_away();
    wait_said(&daemon, "it is away", |said| {
        said["available"] == false
            && said["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("refused"))
    });
    let scrape = daemon.scrape().expect("it is scraped");
    assert_eq!(scrape.value("sabot_kubernetes_connected", &[]), Some(0.0));
    cluster.come_back();
    wait_said(&daemon, "it is back", is_ready);
    assert!(cluster.wait_for_watches("pods", 1));
}
