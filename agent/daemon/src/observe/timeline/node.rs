//! What the node's processes and its container runtime did in the meantime, whoever the targets are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sabot_abi::Histogram;
use sabot_core::model::BootTime;

use super::calls::choose;
use super::totals::{Named, added};
use crate::observe::cri::{BOUNDS, OK};
use crate::observe::syscalls::{CallKey, CallTotals, waits};

/// For how long the time after a fault is looked at, whether its targets recover or not.
const AFTER: Duration = Duration::from_secs(60);

/// Everything counted on the node since the start. What no observer counts is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTotals {
    pub calls: Calls,
    /// Calls of the container runtime, by operation.
    pub operations: BTreeMap<&'static str, OperationTotals>,
}

/// Syscalls, by the name of the process or the path of the cgroup, and by their own.
pub type Calls = BTreeMap<CallKey, CallTotals>;

/// All calls of one process name, or of one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessStats {
    pub calls: u64,
    pub errors: u64,
    /// Of those that don't wait by design.
    pub durations: Histogram,
}

/// The ended calls of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationTotals {
    pub outcomes: Named,
    /// Spent in those whose beginning and end were seen.
    pub total: Duration,
    /// How many of those took how long, by [`BOUNDS`]; not cumulative.
    pub buckets: [u64; BOUNDS.len() + 1],
}

impl OperationTotals {
    pub fn calls(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// That ended otherwise than with `OK`.
    pub fn failures(&self) -> u64 {
        self.calls() - self.outcomes.get(OK).copied().unwrap_or_default()
    }

    /// Whose beginning and end were seen.
    pub fn timed(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// `None` where no call was timed.
    pub fn mean(&self) -> Option<Duration> {
        self.total
            .checked_div(u32::try_from(self.timed()).unwrap_or(u32::MAX))
    }

    /// The upper bound of the bucket in which this share of the calls ends; `None` without any, and beyond the last bound.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (self.timed() as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        let place = self.buckets.iter().position(|bucket| {
            below += bucket;
            below >= rank
        })?;
        BOUNDS.get(place).copied().map(Duration::from_nanos)
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            outcomes: added(&self.outcomes, &earlier.outcomes),
            total: self.total.saturating_sub(earlier.total),
            buckets: std::array::from_fn(|place| self.buckets[place].saturating_sub(earlier.buckets[place])),
        }
    }
}

impl NodeTotals {
    /// What was added since an earlier moment; what nobody did is left out.
    pub fn since(&self, earlier: &Self) -> Self {
        let nothing = CallTotals::default();
        let calls = self.calls.iter().map(|(key, now)| {
            let before = earlier.calls.get(key).unwrap_or(&nothing);
            let grown = CallTotals {
                durations: now.durations.since(&before.durations),
                errors: added(&now.errors, &before.errors),
            };
            (key.clone(), grown)
        });
        let operations = self.operations.iter().map(|(&name, now)| {
            let before = earlier.operations.get(name).cloned().unwrap_or_default();
            (name, now.since(&before))
        });
        Self {
            calls: calls.filter(|(_, call)| call.calls() > 0).collect(),
            operations: operations.filter(|(_, totals)| totals.calls() > 0).collect(),
        }
    }

    fn by_process(&self) -> BTreeMap<Arc<str>, ProcessStats> {
        let mut processes: BTreeMap<Arc<str>, ProcessStats> = BTreeMap::new();
        for ((process, syscall), call) in &self.calls {
            let stats = processes.entry(Arc::clone(process)).or_default();
            stats.calls += call.calls();
            stats.errors += call.failed();
            if !waits(syscall) {
                stats.durations.add(&Histogram::from(&call.durations));
            }
        }
        processes
    }
}

/// What was counted at one moment.
#[derive(Clone, Debug)]
pub(super) struct NodeSample {
    pub(super) at: BootTime,
    pub(super) totals: Arc<NodeTotals>,
}

