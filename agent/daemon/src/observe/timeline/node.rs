//! What the node's processes and its container runtime did in the meantime, whoever the targets are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sabot_core::model::BootTime;

use crate::observe::syscalls::ProcessStats;

/// For how long the time after a fault is looked at, whether its targets recover or not.
const AFTER: Duration = Duration::from_secs(60);

/// Everything counted on the node since the start. What no observer counts is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTotals {
    /// Syscalls, by the name of the process or the path of the cgroup.
    pub processes: BTreeMap<Arc<str>, ProcessStats>,
    /// Calls of the container runtime, by operation.
    pub operations: BTreeMap<&'static str, OperationTotals>,
}

/// The ended calls of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationTotals {
    pub calls: u64,
    /// That ended otherwise than with `OK`.
    pub failures: u64,
    /// Whose beginning and end were seen.
    pub timed: u64,
    /// Spent in those.
    pub total: Duration,
}

impl OperationTotals {
    /// `None` where no call was timed.
    pub fn mean(&self) -> Option<Duration> {
        self.total
            .checked_div(u32::try_from(self.timed).unwrap_or(u32::MAX))
    }

    fn since(&self, earlier: &Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            failures: self.failures.saturating_sub(earlier.failures),
            timed: self.timed.saturating_sub(earlier.timed),
            total: self.total.saturating_sub(earlier.total),
        }
    }
}

impl NodeTotals {
    /// What was added since an earlier moment; who did nothing is left out.
    pub fn since(&self, earlier: &Self) -> Self {
        let processes = self.processes.iter().map(|(name, now)| {
            let before = earlier.processes.get(name);
            (
                Arc::clone(name),
                before.map_or_else(|| now.clone(), |before| now.since(before)),
            )
        });
        let operations = self.operations.iter().map(|(&name, now)| {
            let before = earlier.operations.get(name).copied().unwrap_or_default();
            (name, now.since(&before))
        });
        Self {
            processes: processes.filter(|(_, stats)| stats.calls > 0).collect(),
            operations: operations.filter(|(_, totals)| totals.calls > 0).collect(),
        }
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
    pub totals: NodeTotals,
}

impl NodeWindow {
    fn between(earlier: &NodeSample, later: &NodeSample) -> Self {
        Self {
            from: earlier.at,
            to: later.at,
            totals: later.totals.since(&earlier.totals),
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
pub(super) struct NodeRecord {
    before: Option<NodeWindow>,
    start: NodeSample,
    latest: NodeSample,
    end: Option<NodeSample>,
    is_closed: bool,
}

impl NodeRecord {
    pub(super) fn new(before: Option<&NodeSample>, start: NodeSample) -> Self {
        Self {
            before: before.map(|before| NodeWindow::between(before, &start)),
            latest: start.clone(),
            start,
            end: None,
            is_closed: false,
        }
    }

    /// Whether the fault is in force on somebody.
    pub(super) fn set_in_force(&mut self, is_in_force: bool, sample: impl FnOnce() -> NodeSample) {
        if is_in_force {
            // A target came that has nothing to do with those before it: the time between them is part of the fault's.
            if !self.is_closed {
                self.end = None;
            }
        } else if self.end.is_none() {
            let sample = sample();
            self.latest = sample.clone();
            self.end = Some(sample);
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// In force on nobody any more, and still looked at.
    pub(super) fn is_ending(&self) -> bool {
        self.end.is_some() && !self.is_closed
    }

    pub(super) fn take(&mut self, sample: NodeSample) {
        if self.is_closed {
            return;
        }
        if let Some(end) = &self.end {
            self.is_closed = sample.at.0.saturating_sub(end.at.0) >= AFTER.as_nanos() as u64;
        }
        self.latest = sample;
    }

    /// The targets are as they were before, or it can't be told: this is the last look.
    pub(super) fn close(&mut self, sample: NodeSample) {
        self.take(sample);
        self.is_closed = true;
    }

    pub(super) fn tell(&self) -> NodeTimeline {
        let end = self.end.as_ref();
        NodeTimeline {
            before: self.before.clone(),
            during: NodeWindow::between(&self.start, end.unwrap_or(&self.latest)),
            after: end.map(|end| NodeWindow::between(end, &self.latest)),
        }
    }
}
