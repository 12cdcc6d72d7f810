//! How faults end where things go wrong: with a daemon that is killed, stopped, or told to end.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::net::if_::if_nameindex;
use sabot_testkit::daemon::is_reaper;
use sabot_testkit::features::{feature, needs};
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{ProbeServer, Prober};
use sabot_testkit::wait::wait_until;
use sabot_testkit::way::{PEER, TARGET};
use sabot_testkit::{Leaks, NetnsRef, Rig, Spec};

/// Slow enough for an emulated machine.
const PACE: Duration = Duration::from_millis(20);
const GONE: Duration = Duration::from_secs(5);

/// Probes from the target to the peer, which pass.
fn probes(rig: &Rig) -> (ProbeServer, Prober) {
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let answers = ProbeServer::start(peer.netns(), peer.ipv4()).expect("it binds");
    let prober = Prober::start(target.netns(), &answers, PACE).expect("there is a route");
    let passes = prober.wait_pass(Instant::now(), PATIENCE);
    passes.expect("probes pass at first");
    (answers, prober)
}

/// Puts a fault of every kind of equipment on the target: what is attached, the delay line or the departure queue, the
/// segmenter.
fn cut(rig: &Rig) {
    let target = rig.lab.pod(TARGET);
    rig.apply("cut", Spec::partition(target));
    rig.apply("slow", Spec::delay(target, Duration::from_millis(10)));
    rig.apply("loss", Spec::drop(target, 10.0));
}

/// Whether all probes of a while fail that begins now.
fn is_cut(prober: &Prober) -> bool {
    const WHILE: Duration = Duration::from_millis(500);
    const IN_FLIGHT: Duration = Duration::from_millis(200);
    let from = Instant::now() + IN_FLIGHT;
    std::thread::sleep(IN_FLIGHT + WHILE);
    let passage = prober.passage(from, Instant::now());
    assert!(passage.sent > 3, "{passage:?}");
    passage.answered == 0
}

/// Whether a target's departure queue stands there.
fn has_queue(netns: &NetnsRef) -> bool {
    netns.run(|| {
        let devices = if_nameindex().expect("the kernel tells them");
        let mut names = devices.iter().map(|device| device.name().to_string_lossy());
        names.any(|name| name.starts_with("sabot-d"))
    })
}

/// What removes filters after a kill.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Remover {
    Reaper,
    /// The reaper was killed, too.
    NextStart,
}

/// Kills a daemon under faults, where the machine has that hook. Nothing is left; with clsact and without a reaper inert filters
/// are, until the next daemon sweeps them.
fn kill_under(hook: &str, remover: Remover) {
    // What one leaves for a while would be taken for what another leaves.
    static KILLS: Mutex<()> = Mutex::new(());
    let _only = KILLS.lock().unwrap_or_else(PoisonError::into_inner);
    let node = crate::rig(0, &[]).client.node().expect("it answers");
    if !needs(&node, hook) {
        return;
    }
    let mut rig = crate::rig(2, &["--hook", hook]);
    let mut leaks = Leaks::baseline(&rig.places()).expect("the machine can be looked at");
    let (_answers, prober) = probes(&rig);
    cut(&rig);
    assert!(is_cut(&prober), "the fault isn't in force");
    leaks.learn(rig.daemon.pid()).expect("it runs");
    assert!(leaks.learned() > 0, "it held nothing");
    let departs = feature(&rig.client.node().expect("it answers"), "departures").available;
    assert_eq!(has_queue(rig.lab.pod(TARGET).netns()), departs);

    let starts = crate::no_other_starts();
    let killed = Instant::now();
    match remover {
        Remover::Reaper => rig.daemon.kill9(),
        Remover::NextStart => rig.daemon.kill9_with_reaper(),
    }
    .expect("it runs");
    prober.wait_pass(killed, PATIENCE).expect("probes pass again");
    let left = leaks.wait_clean(GONE).expect("the machine can be looked at");
    if hook == "tcx" || remover == Remover::Reaper {
        assert_eq!(left, Vec::<String>::new());
    } else {
        let qdiscs = left.iter().filter(|what| what.starts_with("qdisc")).count();
        assert_eq!(qdiscs, 1, "{left:?}");
        let devices = left.iter().filter(|what| what.starts_with("device")).count();
        assert_eq!(devices, 0, "{left:?}");
    }
    rig.restart();
    drop(starts);
    let swept = leaks.wait_clean(GONE).expect("the machine can be looked at");
    assert_eq!(swept, Vec::<String>::new());
    cut(&rig);
    assert!(is_cut(&prober), "the next daemon's fault isn't in force");
}

#[test]
fn under_tcx_a_kill_leaves_nothing() {
    kill_under("tcx", Remover::Reaper);
}

#[test]
fn under_clsact_the_reaper_removes_what_a_kill_leaves() {
    kill_under("clsact", Remover::Reaper);
}

#[test]
fn under_clsact_a_kill_of_both_leaves_inert_filters_which_the_next_start_sweeps() {
    kill_under("clsact", Remover::NextStart);
}

#[test]
fn a_daemon_that_is_told_to_end_leaves_nothing_by_whatever_hook() {
    let rig = crate::rig(0, &[]);
    let node = rig.client.node().expect("it answers");
    drop(rig);
    let hooks = ["tcx", "clsact"].into_iter();
    for hook in hooks.filter(|hook| feature(&node, hook).available) {
        let mut rig = crate::rig(2, &["--hook", hook]);
        let mut leaks = Leaks::baseline(&rig.places()).expect("the machine can be looked at");
        let (_answers, prober) = probes(&rig);
        cut(&rig);
        assert!(is_cut(&prober), "the fault isn't in force");
        leaks.learn(rig.daemon.pid()).expect("it runs");
        let reaper = rig.daemon.reaper();
        assert_eq!(reaper.is_some(), hook == "clsact");
        let told = Instant::now();
        let status = rig.daemon.terminate().expect("it ends");
        assert_eq!(status.code(), Some(0), "{}", rig.daemon.log());
        prober.wait_pass(told, PATIENCE).expect("probes pass again");
        let left = leaks.wait_clean(GONE).expect("the machine can be looked at");
        assert_eq!(left, Vec::<String>::new(), "{hook}");
        let has_ended = || !reaper.is_some_and(is_reaper);
        assert!(wait_until(PATIENCE, PACE, has_ended), "the reaper runs on");
    }
}

#[test]
fn the_kernel_ends_a_fault_whose_daemon_is_stopped() {
    const LASTING: Duration = Duration::from_secs(4);
    let rig = crate::rig(2, &[]);
    let (_answers, prober) = probes(&rig);
    let spec = Spec::partition(rig.lab.pod(TARGET)).lasting(LASTING);
    let fault = rig.apply("brief", spec);
    rig.daemon.pause().expect("it runs");
    let deadline = rig.deadline(&fault);
    assert!(is_cut(&prober), "the fault isn't in force");
    prober.wait_pass(deadline, PATIENCE).expect("it ends by itself");
    rig.daemon.resume().expect("it runs");
}

#[test]
fn a_delay_line_without_its_daemon_is_bypassed() {
    let rig = crate::rig(2, &[]);
    let (_answers, prober) = probes(&rig);
    let spec = Spec::delay(rig.lab.pod(TARGET), Duration::from_secs(1)).egress();
    rig.apply("slow", spec);
    rig.daemon.pause().expect("it runs");
    let quick = prober.wait_quick(Instant::now(), Duration::from_millis(900), PATIENCE);
    quick.expect("probes pass by the line that hangs");
    rig.daemon.resume().expect("it runs");
}
