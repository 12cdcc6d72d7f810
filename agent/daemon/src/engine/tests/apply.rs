//! Applying, editing, previewing, refusing.

use std::collections::BTreeSet;
use std::time::Duration;

use sabot_core::model::Action;

use super::rig::{Rig, WAIT, device, fault, pass, pod};
use crate::engine::handle::{EngineError, Phase, TargetPhase};

const PARTITION: &str = "{duration: 1m, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}}}, \
                         peers: [{cidr: 10.9.0.0/16}], action: {partition: {}}}";
const DELAY: &str = "{duration: 1m, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}}}, \
                     action: {delay: {latency: 50ms}}}";

#[tokio::test(start_paused = true)]
async fn a_fault_is_in_force_when_apply_answers() {
    let mut rig = Rig::new();
    rig.world.add_pod(pod("web-1", "web", 1));
    rig.world.add_pod(pod("web-2", "web", 2));
    rig.world.add_pod(pod("cli", "cli", 3));
    let slot = rig.inject("cut", PARTITION).await;
    assert_eq!(
        rig.kernel.devices(slot),
        BTreeSet::from(["eth1".to_owned(), "eth2".to_owned()])
    );
    let view = rig.view("cut");
    assert_eq!(view.message, "in force on 2 targets");
    assert!(view.injected.is_some() && view.ended.is_none());
    assert_eq!(
        view.targets
            .iter()
            .map(|t| t.pod_name.as_str())
            .collect::<Vec<_>>(),
        ["web-1", "web-2"]
    );
    let peers = rig
        .kernel
        .state()
        .peers
        .values()
        .map(BTreeSet::len)
        .sum::<usize>();
    assert_eq!(peers, 1);
    assert_eq!(rig.changes(), ["cut:applied", "cut:injected"]);
}

