//! Counters: kept when targets and faults go, never counted twice, never backwards.

use std::time::Duration;

use super::rig::{Rig, fault_name, pass, pod};
use crate::engine::handle::{EngineError, LedgerDirection, Tally};

const PARTITION: &str = "{duration: 5m, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}}}, \
                         action: {partition: {}}}";
const DELAY: &str = "{duration: 5m, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}}}, \
                     action: {delay: {latency: 1s, jitter: 500ms}}}";

#[tokio::test(start_paused = true)]
async fn a_target_has_one_ledger_for_each_direction() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("cut", PARTITION).await;
    rig.kernel.drop_packets(slot, rig.target("eth1"), 3);
    let entries = rig.ledgers("cut").await;
    assert_eq!(
        entries.iter().map(|e| e.direction).collect::<Vec<_>>(),
        [LedgerDirection::Egress, LedgerDirection::Ingress]
    );
    assert_eq!(entries[0].target.pod_name, "web");
    assert_eq!(
        entries[0].ledger.dropped,
        Tally {
            packets: 3,
            bytes: 300
        }
    );
    assert!(entries.iter().all(|entry| entry.ledger.balances()));
    let unknown = rig.handle.ledgers(Some(fault_name("none"))).await;
    assert!(matches!(unknown, Err(EngineError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn totals_survive_the_pods_that_leave() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web-1", "web", 1));
    rig.world.add_pod(pod("web-2", "web", 2));
    let slot = rig.inject("cut", PARTITION).await;
    rig.kernel.drop_packets(slot, rig.target("eth1"), 3);
    rig.kernel.drop_packets(slot, rig.target("eth2"), 4);
    rig.world.remove_pod("sandbox-1");
    pass(Duration::from_secs(1)).await;
    assert_eq!(rig.matched("cut").await, 7);
    assert_eq!(rig.kernel.state().counters.len(), 1);

    // It comes back under the same device: its counters begin at zero in the kernel, and go on here.
    rig.world.add_pod(pod("web-1", "web", 1));
    pass(Duration::from_secs(1)).await;
    rig.kernel.drop_packets(slot, rig.target("eth1"), 5);
    assert_eq!(rig.matched("cut").await, 12);
    assert_eq!(rig.ledgers("cut").await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_ended_faults_counters_are_its_last_ones() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("cut", PARTITION).await;
    let target = rig.target("eth1");
    rig.kernel.drop_packets(slot, target, 3);
    rig.handle.delete(fault_name("cut")).await.expect("deleted");
    assert_eq!(rig.matched("cut").await, 3);
    pass(Duration::from_secs(1)).await;
    assert!(
        rig.kernel.state().counters.is_empty(),
        "they are freed in the kernel"
    );
    assert_eq!(rig.matched("cut").await, 3);
}

#[tokio::test(start_paused = true)]
async fn counters_of_a_delay_stay_until_the_line_has_flushed() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("slow", DELAY).await;
    let target = rig.target("eth1");
    let one = Tally {
        packets: 1,
        bytes: 100,
    };
    rig.kernel.count(slot, target, |ledger| {
        ledger.matched += one;
        ledger.held += one;
    });
    rig.handle.delete(fault_name("slow")).await.expect("deleted");
    pass(Duration::from_secs(2)).await;
    // They are there still, since a packet is held.
    rig.kernel.count(slot, target, |ledger| {
        ledger.held = Tally::default();
        ledger.released += one;
    });
    pass(Duration::from_secs(1)).await;
    assert!(rig.kernel.state().counters.is_empty());
    let entries = rig.ledgers("slow").await;
    assert_eq!(entries[0].ledger.released, one);
    assert!(entries[0].ledger.balances());
}

#[tokio::test(start_paused = true)]
async fn a_slot_rests_while_packets_of_its_former_fault_are_held() {
    let rig = Rig::with(|options| options.policy.max_slots = 1, &[]);
    rig.world.add_pod(pod("web", "web", 1));
    let slow =
        "{duration: 5m, target: {pods: {namespace: shop, name: web}}, action: {delay: {latency: 30s}}}";
    rig.inject("slow", slow).await;
    rig.handle.delete(fault_name("slow")).await.expect("deleted");
    let before = tokio::time::Instant::now();
    let (metadata, spec) = super::rig::fault("next", PARTITION);
    let view = rig
        .handle
        .apply(metadata, spec, Duration::from_secs(60))
        .await
        .expect("accepted");
    assert!(
        before.elapsed() >= Duration::from_secs(30),
        "after {:?}",
        before.elapsed()
    );
    assert_eq!(view.message, "in force on 1 target");
    assert_eq!(rig.matched("next").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_packet_that_is_held_for_ever_doesnt_keep_the_counters_for_ever() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("slow", DELAY).await;
    let target = rig.target("eth1");
    rig.kernel.count(slot, target, |ledger| {
        ledger.matched.packets = 1;
        ledger.held.packets = 1;
    });
    rig.handle.delete(fault_name("slow")).await.expect("deleted");
    pass(Duration::from_secs(10)).await;
    assert!(rig.kernel.state().counters.is_empty());
    let entries = rig.ledgers("slow").await;
    assert_eq!(entries[0].ledger.lost_write.packets, 1);
    assert!(entries[0].ledger.balances(), "{:?}", entries[0].ledger);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_takes_along_what_is_held_for_it() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("slow", DELAY).await;
    let target = rig.target("eth1");
    rig.kernel.count(slot, target, |ledger| {
        ledger.matched.packets = 3;
        ledger.released.packets = 1;
        ledger.held.packets = 2;
    });
    rig.world.remove_pod("sandbox-1");
    pass(Duration::from_secs(10)).await;
    let entries = rig.ledgers("slow").await;
    assert_eq!(entries[0].ledger.lost_write.packets, 2);
    assert!(entries[0].ledger.balances(), "{:?}", entries[0].ledger);
}

#[tokio::test(start_paused = true)]
async fn counters_stay_while_a_packet_waits_in_a_devices_queue() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("cut", PARTITION).await;
    let target = rig.target("eth1");
    rig.kernel
        .count(slot, target, |ledger| ledger.matched.packets = 2);
    rig.handle.delete(fault_name("cut")).await.expect("deleted");
    pass(Duration::from_secs(2)).await;
    // Longer than packets usually take, the line reads them and answers.
    rig.kernel
        .count(slot, target, |ledger| ledger.rejected.packets = 2);
    pass(Duration::from_secs(1)).await;
    assert!(rig.kernel.state().counters.is_empty());
    let entries = rig.ledgers("cut").await;
    assert_eq!(entries[0].ledger.rejected.packets, 2);
    assert!(entries[0].ledger.balances(), "{:?}", entries[0].ledger);
}
