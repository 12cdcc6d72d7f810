//! One daemon, from its start to its end.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sabot_proto::sabot::v1::DeleteAllFaultsRequest;

use super::cuts::Cuts;
use super::flood::{self, Flooded};
use super::storm::Storm;
use super::traffic::{Players, disturb};
use super::{FIRST_PLAYER, Seen, garbage, ledgers, log};
use crate::daemon::{Client, Daemon, DaemonOptions};
use crate::dice::Dice;
use crate::holdings::Holdings;
use crate::lab::Lab;
use crate::leaks::Leaks;
use crate::netns::NetnsRef;
use crate::rig::PATIENCE;
use crate::spec::Spec;
use crate::wait::{wait_for, wait_until};

const LOOK: Duration = Duration::from_millis(100);
/// The kernel takes namespaces down one after the other, also those of others.
const TAKEN_DOWN: Duration = Duration::from_secs(60);
/// How many threads send at once.
const SENDERS: usize = 3;
/// Longer than the wait for what is left of it.
const OUTLASTING: Duration = Duration::from_secs(120);
/// What an allocator keeps of a first flood, which decodes hundreds of long requests at once.
const FIRST_RSS_BOUND: u64 = 128 << 20;
/// What it may keep from then on, and tables of what was observed of more and more pods and connections.
const RSS_BOUND: u64 = 32 << 20;
/// Entries for what is observed of pods and connections that are still remembered.
const MAP_BOUND: u64 = 4 << 20;
/// Threads that come and go in a pool.
const THREADS_BOUND: usize = 8;

pub(super) struct Life {
    daemon: Daemon,
    client: Client,
    leaks: Leaks,
    /// At rest, once everything has been used.
    rest: Holdings,
    /// How much memory it may have taken more.
    rss_bound: u64,
}

impl Life {
    pub(super) fn begin(lab: &Lab, options: DaemonOptions) -> Self {
        let places: Vec<NetnsRef> = lab.pods()[..FIRST_PLAYER + 1]
            .iter()
            .map(|pod| (**pod.netns()).clone())
            .chain([(**lab.node()).clone()])
            .collect();
        let places: Vec<&NetnsRef> = places.iter().collect();
        let leaks = Leaks::baseline(&places).expect("the machine can be looked at");
        // Faults that have ended are forgotten within a storm or two, so that they don't count as growth.
        let flags = ["--keep-warm", "1s", "--keep-ended", "30s"];
        let options = options.netns(lab.node()).flags(&flags);
        let daemon = Daemon::start(options).unwrap_or_else(|error| panic!("{error:#}"));
        let client = daemon.client().expect("the daemon answers");
        warm_up(lab, &client);
        let rest = first_rest(daemon.pid());
        Self {
            daemon,
            client,
            leaks,
            rest,
            rss_bound: FIRST_RSS_BOUND,
        }
    }

    /// A storm; after it nothing is left of it, and all accounts are balanced.
    pub(super) fn storm(&mut self, lab: &mut Lab, dice: &mut Dice, length: Duration, seen: &mut Seen) {
        let cuts = Cuts::between(lab);
        let players = Players::default();
        players.set(lab);
        let until = Instant::now() + length;
        let (daemon, client) = (&self.daemon, &self.client);
        let mut storm = Storm::new(client, &players);
        let mut flooded = Flooded::default();
        thread::scope(|scope| {
            let mut senders = Vec::new();
            for _ in 0..SENDERS {
                let (mut dice, players) = (dice.fork(), &players);
                senders.push(scope.spawn(move || disturb(players, &mut dice, until)));
            }
            let (mut cutting, mut calling, mut mumbling) = (dice.fork(), dice.fork(), dice.fork());
            let cuts = &cuts;
            let cuts = scope.spawn(move || cuts.repeat(client, &mut cutting, until));
            let calls = scope.spawn(move || flood::calls(daemon, &mut calling, until));
            let garbage = scope.spawn(move || garbage::talk(daemon, &mut mumbling, until));
            storm.rage(lab, dice, until, seen);
            cuts.join().expect("cuts are as they should be").add_to(seen);
            flooded = calls.join().expect("calls are answered as they should be");
            seen.garbage += garbage.join().expect("garbage is survived");
            for sender in senders {
                sender.join().expect("traffic can be sent");
            }
        });
        flooded.add_to(seen);
        seen.storms += 1;
        let gone = storm.gone;
        self.assert_calm(seen);
        for port in gone {
            let is_gone = wait_until(TAKEN_DOWN, LOOK, || !lab.node_has(&port));
            assert!(
                is_gone,
                "something holds the namespace of a pod that is gone: {port}"
            );
        }
    }

