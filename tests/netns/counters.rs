//! Counters are the truth: they equal what witnesses see that know nothing of Sabot, packet by packet and byte by byte.
//!
//! The target's packets are seen by others in four places: nftables on the target's own device meets what leaves it before
//! Sabot does, and what arrives after Sabot did; captures on the node's end of the veth see what comes out of the target,
//! and what is sent to it. Captures count super-packets as the wire packets in them.

use std::time::Duration;

use sabot_testkit::rig::PATIENCE;
use sabot_testkit::snmp::{snmp, tcp_rests};
use sabot_testkit::traffic::{Bulk, UdpLoad, UdpReceiver};
use sabot_testkit::wire::{WireCapture, WireFilter};
use sabot_testkit::witness::{Count, Side, Witness};
use sabot_testkit::{Books, LabPod, Rig, Spec};

const TARGET: usize = 0;
const PEER: usize = 1;

const QUIET: Duration = Duration::from_millis(300);
const LOAD: UdpLoad = UdpLoad {
    datagrams: 10_000,
    payload: 300,
    per_second: 20_000,
};
/// Ethernet, IPv4 and UDP headers.
const UDP_HEADERS: u64 = 14 + 20 + 8;
/// Enough for hundreds of super-packets.
const BULK: u64 = 16 << 20;

/// Every action, as it is asked for.
fn actions(target: &LabPod) -> [(&'static str, Spec); 5] {
    [
        ("drop-0", Spec::drop(target, 0.0)),
        ("drop-1", Spec::drop(target, 1.0)),
        ("delay", Spec::delay(target, Duration::from_millis(5))),
        ("corrupt", Spec::corrupt(target, 5.0)),
        ("partition-another", Spec::partition(target)),
    ]
}

/// The peer that an action of [`actions`] is about.
fn named(rig: &Rig, name: &str, spec: Spec) -> Spec {
    let nobody = [10, 77, 0, 250].into();
    let peer = rig.lab.pod(PEER).ipv4();
    spec.peer(if name == "partition-another" { nobody } else { peer })
}

/// Captures on the node's end of the target's veth, of what passes between target and peer.
struct Captures {
    out_of_target: WireCapture,
    towards_target: WireCapture,
}

impl Captures {
    fn on(rig: &Rig, protocol: i32) -> Self {
        let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
        let between = |from: &LabPod, to: &LabPod, side| {
            let filter = WireFilter {
                protocol: u8::try_from(protocol).ok(),
                source: Some(from.ipv4()),
                destination: Some(to.ipv4()),
                port: None,
            };
            WireCapture::on(rig.lab.node(), target.port(), side, filter).expect("it captures")
        };
        Self {
            out_of_target: between(target, peer, Side::Ingress),
            towards_target: between(peer, target, Side::Egress),
        }
    }

    /// What came out of the target, and what was sent to it.
    fn count(&self) -> [Count; 2] {
        [&self.out_of_target, &self.towards_target]
            .map(|capture| capture.count_after(QUIET).expect("the capture lost nothing"))
    }
}

fn nft(pod: &LabPod, side: Side, matching: &str) -> Witness {
    Witness::on(pod.netns(), "eth0", side, matching).expect("nft counts")
}

fn seen(witness: &Witness) -> Count {
    witness.count().expect("nft lists")
}

/// Sends a load one way and says how many arrived.
fn send(load: UdpLoad, from: &LabPod, to: &LabPod) -> u64 {
    let receiver = UdpReceiver::start(to.netns(), to.ipv4()).expect("it binds");
    load.send(from.netns(), receiver.address()).expect("it is sent");
    receiver.finish(load.datagrams, QUIET).arrived()
}

#[test]
fn datagrams_are_counted_as_witnesses_count_them() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let everything = Count {
        packets: LOAD.datagrams,
        bytes: LOAD.datagrams * (UDP_HEADERS + LOAD.payload as u64),
    };
    for (name, spec) in actions(target) {
        let captures = Captures::on(&rig, libc::IPPROTO_UDP);
        let leaving = nft(target, Side::Egress, "meta l4proto udp");
        let arriving = nft(target, Side::Ingress, "meta l4proto udp");
        rig.apply(name, named(&rig, name, spec));
        let arrived = [send(LOAD, target, peer), send(LOAD, peer, target)];
        let [egress, ingress] = rig.settled(name);
        rig.delete(name);
        let [out, towards] = captures.count();
        let (leaving, arriving) = (seen(&leaving), seen(&arriving));

        assert_eq!([leaving, towards], [everything; 2], "{name}: not all was sent");
        if name == "partition-another" {
            assert_eq!([egress, ingress], [Books::default(); 2]);
            assert_eq!([out, arriving], [everything; 2]);
            continue;
        }
        assert_eq!(egress.matched, leaving, "{name}");
        assert_eq!(egress.went_on(), out, "{name}: {egress:#?}");
        assert_eq!(ingress.matched, towards, "{name}");
        assert_eq!(ingress.went_on(), arriving, "{name}: {ingress:#?}");
        assert_eq!(
            arrived,
            [egress, ingress].map(|books| books.went_on().packets),
            "{name}"
        );
        for books in [egress, ingress] {
            assert_action(name, &books);
        }
    }
}

