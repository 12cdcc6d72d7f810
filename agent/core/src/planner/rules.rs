//! Rules and their peers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::Fault;
use crate::plan::{Observed, ObservedRule, Operation, PeerEntry, PeerSetId, RuleBody, Slot};
use crate::resolve;

use super::targets::Lists;
use super::{Draft, Effective, PlacedFaults};

/// Brings peers and rules of the live faults up to date, but for those whose edit is held back. Returns what each
/// written rule does afterwards.
pub(super) fn plan(
    draft: &mut Draft,
    placed: &PlacedFaults<'_>,
    held: &BTreeSet<Slot>,
    observed: &Observed,
    mut entries: impl FnMut(&Arc<Fault>) -> Arc<BTreeSet<PeerEntry>>,
) -> BTreeMap<Slot, Effective> {
    let mut effective = BTreeMap::new();
    for (&slot, place) in placed {
        let fault = place.fault;
        let unclaimed;
        let rule = if let Some(rule) = observed.rules.get(&slot) {
            rule
        } else {
            let name = fault.name.clone();
            draft.rules.push(Operation::Claim {
                slot,
                fault: name.clone(),
            });
            unclaimed = ObservedRule::claimed(slot, name);
            &unclaimed
        };
        if held.contains(&slot) || draft.must_wait(rule.failure.as_ref()) {
            effective.extend(
                rule.rule
                    .as_ref()
                    .map(|body| (slot, effect_as_it_is(body, fault))),
            );
            continue;
        }
        remove_doubtful(&mut draft.rules, rule);
        let wanted = (!fault.peers.is_empty()).then(|| entries(fault));
        let rewritten = write(&mut draft.rules, slot, rule, fault, wanted.as_deref());
        let effect = Effective {
            need: place.need,
            rank: fault.action.rank(),
            rewritten,
            outdated: false,
        };
        effective.insert(slot, effect);
    }
    effective
}

fn effect_as_it_is(body: &RuleBody, fault: &Fault) -> Effective {
    Effective {
        outdated: !is_same_but_entries(body, fault),
        need: resolve::rule_equipment(body),
        rank: body.action.rank(),
        rewritten: false,
    }
}

/// Fills the peer set, writes the rule where it differs, and removes what no rule reads any more. Returns whether an
/// existing rule is replaced.
fn write(
    operations: &mut Vec<Operation>,
    slot: Slot,
    rule: &ObservedRule,
    fault: &Fault,
    wanted: Option<&BTreeSet<PeerEntry>>,
) -> bool {
    let (current, other) = (rule.peer_set, rule.peer_set.other());
    let none = BTreeSet::new();
    let entries = wanted.unwrap_or(&none);
    let in_use = rule.rule.as_ref().and_then(|body| body.peers) == Some(current);
    // When nothing but the peers change they change in place, else the other set takes over together with the body.
    let unchanged = rule.peers == *entries;
    let same_otherwise = || {
        rule.rule
            .as_ref()
            .is_some_and(|body| is_same_but_entries(body, fault))
    };
    let moves = wanted.is_some() && in_use && !unchanged && !same_otherwise();
    let (set, present) = if moves {
        (other, &rule.spare)
    } else {
        (current, &rule.peers)
    };

    let body = body_of(fault, wanted.map(|entries| (set, entries)));
    let writes = rule.rule.as_ref() != Some(&body);
    let write = writes.then_some(Operation::WriteRule { slot, rule: body });
    let gone = |entry: &&PeerEntry| !entries.contains(entry) && !entries.contains(&entry.twin());
    let (adds, removes) = if unchanged && !moves {
        (None, None)
    } else {
        (
            add(set, entries.difference(present)),
            remove(set, present.iter().filter(gone)),
        )
    };
    let read_now = in_use && !moves;
    if read_now {
        operations.extend(adds.into_iter().chain(write).chain(removes));
    } else {
        operations.extend(removes.into_iter().chain(adds).chain(write));
    }
    let left = if moves {
        remove(current, rule.peers.iter())
    } else {
        remove(other, rule.spare.iter())
    };
    operations.extend(left);
    writes && rule.rule.is_some()
}

/// Apart from what is in its peer set, the rule says what the fault says.
fn is_same_but_entries(body: &RuleBody, fault: &Fault) -> bool {
    let same = RuleBody {
        peers: body.peers,
        peers_exact: body.peers_exact,
        peers_prefix: body.peers_prefix,
        ..body_of(fault, None)
    };
    *body == same && body.peers.is_some() != fault.peers.is_empty()
}

fn body_of(fault: &Fault, peers: Option<(PeerSetId, &BTreeSet<PeerEntry>)>) -> RuleBody {
    RuleBody {
        peers: peers.map(|(set, _)| set),
        peers_exact: peers.is_some_and(|(_, entries)| entries.iter().any(PeerEntry::is_exact)),
        peers_prefix: peers.is_some_and(|(_, entries)| entries.iter().any(|e| !e.is_exact())),
        ..RuleBody::without_peers(fault)
    }
}

/// Exceptions come before what they are taken out of, so that a rule that reads the set meanwhile never hits them.
fn add<'a>(set: PeerSetId, entries: impl Iterator<Item = &'a PeerEntry>) -> Option<Operation> {
    let (mut entries, included): (Vec<PeerEntry>, Vec<PeerEntry>) = entries.partition(|entry| entry.excepted);
    entries.extend(included);
    (!entries.is_empty()).then_some(Operation::AddPeers { set, entries })
}

/// Exceptions go after what they are taken out of.
fn remove<'a>(set: PeerSetId, entries: impl Iterator<Item = &'a PeerEntry>) -> Option<Operation> {
    let (excepted, mut entries): (Vec<PeerEntry>, Vec<PeerEntry>) = entries.partition(|entry| entry.excepted);
    entries.extend(excepted);
    (!entries.is_empty()).then_some(Operation::RemovePeers { set, entries })
}

fn remove_doubtful(operations: &mut Vec<Operation>, rule: &ObservedRule) {
    operations.extend(
        rule.doubtful
            .iter()
            .filter_map(|(set, entries)| remove(*set, entries.iter())),
    );
}

/// Clears the rules of faults that are gone, once no target lists them, and then removes their peers.
pub(super) fn retire(draft: &mut Draft, placed: &PlacedFaults<'_>, lists: &Lists<'_>, observed: &Observed) {
    let listed: BTreeSet<Slot> = lists.values().flatten().copied().collect();
    for (&slot, rule) in &observed.rules {
        if placed.contains_key(&slot) || listed.contains(&slot) || draft.must_wait(rule.failure.as_ref()) {
            continue;
        }
        if !rule.cleared {
            draft.retired.push(Operation::ClearRule { slot });
        }
        remove_doubtful(&mut draft.retired, rule);
        draft.retired.extend(remove(rule.peer_set, rule.peers.iter()));
        draft
            .retired
            .extend(remove(rule.peer_set.other(), rule.spare.iter()));
    }
}
