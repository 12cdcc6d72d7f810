//! Targets: what they need, which slots they list, when they are equipped and stripped.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{BootTime, TargetDevice, TargetKey, World};
use crate::plan::{Equipment, Failure, Observed, ObservedTarget, Operation, Policy, Slot, TargetId};

use super::allocate::free_target_ids;
use super::{Draft, Effective, PlacedFaults};

/// The slot list of each observed target once this plan's operations are applied.
pub(super) type Lists<'a> = BTreeMap<&'a TargetKey, Vec<Slot>>;

/// What is wanted of devices.
pub(super) struct Desired<'a> {
    by_key: BTreeMap<&'a TargetKey, Wanted<'a>>,
    /// Every device of the world.
    present: BTreeSet<&'a TargetKey>,
}

struct Wanted<'a> {
    device: &'a TargetDevice,
    /// Of the faults that mean it; empty where only eager attachment wants it.
    slots: Vec<Slot>,
    eager: bool,
}

impl<'a> Desired<'a> {
    pub(super) fn new(
        placed: &'a PlacedFaults<'_>,
        world: &'a World,
        observed: &'a Observed,
        policy: &Policy,
    ) -> Self {
        let mut by_key: BTreeMap<&TargetKey, Wanted<'a>> = BTreeMap::new();
        let blank = |device| Wanted {
            device,
            slots: Vec::new(),
            eager: false,
        };
        for (&slot, place) in placed {
            for target in place.resolution.targets_in(Some(slot), observed) {
                let wanted = by_key
                    .entry(&target.device.key)
                    .or_insert_with(|| blank(&target.device));
                wanted.slots.push(slot);
            }
        }
        let pods = || world.pods.values().filter(|pod| !pod.host_network);
        if policy.attach_eagerly {
            for device in pods().flat_map(|pod| &pod.devices) {
                by_key.entry(&device.key).or_insert_with(|| blank(device)).eager = true;
            }
        }
        let devices = pods()
            .flat_map(|pod| &pod.devices)
            .chain(world.namespaces.values().flatten())
            .chain(world.interfaces.values());
        let present = devices.map(|device| &device.key).collect();
        Self { by_key, present }
    }

    fn slots(&self, key: &TargetKey) -> &[Slot] {
        self.by_key.get(key).map_or(&[], |wanted| &wanted.slots)
    }
}

/// The slots whose rule must stay as it is for now: a target lists the slot and doesn't have yet what the edited action
/// needs. Writing the rule at once would leave the target without either action until it is equipped. A target that
/// can't be equipped holds nothing back; it loses the slot.
pub(super) fn edits_to_hold(
    placed: &PlacedFaults<'_>,
    desired: &Desired<'_>,
    observed: &Observed,
    now: BootTime,
) -> BTreeSet<Slot> {
    let mut held = BTreeSet::new();
    for (key, target) in &observed.targets {
        let stuck = target
            .slots_failure
            .as_ref()
            .is_some_and(|failure| now < failure.retry_at);
        for slot in &target.slots {
            let Some(place) = placed.get(slot) else { continue };
            let missing = place.need.minus(target.equipment);
            let coming = desired.slots(key).contains(slot) && !is_refused(target, missing, now);
            if !missing.is_empty() && (coming || stuck) {
                held.insert(*slot);
            }
        }
    }
    held
}

/// A former attempt to add all that is missing, or a part of it, failed and may not be repeated yet.
fn is_refused(target: &ObservedTarget, missing: Equipment, now: BootTime) -> bool {
    let in_force = |failure: &Failure| failure.permanent || now < failure.retry_at;
    target
        .refusals
        .iter()
        .any(|(asked, failure)| in_force(failure) && missing.contains(*asked))
}

