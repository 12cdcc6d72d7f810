//! Hundreds of faults leave the daemon as it was; and what the other hook leaves behind.

use std::thread;
use std::time::{Duration, Instant};

use sabot_proto::sabot::v1::Direction;
use sabot_testkit::holdings::Holdings;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{INTERVAL, ProbeServer, Prober, UdpLoad, UdpReceiver, ping};
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Leaks, Rig, Spec};

const WARM_UP: usize = 60;
const CYCLES: usize = 500;
/// What an allocator may keep, whatever it was asked for before.
const RSS_BOUND: u64 = 8 << 20;

/// Applies and deletes a fault, each time another one: every action, on one target after the other, now and then with peers
/// and ports, now and then edited in place or moved to another target.
fn cycle(rig: &Rig, number: usize) {
    let pods = rig.lab.pods();
    let (target, next) = (&pods[number % 3], &pods[(number + 1) % 3]);
    let spec = |pod| match number % 4 {
        0 => Spec::partition(pod),
        1 => Spec::drop(pod, 10.0),
        2 => Spec::delay(pod, Duration::from_millis(1 + number as u64 % 7)),
        _ => Spec::corrupt(pod, 10.0),
    };
    // Names come again, and new ones come too.
    let name = format!("cycle-{}", number % 100);
    let first = spec(target).peer(pods[3].ipv4());
    rig.apply(
        &name,
        if number.is_multiple_of(5) {
            first.port("UDP", Some(53))
        } else {
            first
        },
    );
    match number % 6 {
        1 => drop(rig.apply(
            &name,
            spec(target).peers_in("10.0.0.0/8", &["10.77.0.0/25".into()]),
        )),
        4 => drop(rig.apply(&name, spec(next).peer(pods[3].ipv4()).egress())),
        _ => {}
    }
    rig.delete(&name);
}

