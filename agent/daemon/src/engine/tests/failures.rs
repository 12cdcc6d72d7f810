//! What the kernel refuses, once or for good.

use std::time::Duration;

use super::rig::{Rig, fault_name, pass, pod};
use crate::engine::handle::{Phase, TargetPhase};

const PARTITION: &str = "{duration: 5m, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}}}, \
                         peers: [{ip: 10.9.0.1}], action: {partition: {}}}";

#[tokio::test(start_paused = true)]
async fn equipping_is_tried_again_with_longer_and_longer_pauses() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.kernel.fail("equip", 4);
    let before = tokio::time::Instant::now();
    rig.inject("cut", PARTITION).await;
    // 100, 200, 400 and 800 ms lie between the attempts.
    assert!(before.elapsed() >= Duration::from_millis(1500));
    assert_eq!(rig.kernel.calls("equip"), 5);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_stays_is_no_busy_loop() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.kernel.fail("equip", 100_000);
    rig.apply("cut", PARTITION).await.expect("accepted");
    pass(Duration::from_secs(100)).await;
    let equips = rig.kernel.calls("equip");
    assert!((20..=40).contains(&equips), "{equips} attempts in 110 s");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_refused_for_good_is_said_so_at_once_and_the_others_are_in_force() {
    let mut rig = Rig::new();
    rig.world.add_pod(pod("web-1", "web", 1));
    rig.world.add_pod(pod("web-2", "web", 2));
    let reason = "no MAC header".to_owned();
    rig.kernel.state().refused.insert("eth2".to_owned(), reason);
    let before = tokio::time::Instant::now();
    let view = rig.apply("cut", PARTITION).await.expect("accepted");
    assert!(before.elapsed() < Duration::from_secs(1));
    assert_eq!(view.phase, Phase::Partial);
    assert_eq!(
        view.message,
        "in force on 1 of 2 targets; shop/web-2: no MAC header"
    );
    assert_eq!(
        view.targets[1].phase,
        TargetPhase::Refused("no MAC header".to_owned())
    );
    assert_eq!(rig.changes(), ["cut:applied", "cut:partial"]);
    pass(Duration::from_secs(60)).await;
    assert_eq!(rig.kernel.calls("equip"), 2, "it isn't tried again");
}

#[tokio::test(start_paused = true)]
async fn one_faults_failure_leaves_the_others_alone() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.inject("first", PARTITION).await;
    rig.kernel.fail("add_peers", 3);
    let slot = rig.inject("second", PARTITION).await;
    assert!(rig.kernel.devices(slot).contains("eth1"));
    rig.kernel.fail("add_peers", 100_000);
    let bad = tokio::spawn({
        let handle = rig.handle.clone();
        let (metadata, spec) = super::rig::fault("bad", PARTITION);
        async move { handle.apply(metadata, spec, Duration::from_secs(3)).await }
    });
    pass(Duration::from_millis(500)).await;
    let without_peers =
        "{duration: 1m, target: {pods: {namespace: shop, name: web}}, action: {partition: {}}}";
    rig.inject("good", without_peers).await;
    rig.handle.delete(fault_name("first")).await.expect("deleted");
    let view = bad.await.expect("no panic").expect("accepted");
    assert_eq!(view.phase, Phase::Failed);
    assert!(
        view.message.contains("add_peers was told to fail"),
        "{}",
        view.message
    );
}

#[tokio::test(start_paused = true)]
async fn a_rule_or_a_list_that_fails_once_is_written_the_next_time() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.kernel.fail("write_rule", 2);
    rig.kernel.fail("set_slots", 2);
    rig.inject("cut", PARTITION).await;
    assert_eq!(
        (rig.kernel.calls("write_rule"), rig.kernel.calls("set_slots")),
        (3, 3)
    );
}

#[tokio::test(start_paused = true)]
async fn the_nodes_addresses_reach_the_kernel_in_the_end() {
    let rig = Rig::new();
    rig.kernel.fail("set_node_addresses", 1);
    pass(Duration::from_millis(1)).await;
    rig.world.add_node_address([192, 0, 2, 1]);
    pass(Duration::from_secs(3)).await;
    assert!(rig.kernel.state().node.contains(&[192, 0, 2, 1].into()));
}

#[tokio::test(start_paused = true)]
async fn more_targets_than_the_table_holds_are_partial_and_say_why() {
    let rig = Rig::with(|options| options.policy.max_targets = 2, &[]);
    for number in 1..=3 {
        rig.world.add_pod(pod(&format!("web-{number}"), "web", number));
    }
    let view = rig.apply("cut", PARTITION).await.expect("accepted");
    assert_eq!(view.phase, Phase::Partial);
    assert!(
        view.message.contains("all 2 targets have faults on them"),
        "{}",
        view.message
    );
    rig.world.remove_pod("sandbox-1");
    pass(Duration::from_secs(1)).await;
    assert_eq!(rig.view("cut").phase, Phase::Injected);
}
