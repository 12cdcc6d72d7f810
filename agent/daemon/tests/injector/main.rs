//! The kernel room alone, on real namespaces: each action's bite and its counters.

mod comings;
mod drops;
mod queries;
mod reasons;
mod rig;
mod wire;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use sabot_core::model::{Action, CorruptKind, Direction};
use sabot_testkit::LabPod;
use sabot_testkit::traffic::{Bulk, ProbeServer, Prober, UdpLoad, UdpReceiver, ping};
use sabotd::engine::datapath::Datapath as _;
use sabotd::engine::handle::LedgerDirection;

use crate::rig::{PATIENCE, Rig, SLOT, assert_reconciled, corrupt, delay, drop_share};

fn median(pod: &LabPod, peer: &LabPod) -> Duration {
    ping(pod.netns(), peer.ipv4(), 15, Duration::from_millis(20))
        .unwrap()
        .median()
        .expect("answers")
}

#[test]
fn partition_cuts_and_mends() {
    let rig = Rig::new();
    let (pod, peer, bystander) = (rig.lab.pod(0), rig.lab.pod(1), rig.lab.pod(2));
    let server = ProbeServer::start(peer.netns(), peer.ipv4()).unwrap();
    let prober = Prober::start(pod.netns(), &server, Duration::from_millis(5)).unwrap();
    prober
        .wait_pass(Instant::now(), Duration::from_secs(5))
        .expect("a pass before the partition");

    rig.apply(Action::Partition, Direction::Both, Some(peer.ipv4()));
    let cut = Instant::now();
    std::thread::sleep(Duration::from_millis(300));
    let answered = prober
        .between(cut, Instant::now())
        .iter()
        .filter(|sample| sample.answered.is_some())
        .count();
    assert_eq!(answered, 0, "probes pass under the partition");
    let other = ping(pod.netns(), bystander.ipv4(), 3, Duration::from_millis(20)).unwrap();
    assert_eq!(other.round_trips.len(), 3, "another peer is cut too");

    rig.injector.clear_rule(SLOT).unwrap();
    prober
        .wait_pass(Instant::now(), Duration::from_secs(5))
        .expect("a pass after the partition");
    let ledger = rig.ledger(LedgerDirection::Egress);
    assert!(ledger.dropped.packets > 0);
    assert_reconciled(&ledger);
}

#[test]
fn drop_is_exact_per_wire_packet() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let receiver = UdpReceiver::start(peer.netns(), peer.ipv4()).unwrap();
    rig.apply(drop_share(20.0), Direction::Both, Some(peer.ipv4()));
    let load = UdpLoad {
        datagrams: 20_000,
        payload: 200,
        per_second: 20_000,
    };
    load.send(pod.netns(), receiver.address()).unwrap();
    let report = receiver.finish(load.datagrams, Duration::from_millis(300));
    let udp = rig.ledger(LedgerDirection::Egress);
    assert_eq!(
        (udp.matched.packets, udp.passed.packets),
        (load.datagrams, report.arrived())
    );

    let bulk = Bulk::listen(peer.netns(), peer.ipv4(), PATIENCE).unwrap();
    rig.apply(drop_share(1.0), Direction::Both, Some(peer.ipv4()));
    let (sent, received) = bulk.send_from(pod.netns(), 20 << 20, PATIENCE).unwrap();
    assert_eq!(sent.sha256, received.sha256);
    std::thread::sleep(Duration::from_millis(300));
    let ledger = rig.ledger(LedgerDirection::Egress);
    let (matched, dropped) = (
        (ledger.matched.packets - udp.matched.packets) as f64,
        (ledger.dropped.packets - udp.dropped.packets) as f64,
    );
    assert!(
        matched > (20 << 20) as f64 / 1500.0,
        "the super-packets were not counted in wire packets: {ledger:?}"
    );
    let deviation = (matched * 0.01 * 0.99).sqrt();
    assert!(
        (dropped - matched * 0.01).abs() < 4.0 * deviation,
        "{dropped} of {matched} dropped at 1 %"
    );
    assert_reconciled(&ledger);
    assert_reconciled(&rig.ledger(LedgerDirection::Ingress));
}

#[test]
fn delay_adds_up_over_both_directions() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let base = median(pod, peer);
    for (direction, added) in [
        (Direction::Egress, 50),
        (Direction::Ingress, 50),
        (Direction::Both, 100),
    ] {
        rig.apply(delay(Duration::from_millis(50)), direction, Some(peer.ipv4()));
        let seen = median(pod, peer).saturating_sub(base);
        let added = Duration::from_millis(added);
        assert!(
            seen.abs_diff(added) < Duration::from_millis(15),
            "{direction:?}: {seen:?} instead of {added:?}"
        );
    }
    rig.apply(
        delay(Duration::from_millis(5)),
        Direction::Egress,
        Some(peer.ipv4()),
    );
    let bulk = Bulk::listen(peer.netns(), peer.ipv4(), PATIENCE).unwrap();
    let (sent, received) = bulk.send_from(pod.netns(), 100 << 20, PATIENCE).unwrap();
    assert_eq!(sent.sha256, received.sha256);
    std::thread::sleep(Duration::from_millis(100));
    for direction in LedgerDirection::BOTH {
        let ledger = rig.ledger(direction);
        assert_eq!(ledger.released, ledger.matched);
        assert_eq!(ledger.delayed, ledger.matched);
    }
}

#[test]
fn corrupt_reaches_the_application_and_nothing_else() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let receiver = UdpReceiver::start(peer.netns(), peer.ipv4()).unwrap();
    rig.apply(
        corrupt(10.0, CorruptKind::Payload),
        Direction::Egress,
        Some(peer.ipv4()),
    );
    let load = UdpLoad {
        datagrams: 5_000,
        payload: 201,
        per_second: 20_000,
    };
    load.send(pod.netns(), receiver.address()).unwrap();
    let report = receiver.finish(load.datagrams, Duration::from_millis(300));
    let ledger = rig.ledger(LedgerDirection::Egress);
    assert_eq!(report.arrived(), load.datagrams);
    assert_eq!(report.altered.len() as u64, ledger.corrupted.packets);
    assert_reconciled(&ledger);
}

/// The verifier follows a million instructions at most; what is added must leave room for older kernels, which prune less,
/// and loading takes as long as following them does.
#[test]
fn programs_stay_within_the_verifiers_budget() {
    let _rig = Rig::new();
    let ours = own_programs();
    let mut seen = 0;
    for program in aya::programs::loaded_programs().flatten() {
        let is_fault = program
            .name_as_str()
            .is_some_and(|name| name.starts_with("fault_"));
        if is_fault && ours.contains(&program.id()) {
            let verified = program
                .verified_instruction_count()
                .expect("a kernel that reports it (5.16)");
            assert!(
                verified < 150_000,
                "{:?} costs {verified} instructions",
                program.name_as_str()
            );
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} programs are loaded");
}

/// The ids of the programs that this process holds; others may have loaded theirs.
fn own_programs() -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fdinfo").unwrap() {
        let info = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let id = info.lines().find_map(|line| line.strip_prefix("prog_id:"));
        ids.extend(id.map(|id| id.trim().parse::<u32>().unwrap()));
    }
    ids
}
