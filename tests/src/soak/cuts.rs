//! One pod is cut off from another, again and again: nothing passes before the deadline, everything after it.

use std::time::{Duration, Instant};

use std::thread;

use super::{CUT, FAR, Seen};
use crate::daemon::Client;
use crate::dice::Dice;
use crate::lab::Lab;
use crate::rig::{PATIENCE, deadline_of};
use crate::spec::Spec;
use crate::traffic::{ProbeServer, Prober};

const PACE: Duration = Duration::from_millis(10);
/// How far off clocks, and the thread that notes a time, may be.
const MARGIN: Duration = Duration::from_millis(100);
/// How soon after an end the first probe passes even on a busy machine.
const SOON: Duration = Duration::from_secs(5);
const NAME: &str = "cut";

/// Both ends and the probes between them.
pub(super) struct Cuts {
    spec: Spec,
    prober: Prober,
    _server: ProbeServer,
}

/// What was done and seen of cuts.
#[derive(Default)]
pub(super) struct CutsSeen {
    expired: usize,
    lifted: usize,
    slowest_end: Duration,
}

impl CutsSeen {
    pub(super) fn add_to(&self, seen: &mut Seen) {
        seen.expired += self.expired;
        seen.lifted += self.lifted;
        seen.slowest_end = seen.slowest_end.max(self.slowest_end);
    }
}

impl Cuts {
    pub(super) fn between(lab: &Lab) -> Self {
        let (cut, far) = (lab.pod(CUT), lab.pod(FAR));
        let server = ProbeServer::start(far.netns(), far.ipv4()).expect("it binds");
        Self {
            spec: Spec::partition(cut).peer(far.ipv4()),
            prober: Prober::start(cut.netns(), &server, PACE).expect("there is a route between pods"),
            _server: server,
        }
    }

    /// Cuts and looks, until the time is over.
    pub(super) fn repeat(&self, client: &Client, dice: &mut Dice, until: Instant) -> CutsSeen {
        let mut seen = CutsSeen::default();
        while Instant::now() < until {
            let duration = dice.duration(Duration::from_millis(800), Duration::from_secs(4));
            let (from, deadline) = self.apply(client, duration);
            let ended = if dice.roll(3) == 0 {
                thread::sleep(duration / 2);
                let before = Instant::now();
                // It may just have expired.
                let _ = client.delete("", NAME);
                self.assert_cut(from, before.min(deadline));
                seen.lifted += 1;
                Instant::now()
            } else {
                thread::sleep(deadline.saturating_duration_since(Instant::now()));
                self.assert_cut(from, deadline);
                seen.expired += 1;
                deadline
            };
            let took = self.assert_passes(ended);
            seen.slowest_end = seen.slowest_end.max(took);
        }
        seen
    }

    /// A cut that lasts; since when it is in force, and until when.
    pub(super) fn apply(&self, client: &Client, duration: Duration) -> (Instant, Instant) {
        let spec = self.spec.clone().lasting(duration);
        let fault = client.apply(NAME, spec.into(), PATIENCE);
        let fault = fault.unwrap_or_else(|status| panic!("{NAME} is refused: {status}"));
        (Instant::now(), deadline_of(&fault))
    }

    /// No probe that was sent from then on had arrived before the end.
    pub(super) fn assert_cut(&self, from: Instant, until: Instant) {
        let sent = self.prober.between(from + MARGIN, until);
        let through = sent
            .iter()
            .filter(|sample| sample.arrived.is_some_and(|at| at + MARGIN < until))
            .count();
        assert_eq!(
            through,
            0,
            "of {} probes between two pods that are cut off from each other",
            sent.len()
        );
    }

    /// Probes pass again; how long after the end the first one did.
    pub(super) fn assert_passes(&self, ended: Instant) -> Duration {
        let took = self.prober.wait_pass(ended, PATIENCE);
        let took = took.unwrap_or_else(|| panic!("no probe passes {PATIENCE:?} after the end of a cut"));
        assert!(
            took <= SOON,
            "the first probe passes {took:?} after the end of a cut"
        );
        took
    }
}
