//! What is known of the kernel after an operation succeeded or failed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::{BootTime, FaultName, TargetDevice, TargetKey};
use crate::plan::{
    Equipment, Failure, Observed, ObservedRule, ObservedTarget, Operation, PeerEntry, PeerSetId, Slot,
    TargetId,
};

/// How long a slot that was cleared isn't used again.
pub const SLOT_REST: Duration = Duration::from_secs(2);
/// The least time between two attempts, whatever a failure says.
const MIN_RETRY: Duration = Duration::from_millis(10);

impl ObservedRule {
    /// A slot that was just claimed.
    pub(super) fn claimed(slot: Slot, fault: FaultName) -> Self {
        Self {
            fault,
            peer_set: slot.peer_set(),
            peers: BTreeSet::new(),
            rule: None,
            spare: BTreeSet::new(),
            doubtful: BTreeMap::new(),
            cleared: false,
            failure: None,
        }
    }

    fn entries(&mut self, set: PeerSetId) -> &mut BTreeSet<PeerEntry> {
        if set == self.peer_set {
            &mut self.peers
        } else {
            &mut self.spare
        }
    }

    fn is_spent(&self) -> bool {
        self.cleared && self.peers.is_empty() && self.spare.is_empty() && self.doubtful.is_empty()
    }
}

impl ObservedTarget {
    fn new(id: TargetId, device: TargetDevice) -> Self {
        Self {
            id,
            device,
            equipment: Equipment::default(),
            busy: false,
            slots: Vec::new(),
            idle_since: None,
            failure: None,
            stripping: false,
            refusals: Vec::new(),
            slots_failure: None,
        }
    }

    fn equipped(&mut self, equipment: Equipment, now: BootTime) {
        self.equipment = self.equipment.union(equipment);
        let have = self.equipment;
        self.refusals.retain_mut(|(asked, _)| {
            *asked = asked.minus(have);
            !asked.is_empty()
        });
        self.failure = self.refusals.last().map(|(_, failure)| failure.clone());
        if self.slots.is_empty() {
            self.idle_since = Some(now);
        }
    }

    fn refused(&mut self, equipment: Equipment, failure: Failure, now: BootTime) {
        let asked = equipment.minus(self.equipment);
        self.refusals
            .retain(|(other, old)| *other != asked && (old.permanent || now < old.retry_at));
        self.refusals.push((asked, failure.clone()));
        self.failure = Some(failure);
    }
}

impl Observed {
    /// Marks a target as busy when a worker takes on a slow operation; other operations change nothing.
    pub fn begin(&mut self, operation: &Operation) {
        match operation {
            Operation::Equip { target, device, .. } => self.target_of(*target, device).busy = true,
            Operation::Strip { key, .. } => {
                if let Some(target) = self.targets.get_mut(key) {
                    target.busy = true;
                    target.stripping = true;
                }
            }
            _ => {}
        }
    }

