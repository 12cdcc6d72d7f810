//! What the kernel drops, told apart from what faults drop.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use sabot_abi::{DIRECTION_EGRESS, DIRECTION_INGRESS, DROP_LOSS_COUNT, DropEvent, DropKey, OwnerKey, Tally};
use sabot_core::model::{Action, Direction};
use sabot_testkit::LabPod;
use sabot_testkit::traffic::{Bulk, UdpLoad, UdpReceiver};
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::HookKind;
use sabotd::kernel::drops::{DropProgram, DropProgramConfig};
use sabotd::kernel::netns;
use sabotd::kernel::nsfs::NetnsFile;

use crate::rig::{PATIENCE, Rig, assert_reconciled, delay, drop_share};

const POD: u32 = 7;
const LOAD: UdpLoad = UdpLoad {
    datagrams: 4_000,
    payload: 300,
    per_second: 20_000,
};
/// A segment without payload: MAC, IPv4 and TCP headers with a timestamp.
const BARE_SEGMENT: u32 = 14 + 20 + 32;
const QUIET: Duration = Duration::from_millis(300);

/// The program, with the first pod as the only owner, and its ring.
pub(crate) struct Drops(DropProgram, RingBuf<MapData>);

impl Drops {
    pub(crate) fn of(pod: &LabPod) -> Self {
        let config = DropProgramConfig {
            counts: 1024,
            ring_bytes: 1 << 16,
            event_rate: 1000,
        };
        let (program, ring) = DropProgram::attach(&config).expect("the program loads (root is needed)");
        let netns = NetnsFile::open(pod.netns().path()).unwrap();
        let cookie = netns::cookie(netns.as_fd()).expect("Linux 5.14");
        let key = OwnerKey { cookie, cgroup: 0 };
        program.set_owners(&[(key, POD)]).unwrap();
        Self(program, ring)
    }

    fn sum(&self, which: impl Fn(&DropKey) -> bool) -> Tally {
        let mut sum = Tally::default();
        for (key, tally) in self.0.counts().unwrap() {
            assert_eq!(key.owner, POD);
            if which(&key) {
                sum.packets += tally.packets;
                sum.bytes += tally.bytes;
            }
        }
        sum
    }

    fn injected(&self, direction: u32) -> Tally {
        self.sum(|key| key.injected == 1 && key.direction == direction)
    }

    pub(crate) fn unresolved(&self) -> u64 {
        self.0.unresolved().unwrap()
    }

    pub(crate) fn foreign(&self, reason: &str, direction: u32) -> Tally {
        self.sum(|key| {
            key.injected == 0 && key.direction == direction && self.0.reasons().name(key.reason) == reason
        })
    }

    /// Foreign drops of packets between two pods, one by one; the kernel drops its own multicast too.
    pub(crate) fn between(&mut self, a: &LabPod, b: &LabPod) -> Vec<(String, DropEvent)> {
        let ends = [a.ipv4(), b.ipv4()].map(|ip| match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        });
        let mut events = Vec::new();
        while let Some(entry) = self.1.next() {
            assert_eq!(entry.len(), size_of::<DropEvent>());
            // SAFETY: the entry is as long as the type, which accepts every bit pattern; the read needs no alignment.
            let event = unsafe { entry.as_ptr().cast::<DropEvent>().read_unaligned() };
            if ends.contains(&event.source) && ends.contains(&event.destination) {
                events.push((self.0.reasons().name(event.reason), event));
            }
        }
        events
    }

    pub(crate) fn described(&self) -> Vec<(String, DropKey, Tally)> {
        let counts = self.0.counts().unwrap();
        let named = |(key, tally): (DropKey, Tally)| (self.0.reasons().name(key.reason), key, tally);
        counts.into_iter().map(named).collect()
    }
}

fn send_udp(rig: &Rig, direction: Direction) -> u64 {
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let (from, to) = match direction {
        Direction::Ingress => (peer, pod),
        _ => (pod, peer),
    };
    let receiver = UdpReceiver::start(to.netns(), to.ipv4()).unwrap();
    LOAD.send(from.netns(), receiver.address()).unwrap();
    receiver.finish(LOAD.datagrams, QUIET).arrived()
}

/// Ten megabytes in super-packets.
fn send_bulk(rig: &Rig, direction: Direction) {
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let (from, to) = match direction {
        Direction::Ingress => (peer, pod),
        _ => (pod, peer),
    };
    let bulk = Bulk::listen(to.netns(), to.ipv4(), PATIENCE).unwrap();
    let (sent, received) = bulk.send_from(from.netns(), 10 << 20, PATIENCE).unwrap();
    assert_eq!(sent.sha256, received.sha256);
    std::thread::sleep(QUIET);
}

fn assert_equal(rig: &Rig, drops: &Drops) {
    for (number, direction) in [
        (DIRECTION_EGRESS, LedgerDirection::Egress),
        (DIRECTION_INGRESS, LedgerDirection::Ingress),
    ] {
        let ledger = rig.ledger(direction);
        let seen = drops.injected(number);
        assert_eq!(
            (seen.packets, seen.bytes),
            (ledger.dropped.packets, ledger.dropped.bytes),
            "{direction:?}: {ledger:?}; {:?}",
            drops.described()
        );
        assert_reconciled(&ledger);
    }
}

