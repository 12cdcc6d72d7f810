//! How faults end: at their deadline, on delete, with a daemon that is stopped or told to end, and with their pod.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sabot_proto::sabot::v1::{Direction, Phase};
use sabot_testkit::netns::NetnsRef;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{INTERVAL, ProbeServer, Prober, UdpLoad, UdpReceiver};
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Leaks, Rig, Spec};

const TARGET: usize = 0;
const PEER: usize = 1;

const TRIES: usize = 3;
/// How soon after its deadline, or after the answer to a delete, a fault must be gone.
const AFTER_END: Duration = Duration::from_millis(100);
/// What is on its way when a fault comes into force arrives within this time.
const IN_FLIGHT: Duration = Duration::from_millis(50);
/// The deadline is told in wall time and kept in boot time; the kernel may set one of them right meanwhile.
const CLOCKS: Duration = Duration::from_millis(10);
/// A round trip that nothing delays, on a busy machine.
const UNDELAYED: Duration = Duration::from_millis(100);

/// Probes from the target to the peer, which pass.
fn probes(rig: &Rig) -> (ProbeServer, Prober) {
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let answers = ProbeServer::start(peer.netns(), peer.ipv4()).expect("it binds");
    let prober = Prober::start(target.netns(), &answers, INTERVAL).expect("there is a route");
    prober
        .wait_pass(Instant::now(), PATIENCE)
        .expect("probes pass at first");
    (answers, prober)
}

/// Watches probes that a fault cuts until its deadline; returns how long after it they passed.
fn pass_after(prober: &Prober, applied: Instant, deadline: Instant) -> Duration {
    thread::sleep(deadline.saturating_duration_since(Instant::now()));
    let passed = prober
        .wait_pass(deadline - CLOCKS, PATIENCE)
        .expect("the fault ends");
    let during = prober.passage(applied + IN_FLIGHT, deadline - CLOCKS);
    assert!(during.sent > 10, "{during:?}");
    assert_eq!(during.answered, 0, "{during:?} before the deadline");
    passed.saturating_sub(CLOCKS)
}

#[test]
fn a_fault_ends_at_its_deadline() {
    let rig = Rig::new(2);
    let (_answers, prober) = probes(&rig);
    let mut seen = Vec::new();
    let within = (0..TRIES).any(|_| {
        let spec = Spec::partition(rig.lab.pod(TARGET));
        let fault = rig.apply("brief", spec.lasting(Duration::from_millis(800)));
        let (applied, deadline) = (Instant::now(), rig.deadline(&fault));
        seen.push(pass_after(&prober, applied, deadline));
        let expired = || {
            rig.get("brief")
                .status
                .is_some_and(|status| status.phase() == Phase::Expired)
        };
        assert!(wait_until(PATIENCE, INTERVAL, expired));
        seen.last().is_some_and(|passed| *passed <= AFTER_END)
    });
    assert!(within, "{seen:?}");
    rig.settled("brief");
}

#[test]
fn a_deleted_fault_is_gone_when_the_answer_comes() {
    let rig = Rig::new(2);
    let (_answers, prober) = probes(&rig);
    let mut seen = Vec::new();
    let within = (0..TRIES).any(|_| {
        rig.apply("cut", Spec::partition(rig.lab.pod(TARGET)));
        let applied = Instant::now();
        thread::sleep(Duration::from_millis(300));
        let during = prober.passage(applied + IN_FLIGHT, Instant::now());
        assert!(during.sent > 10 && during.answered == 0, "{during:?}");
        rig.daemon.sabot_ok(&["delete", "cut"]).expect("it is deleted");
        let passed = prober
            .wait_pass(Instant::now(), PATIENCE)
            .expect("probes pass again");
        seen.push(passed);
        passed <= AFTER_END
    });
    assert!(within, "{seen:?}");
}

#[test]
fn partition_and_drop_end_at_their_deadline_without_the_daemon() {
    let rig = Rig::new(2);
    let (_answers, prober) = probes(&rig);
    let target = rig.lab.pod(TARGET);
    for (name, spec) in [
        ("cut", Spec::partition(target)),
        ("loss", Spec::drop(target, 100.0)),
    ] {
        let mut seen = Vec::new();
        let within = (0..TRIES).any(|_| {
            let fault = rig.apply(name, spec.clone().lasting(Duration::from_secs(1)));
            let (applied, deadline) = (Instant::now(), rig.deadline(&fault));
            rig.daemon.pause().expect("it runs");
            seen.push(pass_after(&prober, applied, deadline));
            rig.daemon.resume().expect("it is there");
            seen.last().is_some_and(|passed| *passed <= AFTER_END)
        });
        assert!(within, "{name}: {seen:?}");
        rig.settled(name);
    }
}