    /// Takes down what an operation did. A failure's `retry_at` is honoured; only an `Equip` can fail for good, other
    /// operations are always tried again. After any outcome that isn't success it is time to plan again.
    pub fn apply(&mut self, operation: &Operation, outcome: Result<(), Failure>, now: BootTime) {
        let outcome = outcome.map_err(|failure| Failure {
            retry_at: failure.retry_at.max(now.after(MIN_RETRY)),
            ..failure
        });
        match operation {
            Operation::Claim { slot, fault } => {
                self.rules
                    .insert(*slot, ObservedRule::claimed(*slot, fault.clone()));
            }
            Operation::Equip {
                target,
                device,
                equipment,
            } => {
                let target = self.target_of(*target, device);
                target.busy = false;
                match outcome {
                    Ok(()) => target.equipped(*equipment, now),
                    Err(failure) => target.refused(*equipment, failure, now),
                }
            }
            Operation::Strip { key, .. } => self.stripped(key, outcome),
            Operation::SetSlots { target, slots } => self.listed(*target, slots, outcome, now),
            Operation::AddPeers { set, entries } => self.on_rule(set.slot(), outcome, now, |rule, done| {
                add_peers(rule, *set, entries, done);
            }),
            Operation::RemovePeers { set, entries } => {
                let change = |rule: &mut ObservedRule, done| remove_peers(rule, *set, entries, done);
                self.on_rule(set.slot(), outcome, now, change);
            }
            Operation::WriteRule { slot, rule: body } => self.on_rule(*slot, outcome, now, |rule, done| {
                if done {
                    if body.peers == Some(rule.peer_set.other()) {
                        rule.peer_set = rule.peer_set.other();
                        std::mem::swap(&mut rule.peers, &mut rule.spare);
                    }
                    rule.rule = Some(body.clone());
                }
            }),
            Operation::ClearRule { slot } => {
                if outcome.is_ok() {
                    self.cooling.retain(|_, until| *until > now);
                    self.cooling.insert(*slot, now.after(SLOT_REST));
                }
                self.on_rule(*slot, outcome, now, |rule, done| {
                    if done {
                        rule.cleared = true;
                        rule.rule = None;
                    }
                });
            }
        }
    }

    fn target_of(&mut self, id: TargetId, device: &TargetDevice) -> &mut ObservedTarget {
        let target = self
            .targets
            .entry(device.key.clone())
            .or_insert_with(|| ObservedTarget::new(id, device.clone()));
        if target.device != *device {
            // The same device, reached by another path.
            target.device = device.clone();
        }
        target
    }

    fn stripped(&mut self, key: &TargetKey, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => {
                self.targets.remove(key);
            }
            Err(failure) => {
                if let Some(target) = self.targets.get_mut(key) {
                    target.busy = false;
                    target.stripping = true;
                    target.failure = Some(failure);
                }
            }
        }
    }

    fn listed(&mut self, id: TargetId, slots: &[Slot], outcome: Result<(), Failure>, now: BootTime) {
        let Some(target) = self.targets.values_mut().find(|target| target.id == id) else {
            return;
        };
        match outcome {
            Ok(()) => {
                target.slots = slots.to_vec();
                target.idle_since = slots.is_empty().then(|| target.idle_since.unwrap_or(now));
                target.slots_failure = None;
            }
            Err(failure) => target.slots_failure = Some(failure),
        }
    }

    /// Changes a rule by what was done or not done, and forgets it when nothing of it is left.
    fn on_rule(
        &mut self,
        slot: Slot,
        outcome: Result<(), Failure>,
        now: BootTime,
        change: impl FnOnce(&mut ObservedRule, bool),
    ) {
        let Some(rule) = self.rules.get_mut(&slot) else {
            return;
        };
        change(rule, outcome.is_ok());
        match outcome {
            Err(failure) => rule.failure = Some(failure),
            // Another operation on the slot doesn't end the wait for the one that failed.
            Ok(()) => rule.failure = rule.failure.take().filter(|failure| now < failure.retry_at),
        }
        if rule.is_spent() {
            self.rules.remove(&slot);
        }
    }
}

fn add_peers(rule: &mut ObservedRule, set: PeerSetId, entries: &[PeerEntry], done: bool) {
    for entry in entries {
        rule.entries(set).remove(&entry.twin());
        if done {
            rule.entries(set).insert(*entry);
        } else {
            rule.doubtful.entry(set).or_default().insert(*entry);
        }
    }
}

fn remove_peers(rule: &mut ObservedRule, set: PeerSetId, entries: &[PeerEntry], done: bool) {
    for entry in entries {
        rule.entries(set).remove(entry);
        if let Some(doubtful) = rule.doubtful.get_mut(&set) {
            doubtful.remove(entry);
        }
        if !done {
            rule.doubtful.entry(set).or_default().insert(*entry);
        }
    }
    rule.doubtful.retain(|_, entries| !entries.is_empty());
}
