//! kill -9 with 50 targets under fault: traffic flows again at once, and nothing is left behind.

use std::thread;
use std::time::{Duration, Instant};

use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{ProbeServer, Prober};
use sabot_testkit::{LabPod, Leaks, Rig, Spec};

const TARGETS: usize = 50;
const TRIES: usize = 3;
/// Fifty of them share the machine.
const PACE: Duration = Duration::from_millis(20);
/// How soon after the kill the last target's probes pass.
const AFTER_KILL: Duration = Duration::from_millis(200);
/// How soon after the kill nothing is left.
const GONE: Duration = Duration::from_secs(3);
/// What is on its way when a fault comes into force arrives within this time.
const IN_FLIGHT: Duration = Duration::from_millis(100);
const WATCHED: Duration = Duration::from_millis(500);

/// What was seen of a kill.
#[derive(Debug)]
struct Kill {
    /// From the kill until the last target's probes passed.
    slowest: Duration,
    /// From the kill until nothing was left, or what still was after [`GONE`].
    clean: Result<Duration, Vec<String>>,
}

/// Puts faults on 50 targets, sees that none of their probes pass as before, kills the daemon and watches what happens.
fn kill_under(
    rig: &mut Rig,
    faults: impl Fn(&LabPod) -> Vec<(&'static str, Spec)>,
    undelayed: Duration,
) -> Kill {
    let mut leaks = Leaks::baseline(&rig.places()).expect("the machine can be looked at");
    let server = rig.lab.pod(TARGETS);
    let answers = ProbeServer::start(server.netns(), server.ipv4()).expect("it binds");
    let targets = &rig.lab.pods()[..TARGETS];
    let probers: Vec<Prober> = targets
        .iter()
        .map(|pod| Prober::start(pod.netns(), &answers, PACE).expect("there is a route"))
        .collect();
    let quick = |prober: &Prober, after| prober.wait_quick(after, undelayed, PATIENCE);
    for prober in &probers {
        quick(prober, Instant::now()).expect("probes pass at first");
    }
    for (number, pod) in targets.iter().enumerate() {
        for (name, spec) in faults(pod) {
            rig.apply(&format!("{name}-{number}"), spec);
        }
    }
    let from = Instant::now() + IN_FLIGHT;
    thread::sleep(IN_FLIGHT + WATCHED);
    for (number, prober) in probers.iter().enumerate() {
        let samples = prober.between(from, from + WATCHED);
        let passed = samples
            .iter()
            .filter(|sample| sample.answered.is_some_and(|at| at - sample.sent < undelayed));
        assert!(samples.len() > 5, "target {number}: {} probes", samples.len());
        assert_eq!(passed.count(), 0, "target {number} isn't under fault");
    }
    leaks.learn(rig.daemon.pid()).expect("it runs");

    let killed = Instant::now();
    rig.daemon.kill9().expect("it runs");
    let passes = probers
        .iter()
        .map(|prober| quick(prober, killed).expect("probes pass again"));
    let slowest = passes.max().unwrap_or_default();
    let left = leaks
        .wait_clean(GONE.saturating_sub(killed.elapsed()))
        .expect("the machine can be looked at");
    let clean = if left.is_empty() {
        Ok(killed.elapsed())
    } else {
        Err(left)
    };
    Kill { slowest, clean }
}

/// Kills daemons until one kill was as it should be, at most three times.
fn assert_kill(faults: impl Fn(&LabPod) -> Vec<(&'static str, Spec)>, undelayed: Duration) {
    let mut rig = Rig::new(TARGETS + 1);
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let kill = kill_under(&mut rig, &faults, undelayed);
        println!("{kill:?}");
        let within = kill.slowest <= AFTER_KILL && kill.clean.is_ok();
        seen.push(kill);
        if within {
            return;
        }
        rig.restart();
    }
    panic!("{seen:?}");
}

#[test]
fn fifty_partitioned_targets_recover_at_once_and_nothing_is_left() {
    assert_kill(|pod| vec![("cut", Spec::partition(pod))], PATIENCE);
}

#[test]
fn fifty_delayed_and_lossy_targets_recover_at_once_and_nothing_is_left() {
    // Round trips of an unimpeded probe are far below what the delay makes of them.
    let faults = |pod: &LabPod| {
        vec![
            ("slow", Spec::delay(pod, Duration::from_millis(400)).egress()),
            ("loss", Spec::drop(pod, 20.0)),
        ]
    };
    assert_kill(faults, Duration::from_millis(200));
}
