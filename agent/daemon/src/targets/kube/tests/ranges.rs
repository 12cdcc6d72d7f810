//! The ranges that Services have their addresses of.

use std::collections::BTreeSet;

use ipnet::IpNet;
use sabot_core::model::ClusterWanted;
use sabot_testkit::kube::{FakeCluster, Verb};
use serde_json::json;

use super::{BACKOFF, Rig, pod, until, wanting};
use crate::targets::kube::{KubeState, KubeWorld};

#[tokio::test]
async fn the_ranges_of_services_are_known_without_being_wanted() {
    let mut rig = Rig::new(ClusterWanted::default()).await;
    let ranges = |name: &str, cidrs: &[&str]| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": name}, "spec": {"cidrs": cidrs},
        })
    };
    let are = |world: &KubeWorld, expected: &[&str]| {
        let expected = expected.iter().map(|text| text.parse().expect("a prefix"));
        *world.cluster.service_ranges == expected.collect::<BTreeSet<IpNet>>()
    };
    let first = ["10.96.0.0/12", "fd00:96::/112"];
    rig.cluster.apply(ranges("kubernetes", &first));
    rig.until("the first ones", |world| are(world, &first)).await;
    rig.cluster.apply(ranges("more", &["10.128.0.0/20"]));
    let all = [first[0], first[1], "10.128.0.0/20"];
    rig.until("all of them", |world| are(world, &all)).await;
    rig.cluster.delete("servicecidrs", "", "more");
    rig.until("the first ones again", |world| are(world, &first))
        .await;
}

/// As servers before 1.33 don't have the ranges of Services.
#[tokio::test]
async fn what_nobody_waits_for_is_named_and_seldom_asked_for() {
    let cluster = FakeCluster::start();
    cluster.uninstall("servicecidrs");
    cluster.apply(pod("w1", "web", "node-b", "10.0.1.1"));
    let mut rig = Rig::with(cluster, wanting("web"), BACKOFF).await;
    rig.until_pods(&["w1"]).await;
    let lacks = || rig.status.lacks().all();
    until("it is named", async || lacks().contains_key("servicecidrs")).await;
    assert!(lacks()["servicecidrs"].contains("404"), "{:?}", lacks());
    assert!(matches!(rig.status.state(), KubeState::Ready { .. }));
    rig.cluster.install("servicecidrs");
    rig.until_watches("servicecidrs", 1).await;
    until("it is said no more", async || lacks().is_empty()).await;
    let lists = rig.requests(Verb::List, "servicecidrs");
    let [refused, answered] = &lists[..] else {
        panic!("it is asked for again and again: {lists:#?}");
    };
    let pause = answered.at - refused.at;
    assert!(pause >= 20 * BACKOFF.longest, "{pause:?}");
}
