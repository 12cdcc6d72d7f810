//! One resource, and what this node knows of it beside what it says.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

use sabot_core::spec::FaultSpec;
use sabot_resources::status::{NodeStatus, Packets, Phase, Summary, Timestamp};
use sabot_resources::summary::{Subject, summarize};
use tokio::time::Instant;

use super::decide;
use super::object::Resource;
use super::part::{self, Known, Refusal};
use super::write::{Write, Written};
use crate::engine::handle::FaultView;

/// Between two writes to one resource.
const SPACING: Duration = Duration::from_secs(1);
/// Longer than this a change never waits to be written.
const LONGEST_JITTER: Duration = Duration::from_secs(10);
/// For each node that writes too.
const JITTER_BY_NODE: Duration = Duration::from_millis(20);
/// Every node sees a fault that can't be accepted: the first one says so, and the others have nothing to add.
const REFUSAL_JITTER: Duration = Duration::from_secs(5);
/// How long the sum may be wrong, for each node before this one, until this one writes it.
const TAKE_OVER: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// Until the engine is asked again for what it refused.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// An instant that was written down and read again.
const SAME_INSTANT: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Entry {
    /// This node's name.
    node: String,
    pub(super) resource: Resource,
    /// What the engine was given last.
    pub(super) applied: Option<FaultSpec>,
    /// Since when the duration counts, as far as this daemon knows by itself.
    pub(super) since: Option<SystemTime>,
    /// When the fault was first in force here; as it was written, once it was.
    pub(super) injected: Option<SystemTime>,
    /// It is in place here and begins as soon as that is written: now.
    pub(super) begins: Option<SystemTime>,
    /// What the engine refused, and until when it isn't asked again.
    pub(super) refusal: Option<(Refusal, Instant)>,
    /// What it did, once it has ended.
    pub(super) packets: Option<Packets>,
    /// What was told last as an event.
    pub(super) told: Option<Phase>,
    /// This node's part as it should be.
    pub(super) part: Option<NodeStatus>,
    pacing: Pacing,
}

/// When the next write may go out.
#[derive(Debug, Default)]
struct Pacing {
    in_flight: bool,
    /// Not before.
    not_before: Option<Instant>,
    /// When the change that waits may go out; fixed when it was noticed.
    due: Option<Instant>,
    /// Since when the sum isn't what it should be.
    stale: Option<Instant>,
    /// What is under way is a begin: what follows from it is written without a pause.
    begins: bool,
    /// This node writes the sum although others come before it.
    leads: bool,
    failures: u32,
}

impl Entry {
    pub(super) fn new(resource: Resource, node: &str) -> Self {
        // What was written before a restart has been told, too.
        let told = resource.part(node).map(|part| part.phase);
        let mut entry = Self {
            node: node.to_owned(),
            resource,
            applied: None,
            since: None,
            injected: None,
            begins: None,
            refusal: None,
            packets: None,
            told,
            part: None,
            pacing: Pacing::default(),
        };
        entry.recall();
        entry
    }

    /// A later state of the same resource.
    pub(super) fn update(&mut self, resource: Resource) {
        if resource.is_older_than(&self.resource) {
            return;
        }
        if resource.generation != self.resource.generation {
            self.refusal = None;
            self.packets = None;
        }
        self.resource = resource;
        self.recall();
    }

    /// What was written of the begin stays, even if the part is lost to a late one of a former resource.
    fn recall(&mut self) {
        let part = self.resource.part(&self.node);
        if let Some(at) = part.and_then(|part| part.injected_at) {
            self.injected = Some(at.time());
        }
    }

    /// Takes over what the engine says of the time.
    pub(super) fn learn(&mut self, view: &FaultView, now: SystemTime) {
        let is_given = |spec: &FaultSpec| spec.starts_at.is_some();
        if !self.resource.spec.as_ref().is_ok_and(is_given) && !is_given(&view.spec) {
            self.since = self.since.into_iter().chain(view.since).min();
        }
        let in_place = part::in_force(view) > 0;
        self.begins = (in_place && view.since.is_none()).then_some(now);
        if self.injected.is_none() && in_place && view.since.is_some_and(|since| since <= now) {
            self.injected = view.injected.or(Some(now));
        }
    }

    pub(super) fn known(&self) -> Known {
        Known {
            injected: self.injected.or(self.begins),
            end: decide::end(&self.resource, self.since.or(self.begins)),
            packets: self.packets,
        }
    }

    /// Whether the engine has to be told; `view` is what it has of this resource.
    pub(super) fn must_apply(&self, view: Option<&FaultView>, since: Option<SystemTime>) -> bool {
        if self
            .refusal
            .as_ref()
            .is_some_and(|(_, until)| Instant::now() < *until)
        {
            return false;
        }
        let Some(view) = view else { return true };
        let differs = self.resource.spec.as_ref().ok() != self.applied.as_ref();
        // Somebody else was the first; this node's fault must not last longer.
        let was_earlier = since.is_some_and(|since| {
            view.since
                .is_none_or(|here| here.duration_since(since).is_ok_and(|late| late > SAME_INSTANT))
        });
        differs || was_earlier
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some((refusal, Instant::now() + ASK_AGAIN));
    }

