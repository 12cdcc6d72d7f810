//! Pods that come, go and restart while a fault is active, and a runtime that is down.

use std::collections::BTreeSet;
use std::time::Duration;

use super::rig::{Rig, fault_name, pass, pod};
use crate::engine::handle::{Phase, RuntimeState};

const PARTITION: &str = "{duration: 5m, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}}}, \
                         peers: [{pods: {namespace: shop, selector: {matchLabels: {app: cli}}}}], \
                         action: {partition: {}}}";

#[tokio::test(start_paused = true)]
async fn a_pod_that_starts_late_gets_the_fault() {
    let mut rig = Rig::new();
    rig.world.add_pod(pod("cli", "cli", 9));
    let view = rig.apply("cut", PARTITION).await.expect("accepted");
    assert_eq!((view.phase, view.slot), (Phase::Pending, None));
    rig.world.add_pod(pod("web", "web", 1));
    pass(Duration::from_millis(10)).await;
    assert_eq!(rig.view("cut").phase, Phase::Injected);
    let slot = rig.view("cut").slot.expect("a slot");
    assert_eq!(rig.kernel.devices(slot), BTreeSet::from(["eth1".to_owned()]));
    assert_eq!(rig.changes(), ["cut:applied", "cut:injected"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_restarts_gets_the_fault_in_its_new_sandbox() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.world.add_pod(pod("cli", "cli", 9));
    let slot = rig.inject("cut", PARTITION).await;
    rig.world.remove_pod("sandbox-1");
    pass(Duration::from_millis(10)).await;
    assert_eq!(rig.view("cut").phase, Phase::Pending);
    assert!(rig.kernel.state().equipped.is_empty(), "the old device is gone");
    rig.world.add_pod(pod("web", "web", 2));
    pass(Duration::from_millis(10)).await;
    assert_eq!(rig.kernel.devices(slot), BTreeSet::from(["eth2".to_owned()]));
    assert_eq!(rig.view("cut").phase, Phase::Injected);
}

#[tokio::test(start_paused = true)]
async fn peers_follow_their_pods() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let view = rig.apply("cut", PARTITION).await.expect("accepted");
    assert!(
        view.message
            .ends_with("none of its peers exists now, so that it matches no packet"),
        "{}",
        view.message
    );
    let peers = |rig: &Rig| {
        rig.kernel
            .state()
            .peers
            .values()
            .flatten()
            .map(|peer| peer.net.to_string())
            .collect::<Vec<_>>()
    };
    rig.world.add_pod(pod("cli", "cli", 9));
    pass(Duration::from_millis(10)).await;
    assert_eq!(peers(&rig), ["10.0.0.9/32"]);
    assert_eq!(rig.view("cut").message, "in force on 1 target");
    rig.world.remove_pod("sandbox-9");
    pass(Duration::from_millis(10)).await;
    assert!(peers(&rig).is_empty());
}

#[tokio::test(start_paused = true)]
async fn peers_follow_what_names_mean() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let spec = "{duration: 5m, target: {pods: {namespace: shop, name: web}}, direction: egress, \
                peers: [{host: API.shop.test}], action: {partition: {}}}";
    let view = rig.apply("cut", spec).await.expect("accepted");
    let slot = view.slot.expect("a slot");
    assert_eq!(view.phase, Phase::Injected);
    assert!(
        view.message.contains("no address of its peers is known yet"),
        "{}",
        view.message
    );
    assert_eq!(
        rig.world.wanted().names,
        BTreeSet::from(["api.shop.test".to_owned()])
    );
    {
        let state = rig.kernel.state();
        assert!(state.rules[&slot].watches_dns);
        // Answers arrive, whatever the direction of the fault.
        assert!(state.equipped.values().all(|(_, equipment)| equipment.ingress));
    }
    let known = |addresses: &[u8]| {
        let addresses = addresses.iter().map(|last| [192, 0, 2, *last].into()).collect();
        rig.world
            .change(|update| drop(update.world.names.insert("api.shop.test".to_owned(), addresses)));
    };
    let peers = || {
        let state = rig.kernel.state();
        let nets = state.peers.values().flatten().map(|peer| peer.net.to_string());
        nets.collect::<Vec<_>>()
    };
    known(&[1, 2]);
    pass(Duration::from_millis(10)).await;
    assert_eq!(peers(), ["192.0.2.1/32", "192.0.2.2/32"]);
    assert!(rig.kernel.state().rules[&slot].peers_exact);
    assert_eq!(rig.view("cut").message, "in force on 1 target");
    assert_eq!(rig.view("cut").names["api.shop.test"].len(), 2);
    let writes = rig.kernel.calls("write_rule");
    known(&[2, 3]);
    pass(Duration::from_millis(10)).await;
    assert_eq!(peers(), ["192.0.2.2/32", "192.0.2.3/32"]);
    assert_eq!(rig.kernel.calls("write_rule"), writes, "the set changes in place");

    let fault = rig.handle.delete(fault_name("cut")).await.expect("it is known");
    assert_eq!(fault.names["api.shop.test"].len(), 2);
    pass(Duration::from_millis(10)).await;
    assert!(rig.world.wanted().names.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_down_is_said_and_changes_nothing() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("cut", PARTITION).await;
    let down = RuntimeState::Down("connection refused".to_owned());
    rig.world.change(|update| update.runtime = down.clone());
    pass(Duration::from_millis(10)).await;
    assert_eq!(rig.handle.snapshot().runtime, down);
    assert_eq!(rig.kernel.devices(slot), BTreeSet::from(["eth1".to_owned()]));
    let other = "{duration: 1m, target: {pods: {namespace: shop, name: db}}, action: {partition: {}}}";
    let view = rig.apply("other", other).await.expect("accepted");
    assert_eq!(
        view.message,
        "there is no pod shop/db (the container runtime is down: connection refused)"
    );
}

#[tokio::test(start_paused = true)]
async fn snapshots_are_published_on_change_alone() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.world.add_pod(pod("cli", "cli", 9));
    rig.inject("cut", PARTITION).await;
    pass(Duration::from_secs(1)).await;
    let generation = rig.handle.snapshot().generation;
    pass(Duration::from_secs(60)).await;
    rig.matched("cut").await;
    assert_eq!(rig.handle.snapshot().generation, generation);
    assert!(rig.control.heartbeat().age() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn eager_attachment_makes_the_first_fault_warm() {
    let rig = Rig::with(|options| options.policy.attach_eagerly = true, &[]);
    rig.world.add_pod(pod("web", "web", 1));
    pass(Duration::from_secs(1)).await;
    assert_eq!(rig.kernel.calls("equip"), 1);
    rig.inject("cut", PARTITION).await;
    assert_eq!(rig.kernel.calls("equip"), 1);
}
