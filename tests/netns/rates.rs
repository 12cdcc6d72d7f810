//! Rate limits: the rate that arrives, the queue that waits, and what it drops.

use std::time::{Duration, Instant};

use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{Bulk, StampedLoad, UdpLoad};
use sabot_testkit::way::{PEER, TARGET, Way, send};
use sabot_testkit::{Rig, Spec};

const QUIET: Duration = Duration::from_millis(800);
/// UDP, IPv4 and Ethernet headers.
const HEADERS: u64 = 42;
const TRIES: usize = 3;

#[test]
fn datagrams_leave_at_the_rate_and_what_finds_no_room_is_dropped() {
    let rig = Rig::new(2);
    for way in Way::BOTH {
        for (text, rate, payload) in [("1mbit", 1e6, 200), ("20mbit", 2e7, 1000), ("50mbit", 5e7, 1400)] {
            let yaml = format!("rateLimit: {{rate: {text}, burst: 3028, queueTime: 50ms}}");
            // Twice the rate, for about two seconds.
            let wire = payload as u64 + HEADERS;
            let per_second = (2.0 * rate / 8.0 / wire as f64) as u32;
            let load = StampedLoad {
                datagrams: 2 * u64::from(per_second),
                payload,
                per_second,
            };
            // The shaper is saturated from the first datagram on: what it lets on over the whole time is the rate's, plus
            // the burst and what still waited when the last datagram was sent.
            let seconds = load.datagrams as f64 / f64::from(per_second);
            let expected = seconds * rate / 8.0 + 0.05 * rate / 8.0 + 3028.0;
            let mut seen = Vec::new();
            let full = (0..TRIES).any(|_| {
                let got = flood(&rig, way, &yaml, load) * wire;
                seen.push(got);
                // A sender that doesn't get the processor leaves the shaper without work.
                got as f64 >= expected * 0.98
            });
            assert!(full, "{way:?} {text}: {seen:?} bytes instead of {expected}");
        }
    }
}

/// Sends too much through a limit; how many datagrams arrived.
fn flood(rig: &Rig, way: Way, yaml: &str, load: StampedLoad) -> u64 {
    let (from, to) = way.ends(rig);
    let spec = Spec::action(rig.lab.pod(TARGET), yaml).port("UDP", None);
    rig.apply("rate", way.limit(spec));
    let started = Instant::now();
    let arrivals = load
        .run(from.netns(), to.netns(), to.ipv4(), QUIET)
        .expect("it is sent and received");
    let took = started.elapsed();
    let books = way.pick(rig.settled("rate"));
    rig.delete("rate");
    assert_eq!(books.matched.packets, load.datagrams, "{way:?} {yaml}");
    assert_eq!(books.released.packets, arrivals.len() as u64, "{way:?} {yaml}");
    assert_eq!(
        books.dropped.packets,
        load.datagrams - books.released.packets,
        "{books:?}"
    );
    assert!(
        arrivals.is_sorted_by_key(|arrival| arrival.number),
        "{way:?} {yaml}"
    );
    let longest = arrivals
        .iter()
        .map(|arrival| arrival.delay)
        .max()
        .unwrap_or_default();
    assert!(
        longest >= Duration::from_millis(40),
        "{way:?} {yaml}: {longest:?}"
    );
    // However the sender was paced, it is never more than the rate.
    let rate = f64::from(load.per_second) * (load.payload as u64 + HEADERS) as f64 / 2.0;
    let most = took.as_secs_f64() * rate + 3028.0;
    let got = (arrivals.len() as u64 * (load.payload as u64 + HEADERS)) as f64;
    assert!(got <= most * 1.02, "{way:?} {yaml}: {got} bytes in {took:?}");
    arrivals.len() as u64
}

#[test]
fn a_bulk_stream_gets_the_rate_in_either_direction() {
    let rig = Rig::new(2);
    for way in Way::BOTH {
        for (text, rate, bytes) in [("10mbit", 1e7, 4_000_000u64), ("50mbit", 5e7, 20_000_000)] {
            let (from, to) = way.ends(&rig);
            let yaml = format!("rateLimit: {{rate: {text}, queueTime: 200ms}}");
            let mut seen = Vec::new();
            let within = (0..TRIES).any(|_| {
                rig.apply(
                    "rate",
                    way.limit(Spec::action(rig.lab.pod(TARGET), &yaml))
                        .port("TCP", None),
                );
                let sink = Bulk::listen(to.netns(), to.ipv4(), PATIENCE).expect("it binds");
                let (sent, received) = sink.send_from(from.netns(), bytes, PATIENCE).expect("it arrives");
                assert_eq!(sent.sha256, received.sha256);
                let books = way.pick(rig.settled("rate"));
                rig.delete("rate");
                let achieved = books.released.bytes as f64 * 8.0 / sent.took.as_secs_f64();
                seen.push(achieved);
                (achieved / rate - 1.0).abs() <= 0.03
            });
            assert!(within, "{way:?} {text}: {seen:?}");
        }
    }
}

#[test]
fn a_queue_of_bytes_holds_so_many_bytes() {
    let rig = Rig::new(2);
    let (from, to) = Way::Egress.ends(&rig);
    let yaml = "rateLimit: {rate: 100kbit, burst: 3028, queueBytes: 20kB}";
    rig.apply(
        "queue",
        Spec::action(rig.lab.pod(TARGET), yaml).egress().port("UDP", None),
    );
    // A burst that is over long before the first of it has left at this rate.
    let load = UdpLoad {
        datagrams: 100,
        payload: 958,
        per_second: 100_000,
    };
    let started = Instant::now();
    let report = send(load, from, to, to.ipv4());
    assert!(started.elapsed() >= Duration::from_secs(1));
    let [egress, _] = rig.settled("queue");
    // 3,028 bytes of burst and 20,000 of queue, at 1,000 bytes a packet; the bucket fills a little meanwhile.
    let went = egress.released.packets;
    assert!((22..=26).contains(&went), "{egress:?}");
    assert_eq!(report.arrived(), went);
    assert_eq!(egress.dropped.packets, 100 - went);
}

#[test]
fn a_limit_of_one_target_is_not_anothers() {
    let rig = Rig::new(3);
    // Only UDP: a pod's own announcements on IPv6 come when they like.
    rig.apply(
        "slow",
        Spec::action(rig.lab.pod(TARGET), "rateLimit: {rate: 100kbit}").port("UDP", None),
    );
    let (other, peer) = (rig.lab.pod(2), rig.lab.pod(PEER));
    let load = UdpLoad {
        datagrams: 5_000,
        payload: 1000,
        per_second: 50_000,
    };
    let report = send(load, other, peer, peer.ipv4());
    assert_eq!(report.missing(load.datagrams), Vec::<u64>::new());
    let [egress, ingress] = rig.settled("slow");
    assert_eq!(egress.matched.packets + ingress.matched.packets, 0);
}
