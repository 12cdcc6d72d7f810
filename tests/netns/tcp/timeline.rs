//! What a fault did and when, as the daemon tells it, against what the traffic itself saw.

use std::thread;
use std::time::Duration;

use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::Stream;
use sabot_testkit::wait::wait_for;
use sabot_testkit::{LabPod, Rig, Spec};
use serde_json::Value;

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