/// What was counted between two moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeWindow {
    pub from: BootTime,
    pub to: BootTime,
    pub processes: BTreeMap<Arc<str>, ProcessStats>,
    /// Of those processes' calls the ones that say most, the same in all windows of a timeline.
    pub calls: Calls,
    pub operations: BTreeMap<&'static str, OperationTotals>,
}

impl NodeWindow {
    fn between(earlier: &NodeSample, later: &NodeSample) -> Self {
        let grown = later.totals.since(&earlier.totals);
        Self {
            from: earlier.at,
            to: later.at,
            processes: grown.by_process(),
            calls: grown.calls,
            operations: grown.operations,
        }
    }

    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.to.0.saturating_sub(self.from.0))
    }
}

/// What the node did around one fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTimeline {
    /// `None` where nothing was known before.
    pub before: Option<NodeWindow>,
    /// From the first target's injection to the last one's end, or to now.
    pub during: NodeWindow,
    /// `None` while it is in force.
    pub after: Option<NodeWindow>,
}

/// From a fault's first injection on: kept until the fault is forgotten.
#[derive(Clone, Debug)]
pub(super) enum NodeRecord {
    Open(Samples),
    /// Nothing more is added; what isn't told of it is no longer kept.
    Closed(Box<NodeTimeline>),
}

#[derive(Clone, Debug)]
pub(super) struct Samples {
    before: Option<NodeSample>,
    start: NodeSample,
    latest: NodeSample,
    end: Option<NodeSample>,
}

impl NodeRecord {
    pub(super) fn new(before: Option<NodeSample>, start: NodeSample) -> Self {
        Self::Open(Samples {
            before,
            latest: start.clone(),
            start,
            end: None,
        })
    }

    /// Whether the fault is in force on somebody.
    pub(super) fn set_in_force(&mut self, is_in_force: bool, sample: impl FnOnce() -> NodeSample) {
        let Self::Open(samples) = self else { return };
        if is_in_force {
            // A target came that has nothing to do with those before it: the time between them is part of the fault's.
            samples.end = None;
        } else if samples.end.is_none() {
            let sample = sample();
            samples.latest = sample.clone();
            samples.end = Some(sample);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// In force on nobody any more, and still looked at.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self, Self::Open(Samples { end: Some(_), .. }))
    }

    pub(super) fn take(&mut self, sample: NodeSample) {
        let Self::Open(samples) = self else { return };
        let ended = samples.end.as_ref().map(|end| end.at.0);
        let is_last = ended.is_some_and(|end| sample.at.0.saturating_sub(end) >= AFTER.as_nanos() as u64);
        samples.latest = sample;
        if is_last {
            *self = Self::Closed(Box::new(samples.tell()));
        }
    }

    /// The targets are as they were before, or it can't be told: this is the last look.
    pub(super) fn close(&mut self, sample: NodeSample) {
        self.take(sample);
        if let Self::Open(samples) = self {
            *self = Self::Closed(Box::new(samples.tell()));
        }
    }

    pub(super) fn tell(&self) -> NodeTimeline {
        match self {
            Self::Open(samples) => samples.tell(),
            Self::Closed(told) => NodeTimeline::clone(told),
        }
    }
}

impl Samples {
    fn tell(&self) -> NodeTimeline {
        let end = self.end.as_ref();
        let mut told = NodeTimeline {
            before: self
                .before
                .as_ref()
                .map(|before| NodeWindow::between(before, &self.start)),
            during: NodeWindow::between(&self.start, end.unwrap_or(&self.latest)),
            after: end.map(|end| NodeWindow::between(end, &self.latest)),
        };
        let windows = [told.before.as_ref(), Some(&told.during), told.after.as_ref()];
        let calls: Vec<_> = windows
            .into_iter()
            .flatten()
            .map(|window| &window.calls)
            .collect();
        let chosen = choose(&calls);
        let windows = [told.before.as_mut(), Some(&mut told.during), told.after.as_mut()];
        for window in windows.into_iter().flatten() {
            window.calls.retain(|key, _| chosen.contains(key));
        }
        told
    }
}
