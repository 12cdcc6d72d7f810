//! Random faults that come, change and go under traffic: the counters reconcile and nothing unnamed is touched.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use sabot_testkit::traffic::{Bulk, INTERVAL, ProbeServer, Prober, UdpLoad, UdpReceiver};
use sabot_testkit::{LabPod, Rig, Spec};

const MOST_FAULTS: usize = 20;
const STORM: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);

/// SplitMix64: what happens follows from the seed that a failure names.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ a >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (b ^ b >> 31) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize]
    }
}

const ACTIONS: [&str; 22] = [
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
    "duplicate: {percent: 10, copies: 2}",
    "duplicate: {percent: 10, delay: 20ms}",
    "reorder: {percent: 10, gap: 2}",
    "reorder: {percent: 10, delay: 5ms}",
    "rateLimit: {rate: 50mbit}",
    "rateLimit: {rate: 500mbit, burst: 64KiB}",
    "reject: {code: admin-prohibited}",
    "reset: {}",
    "delay: {latency: 5ms}",
    "delay: {latency: 10ms, jitter: 5ms, distribution: normal, correlation: 25}",
    "delay: {latency: 10ms, jitter: 10ms, allowReorder: true}",
];

fn random_spec(dice: &mut Dice, target: &LabPod, peer: &LabPod) -> Spec {
    let action = dice.pick(&ACTIONS);
    let mut spec = Spec::action(target, action).seed(dice.roll(1 << 32));
    match dice.roll(3) {
        0 => spec = spec.egress(),
        1 => spec = spec.ingress(),
        _ => {}
    }
    match dice.roll(4) {
        0 => spec = spec.peer(peer.ipv4()),
        1 => spec = spec.peers_in("10.0.0.0/8", &["10.1.0.0/16".to_owned()]),
        _ => {}
    }
    match dice.roll(4) {
        0 => spec = spec.port("UDP", None),
        1 => spec = spec.port("TCP", None),
        _ => {}
    }
    let ramps = ["percent: 10", "percent: 60", "latency: 5ms"]
        .iter()
        .any(|value| action.contains(value));
    if dice.roll(4) == 0 {
        spec = spec.pulse(Duration::from_millis(30), Duration::from_millis(20));
    } else if dice.roll(4) == 0 && ramps && !action.contains("burst") {
        spec = spec.ramp(Duration::from_secs(2), 10.0, 100.0);
    }
    spec.lasting(Duration::from_secs(3 + dice.roll(90)))
}

/// Traffic between the target and its peer, both ways, of both protocols, until told to end.
fn disturb(rig: &Rig, until: Instant) {
    let (target, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    thread::scope(|scope| {
        for (from, to) in [(target, peer), (peer, target)] {
            scope.spawn(move || {
                while Instant::now() < until {
                    let Ok(sink) = Bulk::listen(to.netns(), to.ipv4(), Duration::from_secs(2)) else {
                        continue;
                    };
                    // Whether it gets through is the faults' affair.
                    let _ = sink.send_from(from.netns(), 8 << 20, Duration::from_secs(2));
                }
            });
            scope.spawn(move || {
                let receiver = UdpReceiver::start(to.netns(), to.ipv4()).expect("it binds");
                let load = UdpLoad {
                    datagrams: 1_000,
                    payload: 300,
                    per_second: 2_000,
                };
                while Instant::now() < until {
                    let _ = load.send(from.netns(), receiver.address());
                }
            });
        }
    });
}

/// Applies, edits and deletes at random; how often.
fn storm(rig: &Rig, dice: &mut Dice, until: Instant) -> usize {
    let (target, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let mut alive = BTreeSet::new();
    let mut steps = 0;
    while Instant::now() < until {
        let name = format!("storm-{}", dice.roll(MOST_FAULTS as u64));
        if alive.contains(&name) && dice.roll(3) == 0 {
            // It may have expired by itself.
            let _ = rig.client.delete("", &name);
            alive.remove(&name);
        } else {
            let spec = random_spec(dice, target, peer);
            rig.client
                .apply(&name, spec.into(), PATIENCE)
                .unwrap_or_else(|status| panic!("{name}: {status}"));
            alive.insert(name);
        }
        steps += 1;
        thread::sleep(Duration::from_millis(20 + dice.roll(60)));
    }
    steps
}

#[test]
fn counters_reconcile_after_a_storm_and_bystanders_see_nothing() {
    let seed = 20_261_121;
    let mut dice = Dice(seed);
    let rig = Rig::new(4);
    let bystanders = [rig.lab.pod(2), rig.lab.pod(3)];
    let server = ProbeServer::start(bystanders[1].netns(), bystanders[1].ipv4()).expect("it listens");
    let prober = Prober::start(bystanders[0].netns(), &server, INTERVAL).expect("it starts");
    let began = Instant::now();
    let until = began + STORM;
    let steps = thread::scope(|scope| {
        scope.spawn(|| disturb(&rig, until));
        storm(&rig, &mut dice, until)
    });
    let ended = Instant::now() - Duration::from_millis(500);
    println!("{steps} steps of seed {seed}");
    assert!(steps > 100, "{steps} steps");
    // While faults are in force, traffic of the past may still be retransmitted: they go first.
    for index in 0..MOST_FAULTS {
        let _ = rig.client.delete("", &format!("storm-{index}"));
    }
    let mut matched = 0;
    for index in 0..MOST_FAULTS {
        let name = format!("storm-{index}");
        if rig.client.get("", &name).is_ok() {
            let [egress, ingress] = rig.settled(&name);
            matched += egress.matched.packets + ingress.matched.packets;
        }
    }
    assert!(matched > 1_000, "the storm met {matched} packets");
    let passage = prober.passage(began, ended);
    assert_eq!(passage.answered, passage.sent, "seed {seed}: {passage:?}");
}
