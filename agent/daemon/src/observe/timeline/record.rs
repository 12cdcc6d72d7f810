//! What is known of one fault's consequences on one owner.

use std::sync::Arc;
use std::time::Duration;

use sabot_abi::CONNECTION_FAILED;
use sabot_core::model::BootTime;

use super::outset::Outset;
use super::recovery::{Recovery, Watcher};
use super::totals::{Sample, Totals, Window};
use crate::observe::identity::Identity;

/// When something first happened; `None`: not yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Firsts {
    pub retransmit: Option<BootTime>,
    pub rto: Option<BootTime>,
    pub reset: Option<BootTime>,
    pub connect_failure: Option<BootTime>,
    /// An established connection was ended by an error.
    pub connection_lost: Option<BootTime>,
}

impl Firsts {
    /// Whether any of it happened before this moment.
    pub(super) fn is_older_than(&self, moment: BootTime) -> bool {
        let all = [
            self.retransmit,
            self.rto,
            self.reset,
            self.connect_failure,
            self.connection_lost,
        ];
        all.into_iter().flatten().any(|at| at < moment)
    }

    /// Fills in what isn't known yet, from that moment on.
    pub(super) fn fill(&mut self, seen: Self, from: BootTime) {
        let fill = |known: &mut Option<BootTime>, seen: Option<BootTime>| {
            *known = known.or(seen.filter(|&at| at >= from));
        };
        fill(&mut self.retransmit, seen.retransmit);
        fill(&mut self.rto, seen.rto);
        fill(&mut self.reset, seen.reset);
        fill(&mut self.connect_failure, seen.connect_failure);
        fill(&mut self.connection_lost, seen.connection_lost);
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    pub at: BootTime,
    pub what: What,
    /// For people; may be empty.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Applied,
    Injected,
    FirstMatch,
    FirstRetransmit,
    FirstRto,
    FirstReset,
    FirstConnectFailure,
    FirstConnectionLost,
    /// The container runtime was asked to do something to the pod.
    RuntimeReaction,
    Ended,
    Recovered,
}

impl What {
    /// As events have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Injected => "injected",
            Self::FirstMatch => "firstMatch",
            Self::FirstRetransmit => "firstRetransmit",
            Self::FirstRto => "firstRto",
            Self::FirstReset => "firstReset",
            Self::FirstConnectFailure => "firstConnectFailure",
            Self::FirstConnectionLost => "firstConnectionLost",
            Self::RuntimeReaction => "runtimeReaction",
            Self::Ended => "ended",
            Self::Recovered => "recovered",
        }
    }
}

/// What the world does about a pod that hurts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaction {
    pub at: BootTime,
    /// As `StopPodSandbox by kubelet`.
    pub what: String,
}

/// From a fault's injection on: kept until the fault is forgotten.
#[derive(Clone, Debug)]
pub(super) struct Record {
    identity: Arc<Identity>,
    injected: BootTime,
    /// From when on the time before the fault is told.
    before: Option<Sample>,
    /// The fault's first packet, or, where that came later, the first look.
    start: Sample,
    /// Until the first packet is known.
    outset: Option<Outset>,
    latest: Sample,
    first_match: Option<BootTime>,
    firsts: Firsts,
    reaction: Option<Reaction>,
    end: Option<End>,
    /// What events were made of.
    told: Vec<What>,
}

#[derive(Clone, Debug)]
struct End {
    sample: Sample,
    watcher: Watcher,
    recovery: Recovery,
}

impl Record {
    pub(super) fn new(
        identity: Arc<Identity>,
        before: Option<Sample>,
        start: Sample,
        outset: Outset,
    ) -> Self {
        Self {
            identity,
            injected: start.at,
            before,
            latest: start.clone(),
            start,
            outset: Some(outset),
            first_match: None,
            firsts: Firsts::default(),
            reaction: None,
            end: None,
            told: Vec::new(),
        }
    }

    pub(super) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// What has happened to it, and no event was made of yet. What happens to the fault as a whole is told by others.
    pub(super) fn news(&mut self, applied: BootTime) -> Vec<Moment> {
        let others = [What::Applied, What::Injected, What::Ended];
        let mut news = self.moments(applied, &Totals::default());
        news.retain(|moment| !others.contains(&moment.what) && !self.told.contains(&moment.what));
        self.told.extend(news.iter().map(|moment| moment.what));
        news
    }

    /// Whether there is anything left to be seen.
    pub(super) fn is_open(&self) -> bool {
        self.end
            .as_ref()
            .is_none_or(|end| end.recovery == Recovery::Watching)
    }

    /// Whether it did nothing after that moment.
    pub(super) fn has_ended_by(&self, moment: BootTime) -> bool {
        self.end.as_ref().is_some_and(|end| end.sample.at <= moment)
    }

