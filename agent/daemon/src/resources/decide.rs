//! What a resource means for this node now. Nothing here remembers or does anything.

use std::time::{Duration, SystemTime};

use sabot_core::model::TargetSelector;
use sabot_core::spec::FaultSpec;
use sabot_core::{Limits, ValidFault, validate_at};
use sabot_resources::Kind;
use sabot_resources::status::Timestamp;

use super::object::Resource;

/// How long before its start the engine is told of a fault.
const LEAD: Duration = Duration::from_secs(30);
/// A fault with less time left isn't begun: the engine, which counts by another clock, may have ended it just now.
const LEAST: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// The engine has it.
    Hold {
        spec: Box<FaultSpec>,
        /// Since when the duration counts, where that is known.
        since: Option<SystemTime>,
    },
    /// Its start is far ahead.
    Wait { until: SystemTime },
    /// Its time is over.
    Over,
    /// No node can inject it.
    Refuse { message: String },
}

/// Since when the fault's duration counts: its start, or the first injection on any node. `known`: what this daemon
/// knows of that by itself.
pub(super) fn since(resource: &Resource, known: Option<SystemTime>) -> Option<SystemTime> {
    let start = resource.spec.as_ref().ok().and_then(|spec| spec.starts_at);
    let injected = resource.status.nodes.iter().filter_map(|node| node.injected_at);
    start.or_else(|| injected.map(Timestamp::time).chain(known).min())
}

/// When the fault ends everywhere, where that is known.
pub(super) fn end(resource: &Resource, known: Option<SystemTime>) -> Option<SystemTime> {
    let duration = resource.spec.as_ref().ok()?.duration?;
    since(resource, known)?.checked_add(duration)
}

pub(super) fn decide(
    resource: &Resource,
    known: Option<SystemTime>,
    limits: &Limits,
    now: SystemTime,
) -> Decision {
    let spec = match &resource.spec {
        Ok(spec) => spec,
        Err(message) => {
            let message = format!("spec: {message}");
            return Decision::Refuse { message };
        }
    };
    if let Err(message) = check(resource, spec, limits, now) {
        return Decision::Refuse { message };
    }
    let since = since(resource, known);
    let spec = Box::new(spec.clone());
    match since {
        Some(_) if end(resource, known).is_none_or(|end| end <= now + LEAST) => Decision::Over,
        Some(start) if start > now + LEAD && spec.starts_at.is_some() => {
            Decision::Wait { until: start - LEAD }
        }
        Some(start) if start > now => Decision::Hold { spec, since: None },
        // A start that is past is nothing that the engine takes; it says no more than `since`.
        _ => Decision::Hold {
            spec: Box::new(FaultSpec {
                starts_at: None,
                ..*spec
            }),
            since,
        },
    }
}

/// What is the same on every node, before the engine sees the fault.
fn check(resource: &Resource, spec: &FaultSpec, limits: &Limits, now: SystemTime) -> Result<(), String> {
    // The start may be long past, or farther ahead than the engine wants to know.
    let timeless = FaultSpec {
        starts_at: None,
        ..spec.clone()
    };
    let fault = validate_at(&resource.key.metadata(), &timeless, limits, now).map_err(|violations| {
        let said: Vec<_> = violations.iter().map(ToString::to_string).collect();
        said.join("; ")
    })?;
    match resource.key.kind {
        Kind::NetworkFault => stays_at_home(&fault),
        Kind::ClusterNetworkFault => Ok(()),
    }
}

/// Whoever may create faults in a namespace touches its pods only.
fn stays_at_home(fault: &ValidFault) -> Result<(), String> {
    let own = &fault.name.namespace;
    let (field, given) = match &fault.target {
        TargetSelector::Pods { selector, .. } if selector.namespace == *own => return Ok(()),
        TargetSelector::Service { name, .. } if name.namespace == *own => return Ok(()),
        TargetSelector::Pods { selector, .. } => ("pods.namespace", selector.namespace.clone()),
        TargetSelector::Service { name, .. } => ("service.namespace", name.namespace.clone()),
        TargetSelector::Netns(path) => ("netns", path.display().to_string()),
        TargetSelector::Interface(name) => ("interface", name.clone()),
        TargetSelector::Node(name) => ("node", name.clone()),
    };
    Err(format!(
        "spec.target.{field}: `{given}` given; allowed: pods and Services of {own}, the fault's own namespace; anything else is \
         for a {}",
        Kind::ClusterNetworkFault
    ))
}
