//! Delay, drop and corrupt: that they do to traffic what was asked, and nothing else.

use std::net::IpAddr;
use std::time::Duration;

use sabot_proto::sabot::v1::Direction;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::snmp::snmp;
use sabot_testkit::traffic::{Bulk, PingReport, UdpLoad, UdpReport, ping};
use sabot_testkit::way::{self, PEER, TARGET, Way};
use sabot_testkit::{LabPod, Rig, Spec};

const TRIES: usize = 3;
const TOLERANCE: Duration = Duration::from_millis(1);
const LOAD: UdpLoad = UdpLoad {
    datagrams: 20_000,
    payload: 200,
    per_second: 20_000,
};

/// Sends a load, and sees that nothing arrives twice.
fn send(load: UdpLoad, from: &LabPod, to: &LabPod, ip: IpAddr) -> UdpReport {
    let report = way::send(load, from, to, ip);
    assert_eq!(report.duplicates, 0);
    report
}

/// A count of a share of `of`, within four standard deviations.
fn assert_share(count: u64, of: u64, share: f64) {
    let expected = of as f64 * share;
    let four_sigma = 4.0 * (expected * (1.0 - share)).sqrt();
    let off = (count as f64 - expected).abs();
    assert!(
        off <= four_sigma,
        "{count} of {of} isn't {share} within {four_sigma}"
    );
}

fn count(pod: &LabPod, protocol: &str, counter: &str) -> u64 {
    snmp(pod.netns(), protocol, counter).expect("the kernel counts it")
}

fn pings(rig: &Rig) -> PingReport {
    let (from, to) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    ping(from.netns(), to.ipv4(), 30, Duration::from_millis(10)).expect("ping runs")
}

#[test]
fn delay_adds_what_was_asked_one_way_and_both_ways() {
    let rig = Rig::new(2);
    let target = rig.lab.pod(TARGET);
    let latency = Duration::from_millis(50);
    let delay = || Spec::delay(target, latency);
    let cases = [
        ("egress", delay().egress(), latency),
        ("ingress", delay().ingress(), latency),
        ("both", delay(), latency * 2),
    ];
    for (name, spec, added) in cases {
        let mut seen = Vec::new();
        let within = (0..TRIES).any(|_| {
            let baseline = pings(&rig).median().expect("it is answered");
            rig.apply(name, spec.clone());
            let delayed = pings(&rig);
            rig.delete(name);
            assert_eq!(delayed.round_trips.len(), 30, "{name}: {delayed:?}");
            let median = delayed.median().expect("it is answered");
            seen.push((baseline, median));
            median >= baseline + added - TOLERANCE && median <= baseline + added + TOLERANCE
        });
        assert!(within, "{name}: {seen:?}");
        rig.settled(name);
    }
}

#[test]
fn jitter_spreads_the_delay_within_its_bounds_and_over_them() {
    let rig = Rig::new(2);
    let (latency, jitter) = (Duration::from_millis(30), Duration::from_millis(15));
    let spec = Spec::delay_with_jitter(rig.lab.pod(TARGET), latency, jitter).egress();
    let mut seen = Vec::new();
    let within = (0..TRIES).any(|_| {
        let mut baseline = pings(&rig).round_trips;
        baseline.sort_unstable();
        rig.apply("jitter", spec.clone());
        let mut delayed = pings(&rig).round_trips;
        delayed.extend(pings(&rig).round_trips);
        rig.delete("jitter");
        delayed.sort_unstable();
        let (least, most) = (delayed[0], delayed[delayed.len() - 1]);
        seen.push((least, most));
        assert_eq!(delayed.len(), 60);
        // No packet is ever early, however busy the machine is.
        assert!(least >= latency - jitter, "{least:?}");
        // Of 60 uniform delays all but one in millions of tries reach into the outer quarters.
        let spreads = least < latency - jitter / 2 && most > latency + jitter / 2;
        spreads && most <= latency + jitter + baseline[baseline.len() / 2] + TOLERANCE
    });
    assert!(within, "{seen:?}");
}