    pub(super) fn needs_match(&self) -> bool {
        self.first_match.is_none()
    }

    pub(super) fn matched(&mut self, at: BootTime) {
        self.first_match = Some(self.first_match.map_or(at, |known| known.min(at)));
        // The engine says so a little after the kernel does it.
        self.injected = self.injected.min(at);
        if let Some(outset) = self.outset.take() {
            self.start = outset.at(at, &self.start);
            self.firsts.fill(outset.firsts, at);
        }
    }

    fn before(&self) -> Option<Window> {
        let before = self.before.as_ref();
        before.map(|before| Window::between(before, &self.start))
    }

    /// The first thing that the runtime was asked to do after the injection.
    pub(super) fn react(&mut self, reaction: Reaction) {
        if self.reaction.is_none() && reaction.at >= self.injected && self.is_open() {
            self.reaction = Some(reaction);
        }
    }

    pub(super) fn see(&mut self, firsts: Firsts) {
        // What happens after the end is no longer the fault's doing.
        if self.end.is_none() {
            self.firsts.fill(firsts, self.injected);
        }
    }

    pub(super) fn take(&mut self, sample: Sample) {
        if let Some(end) = &mut self.end
            && end.recovery == Recovery::Watching
        {
            end.recovery = end.watcher.take(&sample);
        }
        self.latest = sample;
    }

    /// An owner that went leaves what was known of it last.
    pub(super) fn end(&mut self, now: BootTime, sample: Option<Sample>) {
        if self.end.is_none() {
            let sample = sample.unwrap_or_else(|| Sample {
                at: now,
                totals: self.latest.totals.clone(),
            });
            self.end = Some(End {
                watcher: Watcher::new(self.before().as_ref(), sample.clone()),
                recovery: Recovery::Watching,
                sample: sample.clone(),
            });
            self.latest = sample;
        }
    }

    pub(super) fn tell(&self, applied: BootTime) -> TargetTimeline {
        let (during, after) = match &self.end {
            Some(end) => (
                Window::between(&self.start, &end.sample),
                Some(Window::between(&end.sample, &self.latest)),
            ),
            None => (Window::between(&self.start, &self.latest), None),
        };
        TargetTimeline {
            identity: Arc::clone(&self.identity),
            moments: self.moments(applied, &during.totals),
            recovery: self.end.as_ref().map(|end| end.recovery),
            before: self.before(),
            during,
            after,
        }
    }

    /// In the order of time.
    fn moments(&self, applied: BootTime, during: &Totals) -> Vec<Moment> {
        let lost = (during.lost > 0).then(|| format!("{} in all", during.lost));
        let failed = during.connections(CONNECTION_FAILED);
        let failed = (failed > 0).then(|| format!("{failed} in all"));
        let retransmits = (during.retransmits > 0).then(|| format!("{} segments in all", during.retransmits));
        let recovered = self.end.as_ref().and_then(|end| match end.recovery {
            Recovery::Recovered(at) => Some(at),
            _ => None,
        });
        let reaction = self.reaction.as_ref();
        let found = [
            (What::Applied, Some(applied), None),
            (What::Injected, Some(self.injected), None),
            (What::FirstMatch, self.first_match, None),
            (What::FirstRetransmit, self.firsts.retransmit, retransmits),
            (What::FirstRto, self.firsts.rto, None),
            (What::FirstReset, self.firsts.reset, None),
            (What::FirstConnectFailure, self.firsts.connect_failure, failed),
            (What::FirstConnectionLost, self.firsts.connection_lost, lost),
            (
                What::RuntimeReaction,
                reaction.map(|reaction| reaction.at),
                reaction.map(|reaction| reaction.what.clone()),
            ),
            (What::Ended, self.end.as_ref().map(|end| end.sample.at), None),
            (What::Recovered, recovered, None),
        ];
        let mut moments: Vec<_> = found
            .into_iter()
            .filter_map(|(what, at, detail)| {
                Some(Moment {
                    at: at?,
                    what,
                    detail: detail.unwrap_or_default(),
                })
            })
            .collect();
        moments.sort_by_key(|moment| moment.at);
        moments
    }
}

/// What a fault did to one of its targets.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetTimeline {
    pub identity: Arc<Identity>,
    pub moments: Vec<Moment>,
    /// `None` while the fault is in force.
    pub recovery: Option<Recovery>,
    /// `None` for a target that nothing was known of before.
    pub before: Option<Window>,
    pub during: Window,
    pub after: Option<Window>,
}

impl TargetTimeline {
    /// The time from one thing to the other, where both happened in this order.
    pub fn between(&self, from: What, to: What) -> Option<Duration> {
        let at = |what| {
            self.moments
                .iter()
                .find(|moment| moment.what == what)
                .map(|moment| moment.at.0)
        };
        at(to)?.checked_sub(at(from)?).map(Duration::from_nanos)
    }
}