#[tokio::test(start_paused = true)]
async fn a_warm_target_is_not_equipped_again() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.inject("first", PARTITION).await;
    rig.inject("second", PARTITION).await;
    assert_eq!(rig.kernel.calls("equip"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_edit_keeps_the_slot_and_the_creation_and_moves_the_end() {
    let mut rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("cut", PARTITION).await;
    let before = rig.view("cut").fault;
    pass(Duration::from_secs(30)).await;
    assert_eq!(rig.inject("cut", DELAY).await, slot);
    let after = rig.view("cut").fault;
    assert_eq!(before.created, after.created);
    assert!(after.expires_at.0 - before.expires_at.0 >= 30_000_000_000);
    let state = rig.kernel.state();
    assert!(matches!(state.rules[&slot].action, Action::Delay { .. }));
    let (_, equipment) = state.equipped.values().next().expect("one target");
    assert!(equipment.line && equipment.egress && equipment.ingress);
    drop(state);
    let changes = ["cut:applied", "cut:injected", "cut:edited", "cut:injected"];
    assert_eq!(rig.changes(), changes);
}

#[tokio::test(start_paused = true)]
async fn the_same_fault_again_changes_nothing_and_does_not_last_longer() {
    let mut rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("cut", PARTITION).await;
    let before = rig.view("cut").fault;
    rig.kernel.drop_packets(slot, rig.target("eth1"), 7);
    pass(Duration::from_secs(30)).await;
    assert_eq!(rig.inject("cut", PARTITION).await, slot);
    let after = rig.view("cut").fault;
    assert_eq!(
        (after.expires_at, after.expires),
        (before.expires_at, before.expires)
    );
    assert_eq!(rig.matched("cut").await, 7);
    assert_eq!(rig.kernel.calls("set_slots"), 1);
    assert_eq!(rig.changes(), ["cut:applied", "cut:injected"]);
    pass(Duration::from_secs(31)).await;
    assert_eq!(rig.view("cut").phase, Phase::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_selector_that_matches_nothing_is_accepted_and_pending_at_once() {
    let rig = Rig::new();
    let before = tokio::time::Instant::now();
    let view = rig.apply("cut", PARTITION).await.expect("accepted");
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(view.phase, Phase::Pending);
    assert_eq!(view.message, "no pod in namespace shop matches app=web");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_refused_by_field_and_has_no_effect() {
    let rig = Rig::new();
    let spec = "{target: {netns: /run/netns/x}, ports: [{port: 0}], action: {drop: {percent: 101}}}";
    let Err(EngineError::Invalid(violations)) = rig.apply("bad", spec).await else {
        panic!("accepted")
    };
    let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(
        fields,
        ["spec.duration", "spec.ports[0].port", "spec.action.drop.percent"]
    );
    assert!(rig.handle.snapshot().faults.is_empty());
    assert_eq!(rig.kernel.calls("write_rule"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_machine_cant_do_is_refused_with_the_reason_and_the_rest_works() {
    let rig = Rig::with(|_| {}, &["tun"]);
    rig.world.add_pod(pod("web", "web", 1));
    let Err(EngineError::Unsupported(reason)) = rig.apply("slow", DELAY).await else {
        panic!("accepted")
    };
    assert_eq!(
        reason,
        "delay is not possible on this node: tun: tun was looked for; nothing that needs tun works"
    );
    rig.inject("cut", PARTITION).await;

    let rig = Rig::with(|_| {}, &["tcx", "clsact"]);
    assert!(matches!(
        rig.apply("cut", PARTITION).await,
        Err(EngineError::Unsupported(_))
    ));
    let rig = Rig::with(|_| {}, &["tcx", "veth"]);
    let drop = "{duration: 1m, target: {netns: /n}, action: {drop: {percent: 20}}}";
    assert!(matches!(
        rig.apply("some", drop).await,
        Err(EngineError::Unsupported(_))
    ));
    let all = "{duration: 1m, target: {netns: /n}, action: {drop: {percent: 100}}}";
    assert!(rig.apply("all", all).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_fault_more_than_the_table_holds_is_refused() {
    let rig = Rig::with(|options| options.policy.max_slots = 2, &[]);
    rig.world.add_pod(pod("web", "web", 1));
    rig.apply("a", PARTITION).await.expect("the first");
    rig.apply("b", PARTITION).await.expect("the second");
    let Err(EngineError::Exhausted(reason)) = rig.apply("c", PARTITION).await else {
        panic!("accepted")
    };
    assert!(reason.starts_with("2 active faults have targets"), "{reason}");
    rig.apply("b", DELAY).await.expect("an edit needs no slot");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_lies_ahead_is_prepared_and_pending_until_then() {
    let mut rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let (metadata, mut spec) = fault("cut", PARTITION);
    spec.starts_at = Some(std::time::SystemTime::now() + Duration::from_secs(20));
    let view = rig.handle.apply(metadata, spec, WAIT).await.expect("accepted");
    assert_eq!(view.phase, Phase::Pending);
    assert!(view.message.starts_with("starts at "), "{}", view.message);
    assert_eq!(view.targets[0].phase, TargetPhase::Injected);
    pass(Duration::from_secs(30)).await;
    assert_eq!(rig.view("cut").phase, Phase::Injected);
    assert_eq!(rig.changes(), ["cut:applied", "cut:injected"]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_is_looked_at_before_apply_answers_and_stays_in_sight() {
    let rig = Rig::new();
    rig.world.add_netns("/run/netns/a", device("veth-a", 40));
    let spec = "{duration: 10s, target: {netns: /run/netns/a}, action: {partition: {}}}";
    rig.inject("cut", spec).await;
    assert_eq!(rig.world.refreshes(), 1);
    pass(Duration::from_secs(15)).await;
    assert_eq!(rig.view("cut").phase, Phase::Expired);
    rig.inject("again", spec).await;
    assert_eq!((rig.world.refreshes(), rig.kernel.calls("equip")), (1, 1));

    rig.world.add_netns("/run/netns/a", device("veth-a", 41));
    let view = rig.apply("third", spec).await.expect("accepted");
    assert_eq!(rig.world.refreshes(), 2, "it is another namespace now");
    assert_eq!(view.targets[0].key.as_ref().map(|k| k.netns.ino), Some(41));

    pass(Duration::from_secs(120)).await;
    assert_eq!(rig.world.wanted(), Default::default());
    rig.kernel.assert_bare();
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_not_there_is_pending_with_the_reason() {
    let rig = Rig::new();
    rig.world.change(|update| {
        let reason = "No such file or directory".to_owned();
        update.netns_failures.insert("/run/netns/none".into(), reason);
    });
    let spec = "{duration: 10s, target: {netns: /run/netns/none}, action: {partition: {}}}";
    let view = rig.apply("cut", spec).await.expect("accepted");
    assert_eq!(view.phase, Phase::Pending);
    assert_eq!(
        view.message,
        "there is no network namespace /run/netns/none (No such file or directory)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_preview_touches_nothing_and_warns() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let mut on_node = pod("agent", "web", 2);
    on_node.host_network = true;
    rig.world.add_pod(on_node);
    rig.world.add_node_address([10, 9, 0, 1]);
    let spec = "{duration: 1m, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}}}, \
                peers: [{cidr: 10.9.0.0/16, except: [10.9.7.0/24]}, {pods: {namespace: team, name: db}}], \
                action: {partition: {}}}";
    let (metadata, spec) = fault("cut", spec);
    let preview = rig.handle.preview(metadata, spec).await.expect("valid");
    assert_eq!(preview.peers, ["10.9.0.0/16", "except 10.9.7.0/24"]);
    assert_eq!(preview.targets.len(), 2);
    assert!(matches!(preview.targets[1].phase, TargetPhase::Refused(_)));
    for part in [
        "uses the node's network",
        "(10.9.0.1) is spared",
        "nothing that is known here matches pod team/db",
        "ClusterIP",
    ] {
        let found = preview.warnings.iter().any(|warning| warning.contains(part));
        assert!(found, "`{part}` is not in {:?}", preview.warnings);
    }
    assert!(rig.handle.snapshot().faults.is_empty());
    assert_eq!(rig.kernel.calls("equip"), 0);
}

#[tokio::test(start_paused = true)]
async fn apply_gives_up_waiting_and_says_how_things_stand() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.kernel.fail("equip", 1000);
    let (metadata, spec) = fault("cut", PARTITION);
    let before = tokio::time::Instant::now();
    let view = rig
        .handle
        .apply(metadata, spec, Duration::from_secs(2))
        .await
        .expect("accepted");
    assert!(before.elapsed() >= Duration::from_secs(2));
    assert_eq!(view.phase, Phase::Failed);
    assert_eq!(
        view.message,
        "in force on 0 of 1 target; shop/web: equip was told to fail"
    );
}
