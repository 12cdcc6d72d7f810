//! What a fault did and when, as the daemon tells it, against what the traffic itself saw.

use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{Stream, UdpLoad};
use sabot_testkit::wait::wait_for;
use sabot_testkit::way::{self, TARGET, Way};
use sabot_testkit::{LabPod, Rig, Spec};
use serde_json::{Value, json};

use crate::daemon::{label, wait_known};
use crate::scene::{Sink, connect, send};

const LOOK: Duration = Duration::from_millis(200);
const INTERVAL: Duration = Duration::from_millis(5);
/// Every owner is looked at each five seconds, so that two looks lie in this.
const BEFORE: Duration = Duration::from_secs(11);
const LATENCY: Duration = Duration::from_millis(40);
/// A recovery takes three seconds of traffic, and is waited for no longer than a minute.
const RECOVERY: Duration = Duration::from_secs(60);

/// A namespace is looked at from the moment on that a fault names it.
fn known(rig: &Rig, pod: &LabPod) {
    rig.apply("known", Spec::drop(pod, 0.0).port("UDP", None));
}

/// What a fault did to its only target, when that is over.
fn told(rig: &Rig, name: &str) -> Value {
    let over = wait_for(PATIENCE + RECOVERY, LOOK, || {
        let timeline = rig.daemon.sabot_json(&["timeline", name]).expect("it is known");
        let target = timeline["targets"][0].clone();
        (target["recovery"] != "watching" && !target["recovery"].is_null()).then_some(target)
    });
    over.unwrap_or_else(|| panic!("{name} doesn't come to an end"))
}

fn kinds(target: &Value) -> Vec<&str> {
    let moments = target["moments"].as_array().expect("a list");
    moments
        .iter()
        .filter_map(|moment| moment["kind"].as_str())
        .collect()
}

fn duration(value: &Value) -> Duration {
    humantime::parse_duration(value.as_str().unwrap_or_else(|| panic!("{value} is a duration")))
        .expect("durations are as people write them")
}

/// In the order of time, and each once.
fn assert_ordered(target: &Value) {
    let moments = target["moments"].as_array().expect("a list");
    let times: Vec<_> = moments
        .iter()
        .map(|moment| moment["time"].as_str().expect("a time"))
        .collect();
    assert!(times.is_sorted(), "{target:#}");
    let mut kinds = kinds(target);
    let all = kinds.len();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), all, "{target:#}");
}

#[test]
fn a_delay_is_told_with_what_was_before_during_and_after() {
    let rig = Rig::new(2);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    known(&rig, client);
    let _stream = Stream::open(client.netns(), server.netns(), server.ipv4(), INTERVAL).expect("it connects");
    thread::sleep(BEFORE);
    let delay = Spec::delay(client, LATENCY).egress().port("TCP", None);
    rig.apply("late", delay.lasting(Duration::from_secs(4)));

    let target = told(&rig, "late");
    assert_ordered(&target);
    let kinds = kinds(&target);
    assert_eq!(kinds[..3], ["applied", "injected", "firstMatch"], "{target:#}");
    assert!(kinds.contains(&"ended"), "{target:#}");
    assert_eq!(target["recovery"], "recovered", "{target:#}");
    assert_eq!(kinds.last(), Some(&"recovered"), "{target:#}");

    let median = |window: &str| duration(&target[window]["rtt"]["p50"]);
    let added = median("during").checked_sub(median("before"));
    // The smoothed time needs some round trips to get there; a bucket is no wider than a quarter of its value.
    assert!(
        added.is_some_and(|added| (LATENCY * 3 / 4..LATENCY * 3 / 2).contains(&added)),
        "{target:#}"
    );
    assert!(median("after") < LATENCY, "{target:#}");
    let before = duration(&target["before"]["length"]);
    assert!(
        before > Duration::from_secs(1) && before <= Duration::from_secs(31),
        "{before:?}"
    );
    assert!(target["during"]["bytesSent"].as_u64() > Some(0), "{target:#}");
}

#[test]
fn a_partition_is_told_with_the_retransmits_that_it_caused() {
    let rig = Rig::new(2);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    known(&rig, client);
    let _stream = Stream::open(client.netns(), server.netns(), server.ipv4(), INTERVAL).expect("it connects");
    thread::sleep(BEFORE);
    let cut = Spec::action(client, "partition: {}").port("TCP", None);
    rig.apply("cut", cut.lasting(Duration::from_secs(3)));

    let target = told(&rig, "cut");
    assert_ordered(&target);
    let kinds = kinds(&target);
    let place = |kind: &str| {
        let place = kinds.iter().position(|known| *known == kind);
        place.unwrap_or_else(|| panic!("{kind} in {target:#}"))
    };
    assert!(place("firstMatch") < place("firstRetransmit"));
    assert!(place("firstRetransmit") < place("ended"));
    assert!(place("firstRto") < place("ended"));
    assert_eq!(target["recovery"], "recovered", "{target:#}");
    assert_eq!(target["before"]["retransmits"], 0, "{target:#}");
    assert!(target["during"]["retransmits"].as_u64() > Some(1), "{target:#}");
    assert!(target["during"]["dropsInjected"].as_u64() > Some(1), "{target:#}");
}

