//! Each action: applied and counted where the machine has what it needs, refused with the reason where it hasn't.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use sabot_testkit::features::feature;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{Bulk, Echo, INTERVAL, StampedLoad, UdpLoad, UdpReport, ping};
use sabot_testkit::wait::on_this_machine;
use sabot_testkit::way::{PEER, TARGET, Way, send};
use sabot_testkit::{Books, Rig, Spec};
use tonic::Code;

const LOAD: UdpLoad = UdpLoad {
    datagrams: 400,
    payload: 200,
    per_second: 1000,
};
/// After which nothing more comes, on a real machine.
const QUIET: Duration = Duration::from_millis(500);
const BULK: u64 = 1 << 20;

/// What the segmenter is made of, and what the delay line is.
const PER_PACKET: &[&str] = &["veth"];
const LATER: &[&str] = &["tun"];
const LATER_PER_PACKET: &[&str] = &["tun", "veth"];

/// Applies an action and says whether it is in force. Where something of what it needs is missing, sees that it is refused
/// for that.
fn applies(rig: &Rig, yaml: &str, needs: &[&str], limit: impl Fn(Spec) -> Spec) -> bool {
    let node = rig.client.node().expect("it answers");
    let missing = needs
        .iter()
        .map(|name| feature(&node, name))
        .find(|feature| !feature.available);
    let spec = limit(Spec::action(rig.lab.pod(TARGET), yaml).seed(11));
    let Some(missing) = missing else {
        rig.apply("fault", spec);
        return true;
    };
    let refusal = rig.client.apply("fault", spec.into(), PATIENCE);
    let status = refusal.expect_err("the machine lacks what it needs");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    for part in [&missing.name, &missing.detail, &missing.consequence] {
        assert!(status.message().contains(part.as_str()), "{status}");
    }
    println!("skipped: {}: {}", missing.name, missing.detail);
    false
}

/// Sends datagrams each way and hands over what arrived, with the counters of that direction.
fn each_way(rig: &Rig, yaml: &str, needs: &[&str], check: impl Fn(&UdpReport, &Books)) {
    for way in Way::BOTH {
        let (from, to) = way.ends(rig);
        for ip in [to.ipv4(), to.ipv6()] {
            if !applies(rig, yaml, needs, |spec| way.limit(spec).port("UDP", None)) {
                return;
            }
            let report = send(LOAD, from, to, ip);
            let books = way.pick(rig.settled("fault"));
            rig.delete("fault");
            assert_eq!(books.matched.packets, LOAD.datagrams, "{yaml} {way:?} {ip}");
            check(&report, &books);
        }
    }
    let (from, to) = Way::Egress.ends(rig);
    let report = send(LOAD, from, to, to.ipv4());
    assert_eq!(
        report.intact.len() as u64,
        LOAD.datagrams,
        "{yaml} stays after its end"
    );
}

fn missing(report: &UdpReport) -> u64 {
    report.missing(LOAD.datagrams).len() as u64
}

#[test]
fn a_partition_lets_nothing_pass() {
    let rig = crate::rig(2, &[]);
    each_way(&rig, "partition: {}", &[], |report, books| {
        assert_eq!(report.arrived(), 0);
        assert_eq!(books.dropped.packets, LOAD.datagrams);
    });
}

#[test]
fn drop_loses_what_it_counts_by_every_model() {
    let rig = crate::rig(2, &[]);
    for model in [
        "percent: 25",
        "gilbertElliott: {p: 10, r: 30}",
        "burst: {percent: 20, length: 4}",
        "nth: {every: 4}",
    ] {
        each_way(
            &rig,
            &format!("drop: {{{model}}}"),
            PER_PACKET,
            |report, books| {
                assert_eq!(books.dropped.packets, missing(report), "{model}");
                assert!((20..300).contains(&missing(report)), "{model}: {books:?}");
                assert_eq!(report.altered.len(), 0);
            },
        );
    }
    each_way(&rig, "drop: {nth: {first: 3}}", PER_PACKET, |report, books| {
        assert_eq!(books.dropped.packets, 3);
        assert_eq!(report.missing(LOAD.datagrams), [0, 1, 2]);
    });
}

#[test]
fn drop_of_connections_takes_all_packets_of_one_or_none() {
    let rig = crate::rig(2, &[]);
    each_way(&rig, "drop: {flows: {percent: 50}}", &[], |report, books| {
        assert_eq!(books.dropped.packets, missing(report));
        assert!([0, LOAD.datagrams].contains(&missing(report)), "{books:?}");
    });
}

