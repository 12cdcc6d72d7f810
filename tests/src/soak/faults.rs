//! Faults of every kind, at random.

use std::net::IpAddr;
use std::time::Duration;

use crate::dice::Dice;
use crate::lab::LabPod;
use crate::spec::Spec;

const ACTIONS: [&str; 27] = [
    "partition: {}",
    "drop: {percent: 5}",
    "drop: {percent: 60}",
    "drop: {burst: {percent: 5, length: 4}}",
    "drop: {gilbertElliott: {p: 2, r: 30}}",
    "drop: {nth: {every: 7}}",
    "drop: {nth: {first: 2}}",
    "drop: {flows: {percent: 30}}",
    "drop: {only: handshake}",
    "corrupt: {percent: 10}",
    "corrupt: {kind: wire, percent: 10, bits: 4}",
    "corrupt: {percent: 60, offset: {from: 8, to: 40}}",
    "duplicate: {percent: 10, copies: 2}",
    "duplicate: {percent: 10, delay: 20ms}",
    "reorder: {percent: 10, gap: 2}",
    "reorder: {percent: 10, delay: 5ms}",
    "rateLimit: {rate: 50mbit}",
    "rateLimit: {rate: 500mbit, burst: 64KiB}",
    "rateLimit: {rate: 5mbit, queueTime: 0s}",
    "reject: {code: admin-prohibited}",
    "reject: {}",
    "reset: {}",
    "reset: {to: peer}",
    "delay: {latency: 5ms}",
    "delay: {latency: 10ms, jitter: 5ms, distribution: normal, correlation: 25}",
    "delay: {latency: 10ms, jitter: 10ms, allowReorder: true}",
    "delay: {quantiles: [1ms, 4ms, 30ms], allowReorder: true}",
];

/// A fault on this target, with this peer, with a network of peers, or with everybody. It lives for 100 ms at least.
pub fn random_fault(dice: &mut Dice, target: &LabPod, peer: IpAddr, lifetime: Duration) -> Spec {
    let action = *dice.pick(&ACTIONS);
    let spec = Spec::action(target, action).lasting(lifetime);
    let mut spec = spec.seed(dice.roll(1 << 32));
    match dice.roll(3) {
        0 => spec = spec.egress(),
        1 => spec = spec.ingress(),
        _ => {}
    }
    match dice.roll(4) {
        0 => spec = spec.peer(peer),
        1 => spec = spec.peers_in("10.0.0.0/8", &["10.1.0.0/16".to_owned()]),
        _ => {}
    }
    match dice.roll(4) {
        0 => spec = spec.port("UDP", None),
        1 => spec = spec.port("TCP", None),
        _ => {}
    }
    if dice.roll(4) == 0 {
        spec = spec.pulse(Duration::from_millis(30), Duration::from_millis(20));
    } else if dice.roll(4) == 0 && has_ramp(action) {
        spec = spec.ramp(lifetime.min(Duration::from_secs(2)), 10.0, 100.0);
    }
    if dice.roll(4) == 0 {
        spec = spec.sampling(10);
    }
    spec
}

/// A ramp moves one value, a plain percentage or a latency among them.
fn has_ramp(action: &str) -> bool {
    let values = ["percent: 10", "percent: 60", "latency: 5ms"];
    values.iter().any(|value| action.contains(value)) && !action.contains("burst")
}