#[test]
fn connections_are_told_by_the_class_of_their_peer() {
    let rig = Rig::with_flags(2, &["--peer-class", "service=10.77.0.0/22,pod=fd77::/64"]);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    let to_service = Sink::start(server.netns(), server.ipv4(), 5);
    let to_pod = Sink::start(server.netns(), server.ipv6(), 2);
    let listener = server.netns().run(|| TcpListener::bind((server.ipv4(), 0)));
    let closed = listener.and_then(|listener| listener.local_addr());
    let closed = closed.expect("an address");
    rig.apply("slow", Spec::delay(client, Duration::from_millis(1)));
    wait_known(&rig, &label(client), true);
    let told = || {
        let timeline = rig.daemon.sabot_json(&["timeline", "slow"]).expect("it is known");
        timeline["targets"][0]["during"].clone()
    };
    // What is counted from here on was not there when the fault was looked at first.
    let looked = wait_for(PATIENCE, LOOK, || told().is_object().then_some(()));
    assert!(looked.is_some(), "it is in force on nobody");
    for (sink, times) in [(&to_service, 5), (&to_pod, 2)] {
        for _ in 0..times {
            send(&mut connect(client.netns(), sink.address), 100);
        }
    }
    for _ in 0..3 {
        let refused = client.netns().run(|| TcpStream::connect(closed));
        refused.expect_err("nobody listens");
    }
    let expected = json!({
        "service": {"opened": 5 + 3, "accepted": 0, "closed": 5, "failed": 3},
        "pod": {"opened": 2, "accepted": 0, "closed": 2, "failed": 0},
    });
    wait_for(PATIENCE, LOOK, || {
        (told()["connections"] == expected).then_some(())
    });
    let during = told();
    assert_eq!(during["connections"], expected, "{during:#}");
    assert_eq!(during["connectionsOpened"], 7 + 3, "{during:#}");
    assert_eq!(during["connectionsClosed"], 7, "{during:#}");
    assert_eq!(during["connectionsFailed"], 3, "{during:#}");
    assert_eq!(during["connectErrors"], json!({"ECONNREFUSED": 3}), "{during:#}");
    let read = rig.daemon.sabot(&["timeline", "slow"]).expect("it is told");
    let read = String::from_utf8_lossy(&read.stdout).into_owned();
    for line in ["to service", "to pod", "with service"] {
        assert!(read.contains(line), "{line} in {read}");
    }
}

#[test]
fn connections_that_a_fault_resets_are_told_as_lost() {
    let rig = Rig::new(2);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    known(&rig, client);
    // Its next piece comes before the observer has read its first counters under the fault.
    let stream = Stream::open(client.netns(), server.netns(), server.ipv4(), INTERVAL).expect("it connects");
    let reset = Spec::action(client, "reset: {to: both}").port("TCP", None);
    rig.apply("reset", reset);
    let broken = wait_for(PATIENCE, LOOK, || stream.broken());
    assert!(broken.is_some());
    rig.delete("reset");
    let timeline = || {
        let answer = rig.daemon.sabot_json(&["timeline", "reset"]);
        answer.expect("it is known")["targets"][0].clone()
    };
    // What happened in its last milliseconds is read after it has ended.
    wait_for(PATIENCE, LOOK, || {
        (timeline()["during"]["connectionsLost"] == 1).then_some(())
    });
    let target = &timeline();
    assert_ordered(target);
    for kind in ["firstMatch", "firstReset", "firstConnectionLost", "ended"] {
        assert!(kinds(target).contains(&kind), "{kind} in {target:#}");
    }
    assert_eq!(target["during"]["connectionsLost"], 1, "{target:#}");
}

/// The queue of a rate limit is the daemon's own, and what finds no room in it never reaches the kernel again.
#[test]
fn a_shapers_tail_drops_are_told_as_the_fault_counts_them() {
    const LOAD: UdpLoad = UdpLoad {
        datagrams: 4_000,
        payload: 200,
        per_second: 10_000,
    };
    let rig = Rig::new(2);
    let target = rig.lab.pod(TARGET);
    known(&rig, target);
    let limit = "rateLimit: {rate: 1mbit, burst: 3028, queueTime: 20ms}";
    rig.apply("limit", Spec::action(target, limit).port("UDP", None));
    let tell = |kind: &str| {
        let told = wait_for(PATIENCE, LOOK, || {
            let timeline = rig
                .daemon
                .sabot_json(&["timeline", "limit"])
                .expect("it is known");
            let target = timeline["targets"][0].clone();
            (target.is_object() && kinds(&target).contains(&kind)).then_some(target)
        });
        told.unwrap_or_else(|| panic!("{kind} isn't told"))
    };
    tell("injected");
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        way::send(LOAD, from, to, to.ipv4());
    }
    let books = rig.settled("limit").map(|books| books.dropped.packets);
    assert!(
        books.iter().all(|dropped| *dropped > LOAD.datagrams / 4),
        "{books:?}"
    );
    rig.delete("limit");
    let told = tell("ended");
    assert_eq!(told["during"]["dropsInjected"], books[0] + books[1], "{told:#}");
    let drops = told["during"]["drops"].as_array().expect("a list");
    let injected: Vec<_> = drops.iter().filter(|drops| drops["injected"] == true).collect();
    let expected = ["egress", "ingress"].into_iter().zip(books).map(|(direction, packets)| {
        json!({"direction": direction, "reason": "FAULT", "injected": true, "packets": packets})
    });
    assert!(
        expected.clone().all(|drops| injected.contains(&&drops)),
        "{told:#}"
    );
    assert_eq!(injected.len(), expected.count(), "{told:#}");
}