#[test]
fn a_delay_stops_delaying_soon_after_the_daemon_stopped() {
    let rig = Rig::new(2);
    let (_answers, prober) = probes(&rig);
    let latency = Duration::from_millis(300);
    let peer = rig.lab.pod(PEER).ipv4();
    rig.apply("slow", Spec::delay(rig.lab.pod(TARGET), latency).peer(peer));
    let applied = Instant::now();
    prober.wait_pass(applied, PATIENCE).expect("delayed probes pass");
    let delayed = prober.between(applied, Instant::now());
    assert!(
        delayed
            .iter()
            .all(|sample| sample.answered.is_none_or(|at| at - sample.sent >= latency)),
        "not everything is delayed"
    );

    rig.daemon.pause().expect("it runs");
    let paused = Instant::now();
    let quick = prober
        .wait_quick(paused, UNDELAYED, PATIENCE)
        .expect("it stops delaying");
    assert!(quick < Duration::from_secs(1), "{quick:?}");
    let from = Instant::now();
    thread::sleep(Duration::from_millis(300));
    let until = Instant::now();
    let undelayed = || {
        let passage = prober.passage(from, until);
        passage.sent > 10 && passage.answered == passage.sent
    };
    assert!(
        wait_until(UNDELAYED, INTERVAL, undelayed),
        "{:?}",
        prober.passage(from, until)
    );

    rig.daemon.resume().expect("it is there");
    let resumed = Instant::now();
    // What goes round again is delayed again.
    let delays = || {
        let samples = prober.between(resumed, Instant::now());
        let last = samples
            .iter()
            .rev()
            .find_map(|sample| Some(sample.answered? - sample.sent));
        last.is_some_and(|round_trip| round_trip >= latency)
    };
    assert!(wait_until(PATIENCE, INTERVAL, delays), "the line doesn't go on");
    drop(prober);
    let [egress, ingress] = rig.settled("slow");
    assert!(
        egress.bypassed.packets > 10 && ingress.bypassed.packets > 10,
        "{egress:#?}"
    );
}

#[test]
fn what_a_stopped_daemon_held_is_dropped_and_counted() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let latency = Duration::from_millis(500);
    rig.apply("slow", Spec::delay(target, latency).peer(peer.ipv4()).egress());
    let receiver = UdpReceiver::start(peer.netns(), peer.ipv4()).expect("it binds");
    let load = UdpLoad {
        datagrams: 400,
        payload: 100,
        per_second: 4000,
    };
    load.send(target.netns(), receiver.address()).expect("it is sent");
    rig.daemon.pause().expect("it runs");
    thread::sleep(Duration::from_secs(2));
    rig.daemon.resume().expect("it is there");
    let [egress, _] = rig.settled("slow");
    let arrived = receiver.finish(load.datagrams, latency).arrived();
    assert_eq!(egress.matched.packets, load.datagrams, "{egress:#?}");
    assert_eq!(egress.released.packets, arrived, "{egress:#?}");
    assert_eq!(egress.lost_late.packets, load.datagrams - arrived, "{egress:#?}");
    assert!(egress.lost_late.packets > 0, "{egress:#?}");

    load.send(target.netns(), receiver.address()).expect("it is sent");
    let arrived = receiver.finish(load.datagrams, latency * 4).arrived();
    assert_eq!(arrived, load.datagrams, "the line doesn't go on");
}

