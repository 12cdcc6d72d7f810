//! Ends and restarts.

use std::time::{Duration, SystemTime};

use sabot_testkit::kube::FakeCluster;

use super::rig::{Node, condition, cut, node_part, status, until, until_phase};
use crate::engine::handle::Phase;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_starts_again_resumes_what_is_left() {
    let cluster = FakeCluster::start();
    let node = Node::with_web(&cluster, "node-a").await;
    cluster.apply(cut("cut", "1m"));
    let before = until_phase(&cluster, "cut", "Injected").await;
    let end = node.fault("shop", "cut").expect("the fault").fault.expires;
    node.kill().await;
    tokio::time::sleep(Duration::from_secs(2)).await;

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
