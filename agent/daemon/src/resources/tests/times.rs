//! Ends and restarts.

use std::time::{Duration, SystemTime};

use sabot_testkit::kube::{Effect, FakeCluster, Rule, Verb};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::rig::{Node, PATIENCE, condition, cut, node_part, status, until, until_phase};
use crate::engine::handle::Phase;
use crate::resources::watch::{self, Seen};
use crate::targets::kube::{Backoff, Connection, KubeConfig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_starts_again_resumes_what_is_left() {
    let cluster = FakeCluster::start();
    let node = Node::with_web(&cluster, "node-a").await;
    cluster.apply(cut("cut", "1m"));
    let before = until_phase(&cluster, "cut", "Injected").await;
    let end = node.fault("shop", "cut").expect("the fault").fault.expires;
    node.kill().await;
    sleep(Duration::from_secs(2)).await;

    let node = Node::with_web(&cluster, "node-a").await;
    until("the fault again", || {
        node.fault("shop", "cut")
            .is_some_and(|view| view.phase == Phase::Injected)
    })
    .await;
    let resumed = node.fault("shop", "cut").expect("the fault").fault.expires;
    let apart = end.duration_since(resumed).expect("it doesn't last longer");
    assert!(apart <= Duration::from_millis(1), "{apart:?} are lost");
    // Another node that only now has a target counts from the same instant.
    let other = Node::with_web(&cluster, "node-b").await;
    until("the other's part", || {
        node_part(&status(&cluster, "cut"), "node-b")["phase"] == "Injected"
    })
    .await;
    assert_eq!(
        other.fault("shop", "cut").expect("the fault").fault.expires,
        resumed
    );
    assert_eq!(status(&cluster, "cut")["expiresAt"], before["expiresAt"]);
    node.kill().await;
    other.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_over_says_what_it_did_and_never_comes_back() {
    let cluster = FakeCluster::start();
    let node = Node::with_web(&cluster, "node-a").await;
    cluster.apply(cut("cut", "3s"));
    until_phase(&cluster, "cut", "Injected").await;
    let slot = node
        .fault("shop", "cut")
        .expect("the fault")
        .slot
        .expect("a slot");
    node.rig.kernel.drop_packets(slot, node.rig.target("eth1"), 7);
    let over = until_phase(&cluster, "cut", "Expired").await;
    until("its counters", || {
        node_part(&status(&cluster, "cut"), "node-a")["packets"]["dropped"] == 7
    })
    .await;
    assert_eq!(condition(&over, "Expired")["status"], "True");
    assert_eq!(
        node.fault("shop", "cut").expect("the fault").phase,
        Phase::Expired
    );
    until("its last event", || {
        let events = cluster.objects("events");
        events.iter().any(|event| event["reason"] == "FaultEnded")
    })
    .await;
    node.kill().await;

    let node = Node::with_web(&cluster, "node-a").await;
    cluster.apply(cut("later", "1m"));
    until_phase(&cluster, "later", "Injected").await;
    assert!(node.fault("shop", "cut").is_none());
    assert_eq!(
        node_part(&status(&cluster, "cut"), "node-a")["packets"]["dropped"],
        7
    );
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_faults_keep_their_ends() {
    let mut cluster = FakeCluster::start();
    let node = Node::with_web(&cluster, "node-a").await;
    cluster.apply(cut("cut", "4s"));
    until_phase(&cluster, "cut", "Injected").await;
    let end = node.fault("shop", "cut").expect("the fault").fault.expires;
    cluster.go_away();
    until("its end", || {
        node.fault("shop", "cut")
            .is_some_and(|view| view.phase == Phase::Expired)
    })
    .await;
    assert!(SystemTime::now() >= end);
    cluster.come_back();
    until_phase(&cluster, "cut", "Expired").await;
    node.kill().await;
}

/// The times of the resource that has the name now, once its part says that it is in force.
async fn times(cluster: &FakeCluster, nodes: [&Node; 2]) -> [Value; 2] {
    until("both parts", || {
        let resource = cluster.get("networkfaults", "shop", "cut").expect("it is there");
        let part = |name| node_part(&resource["status"], name);
        let own = part("node-a");
        own["phase"] == "Injected"
            && own["uid"] == resource["metadata"]["uid"]
            && part("node-b")["uid"] == own["uid"]
    })
    .await;
    let expires = nodes.map(|node| node.fault("shop", "cut").expect("the fault").fault.expires);
    assert_eq!(expires[0], expires[1], "all nodes end it at the same instant");
    ["injectedAt", "expiresAt"].map(|field| node_part(&status(cluster, "cut"), "node-a")[field].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_comes_late_says_nothing_of_the_next_one_of_the_name() {
    let cluster = FakeCluster::start();
    let nodes = [
        Node::with_web(&cluster, "node-a").await,
        Node::with_web(&cluster, "node-b").await,
    ];
    // The begin's writes, one of each node.
    let late = Rule::new(Effect::Delay(Duration::from_secs(3)));
    cluster.script(late.verb(Verb::Patch).resource("networkfaults").times(2));
    cluster.apply(cut("cut", "10m"));
    let asked = || {
        cluster
            .requests()
            .iter()
            .filter(|r| r.verb == Verb::Patch)
            .count()
    };
    until("both writes are under way", || asked() == 2).await;
    sleep(Duration::from_millis(500)).await;
    assert!(cluster.delete("networkfaults", "shop", "cut"));
    cluster.apply(cut("cut", "10m"));
    let before = times(&cluster, [&nodes[0], &nodes[1]]).await;
    assert!(before[0].is_string(), "{before:?}");

    let others = || {
        cluster
            .requests()
            .iter()
            .any(|r| r.verb == Verb::Patch && r.code == 0)
    };
    until("the late writes have come", || !others()).await;
    // Time for what follows from them.
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(times(&cluster, [&nodes[0], &nodes[1]]).await, before);
    for node in nodes {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_never_answered_is_asked_for_again() {
    let cluster = FakeCluster::start();
    let silent = Rule::new(Effect::Hang).verb(Verb::List);
    cluster.script(silent.resource("networkfaults").times(1));
    let config = KubeConfig::find(Some(&cluster.kubeconfig()))
        .await
        .expect("a configuration");
    let backoff = Backoff {
        first: Duration::from_millis(20),
        longest: Duration::from_millis(100),
    };
    let limit = Duration::from_millis(300);
    let connection = Connection::with_times(config, "node-a", backoff, limit).expect("a client");
    let handle = connection.handle().expect("a server");
    cluster.apply(cut("cut", "1m"));
    let mut seen = watch::start(&handle.client, &handle.state, &handle.lacks);
    let find = async {
        while let Some(seen) = seen.recv().await {
            if matches!(seen, Seen::Is(resource) if resource.key.name == "cut") {
                return;
            }
        }
        panic!("nobody tells any more");
    };
    timeout(PATIENCE, find).await.expect("it is found in the end");
}