    /// Ends every fault; their accounts are balanced, and the daemon holds no more than before.
    fn assert_calm(&mut self, seen: &mut Seen) {
        let all = DeleteAllFaultsRequest { namespace: None };
        let mut faults = self.client.faults();
        self.client
            .wait(faults.delete_all_faults(all))
            .expect("faults can be deleted");
        ledgers::assert_balanced(&self.client, seen);
        let left = self.leaks.wait_clean(PATIENCE);
        assert_eq!(left.expect("the machine can be looked at"), Vec::<String>::new());
        let mut now = self.rest;
        let rests = wait_until(PATIENCE * 2, LOOK, || {
            now = Holdings::of(self.daemon.pid()).expect("it runs");
            self.holds_no_more(&now)
        });
        assert!(
            rests,
            "the daemon holds more at rest than before: {now:?}, {:?}",
            self.rest
        );
        if self.rss_bound == RSS_BOUND {
            seen.most_grown = seen.most_grown.max(now.rss.saturating_sub(self.rest.rss));
        } else {
            (self.rest.rss, self.rss_bound) = (now.rss, RSS_BOUND);
        }
        let maps = now.map_bytes.saturating_sub(self.rest.map_bytes);
        seen.most_map_growth = seen.most_map_growth.max(maps);
        log::assert_expected(&self.daemon.log());
    }

    /// The tiny programs that say whose packet it is are kept for the next targets; each is a descriptor.
    fn holds_no_more(&self, now: &Holdings) -> bool {
        let rest = &self.rest;
        let others = |held: &Holdings| held.descriptors - held.bpf.programs;
        others(now) <= others(rest)
            && now.bpf.maps == rest.bpf.maps
            && now.bpf.links == rest.bpf.links
            && now.threads <= rest.threads + THREADS_BOUND
            && now.map_bytes <= rest.map_bytes + MAP_BOUND
            && now.rss <= rest.rss + self.rss_bound
    }

    /// Ends it, one way or another, under faults; traffic flows again and nothing is left.
    pub(super) fn end(mut self, lab: &Lab, dice: &mut Dice, seen: &mut Seen) {
        let cuts = Cuts::between(lab);
        let players = Players::default();
        let mut storm = Storm::new(&self.client, &players);
        for _ in 0..10 {
            storm.apply(lab, dice, seen);
        }
        if dice.roll(4) == 0 {
            self.outlive(&cuts, seen);
        }
        let (from, _) = cuts.apply(&self.client, OUTLASTING);
        self.leaks.learn(self.daemon.pid()).expect("it runs");
        thread::sleep(dice.duration(Duration::from_millis(200), Duration::from_secs(1)));
        let ended = Instant::now();
        cuts.assert_cut(from, ended);
        if dice.roll(2) == 0 {
            self.daemon.kill9().expect("it runs");
            seen.kills += 1;
        } else {
            let status = self.daemon.terminate().expect("it ends in time");
            assert_eq!(status.code(), Some(0), "{}", self.daemon.log());
            seen.terminations += 1;
        }
        seen.slowest_end = seen.slowest_end.max(cuts.assert_passes(ended));
        let left = self.leaks.wait_clean(PATIENCE);
        assert_eq!(left.expect("the machine can be looked at"), Vec::<String>::new());
        log::assert_expected(&self.daemon.log());
    }

    /// A fault's deadline comes while the daemon is stopped: it ends all the same.
    fn outlive(&self, cuts: &Cuts, seen: &mut Seen) {
        let (from, deadline) = cuts.apply(&self.client, Duration::from_secs(2));
        self.daemon.signal(Signal::SIGSTOP).expect("it runs");
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        cuts.assert_cut(from, deadline);
        let took = cuts.assert_passes(deadline);
        self.daemon.signal(Signal::SIGCONT).expect("it runs");
        seen.slowest_end = seen.slowest_end.max(took);
        seen.hangs += 1;
        self.client.list(true).expect("it answers again");
    }
}

/// Uses once what the daemon sets up at its first use.
fn warm_up(lab: &Lab, client: &Client) {
    let target = lab.pod(FIRST_PLAYER);
    let specs = [
        Spec::drop(target, 5.0),
        Spec::delay(target, Duration::from_millis(5)),
        Spec::action(target, "reject: {}"),
    ];
    for (number, spec) in specs.into_iter().enumerate() {
        let name = format!("warm-up-{number}");
        let applied = client.apply(&name, spec.into(), PATIENCE);
        applied.unwrap_or_else(|status| panic!("{name} is refused: {status}"));
        let deleted = client.delete("", &name);
        deleted.unwrap_or_else(|status| panic!("{name} can't be deleted: {status}"));
    }
}

/// What the daemon holds once that has stood still for a while.
fn first_rest(pid: u32) -> Holdings {
    const REST: Duration = Duration::from_secs(3);
    let look = || Holdings::of(pid).expect("it runs");
    let mut last = look();
    let mut since = Instant::now();
    let rested = wait_for(PATIENCE * 2, LOOK, || {
        let now = look();
        if now.countable() != last.countable() {
            since = Instant::now();
        }
        last = now;
        (since.elapsed() >= REST).then_some(())
    });
    assert!(rested.is_some(), "{last:?} don't come to rest");
    last
}