/// Writes the slot lists that change.
pub(super) fn plan_lists<'a>(
    draft: &mut Draft,
    desired: &Desired<'_>,
    effective: &BTreeMap<Slot, Effective>,
    observed: &'a Observed,
    policy: &Policy,
    placed: &PlacedFaults<'_>,
) -> Lists<'a> {
    let mut lists = Lists::new();
    for (key, target) in &observed.targets {
        if target.stripping || draft.must_wait(target.slots_failure.as_ref()) {
            lists.insert(key, target.slots.clone());
            continue;
        }
        let list = slot_list(draft, target, desired.slots(key), effective, policy, placed);
        write_list(draft, target, &list, effective);
        lists.insert(key, list);
    }
    lists
}

fn slot_list(
    draft: &mut Draft,
    target: &ObservedTarget,
    wanted: &[Slot],
    effective: &BTreeMap<Slot, Effective>,
    policy: &Policy,
    placed: &PlacedFaults<'_>,
) -> Vec<Slot> {
    let usable = |slot: &Slot| {
        let effect = effective.get(slot)?;
        let may_list = !effect.outdated || target.slots.contains(slot);
        (may_list && target.equipment.contains(effect.need)).then_some((effect.rank, *slot))
    };
    let mut ranked: Vec<(u8, Slot)> = wanted.iter().filter_map(usable).collect();
    if ranked.len() > policy.max_slots_per_target {
        // Those that are in force stay; a stable sort keeps the others in the order of their slots.
        ranked.sort_by_key(|(_, slot)| !target.slots.contains(slot));
        for (_, slot) in ranked.split_off(policy.max_slots_per_target) {
            if let Some(place) = placed.get(&slot) {
                draft.exhausted(&place.fault.name, || {
                    let (device, max) = (&target.device.key.device, policy.max_slots_per_target);
                    format!("the device {device} already has {max} faults, the most that one can have")
                });
            }
        }
    }
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, slot)| slot).collect()
}

fn write_list(
    draft: &mut Draft,
    target: &ObservedTarget,
    list: &[Slot],
    effective: &BTreeMap<Slot, Effective>,
) {
    if list == target.slots {
        return;
    }
    let set = |slots: Vec<Slot>| Operation::SetSlots {
        target: target.id,
        slots,
    };
    let staying: Vec<Slot> = target
        .slots
        .iter()
        .copied()
        .filter(|slot| list.contains(slot))
        .collect();
    if staying == list {
        draft.removals.push(set(staying));
        return;
    }
    // The edited rule must not act here, not even until the list is swapped.
    let leaves_before_edit =
        |slot: &Slot| !list.contains(slot) && effective.get(slot).is_some_and(|effect| effect.rewritten);
    if target.slots.iter().any(leaves_before_edit) {
        draft.removals.push(set(staying));
    }
    draft.lists.push(set(list.to_vec()));
}

/// Equips what needs more, strips what nobody needs, and finds ids for devices that are new.
pub(super) fn plan_equipment(
    draft: &mut Draft,
    desired: &Desired<'_>,
    lists: &Lists<'_>,
    observed: &Observed,
    policy: &Policy,
    placed: &PlacedFaults<'_>,
) {
    // Attachments that nothing is in force on and that stay as they are.
    let mut idle = Vec::new();
    for (key, target) in observed.targets.iter().filter(|(_, target)| !target.busy) {
        let empty = lists.get(key).is_none_or(Vec::is_empty);
        if target.stripping {
            if !draft.must_wait(target.failure.as_ref()) {
                draft.strips.push(strip(key, target));
            }
        } else if let Some(wanted) = desired.by_key.get(key) {
            let changes = equip(draft, wanted, target, placed);
            if !changes && empty && wanted.slots.is_empty() {
                idle.push((key, target));
            }
        } else if !empty {
            // Its list could not be emptied yet.
        } else if must_go(draft, desired, key, target, policy) {
            draft.strips.push(strip(key, target));
        } else {
            idle.push((key, target));
        }
    }
    newcomers(draft, desired, observed, policy, placed, &idle);
}

fn strip(key: &TargetKey, target: &ObservedTarget) -> Operation {
    Operation::Strip {
        target: target.id,
        key: key.clone(),
    }
}