#[test]
fn corrupt_alters_what_it_counts() {
    let rig = crate::rig(2, &[]);
    each_way(&rig, "corrupt: {percent: 25}", PER_PACKET, |report, books| {
        assert_eq!(books.corrupted.packets, report.altered.len() as u64);
        assert!((40..200).contains(&report.altered.len()), "{books:?}");
        assert_eq!(missing(report), 0);
    });
}

#[test]
fn corruption_on_the_wire_is_thrown_away_by_the_receiver() {
    let rig = crate::rig(2, &[]);
    let yaml = "corrupt: {percent: 25, kind: wire}";
    each_way(&rig, yaml, PER_PACKET, |report, books| {
        assert!((40..200).contains(&missing(report)), "{books:?}");
        assert_eq!(report.altered.len(), 0);
        assert_eq!(books.corrupted.packets, missing(report));
    });
}

#[test]
fn duplicates_arrive_once_more() {
    let yaml = "duplicate: {percent: 25, copies: 2}";
    let rig = crate::rig(2, &[]);
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        if !applies(&rig, yaml, LATER_PER_PACKET, |spec| {
            way.limit(spec).port("UDP", None)
        }) {
            return;
        }
        let load = StampedLoad {
            datagrams: LOAD.datagrams,
            payload: 64,
            per_second: 1000,
        };
        let arrivals = load
            .run_to_rest(from.netns(), to.netns(), to.ipv4(), on_this_machine(QUIET))
            .expect("it is sent and received");
        let books = way.pick(rig.settled("fault"));
        rig.delete("fault");
        assert!((80..400).contains(&books.duplicated.packets), "{books:?}");
        let more = arrivals.len() as u64 - LOAD.datagrams;
        assert_eq!(more, books.duplicated.packets, "{way:?} {books:?}");
    }
}

#[test]
fn reorder_lets_others_overtake_and_loses_none() {
    let rig = crate::rig(2, &[]);
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        let yaml = "reorder: {percent: 10, gap: 3}";
        if !applies(&rig, yaml, LATER_PER_PACKET, |spec| {
            way.limit(spec).port("UDP", None)
        }) {
            return;
        }
        let load = StampedLoad {
            datagrams: LOAD.datagrams,
            payload: 64,
            per_second: 500,
        };
        let arrivals = load
            .run(from.netns(), to.netns(), to.ipv4(), on_this_machine(QUIET))
            .expect("it is sent and received");
        let books = way.pick(rig.settled("fault"));
        rig.delete("fault");
        assert_eq!(arrivals.len() as u64, LOAD.datagrams, "{books:?}");
        let late = arrivals.windows(2).filter(|pair| pair[1].number < pair[0].number);
        assert!(late.count() > 5, "{books:?}");
        // All of them pass the line, whether they wait there or not.
        assert_eq!(books.released.packets, LOAD.datagrams, "{books:?}");
    }
}

#[test]
fn a_rate_limit_drops_what_finds_no_room() {
    let rig = crate::rig(2, &[]);
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        let yaml = "rateLimit: {rate: 200kbit, burst: 3028, queueTime: 50ms}";
        if !applies(&rig, yaml, LATER_PER_PACKET, |spec| {
            way.limit(spec).port("UDP", None)
        }) {
            return;
        }
        let report = send(LOAD, from, to, to.ipv4());
        let books = way.pick(rig.settled("fault"));
        rig.delete("fault");
        assert_eq!(books.dropped.packets, missing(&report), "{books:?}");
        assert!(missing(&report) > 20 && report.intact.len() > 5, "{books:?}");
    }
}

#[test]
fn delay_holds_every_packet_for_its_time() {
    let rig = crate::rig(2, &[]);
    let peer = rig.lab.pod(PEER);
    // No packet is ever early; a normal delay is within five of its deviations.
    for (yaml, least) in [
        ("delay: {latency: 80ms}", 160),
        ("delay: {latency: 100ms, jitter: 10ms, distribution: normal}", 100),
        ("delay: {quantiles: [80ms, 90ms, 200ms]}", 160),
    ] {
        if !applies(&rig, yaml, LATER_PER_PACKET, |spec| {
            spec.peer(peer.ipv4()).port("ICMP", None)
        }) {
            return;
        }
        let report = ping(rig.lab.pod(TARGET).netns(), peer.ipv4(), 10, INTERVAL * 40).expect("ping runs");
        let [egress, ingress] = rig.settled("fault");
        rig.delete("fault");
        assert_eq!(report.round_trips.len(), 10, "{yaml}");
        let quickest = report.round_trips.iter().min().expect("there are some");
        assert!(*quickest >= Duration::from_millis(least), "{yaml}: {report:?}");
        for books in [egress, ingress] {
            assert_eq!(
                (books.matched.packets, books.released.packets),
                (10, 10),
                "{yaml}: {books:?}"
            );
        }
    }
}