    /// The same refusal stands in the status already, for the same generation.
    fn is_said(&self, part: &NodeStatus) -> bool {
        part.phase == Phase::Refused
            && self.resource.part(&part.node).is_none()
            && self.resource.status.nodes.iter().any(|other| {
                other.phase == Phase::Refused
                    && other.observed_generation == part.observed_generation
                    && other.reason == part.reason
                    && other.message == part.message
            })
    }

    /// What has to be written now, and when to look again where something waits.
    pub(super) fn next_write(&mut self, node: &str) -> (Option<Write>, Option<Instant>) {
        let Some(part) = self.part.clone().filter(|part| !self.is_said(part)) else {
            self.pacing.due = None;
            return (None, None);
        };
        if self.pacing.in_flight {
            return (None, None);
        }
        let now = Instant::now();
        let (summary, take_over) = self.summary(&part, now);
        let is_same = self.resource.part(node) == Some(&part) && summary.is_none();
        if is_same {
            self.pacing.due = None;
            return (None, take_over);
        }
        let jitter = self.jitter(&part);
        let due = *self.pacing.due.get_or_insert_with(|| now + jitter);
        let at = self.pacing.not_before.map_or(due, |earliest| due.max(earliest));
        if now < at {
            return (None, Some(at));
        }
        self.pacing.in_flight = true;
        self.pacing.due = None;
        self.pacing.begins = self.begins.is_some();
        let write = Write {
            key: self.resource.key.clone(),
            uid: self.resource.uid.clone(),
            part,
            summary: summary.or_else(|| self.pacing.leads.then(|| self.resource.status.summary.clone())),
        };
        (Some(write), None)
    }

    /// The sum, where this node has to write it, and when it has to look at it again.
    fn summary(&mut self, part: &NodeStatus, now: Instant) -> (Option<Summary>, Option<Instant>) {
        let mut nodes = self.resource.status.nodes.clone();
        match nodes.iter_mut().find(|other| other.node == part.node) {
            Some(own) => *own = part.clone(),
            None => nodes.push(part.clone()),
        }
        nodes.sort_by(|one, other| one.node.cmp(&other.node));
        let subject = Subject {
            generation: self.resource.generation,
            action: self.resource.action.as_deref(),
            expires: self.known().end.map(Timestamp::new),
            now: Timestamp::new(SystemTime::now()),
        };
        let wanted = summarize(subject, &nodes, &self.resource.status.summary);
        let rank = nodes
            .iter()
            .position(|other| other.node == part.node)
            .unwrap_or(0);
        let is_right = wanted == self.resource.status.summary;
        if rank == 0 {
            self.pacing.leads = true;
        }
        if is_right {
            self.pacing.stale = None;
            return (None, None);
        }
        if self.pacing.leads {
            return (Some(wanted), None);
        }
        let stale = *self.pacing.stale.get_or_insert(now);
        let patience = TAKE_OVER.saturating_mul(u32::try_from(rank).unwrap_or(u32::MAX));
        match stale.checked_add(patience) {
            Some(at) if at <= now => {
                self.pacing.leads = true;
                (Some(wanted), None)
            }
            at => (None, at),
        }
    }

    /// How long a change waits, so that many nodes don't write at once. A begin doesn't: the fault waits for it.
    fn jitter(&self, part: &NodeStatus) -> Duration {
        if self.begins.is_some() {
            return Duration::ZERO;
        }
        let others = u32::try_from(self.resource.status.nodes.len()).unwrap_or(u32::MAX);
        let mut window = JITTER_BY_NODE.saturating_mul(others).min(LONGEST_JITTER);
        if part.phase == Phase::Refused && self.resource.part(&part.node).is_none() {
            window = window.max(REFUSAL_JITTER);
        }
        window.mul_f64(f64::from(spread(&part.node, &self.resource.uid)) / f64::from(u32::MAX))
    }

    pub(super) fn written(&mut self, written: Written) {
        let now = Instant::now();
        self.pacing.in_flight = false;
        self.pacing.not_before = Some(now + SPACING);
        match written {
            Written::Done(resource) => {
                self.pacing.failures = 0;
                if self.pacing.begins {
                    self.pacing.not_before = None;
                }
                if resource.uid == self.resource.uid {
                    self.update(*resource);
                }
            }
            // The watch says so, sooner or later.
            Written::Gone => self.pacing.not_before = Some(now + LONGEST_BACKOFF),
            Written::Failed { error, after } => {
                self.pacing.failures += 1;
                let failures = self.pacing.failures;
                if failures.is_power_of_two() {
                    let resource = &self.resource.key;
                    tracing::warn!(%resource, %error, failures, "the status could not be written; trying again");
                }
                let doubled = SPACING.saturating_mul(1 << failures.min(6)).min(LONGEST_BACKOFF);
                let jitter = doubled.mul_f64(rand::random::<f64>() / 2.0);
                self.pacing.not_before = Some(now + after.unwrap_or_default().max(doubled / 2 + jitter));
            }
        }
    }
}

/// A number that is this node's own for this resource.
fn spread(node: &str, uid: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    (uid, node).hash(&mut hasher);
    u32::try_from(hasher.finish() >> 32).unwrap_or_default()
}
