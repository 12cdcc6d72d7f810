//! How faults and their targets stand, in the words of the API.

use std::collections::BTreeMap;

use sabot_core::equipment;
use sabot_core::model::{BootTime, Fault, FaultName};
use sabot_core::plan::{Failure, Observed, ObservedRule, ObservedTarget, Slot};
use sabot_core::{PodRef, RefusedTarget, Resolution, ResolvedTarget};

use super::handle::{Phase, TargetPhase, TargetView};
use super::store::Active;

/// Slots by the fault that has them.
pub(super) fn slots(observed: &Observed) -> BTreeMap<&FaultName, Slot> {
    observed
        .rules
        .iter()
        .filter(|(_, rule)| !rule.cleared)
        .map(|(slot, rule)| (&rule.fault, *slot))
        .collect()
}

/// Brings what is said of a fault up to date; whether anything is different now.
pub(super) fn refresh(active: &mut Active, slot: Option<Slot>, observed: &Observed, now: BootTime) -> bool {
    let targets = targets(&active.fault, &active.resolution, slot, observed);
    let mut changed = active.slot != slot || active.targets != targets;
    active.slot = slot;
    active.targets = targets;
    let phase = phase(active, now);
    let message = message(active, now);
    changed |= active.phase != phase || active.message != message;
    active.phase = phase;
    active.message = message;
    changed
}

/// The targets of a fault in the order of the resolution, then those that are refused.
pub(super) fn targets(
    fault: &Fault,
    resolution: &Resolution,
    slot: Option<Slot>,
    observed: &Observed,
) -> Vec<TargetView> {
    let resolved = resolution.targets_in(slot, observed).map(|target| {
        let known = observed.targets.get(&target.device.key);
        let phase = known.map_or(TargetPhase::Attaching, |known| {
            let rule = slot.and_then(|slot| observed.rules.get(&slot).map(|rule| (slot, rule)));
            target_phase(fault, known, rule)
        });
        resolved_view(target, known, phase)
    });
    resolved
        .chain(resolution.refused.iter().map(refused_view))
        .collect()
}

fn target_phase(fault: &Fault, target: &ObservedTarget, rule: Option<(Slot, &ObservedRule)>) -> TargetPhase {
    let needed = equipment(fault);
    if !target.equipment.contains(needed) {
        let refusal = target
            .refusals
            .iter()
            .find(|(what, _)| needed.contains(*what))
            .map(|(_, failure)| failure);
        return refusal
            .or(target.failure.as_ref())
            .map_or(TargetPhase::Attaching, failed);
    }
    let Some((slot, rule)) = rule else {
        return TargetPhase::Attaching;
    };
    match (&rule.failure, &target.slots_failure) {
        (Some(failure), _) => failed(failure),
        (None, Some(failure)) if !target.slots.contains(&slot) => failed(failure),
        _ if rule.rule.is_some() && target.slots.contains(&slot) => TargetPhase::Injected,
        _ => TargetPhase::Attaching,
    }
}

fn failed(failure: &Failure) -> TargetPhase {
    if failure.permanent {
        TargetPhase::Refused(failure.reason.clone())
    } else {
        TargetPhase::Failed(failure.reason.clone())
    }
}

fn resolved_view(target: &ResolvedTarget, known: Option<&ObservedTarget>, phase: TargetPhase) -> TargetView {
    let (pod_namespace, pod_name) = names(target.pod.as_ref());
    TargetView {
        key: Some(target.device.key.clone()),
        id: known.map(|known| known.id),
        pod_namespace,
        pod_name,
        device: target.device.key.device.clone(),
        phase,
    }
}

fn refused_view(target: &RefusedTarget) -> TargetView {
    let (pod_namespace, pod_name) = names(target.pod.as_ref());
    TargetView {
        key: target.device.as_ref().map(|device| device.key.clone()),
        id: None,
        pod_namespace,
        pod_name,
        device: target
            .device
            .as_ref()
            .map_or_else(String::new, |device| device.key.device.clone()),
        phase: TargetPhase::Refused(target.reason.clone()),
    }
}

fn names(pod: Option<&PodRef>) -> (String, String) {
    pod.map_or_else(Default::default, |pod| (pod.namespace.clone(), pod.name.clone()))
}

/// Nothing will change by waiting: every target is in force or can't be.
pub(super) fn is_settled(targets: &[TargetView]) -> bool {
    targets
        .iter()
        .all(|t| matches!(t.phase, TargetPhase::Injected | TargetPhase::Refused(_)))
}

/// Some target is on its way.
pub(super) fn is_attaching(targets: &[TargetView]) -> bool {
    targets.iter().any(|t| t.phase == TargetPhase::Attaching)
}

fn injected(targets: &[TargetView]) -> usize {
    targets
        .iter()
        .filter(|t| t.phase == TargetPhase::Injected)
        .count()
}

fn phase(active: &Active, now: BootTime) -> Phase {
    let targets = &active.targets;
    let injected = injected(targets);
    // What waits for its begin, and can't be put in place, waits for nothing else.
    let is_stuck = active.waits() && injected == 0;
    if targets.is_empty() || now < active.fault.starts_at && !is_stuck {
        Phase::Pending
    } else if injected == targets.len() && active.resolution.pending.is_none() {
        Phase::Injected
    } else if injected > 0 {
        Phase::Partial
    } else if active.exhausted.is_none() && is_attaching(targets) {
        Phase::Pending
    } else {
        Phase::Failed
    }
}

fn message(active: &Active, now: BootTime) -> String {
    let mut parts = Vec::new();
    if active.waits() {
        if injected(&active.targets) > 0 {
            parts.push("its begin isn't written in its resource's status yet".to_owned());
        }
    } else if now < active.fault.starts_at {
        parts.push(format!(
            "starts at {}",
            humantime::format_rfc3339_seconds(active.fault.starts)
        ));
    }
    let (injected, all) = (injected(&active.targets), active.targets.len());
    if all > 0 {
        let plural = if all == 1 { "target" } else { "targets" };
        let verb = if now < active.fault.starts_at {
            "in place"
        } else {
            "in force"
        };
        if injected == all {
            parts.push(format!("{verb} on {all} {plural}"));
        } else {
            parts.push(format!("{verb} on {injected} of {all} {plural}"));
        }
    }
    parts.extend(active.resolution.pending.clone());
    parts.extend(trouble(&active.targets));
    parts.extend(active.exhausted.clone());
    if active.peerless && active.fault.watches_dns() {
        let why = "no address of its peers is known yet, so that it matches no packet; a name's are learnt when the target \
                   looks it up";
        parts.push(why.to_owned());
    } else if active.peerless {
        parts.push("none of its peers exists now, so that it matches no packet".to_owned());
    }
    parts.join("; ")
}

/// The first thing that is wrong, and how many more there are.
fn trouble(targets: &[TargetView]) -> Option<String> {
    let mut wrong = targets.iter().filter_map(|target| match &target.phase {
        TargetPhase::Failed(reason) | TargetPhase::Refused(reason) => Some((target, reason)),
        TargetPhase::Attaching | TargetPhase::Injected => None,
    });
    let (target, reason) = wrong.next()?;
    let first = match (target.pod_name.as_str(), target.device.as_str()) {
        ("", "") => reason.clone(),
        ("", device) => format!("{device}: {reason}"),
        (pod, _) => format!("{}/{pod}: {reason}", target.pod_namespace),
    };
    match wrong.count() {
        0 => Some(first),
        more => Some(format!("{first} (and {more} more)")),
    }
}