/// Whether a target that nobody wants is stripped now, or kept warm.
fn must_go(
    draft: &mut Draft,
    desired: &Desired<'_>,
    key: &TargetKey,
    target: &ObservedTarget,
    policy: &Policy,
) -> bool {
    if !desired.present.contains(key) || target.equipment.is_empty() {
        return true;
    }
    let end = target.idle_since.unwrap_or(draft.now).after(policy.keep_warm);
    draft.alarm.set(end);
    end <= draft.now
}

/// Asks for what the faults on a target need. Where a former attempt failed, as many as possible of them get theirs:
/// the ones that need least come first, and one that would make the attempt the same again waits.
/// Returns whether it asks for anything.
fn equip(draft: &mut Draft, wanted: &Wanted<'_>, target: &ObservedTarget, placed: &PlacedFaults<'_>) -> bool {
    let mut needs: Vec<Equipment> = wanted
        .slots
        .iter()
        .filter_map(|slot| placed.get(slot))
        .map(|place| place.need)
        .collect();
    needs.extend(wanted.eager.then_some(Equipment::HOOKS));
    needs.retain(|need| !target.equipment.contains(*need));
    needs.sort_by_key(|need| {
        [
            need.egress,
            need.ingress,
            need.line,
            need.segmenter,
            need.departures,
        ]
        .iter()
        .filter(|&&n| n)
        .count()
    });
    let mut asked = target.equipment;
    for need in &needs {
        let more = asked.union(*need);
        if !is_refused(target, more.minus(target.equipment), draft.now) {
            asked = more;
        }
    }
    let missing = needs
        .iter()
        .copied()
        .fold(Equipment::default(), Equipment::union)
        .minus(target.equipment);
    for (refused, failure) in &target.refusals {
        if !failure.permanent && missing.contains(*refused) {
            draft.alarm.set(failure.retry_at);
        }
    }
    let changes = asked != target.equipment;
    if changes {
        draft.equips.push(Operation::Equip {
            target: target.id,
            device: wanted.device.clone(),
            equipment: asked,
        });
    }
    changes
}

/// Devices that no target stands for yet. Those that a fault means come first; when ids are short, attachments that
/// are merely warm make room for them.
fn newcomers(
    draft: &mut Draft,
    desired: &Desired<'_>,
    observed: &Observed,
    policy: &Policy,
    placed: &PlacedFaults<'_>,
    idle: &[(&TargetKey, &ObservedTarget)],
) {
    let mut free = free_target_ids(observed, policy);
    let going = observed
        .targets
        .values()
        .filter(|target| target.busy && target.stripping)
        .count();
    let mut expected = going + draft.strips.len();
    let mut spare = idle.iter();
    let new = || {
        desired
            .by_key
            .iter()
            .filter(|(key, _)| !observed.targets.contains_key(**key))
    };
    for (_, wanted) in new().filter(|(_, wanted)| !wanted.slots.is_empty()) {
        if let Some(id) = free.next() {
            draft.equips.push(first_equip(id, wanted, placed));
        } else if expected > 0 {
            expected -= 1;
        } else if let Some((key, target)) = spare.next() {
            draft.strips.push(strip(key, target));
        } else {
            for place in wanted.slots.iter().filter_map(|slot| placed.get(slot)) {
                let max = policy.max_targets;
                draft.exhausted(&place.fault.name, || {
                    format!("all {max} targets have faults on them")
                });
            }
        }
    }
    for ((_, wanted), id) in new().filter(|(_, wanted)| wanted.slots.is_empty()).zip(free) {
        draft.equips.push(first_equip(id, wanted, placed));
    }
}

fn first_equip(id: TargetId, wanted: &Wanted<'_>, placed: &PlacedFaults<'_>) -> Operation {
    let eager = if wanted.eager {
        Equipment::HOOKS
    } else {
        Equipment::default()
    };
    let needs = wanted
        .slots
        .iter()
        .filter_map(|slot| placed.get(slot))
        .map(|place| place.need);
    Operation::Equip {
        target: id,
        device: wanted.device.clone(),
        equipment: needs.fold(eager, Equipment::union),
    }
}
