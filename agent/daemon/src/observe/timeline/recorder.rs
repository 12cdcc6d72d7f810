//! The book of all timelines; does no I/O but through what measures.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sabot_core::model::{BootTime, FaultName, TargetSelector};

use super::node::{NodeRecord, NodeSample};
use super::outset::Outset;
use super::record::{Firsts, Reaction, Record};
use super::totals::{Sample, Totals};
use super::{Measure, Timeline};
use crate::engine::handle::{FaultView, LedgerEntry, Phase, Snapshot, TargetPhase, TargetView};
use crate::observe::clock::{instant, system_time};
use crate::observe::event::{Event, EventKind, FaultEvent};
use crate::observe::identity::{Identity, Owners};

/// How far back the time before a fault reaches at most.
const BEFORE: Duration = Duration::from_secs(30);

pub(super) struct Recorder {
    measure: Arc<dyn Measure>,
    /// The last samples of each owner, the oldest first.
    history: HashMap<u32, VecDeque<Sample>>,
    /// What was counted of each owner when its firsts last were forgotten, or known to be none; of others they are kept since
    /// anything is counted.
    clean: HashMap<u32, Sample>,
    /// The same of the node.
    node_history: VecDeque<NodeSample>,
    faults: BTreeMap<FaultName, FaultRecord>,
}

struct FaultRecord {
    /// When it was applied; tells a fault from a former one of the same name.
    created: SystemTime,
    applied: BootTime,
    is_over: bool,
    /// By owner.
    targets: BTreeMap<u32, Record>,
    /// From the first target on.
    node: Option<NodeRecord>,
}

impl Recorder {
    pub(super) fn new(measure: Arc<dyn Measure>) -> Self {
        Self {
            measure,
            history: HashMap::new(),
            clean: HashMap::new(),
            node_history: VecDeque::new(),
            faults: BTreeMap::new(),
        }
    }