#[test]
fn drop_loses_its_share_and_counts_exactly_what_is_missing() {
    let rig = Rig::new(2);
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        for (family, ip) in [("v4", to.ipv4()), ("v6", to.ipv6())] {
            let name = format!("drop-{}-{family}", way.direction() as i32);
            rig.apply(
                &name,
                way.limit(Spec::drop(rig.lab.pod(TARGET), 20.0)).port("UDP", None),
            );
            let report = send(LOAD, from, to, ip);
            let missing = report.missing(LOAD.datagrams).len() as u64;
            let books = way.pick(rig.settled(&name));
            rig.delete(&name);
            assert_share(missing, LOAD.datagrams, 0.2);
            assert_eq!(books.dropped.packets, missing, "{way:?} {family}");
            assert_eq!(books.matched.packets, LOAD.datagrams, "{way:?} {family}");
            assert!(report.altered.is_empty());
        }
    }
}

#[test]
fn an_egress_drop_looks_to_the_sender_like_loss_on_the_wire() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    rig.apply("half", Spec::drop(target, 50.0).egress());
    let output = target
        .netns()
        .command("ping")
        .args(["-n", "-c", "100", "-i", "0.005", "-W", "1"])
        .arg(peer.ipv4().to_string())
        .env("LC_ALL", "C")
        .output()
        .expect("ping runs");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("100 packets transmitted"), "{said}");
    assert!(!said.contains("sendmsg") && !said.contains("errors"), "{said}");
    assert!(rig.books("half", Direction::Egress).dropped.packets > 10);

    let errors = || count(target, "Udp", "SndbufErrors");
    let before = errors();
    let load = UdpLoad {
        datagrams: 2000,
        ..LOAD
    };
    let report = send(load, target, peer, peer.ipv4());
    assert_share(report.missing(2000).len() as u64, 2000, 0.5);
    assert_eq!(errors(), before);
    rig.delete("half");

    let retransmitted = || count(target, "Tcp", "RetransSegs");
    let before = retransmitted();
    rig.apply("few", Spec::drop(target, 2.0).egress().port("TCP", None));
    let sink = Bulk::listen(peer.netns(), peer.ipv4(), PATIENCE).expect("it binds");
    let (sent, received) = sink
        .send_from(target.netns(), 8 << 20, PATIENCE)
        .expect("it gets through");
    assert_eq!(sent.sha256, received.sha256);
    let [egress, _] = rig.settled("few");
    let retransmitted = retransmitted() - before;
    // All but the acknowledgements at the very end carry data, or open or close the connection.
    assert!(egress.dropped.packets > 20, "{egress:?}");
    assert!(
        retransmitted + 3 >= egress.dropped.packets,
        "TCP saw {retransmitted} of {egress:?}"
    );
}

#[test]
fn corrupt_changes_exactly_the_packets_that_it_counts() {
    let rig = Rig::new(2);
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        for (family, ip) in [("v4", to.ipv4()), ("v6", to.ipv6())] {
            let name = format!("corrupt-{}-{family}", way.direction() as i32);
            rig.apply(
                &name,
                way.limit(Spec::corrupt(rig.lab.pod(TARGET), 10.0))
                    .port("UDP", None),
            );
            let bad = || count(to, "Udp", "InCsumErrors");
            let before = bad();
            let report = send(LOAD, from, to, ip);
            let books = way.pick(rig.settled(&name));
            rig.delete(&name);
            let altered = report.altered.len() as u64;
            assert_share(altered, LOAD.datagrams, 0.1);
            assert_eq!(books.corrupted.packets, altered, "{way:?} {family}");
            assert_eq!(books.passed.packets, LOAD.datagrams, "{way:?} {family}");
            assert_eq!(report.missing(LOAD.datagrams), Vec::<u64>::new());
            assert_eq!(bad(), before, "a checksum is wrong");
        }
    }
}