#[test]
fn a_rejected_datagram_is_told_to_its_sender() {
    let rig = crate::rig(2, &[]);
    let peer = rig.lab.pod(PEER);
    for ip in [peer.ipv4(), peer.ipv6()] {
        if !applies(&rig, "reject: {}", LATER, |spec| spec.egress().port("UDP", None)) {
            return;
        }
        let receiver = peer.netns().run(|| UdpSocket::bind((ip, 0))).expect("it binds");
        let address = receiver.local_addr().expect("it is bound");
        let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = rig.lab.pod(TARGET).netns().run(|| {
            let socket = UdpSocket::bind(any).expect("it binds");
            socket.connect(address).expect("there is a route");
            socket
        });
        let patience = on_this_machine(PATIENCE);
        socket.set_read_timeout(Some(patience)).expect("it is set");
        socket.send(b"anyone?").expect("it is sent");
        let error = socket.recv(&mut [0; 8]).expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "to {ip}: {error}");
        let [egress, ingress] = rig.settled("fault");
        rig.delete("fault");
        assert_eq!(
            (egress.rejected.packets, ingress.replied.packets),
            (1, 1),
            "{egress:?}"
        );
    }
}

#[test]
fn an_established_connection_is_reset() {
    let rig = crate::rig(2, &[]);
    let peer = rig.lab.pod(PEER);
    for ip in [peer.ipv4(), peer.ipv6()] {
        let echo = Echo::start(peer.netns(), ip).expect("it listens");
        let address = echo.address();
        let patience = on_this_machine(PATIENCE);
        let connection = rig.lab.pod(TARGET).netns();
        let connection = connection.run(|| TcpStream::connect_timeout(&address, patience));
        let mut connection = connection.expect("it connects");
        connection.set_read_timeout(Some(patience)).expect("it is set");
        connection.write_all(b"ping").expect("it is sent");
        connection.read_exact(&mut [0; 4]).expect("it comes back");
        if !applies(&rig, "reset: {}", LATER, |spec| spec.port("TCP", None)) {
            return;
        }
        connection
            .write_all(b"ping")
            .expect("the write itself is accepted");
        let error = connection.read_exact(&mut [0; 4]).expect_err("it is reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "to {ip}: {error}");
        let [egress, ingress] = rig.settled("fault");
        rig.delete("fault");
        assert!(
            egress.rejected.packets >= 1 && ingress.replied.packets >= 1,
            "{egress:?}"
        );
    }
}

#[test]
fn a_bulk_stream_survives_loss_delay_and_corruption_of_its_super_packets() {
    let rig = crate::rig(2, &[]);
    let peer = rig.lab.pod(PEER);
    for (yaml, needs) in [
        ("drop: {percent: 2}", PER_PACKET),
        ("delay: {latency: 5ms}", LATER),
        ("corrupt: {percent: 1, kind: wire}", PER_PACKET),
    ] {
        if !applies(&rig, yaml, needs, |spec| spec.peer(peer.ipv4()).port("TCP", None)) {
            continue;
        }
        let patience = on_this_machine(PATIENCE);
        let bulk = Bulk::listen(peer.netns(), peer.ipv4(), patience).expect("it listens");
        let (sent, received) = bulk
            .send_from(rig.lab.pod(TARGET).netns(), BULK, patience)
            .unwrap_or_else(|error| panic!("{yaml}: {error:#}"));
        let [egress, _] = rig.settled("fault");
        rig.delete("fault");
        assert_eq!(
            (sent.bytes, sent.sha256),
            (received.bytes, received.sha256),
            "{yaml}"
        );
        // Counted are wire packets: more of them than super-packets, and no fewer than the bytes need.
        assert!(egress.matched.packets >= BULK / 1500, "{yaml}: {egress:?}");
        let disturbed = egress.dropped.packets + egress.corrupted.packets + egress.delayed.packets;
        assert!(disturbed > 0, "{yaml}: {egress:?}");
    }
}