fn injected_drops_are_the_faults_own(hook: HookKind) {
    let rig = Rig::on(hook);
    let drops = Drops::of(rig.lab.pod(0));
    let peer = rig.lab.pod(1).ipv4();
    for direction in [Direction::Egress, Direction::Ingress] {
        rig.apply(drop_share(20.0), direction, Some(peer));
        send_udp(&rig, direction);
        assert_equal(&rig, &drops);
        rig.apply(drop_share(1.0), Direction::Both, Some(peer));
        send_bulk(&rig, direction);
        assert_equal(&rig, &drops);
    }
    let total = drops.injected(DIRECTION_EGRESS).packets + drops.injected(DIRECTION_INGRESS).packets;
    assert!(total > LOAD.datagrams / 4, "{:?}", drops.described());
}

#[test]
fn what_faults_drop_is_told_apart_on_tcx() {
    injected_drops_are_the_faults_own(HookKind::Tcx);
}

#[test]
fn what_faults_drop_is_told_apart_on_clsact() {
    injected_drops_are_the_faults_own(HookKind::Clsact);
}

/// Super-packets that are dropped whole weigh as much as the wire packets that they stand for.
#[test]
fn a_partition_drops_super_packets_whole() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let drops = Drops::of(pod);
    let bulk = Bulk::listen(peer.netns(), peer.ipv4(), Duration::from_secs(3)).unwrap();
    let cut = std::thread::scope(|scope| {
        let cut = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(150));
            rig.apply(Action::Partition, Direction::Both, Some(peer.ipv4()));
        });
        // It can't end: the partition comes in its middle.
        let ended = bulk.send_from(pod.netns(), 8 << 30, Duration::from_secs(2));
        cut.join().unwrap();
        ended
    });
    assert!(cut.is_err(), "eight gigabytes went through before the partition");
    std::thread::sleep(QUIET);
    assert_equal(&rig, &drops);
    assert!(drops.injected(DIRECTION_EGRESS).packets > 1);
}

#[test]
fn a_delay_drops_nothing() {
    let rig = Rig::new();
    let mut drops = Drops::of(rig.lab.pod(0));
    let peer = rig.lab.pod(1).ipv4();
    rig.apply(delay(Duration::from_millis(5)), Direction::Both, Some(peer));
    send_bulk(&rig, Direction::Egress);
    for direction in [Direction::Egress, Direction::Ingress] {
        assert_eq!(send_udp(&rig, direction), LOAD.datagrams);
    }
    assert_eq!(drops.sum(|key| key.injected == 1), Tally::default());
    // The kernel frees a connection's last segment as if it dropped it, fault or no fault.
    let mut foreign = drops.between(rig.lab.pod(0), rig.lab.pod(1));
    foreign.retain(|(_, event)| event.wire_bytes > BARE_SEGMENT);
    assert_eq!(foreign, []);
    assert_eq!(drops.0.losses().unwrap(), [0; DROP_LOSS_COUNT as usize]);
}

#[test]
fn what_the_delay_lines_device_drops_weighs_what_it_did_on_the_wire() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let drops = Drops::of(pod);
    rig.apply(
        delay(Duration::from_millis(5)),
        Direction::Egress,
        Some(peer.ipv4()),
    );
    let bulk = Bulk::listen(peer.netns(), peer.ipv4(), Duration::from_secs(3)).unwrap();
    let cut = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            take_down(pod, "sabot-l");
        });
        bulk.send_from(pod.netns(), 8 << 30, Duration::from_secs(2))
    });
    assert!(cut.is_err(), "eight gigabytes went through a device that is down");
    std::thread::sleep(QUIET);
    let ledger = rig.ledger(LedgerDirection::Egress);
    let lost = ledger.matched.packets - ledger.released.packets;
    let bytes = ledger.matched.bytes - ledger.released.bytes;
    let seen = drops.injected(DIRECTION_EGRESS);
    assert_eq!(
        (seen.packets, seen.bytes),
        (lost, bytes),
        "{:?}",
        drops.described()
    );
    LOAD.send(pod.netns(), (peer.ipv4(), 9).into()).unwrap();
    let datagrams = drops.injected(DIRECTION_EGRESS);
    let each = 14 + 20 + 8 + LOAD.payload as u64;
    assert_eq!(datagrams.packets - seen.packets, LOAD.datagrams);
    assert_eq!(datagrams.bytes - seen.bytes, LOAD.datagrams * each);
}

/// Takes the device down whose name begins so.
fn take_down(pod: &LabPod, prefix: &str) {
    let shown = pod.netns().command("ip").args(["-br", "link"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let name = shown.split_whitespace().find(|word| word.starts_with(prefix));
    let name = name.expect("there is such a device").split('@').next().unwrap();
    let mut command = pod.netns().command("ip");
    assert!(
        command
            .args(["link", "set", name, "down"])
            .status()
            .unwrap()
            .success()
    );
}