/// Each action does what it is for, and nothing else.
fn assert_action(name: &str, books: &Books) {
    let none = Count::default();
    let (dropped, corrupted, delayed) = match name {
        "drop-0" => (false, false, false),
        "drop-1" => (true, false, false),
        "delay" => (false, false, true),
        "corrupt" => (false, true, false),
        other => panic!("{other} isn't an action"),
    };
    assert_eq!(books.dropped != none, dropped, "{name}: {books:#?}");
    assert_eq!(books.corrupted != none, corrupted, "{name}: {books:#?}");
    assert_eq!(books.delayed == books.matched, delayed, "{name}: {books:#?}");
    assert_eq!(
        books.released + books.lost() == books.matched,
        delayed,
        "{name}: {books:#?}"
    );
    assert_eq!(books.bypassed, none, "{name}: {books:#?}");
}

/// Sends a bulk stream and sees that super-packets left the sender.
fn stream(name: &str, from: &LabPod, to: &LabPod) {
    let supers = nft(from, Side::Egress, "meta length > 3000");
    let sink = Bulk::listen(to.netns(), to.ipv4(), PATIENCE).expect("it binds");
    let (sent, received) = sink
        .send_from(from.netns(), BULK, PATIENCE)
        .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    assert_eq!(received.bytes, sent.bytes);
    assert_eq!(received.altered.is_empty(), name != "corrupt", "{name}");
    let supers = seen(&supers);
    // Half of the stream or more.
    assert!(
        supers.packets > 100 && supers.bytes > BULK / 2,
        "{name}: no super-packets: {supers:?}"
    );
}

#[test]
fn bulk_streams_are_counted_in_wire_packets_as_witnesses_count_them() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    for (name, spec) in actions(target) {
        let captures = Captures::on(&rig, libc::IPPROTO_TCP);
        let before = segments(target);
        rig.apply(name, named(&rig, name, spec));
        stream(name, target, peer);
        stream(name, peer, target);
        // A FIN that was lost is sent again, and answered, when the streams have long been over.
        for pod in [target, peer] {
            tcp_rests(pod.netns(), PATIENCE).expect("the connections end");
        }
        let [egress, ingress] = rig.settled(name);
        rig.delete(name);
        let [out, towards] = captures.count();
        let sent = segments(target) - before;

        let least = BULK / 1460;
        assert!(
            out.packets > least && towards.packets > least,
            "{out:?} {towards:?}"
        );
        if name == "partition-another" {
            assert_eq!([egress, ingress], [Books::default(); 2]);
            assert_eq!(out.packets, sent);
            continue;
        }
        assert_eq!(egress.matched.packets, sent, "{name}: {egress:#?}");
        assert_eq!(egress.went_on(), out, "{name}: {egress:#?}");
        assert_eq!(ingress.matched, towards, "{name}: {ingress:#?}");
        for books in [egress, ingress] {
            assert_action(name, &books);
        }
    }
}

/// How many segments the TCP of a pod says that it has sent, acknowledgements and retransmissions among them.
fn segments(pod: &LabPod) -> u64 {
    let count = |counter| snmp(pod.netns(), "Tcp", counter).expect("the kernel counts it");
    count("OutSegs") + count("RetransSegs")
}

#[test]
fn ingress_super_packets_are_released_as_they_were_delayed() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let filter = WireFilter {
        protocol: u8::try_from(libc::IPPROTO_TCP).ok(),
        source: Some(peer.ipv4()),
        ..WireFilter::default()
    };
    // What is diverted is seen here once as it comes and once more as it goes on.
    let twice = WireCapture::on(target.netns(), "eth0", Side::Ingress, filter).expect("it captures");
    let supers = nft(target, Side::Ingress, "meta length > 3000");
    let delay = Spec::delay(target, Duration::from_millis(3)).peer(peer.ipv4());
    rig.apply("delay", delay.ingress());
    stream("delay", peer, target);
    let [egress, ingress] = rig.settled("delay");
    assert_eq!(egress, Books::default());
    assert_eq!(
        ingress.matched + ingress.released,
        twice.count_after(QUIET).expect("the capture lost nothing")
    );
    assert!(seen(&supers).packets > 100, "super-packets didn't stay whole");
}

#[test]
fn a_line_that_is_too_small_loses_what_it_counts() {
    let rig = Rig::with_flags(2, &["--delay-line-bytes", "256KiB"]);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let delay = Spec::delay(target, Duration::from_millis(300));
    rig.apply("delay", delay.peer(peer.ipv4()));
    let load = UdpLoad {
        datagrams: 4000,
        payload: 1000,
        per_second: 10_000,
    };
    let arrived = [send(load, target, peer), send(load, peer, target)];
    let books = rig.settled("delay");
    for (books, arrived) in books.into_iter().zip(arrived) {
        assert_eq!(books.matched.packets, load.datagrams);
        assert_eq!(books.released.packets, arrived, "{books:#?}");
        assert_eq!(books.lost_bound.packets, load.datagrams - arrived, "{books:#?}");
        assert!(books.lost_bound.packets > load.datagrams / 2, "{books:#?}");
        assert!(arrived > 100, "{books:#?}");
    }
}
