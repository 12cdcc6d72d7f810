//! Expiry, deletion, the end of the daemon.

use std::time::Duration;

use super::rig::{Rig, fault_name, pass, pod};
use crate::engine::handle::{EngineError, Phase};

const PARTITION: &str = "{duration: 20s, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}}}, \
                         peers: [{ip: 10.9.0.1}], action: {partition: {}}}";

#[tokio::test(start_paused = true)]
async fn a_fault_expires_by_itself_and_its_target_stays_warm_for_a_while() {
    let mut rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.inject("cut", PARTITION).await;
    pass(Duration::from_secs(19)).await;
    assert_eq!(rig.view("cut").phase, Phase::Injected);
    pass(Duration::from_secs(2)).await;
    let view = rig.view("cut");
    assert_eq!((view.phase, view.slot), (Phase::Expired, None));
    assert_eq!(view.message, "expired after 20s");
    assert!(view.ended.is_some());
    {
        let state = rig.kernel.state();
        assert!(state.rules.is_empty() && state.lists.values().all(Vec::is_empty));
        assert_eq!(state.equipped.len(), 1);
    }
    assert_eq!(rig.changes(), ["cut:applied", "cut:injected", "cut:expired"]);
    pass(Duration::from_secs(70)).await;
    rig.kernel.assert_bare();
    assert_eq!(rig.view("cut").phase, Phase::Expired);
    pass(Duration::from_secs(600)).await;
    assert!(rig.handle.snapshot().faults.is_empty());
}

#[tokio::test(start_paused = true)]
async fn delete_answers_when_the_kernel_no_longer_acts() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("cut", PARTITION).await;
    rig.kernel.fail("clear_rule", 2);
    let view = rig.handle.delete(fault_name("cut")).await.expect("deleted");
    assert_eq!(view.phase, Phase::Deleted);
    assert!(rig.kernel.devices(slot).is_empty());
    assert_eq!(rig.kernel.calls("clear_rule"), 3);
    assert!(rig.kernel.state().rules.is_empty());

    let again = rig.handle.delete(fault_name("cut")).await.expect("it has ended");
    assert_eq!(again.phase, Phase::Deleted);
    let unknown = rig.handle.delete(fault_name("other")).await;
    assert!(matches!(unknown, Err(EngineError::NotFound(name)) if name == fault_name("other")));
}

#[tokio::test(start_paused = true)]
async fn delete_that_the_kernel_refuses_says_so() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.inject("cut", PARTITION).await;
    rig.kernel.fail("clear_rule", 1000);
    let Err(EngineError::Internal(reason)) = rig.handle.delete(fault_name("cut")).await else {
        panic!("it was deleted")
    };
    assert!(
        reason.contains("cut is deleted, but still in the kernel: clear_rule was told to fail"),
        "{reason}"
    );
}

#[tokio::test(start_paused = true)]
async fn delete_all_takes_a_namespace_or_everything() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.inject("a", PARTITION).await;
    rig.inject("b", PARTITION).await;
    let none = rig.handle.delete_all(Some("elsewhere".to_owned())).await;
    assert_eq!(none.expect("answered"), []);
    assert_eq!(rig.view("a").phase, Phase::Injected);
    let all = rig.handle.delete_all(None).await.expect("deleted");
    assert_eq!(all.len(), 2);
    assert!(rig.kernel.state().rules.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_used_again_starts_anew() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let first = rig.inject("cut", PARTITION).await;
    rig.kernel.drop_packets(first, rig.target("eth1"), 5);
    rig.handle.delete(fault_name("cut")).await.expect("deleted");
    assert_eq!(rig.matched("cut").await, 5);
    let second = rig.inject("cut", PARTITION).await;
    assert_ne!(first, second, "the former slot rests");
    assert_eq!(rig.matched("cut").await, 0);
    pass(Duration::from_secs(3)).await;
    assert_eq!(
        rig.kernel.state().counters.len(),
        1,
        "the former counters are freed"
    );
}

#[tokio::test(start_paused = true)]
async fn ended_faults_are_bounded() {
    let rig = Rig::new();
    for number in 0..300 {
        rig.apply(&format!("f{number}"), PARTITION)
            .await
            .expect("accepted");
        rig.handle
            .delete(fault_name(&format!("f{number}")))
            .await
            .expect("deleted");
        pass(Duration::from_secs(1)).await;
    }
    let snapshot = rig.handle.snapshot();
    assert_eq!(snapshot.faults.len(), 256);
    assert!(!snapshot.faults.contains_key(&fault_name("f43")));
    assert!(snapshot.faults.contains_key(&fault_name("f44")));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_daemon_reverts_everything() {
    let rig = Rig::new();
    for number in 1..=5 {
        rig.world.add_pod(pod(&format!("web-{number}"), "web", number));
    }
    rig.inject("cut", PARTITION).await;
    let kernel = rig.kernel.clone();
    let handle = rig.handle.clone();
    kernel.fail("strip", 2);
    assert_eq!(rig.stop().await, Ok(()));
    assert!(kernel.state().disarmed);
    kernel.assert_bare();
    assert!(matches!(
        handle.delete(fault_name("cut")).await,
        Err(EngineError::ShuttingDown)
    ));
}

#[tokio::test(start_paused = true)]
async fn what_cant_be_detached_at_the_end_is_named() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.inject("cut", PARTITION).await;
    rig.kernel.fail("strip", 1000);
    let left = rig.stop().await.expect_err("the target stays");
    assert_eq!(
        left.to_string(),
        "left behind at the end, inert: eth1 (netns 1): strip was told to fail"
    );
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_learn_of_the_end() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.kernel.fail("equip", 1000);
    let handle = rig.handle.clone();
    let waiting = tokio::spawn(async move {
        let (metadata, spec) = super::rig::fault("cut", PARTITION);
        handle.apply(metadata, spec, Duration::from_secs(60)).await
    });
    pass(Duration::from_secs(1)).await;
    rig.stop().await.expect("bare");
    let answer = waiting.await.expect("no panic");
    assert!(matches!(answer, Err(EngineError::ShuttingDown)));
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_follows_at_once_under_the_same_name_has_a_slot_of_its_own() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let former = rig.inject("cut", PARTITION).await;
    // Both are there when the engine looks: one pass follows them.
    let (deleted, next) = tokio::join!(rig.handle.delete(fault_name("cut")), rig.inject("cut", PARTITION));
    assert_eq!(deleted.expect("deleted").phase, Phase::Deleted);
    assert_ne!(former, next);
    assert!(rig.kernel.devices(former).is_empty());
    assert_eq!(rig.kernel.devices(next).len(), 1);
    assert_eq!(rig.view("cut").phase, Phase::Injected);
}
