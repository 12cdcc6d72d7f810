//! Slots and target ids: the lowest one that is free.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{BootTime, Fault, FaultName};
use crate::plan::{Observed, Policy, Slot, TargetId};
use crate::resolve::{Resolution, equipment};

use super::{Draft, Placed, PlacedFaults};

/// Gives each live fault the slot it has, and a free one to each other that has targets: one that concerns other nodes
/// alone takes none.
///
/// A fault keeps its slot until it ends, whether its targets stay or not. So a pod that comes again goes on in the same
/// random stream and counters, and a slot changes hands in one way only: cleared, rested, and its counters closed. What
/// that costs is bounded by the fault's duration.
pub(super) fn slots<'a>(
    draft: &mut Draft,
    live: &[&'a Arc<Fault>],
    observed: &Observed,
    policy: &Policy,
    mut resolve: impl FnMut(&Arc<Fault>) -> Arc<Resolution>,
) -> PlacedFaults<'a> {
    let owners: BTreeMap<&FaultName, Slot> = (observed.rules.iter())
        .filter(|(_, rule)| !rule.cleared)
        .map(|(slot, rule)| (&rule.fault, *slot))
        .collect();
    let now = draft.now;
    let mut free = (0..policy.max_slots).map(Slot).filter(|slot| {
        !observed.rules.contains_key(slot) && observed.cooling.get(slot).is_none_or(|until| *until <= now)
    });
    let mut placed = PlacedFaults::new();
    for fault in live {
        let resolution = resolve(fault);
        let owned = owners.get(&fault.name).copied();
        if owned.is_none() && !resolution.has_targets() {
            continue;
        }
        let Some(slot) = owned.or_else(|| free.next()) else {
            exhausted(draft, fault, observed, policy);
            continue;
        };
        let value = Placed {
            fault,
            need: equipment(fault),
            resolution,
        };
        placed.insert(slot, value);
    }
    placed
}

fn exhausted(draft: &mut Draft, fault: &Fault, observed: &Observed, policy: &Policy) {
    let next: Option<BootTime> = observed
        .cooling
        .values()
        .copied()
        .filter(|until| *until > draft.now)
        .min();
    if let Some(next) = next {
        draft.alarm.set(next);
    }
    let max = policy.max_slots;
    draft.exhausted(&fault.name, || match next {
        Some(_) => format!("all {max} slots are in use; one of a former fault is free again soon"),
        None => format!("all {max} slots are in use"),
    });
}

/// The ids that no target has, from the lowest on.
pub(super) fn free_target_ids(observed: &Observed, policy: &Policy) -> impl Iterator<Item = TargetId> {
    let used: BTreeSet<TargetId> = observed.targets.values().map(|target| target.id).collect();
    (0..policy.max_targets)
        .map(TargetId)
        .filter(move |id| !used.contains(id))
}