    /// Takes in which faults are in force on whom.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, owners: &Owners, now: BootTime) {
        self.faults.retain(|name, record| {
            let view = snapshot.faults.get(name);
            view.is_some_and(|view| view.fault.created == record.created)
        });
        // Of several faults that come at once the node is read once.
        let node = OnceCell::new();
        for (name, view) in &snapshot.faults {
            let record = self.faults.entry(name.clone()).or_insert_with(|| FaultRecord {
                created: view.fault.created,
                applied: instant(view.fault.created),
                is_over: false,
                targets: BTreeMap::new(),
                node: None,
            });
            if record.is_over {
                continue;
            }
            record.is_over = matches!(view.phase, Phase::Expired | Phase::Deleted);
            let in_force = in_force(view, owners);
            let is_in_force = !in_force.is_empty();
            for (&owner, target) in &mut record.targets {
                if !in_force.contains(&owner) {
                    target.see(self.measure.firsts(owner));
                    target.end(now, sample(&*self.measure, owner, now));
                }
            }
            let new: Vec<u32> = in_force
                .into_iter()
                .filter(|owner| !record.targets.contains_key(owner))
                .collect();
            for owner in new {
                self.begin(name, owner, owners, now);
            }
            self.follow_node(name, is_in_force, &node, now);
        }
    }

    fn begin(&mut self, fault: &FaultName, owner: u32, owners: &Owners, now: BootTime) {
        let Some(known) = owners.get(owner) else { return };
        // Only what comes first since anybody asked is kept: others take theirs, and the place is free again.
        let firsts = self.measure.firsts(owner);
        self.each_open(|number, target| {
            if number == owner {
                target.see(firsts);
            }
        });
        let mut outset = self.outset(owner, firsts);
        if firsts.is_older_than(now) {
            self.measure.forget_firsts(owner);
        }
        let mut samples = self.history.get(&owner).into_iter().flatten();
        let before = samples.find(|sample| is_within(sample.at, now)).cloned();
        let start = sample(&*self.measure, owner, now).unwrap_or_else(|| Sample {
            at: now,
            totals: Totals::default(),
        });
        self.clean.insert(owner, start.clone());
        // What came while the counters were read is in them.
        let firsts = self.measure.firsts(owner);
        outset.firsts.fill(firsts, BootTime(0));
        let mut new = Record::new(Arc::clone(&known.identity), before, start, outset);
        new.see(firsts);
        if let Some(record) = self.faults.get_mut(fault) {
            record.targets.insert(owner, new);
        }
    }

    /// What is known of an owner from when its firsts were forgotten to now.
    fn outset(&self, owner: u32, firsts: Firsts) -> Outset {
        let clean = self.clean.get(&owner).cloned().unwrap_or_default();
        let others = self.faults.values().filter_map(|fault| fault.targets.get(&owner));
        Outset {
            is_alone: others.into_iter().all(|other| other.has_ended_by(clean.at)),
            clean,
            firsts,
        }
    }

    /// The node's part begins with the first target and ends with the last one.
    fn follow_node(
        &mut self,
        fault: &FaultName,
        is_in_force: bool,
        read: &OnceCell<NodeSample>,
        now: BootTime,
    ) {
        let measure = Arc::clone(&self.measure);
        let sample = || read.get_or_init(|| node_sample(&*measure, now)).clone();
        let Some(record) = self.faults.get_mut(fault) else {
            return;
        };
        match &mut record.node {
            Some(node) => node.set_in_force(is_in_force, sample),
            None if is_in_force => {
                let before = self.node_history.iter().find(|sample| is_within(sample.at, now));
                record.node = Some(NodeRecord::new(before.cloned(), sample()));
            }
            None => {}
        }
    }

    /// Brings the node's part of a fault's timeline up to date.
    pub(super) fn look_at_node(&mut self, fault: &FaultName, now: BootTime) {
        let node = self.faults.get_mut(fault).and_then(|fault| fault.node.as_mut());
        if let Some(node) = node.filter(|node| !node.is_closed()) {
            node.take(node_sample(&*self.measure, now));
        }
    }

    /// Keeps what every owner and the node have been through, for the time before the next fault.
    pub(super) fn sample(&mut self, owners: &Owners, now: BootTime) {
        let mut open = BTreeSet::new();
        self.each_open(|owner, _| {
            open.insert(owner);
        });
        self.history.retain(|owner, _| owners.get(*owner).is_some());
        self.clean.retain(|owner, _| owners.get(*owner).is_some());
        let all: BTreeSet<u32> = owners.iter().map(|owner| owner.number).collect();
        // Before anything is read: what happens in between is counted, and not the first of what comes after.
        for &owner in all.difference(&open) {
            if self.measure.firsts(owner).is_older_than(now) {
                self.measure.forget_firsts(owner);
            }
        }
        for (owner, totals) in self.measure.totals(&all) {
            let sample = Sample { at: now, totals };
            if !open.contains(&owner) {
                self.clean.insert(owner, sample.clone());
            }
            let samples = self.history.entry(owner).or_default();
            samples.push_back(sample);
            while samples.front().is_some_and(|oldest| !is_within(oldest.at, now)) {
                samples.pop_front();
            }
        }
        self.sample_node(now);
    }

    fn sample_node(&mut self, now: BootTime) {
        let sample = node_sample(&*self.measure, now);
        for node in self.faults.values_mut().filter_map(|fault| fault.node.as_mut()) {
            node.take(sample.clone());
        }
        self.node_history.push_back(sample);
        let samples = &mut self.node_history;
        while samples.front().is_some_and(|oldest| !is_within(oldest.at, now)) {
            samples.pop_front();
        }
    }

    /// Looks at everybody whom a fault hurts, or did a moment ago.
    pub(super) fn look(&mut self, now: BootTime) {
        let mut open = BTreeSet::new();
        self.each_open(|owner, _| {
            open.insert(owner);
        });
        let measure = Arc::clone(&self.measure);
        let totals = measure.totals(&open);
        self.each_open(|owner, target| {
            // Of an owner that went there is nothing new.
            if let Some(totals) = totals.get(&owner) {
                target.see(measure.firsts(owner));
                target.take(Sample {
                    at: now,
                    totals: totals.clone(),
                });
            }
        });
        for fault in self.faults.values_mut() {
            let is_over = !fault.targets.values().any(Record::is_open);
            if let Some(node) = fault.node.as_mut().filter(|node| is_over && node.is_ending()) {
                node.close(node_sample(&*measure, now));
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        let mut targets = self.faults.values().flat_map(|fault| fault.targets.values());
        targets.any(Record::is_open)
    }

    /// Faults in force of which a target has met no packet yet, as far as is known here.
    pub(super) fn unmatched(&self) -> Vec<FaultName> {
        let faults = self.faults.iter().filter(|(_, fault)| {
            let mut targets = fault.targets.values();
            targets.any(|target| target.is_open() && target.needs_match())
        });
        faults.map(|(name, _)| name.clone()).collect()
    }

    /// Takes the moments of first matches from a fault's counters.
    pub(super) fn matched(&mut self, fault: &FaultName, ledgers: &[LedgerEntry]) {
        let Some(record) = self.faults.get_mut(fault) else {
            return;
        };
        for target in record.targets.values_mut() {
            let first = ledgers
                .iter()
                .filter(|entry| is_of(&entry.target, target.identity()))
                .filter_map(|entry| entry.ledger.first_match)
                .min();
            if let Some(first) = first {
                target.matched(first);
            }
        }
    }

    pub(super) fn react(&mut self, identity: &Identity, reaction: &Reaction) {
        self.each_open(|_, target| {
            if **target.identity() == *identity {
                target.react(reaction.clone());
            }
        });
    }

    /// What has happened to targets since this was asked last, as events.
    pub(super) fn news(&mut self) -> Vec<Event> {
        let mut news = Vec::new();
        for (fault, record) in &mut self.faults {
            for target in record.targets.values_mut() {
                let moments = target.news(record.applied);
                news.extend(moments.into_iter().map(|moment| Event {
                    time: system_time(moment.at),
                    container: None,
                    kind: EventKind::Fault(FaultEvent {
                        fault: fault.clone(),
                        change: moment.what.name(),
                        message: moment.detail,
                        target: Some(Arc::clone(target.identity())),
                    }),
                }));
            }
        }
        news
    }

    pub(super) fn timeline(&self, fault: &FaultName) -> Option<Timeline> {
        let record = self.faults.get(fault)?;
        Some(Timeline {
            applied: record.applied,
            targets: record
                .targets
                .values()
                .map(|target| target.tell(record.applied))
                .collect(),
            activity: record.node.as_ref().map(NodeRecord::tell),
        })
    }

    /// Owners of whom samples are kept.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.history.len()
    }

    fn each_open(&mut self, mut work: impl FnMut(u32, &mut Record)) {
        for fault in self.faults.values_mut() {
            for (&owner, target) in &mut fault.targets {
                if target.is_open() {
                    work(owner, target);
                }
            }
        }
    }
}