#[test]
fn corrupt_changes_one_byte_of_each_counted_packet_of_a_bulk_stream() {
    const BYTES: u64 = 16 << 20;
    let rig = Rig::new(2);
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        let name = format!("corrupt-{}", way.direction() as i32);
        rig.apply(
            &name,
            way.limit(Spec::corrupt(rig.lab.pod(TARGET), 5.0))
                .port("TCP", None),
        );
        let before = count(from, "Tcp", "RetransSegs");
        let sink = Bulk::listen(to.netns(), to.ipv4(), PATIENCE).expect("it binds");
        let (sent, received) = sink
            .send_from(from.netns(), BYTES, PATIENCE)
            .expect("checksums are valid");
        let retransmitted = count(from, "Tcp", "RetransSegs") - before;
        let books = way.pick(rig.settled(&name));
        rig.delete(&name);
        assert_eq!(received.bytes, sent.bytes);
        assert_ne!(received.sha256, sent.sha256);
        let altered = received.altered.len() as u64;
        // At least as many as there are full-sized packets in it.
        assert!(books.matched.packets >= BYTES / 1460, "{books:?}");
        assert_share(books.corrupted.packets, books.matched.packets, 0.05);
        // What was sent twice may have been changed in the copy that the receiver didn't need.
        let twice = books.corrupted.packets - altered;
        assert!(
            twice <= retransmitted,
            "{altered} bytes of {books:?}, {retransmitted} again"
        );
    }
}

#[test]
fn faults_on_one_target_compose() {
    let rig = Rig::new(2);
    let target = rig.lab.pod(TARGET);
    let names = ["loss", "latency", "noise"];
    let specs = [
        Spec::drop(target, 10.0),
        Spec::delay(target, Duration::from_millis(5)),
        Spec::corrupt(target, 10.0),
    ];
    for (name, spec) in names.iter().zip(specs) {
        rig.apply(name, spec.port("UDP", None));
    }
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        let report = send(LOAD, from, to, to.ipv4());
        let [loss, latency, noise] = names.map(|name| way.pick(rig.settled(name)));
        // The loss comes first, and each sees what the one before let on; neither of the other two loses anything.
        assert_eq!(loss.matched.packets, LOAD.datagrams, "{way:?}");
        assert_eq!(latency.matched, loss.went_on(), "{way:?}");
        assert_eq!(noise.matched, latency.went_on(), "{way:?}");
        let lost = loss.dropped.packets + latency.lost().packets;
        assert_eq!(
            report.missing(LOAD.datagrams).len() as u64,
            lost,
            "{way:?} {latency:?}"
        );
        assert_eq!(report.altered.len() as u64, noise.corrupted.packets, "{way:?}");
        assert_eq!(latency.delayed, latency.matched, "{way:?}");
        assert_share(loss.dropped.packets, LOAD.datagrams, 0.1);
        assert_share(noise.corrupted.packets, noise.matched.packets, 0.1);
    }
}

#[test]
fn a_bulk_stream_gets_through_faults_that_compose() {
    let rig = Rig::new(2);
    let target = rig.lab.pod(TARGET);
    // The stream alone: a multicast report of the pod's own between two looks would make the books differ.
    rig.apply("loss", Spec::drop(target, 0.2).port("TCP", None));
    rig.apply(
        "latency",
        Spec::delay(target, Duration::from_millis(2)).port("TCP", None),
    );
    rig.apply("noise", Spec::corrupt(target, 1.0).port("TCP", None));
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        let sink = Bulk::listen(to.netns(), to.ipv4(), PATIENCE).expect("it binds");
        let (sent, received) = sink
            .send_from(from.netns(), 4 << 20, PATIENCE)
            .expect("it gets through");
        assert_eq!(received.bytes, sent.bytes);
        assert!(!received.altered.is_empty());
    }
    for direction in 0..2 {
        let [loss, latency, noise] = ["loss", "latency", "noise"].map(|name| rig.settled(name)[direction]);
        assert_eq!(latency.matched, loss.went_on());
        assert_eq!(noise.matched, latency.went_on());
        assert!(loss.dropped.packets > 0 && noise.corrupted.packets > 0);
        assert!(loss.matched.packets > (4 << 20) / 1460, "{loss:?}");
    }
}
