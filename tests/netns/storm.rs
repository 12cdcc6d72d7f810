//! Random faults that come, change and go under traffic: the counters reconcile and nothing unnamed is touched.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use sabot_testkit::Rig;
use sabot_testkit::dice::Dice;
use sabot_testkit::soak::random_fault;
use sabot_testkit::traffic::{Bulk, INTERVAL, ProbeServer, Prober, UdpLoad, UdpReceiver};

const MOST_FAULTS: usize = 20;
const STORM: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);

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
            let lifetime = Duration::from_secs(3 + dice.roll(90));
            let spec = random_fault(dice, target, peer.ipv4(), lifetime);
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
    let mut dice = Dice::new(seed);
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
