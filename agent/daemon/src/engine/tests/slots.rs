//! Who has a slot: faults that have had a target here, and no others.

use std::time::Duration;

use super::rig::{Rig, fault_name, pass, pod};
use crate::engine::handle::{EngineError, Phase};

const CUT_WEB: &str = "{duration: 1m, target: {pods: {namespace: shop, name: web}}, action: {partition: {}}}";
const CUT_DB: &str = "{duration: 1m, target: {pods: {namespace: shop, name: db}}, action: {partition: {}}}";
const SOON: Duration = Duration::from_millis(10);

fn with_one_slot() -> Rig {
    Rig::with(|options| options.policy.max_slots = 1, &[])
}

#[tokio::test(start_paused = true)]
async fn more_faults_of_other_nodes_than_there_are_slots_are_kept() {
    let rig = with_one_slot();
    for index in 0..31 {
        let view = rig.apply(&format!("elsewhere-{index}"), CUT_DB).await;
        let view = view.expect("the daemon keeps more of them");
        assert_eq!(
            (view.phase, view.slot, view.targets.len()),
            (Phase::Pending, None, 0)
        );
        assert_eq!(view.message, "there is no pod shop/db");
    }
    assert!(rig.ledgers("elsewhere-7").await.is_empty(), "it counted nothing");
    assert!(rig.kernel.state().rules.is_empty());

    rig.world.add_pod(pod("web", "web", 1));
    rig.inject("here", CUT_WEB).await;
    let more = rig.apply("more", CUT_DB).await;
    let Err(EngineError::Exhausted(reason)) = more else {
        panic!("accepted")
    };
    assert!(reason.starts_with("32 faults are active"), "{reason}");
    let deleted = rig.handle.delete(fault_name("elsewhere-7")).await;
    assert_eq!(deleted.expect("it is known").phase, Phase::Deleted);
    pass(Duration::from_secs(121)).await;
    assert_eq!(rig.view("elsewhere-3").phase, Phase::Expired);
    rig.kernel.assert_bare();
}

#[tokio::test(start_paused = true)]
async fn a_slot_comes_with_the_first_target_and_clean_counters() {
    let rig = with_one_slot();
    for name in ["first", "second"] {
        rig.apply(name, CUT_DB).await.expect("accepted");
    }
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("here", CUT_WEB).await;
    let target = rig.target("eth1");
    rig.kernel.drop_packets(slot, target, 3);
    rig.world.add_pod(pod("db", "db", 2));
    pass(SOON).await;
    for name in ["first", "second"] {
        let view = rig.view(name);
        assert_eq!((view.phase, view.slot), (Phase::Failed, None));
        assert!(
            view.message.contains("all 1 slots are in use"),
            "{}",
            view.message
        );
    }
    rig.handle.delete(fault_name("here")).await.expect("deleted");
    pass(Duration::from_secs(3)).await;
    let next = rig.view("first");
    assert_eq!((next.phase, next.slot), (Phase::Injected, Some(slot)));
    assert_eq!(
        (rig.matched("here").await, rig.matched("first").await),
        (3, 0),
        "each has its own"
    );
}

#[tokio::test(start_paused = true)]
async fn a_fault_keeps_its_slot_while_its_pod_is_away() {
    let rig = with_one_slot();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("cut", CUT_WEB).await;
    let target = rig.target("eth1");
    rig.kernel.drop_packets(slot, target, 3);
    rig.world.remove_pod("sandbox-1");
    rig.world.add_pod(pod("db", "db", 2));
    pass(Duration::from_secs(10)).await;
    let away = rig.view("cut");
    assert_eq!((away.phase, away.slot), (Phase::Pending, Some(slot)));
    let other = rig.apply("other", CUT_DB).await;
    assert!(matches!(other, Err(EngineError::Exhausted(_))), "{other:?}");

    rig.world.add_pod(pod("web", "web", 3));
    pass(SOON).await;
    let back = rig.view("cut");
    assert_eq!((back.phase, back.slot), (Phase::Injected, Some(slot)));
    assert_eq!(rig.matched("cut").await, 3, "what it did before stays counted");
}