#[test]
fn a_daemon_that_is_told_to_end_reverts_everything() {
    let mut rig = Rig::new(4);
    let mut leaks = Leaks::baseline(&rig.places()).expect("the machine can be looked at");
    let (_answers, prober) = probes(&rig);
    let pods = rig.lab.pods();
    rig.apply("cut", Spec::partition(&pods[TARGET]));
    rig.apply("slow", Spec::delay(&pods[TARGET], Duration::from_millis(200)));
    rig.apply("slower", Spec::delay(&pods[2], Duration::from_millis(200)));
    rig.apply("loss", Spec::drop(&pods[2], 50.0));
    rig.apply("noise", Spec::corrupt(&pods[3], 50.0));
    leaks.learn(rig.daemon.pid()).expect("it runs");
    assert!(!leaks.left().expect("the machine can be looked at").is_empty());

    let told = Instant::now();
    let status = rig.daemon.terminate().expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", rig.daemon.log());
    let passed = prober.wait_pass(told, PATIENCE);
    assert!(passed.is_some(), "probes don't pass");
    let left = leaks
        .wait_clean(Duration::from_secs(3))
        .expect("the machine can be looked at");
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_pod_that_goes_during_a_delay_is_really_gone() {
    let mut rig = Rig::new(3);
    let latency = Duration::from_secs(3);
    rig.apply("slow", Spec::delay(rig.lab.pod(2), latency));
    rig.apply("loss", Spec::drop(rig.lab.pod(2), 10.0));
    rig.apply(
        "elsewhere",
        Spec::delay(rig.lab.pod(TARGET), Duration::from_millis(20)),
    );
    let (inode, path) = {
        let (pod, peer) = (rig.lab.pod(2), rig.lab.pod(PEER));
        let load = UdpLoad {
            datagrams: 500,
            payload: 100,
            per_second: 5000,
        };
        let nobody = (peer.ipv4(), 9).into();
        load.send(pod.netns(), nobody).expect("it is sent");
        (pod.netns().inode(), pod.netns().path().to_owned())
    };
    assert!(rig.books("slow", Direction::Egress).held.packets > 0);

    let port = rig.lab.remove_pod(2);
    let gone = wait_until(Duration::from_secs(5), INTERVAL, || !rig.lab.node_has(&port));
    assert!(
        gone,
        "the pod's device is still there: something holds its namespace"
    );
    assert!(!path.exists());
    assert_eq!(holders(inode), Vec::<String>::new());

    let (_answers, prober) = probes(&rig);
    rig.apply(
        "cut",
        Spec::partition(rig.lab.pod(TARGET)).lasting(Duration::from_millis(500)),
    );
    let passed = prober.wait_pass(Instant::now() + IN_FLIGHT, PATIENCE);
    assert!(
        passed.is_some_and(|passed| passed > Duration::from_millis(100)),
        "{passed:?}"
    );
    // The counters of what is gone are still there, and add up.
    let [egress, _] = rig.settled("slow");
    assert!(egress.matched.packets > 300, "{egress:#?}");
    for name in ["slow", "loss", "elsewhere"] {
        rig.delete(name);
    }
}

/// What was on its way through the delay line's device when the target went is in no counter of the kernel's.
#[test]
fn pods_that_go_under_load_leave_balanced_counters() {
    const ROUNDS: usize = 8;
    let mut rig = Rig::new(1);
    for round in 0..ROUNDS {
        let nobody = (rig.lab.pod(0).ipv4(), 9).into();
        rig.lab.add_pod().expect("a pod can be made");
        let pod = rig.lab.pod(1);
        let name = format!("slow-{round}");
        // Jitter is the delay line's, wherever constant delays wait.
        let (latency, jitter) = (Duration::from_millis(20), Duration::from_millis(5));
        rig.apply(&name, Spec::delay_with_jitter(pod, latency, jitter));
        let netns = NetnsRef::open(pod.netns().path()).expect("it is there");
        let ended = Arc::new(AtomicBool::new(false));
        let sender = {
            let ended = Arc::clone(&ended);
            thread::spawn(move || send_until(&ended, &netns, nobody))
        };
        let books = |rig: &Rig| rig.books(&name, Direction::Egress);
        let begun = wait_until(PATIENCE, INTERVAL, || books(&rig).matched.packets > 2_000);
        assert!(begun, "nothing is matched: {:#?}", books(&rig));
        // The sender holds the namespace: its device is still there when the daemon lets go of it.
        rig.lab.remove_pod(1);
        let has_gone = wait_until(PATIENCE, INTERVAL, || books(&rig).lost().packets > 0);
        assert!(has_gone, "nothing got lost with it: {:#?}", books(&rig));
        rig.settled(&name);
        ended.store(true, Ordering::Relaxed);
        sender.join().expect("it doesn't panic").expect("all is sent");
    }
}

/// Datagrams in quick succession.
fn send_until(ended: &AtomicBool, netns: &NetnsRef, to: SocketAddr) -> anyhow::Result<()> {
    let load = UdpLoad {
        datagrams: 2_000,
        payload: 100,
        per_second: 40_000,
    };
    while !ended.load(Ordering::Relaxed) {
        load.send(netns, to)?;
    }
    Ok(())
}

/// Processes and threads that live in a network namespace.
fn holders(inode: u64) -> Vec<String> {
    let link = format!("net:[{inode}]");
    let list = |path: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let threads = list(Path::new("/proc"))
        .into_iter()
        .flat_map(|process| list(&process.join("task")));
    threads
        .filter(|thread| std::fs::read_link(thread.join("ns/net")).is_ok_and(|to| to == Path::new(&link)))
        .map(|thread| thread.display().to_string())
        .collect()
}