fn node_sample(measure: &dyn Measure, at: BootTime) -> NodeSample {
    NodeSample {
        at,
        totals: Arc::new(measure.node()),
    }
}

/// `None` for an owner that went.
fn sample(measure: &dyn Measure, owner: u32, now: BootTime) -> Option<Sample> {
    let totals = measure.totals(&[owner].into()).remove(&owner)?;
    Some(Sample { at: now, totals })
}

fn is_within(at: BootTime, now: BootTime) -> bool {
    now.0.saturating_sub(at.0) <= BEFORE.as_nanos() as u64
}

/// The owners on whose devices the fault is in force.
fn in_force(view: &FaultView, owners: &Owners) -> BTreeSet<u32> {
    if !matches!(view.phase, Phase::Injected | Phase::Partial) {
        return BTreeSet::new();
    }
    let targets = view
        .targets
        .iter()
        .filter(|target| target.phase == TargetPhase::Injected);
    targets
        .filter_map(|target| match &view.fault.target {
            _ if !target.pod_name.is_empty() => owners.find(&pod(target)),
            TargetSelector::Netns(path) => owners.find_netns(path),
            TargetSelector::Interface(_)
            | TargetSelector::Node(_)
            | TargetSelector::Pods { .. }
            | TargetSelector::Service { .. } => owners.find(&Identity::Node),
        })
        .collect()
}

fn pod(target: &TargetView) -> Identity {
    Identity::Pod {
        namespace: target.pod_namespace.clone(),
        name: target.pod_name.clone(),
    }
}

/// A fault on a namespace or on a device of the node has no other owners.
fn is_of(target: &TargetView, identity: &Identity) -> bool {
    target.pod_name.is_empty() || pod(target) == *identity
}