/// Waits until the daemon's holdings have stood still for a while: everything warm has been taken down.
fn at_rest(rig: &Rig) -> Holdings {
    const REST: Duration = Duration::from_secs(3);
    let pid = rig.daemon.pid();
    let look = || Holdings::of(pid).expect("it runs");
    let mut last = look();
    let mut since = Instant::now();
    let rested = wait_until(PATIENCE * 2, Duration::from_millis(200), || {
        let now = look();
        if now.countable() != last.countable() {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() >= REST
    });
    assert!(rested, "{last:?} don't come to rest");
    look()
}

#[test]
fn five_hundred_faults_leave_the_daemon_as_it_was() {
    let rig = Rig::with_flags(4, &["--keep-warm", "1s", "--keep-ended", "1s"]);
    let leaks = Leaks::baseline(&rig.places()).expect("the machine can be looked at");
    let idle = at_rest(&rig);
    for number in 0..WARM_UP {
        cycle(&rig, number);
    }
    let before = at_rest(&rig);
    // The tiny programs that say whose packet it is are kept for the next targets; what is attached isn't.
    assert_eq!(
        (before.bpf.maps, before.bpf.links),
        (idle.bpf.maps, idle.bpf.links),
        "after the warm-up"
    );
    let started = Instant::now();
    for number in 0..CYCLES {
        cycle(&rig, number);
    }
    let took = started.elapsed();
    let during = Holdings::of(rig.daemon.pid()).expect("it runs");
    let after = at_rest(&rig);
    println!("{CYCLES} cycles in {took:?}: {before:?}, {during:?}, {after:?}");
    assert_eq!(after.countable(), before.countable());
    assert!(after.rss <= before.rss + RSS_BOUND, "{before:?} {after:?}");
    assert_eq!(
        leaks.left().expect("the machine can be looked at"),
        Vec::<String>::new()
    );
    assert_eq!(
        rig.client.list(false).expect("it answers").len(),
        0,
        "faults stay listed"
    );
}

#[test]
fn under_clsact_every_fault_works_and_its_end_leaves_nothing() {
    let mut rig = Rig::with_flags(2, &["--hook", "clsact"]);
    let mut leaks = Leaks::baseline(&rig.places()).expect("the machine can be looked at");
    let (target, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let load = UdpLoad {
        datagrams: 2000,
        payload: 200,
        per_second: 10_000,
    };
    let send = || {
        let receiver = UdpReceiver::start(peer.netns(), peer.ipv4()).expect("it binds");
        load.send(target.netns(), receiver.address()).expect("it is sent");
        receiver.finish(load.datagrams, Duration::from_millis(300))
    };
    let on = |spec: Spec| spec.peer(peer.ipv4());

    rig.apply("cut", on(Spec::partition(target)));
    assert_eq!(send().arrived(), 0);
    rig.delete("cut");
    rig.apply("loss", on(Spec::drop(target, 20.0)));
    let missing = send().missing(load.datagrams).len() as u64;
    assert!(missing > 200);
    assert_eq!(rig.books("loss", Direction::Egress).dropped.packets, missing);
    rig.delete("loss");
    rig.apply("noise", on(Spec::corrupt(target, 20.0)));
    let altered = send().altered.len() as u64;
    assert!(altered > 200);
    assert_eq!(rig.books("noise", Direction::Egress).corrupted.packets, altered);
    rig.delete("noise");
    rig.apply("slow", on(Spec::delay(target, Duration::from_millis(30))));
    let report = ping(target.netns(), peer.ipv4(), 5, INTERVAL).expect("ping runs");
    assert!(
        report
            .median()
            .is_some_and(|median| median >= Duration::from_millis(60)),
        "{report:?}"
    );
    assert!(
        leaks
            .left()
            .expect("it can be looked at")
            .iter()
            .any(|what| what.contains("qdisc"))
    );

    leaks.learn(rig.daemon.pid()).expect("it runs");
    let status = rig.daemon.terminate().expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", rig.daemon.log());
    let left = leaks
        .wait_clean(Duration::from_secs(3))
        .expect("the machine can be looked at");
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn under_clsact_a_kill_of_both_leaves_only_inert_filters_which_the_next_start_sweeps() {
    let mut rig = Rig::with_flags(3, &["--hook", "clsact"]);
    let mut leaks = Leaks::baseline(&rig.places()).expect("the machine can be looked at");
    let peer = rig.lab.pod(2);
    let answers = ProbeServer::start(peer.netns(), peer.ipv4()).expect("it binds");
    let prober = Prober::start(rig.lab.pod(0).netns(), &answers, INTERVAL).expect("there is a route");
    prober
        .wait_pass(Instant::now(), PATIENCE)
        .expect("probes pass at first");
    rig.apply("cut", Spec::partition(rig.lab.pod(0)));
    rig.apply("slow", Spec::delay(rig.lab.pod(1), Duration::from_millis(100)));
    rig.apply("loss", Spec::drop(rig.lab.pod(1), 50.0));
    let cut = Instant::now() + Duration::from_millis(50);
    thread::sleep(Duration::from_millis(300));
    let passage = prober.passage(cut, Instant::now());
    assert!(passage.sent > 10 && passage.answered == 0, "{passage:?}");
    leaks.learn(rig.daemon.pid()).expect("it runs");

    let killed = Instant::now();
    rig.daemon.kill9_with_reaper().expect("both run");
    let passed = prober.wait_pass(killed, PATIENCE).expect("probes pass again");
    assert!(passed < Duration::from_secs(1), "{passed:?}");
    let filters = leaks.left().expect("the machine can be looked at");
    let qdiscs = filters.iter().filter(|what| what.starts_with("qdisc"));
    assert_eq!(qdiscs.count(), 2, "{filters:?}");
    // Devices and everything else go with the process.
    let only_filters = || {
        let left = leaks.left().expect("the machine can be looked at");
        left.iter()
            .all(|what| what.starts_with("qdisc") || what.starts_with("bpf"))
    };
    assert!(wait_until(Duration::from_secs(3), INTERVAL, only_filters));

    rig.restart();
    let swept = leaks
        .wait_clean(Duration::from_secs(3))
        .expect("the machine can be looked at");
    assert_eq!(swept, Vec::<String>::new());
    rig.apply("cut", Spec::partition(rig.lab.pod(0)));
    let cut = Instant::now() + Duration::from_millis(50);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(prober.passage(cut, Instant::now()).answered, 0);
}
