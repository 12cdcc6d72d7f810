//! This node's part of a resource's status.

use std::time::SystemTime;

use sabot_resources::status::{NodeStatus, Packets, Phase, Timestamp};

use super::object::Resource;
use crate::engine::handle::{self, EngineError, FaultView, LedgerEntry, TargetPhase};

/// Why this node doesn't do what the resource says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// In a word.
    pub(super) reason: String,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn invalid(message: String) -> Self {
        Self {
            reason: "Invalid".to_owned(),
            message,
        }
    }

    pub(super) fn by_engine(error: &EngineError) -> Self {
        let reason = match error {
            EngineError::Invalid(_) => "Invalid",
            EngineError::NameTaken { .. } | EngineError::Held(_) => "NameTaken",
            EngineError::Unsupported(_) => "Unsupported",
            EngineError::Refused { .. } => "Guarded",
            EngineError::Exhausted(_) => "Exhausted",
            EngineError::NotFound(_) | EngineError::ShuttingDown | EngineError::Internal(_) => "Internal",
        };
        Self {
            reason: reason.to_owned(),
            message: error.to_string(),
        }
    }
}

/// The part's fields that every phase has.
fn blank(node: &str, resource: &Resource, phase: Phase) -> NodeStatus {
    NodeStatus {
        node: node.to_owned(),
        uid: resource.uid.clone(),
        phase,
        reason: None,
        message: String::new(),
        observed_generation: resource.generation,
        injected_at: resource.part(node).and_then(|part| part.injected_at),
        expires_at: None,
        targets: 0,
        injected: 0,
        packets: None,
    }
}

pub(super) fn refused(node: &str, resource: &Resource, refusal: &Refusal) -> NodeStatus {
    NodeStatus {
        reason: Some(refusal.reason.clone()),
        message: refusal.message.clone(),
        ..blank(node, resource, Phase::Refused)
    }
}

/// What this node knows of its own doing, beside what the engine shows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// When the fault was first in force here, or is to be once that is written.
    pub(super) injected: Option<SystemTime>,
    /// When it ends everywhere.
    pub(super) end: Option<SystemTime>,
    pub(super) packets: Option<Packets>,
}

pub(super) fn held(node: &str, resource: &Resource, view: &FaultView, known: Known) -> NodeStatus {
    let phase = match view.phase {
        handle::Phase::Pending => Phase::Pending,
        handle::Phase::Injected => Phase::Injected,
        handle::Phase::Partial => Phase::Partial,
        handle::Phase::Failed => Phase::Failed,
        handle::Phase::Expired | handle::Phase::Deleted => Phase::Expired,
    };
    let blank = blank(node, resource, phase);
    let begins = view.since.is_none() && known.injected.is_some();
    NodeStatus {
        message: if begins {
            "it comes into force now".to_owned()
        } else {
            view.message.clone()
        },
        injected_at: blank.injected_at.or(known.injected.map(Timestamp::new)),
        expires_at: known.end.map(Timestamp::new),
        targets: count(view.targets.len()),
        injected: count(in_force(view)),
        ..blank
    }
}

/// Of a fault whose time is over: what it was last, and what it did.
pub(super) fn over(node: &str, resource: &Resource, view: Option<&FaultView>, known: Known) -> NodeStatus {
    let before = resource.part(node);
    let blank = blank(node, resource, Phase::Expired);
    let targets = view.map(|view| count(view.targets.len()));
    NodeStatus {
        message: "its duration is over".to_owned(),
        injected_at: blank.injected_at.or(known.injected.map(Timestamp::new)),
        expires_at: known.end.map(Timestamp::new),
        targets: targets.or(before.map(|part| part.targets)).unwrap_or(0),
        packets: before.and_then(|part| part.packets).or(known.packets),
        ..blank
    }
}

/// On how many targets the fault is in force.
pub(super) fn in_force(view: &FaultView) -> usize {
    let phases = view.targets.iter().map(|target| &target.phase);
    phases.filter(|phase| **phase == TargetPhase::Injected).count()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The sums of a fault's counters.
pub(super) fn packets(ledgers: &[LedgerEntry]) -> Packets {
    let mut sum = handle::Ledger::default();
    for entry in ledgers {
        sum += entry.ledger;
    }
    Packets {
        matched: sum.matched.packets,
        dropped: sum.dropped.packets,
        delayed: sum.delayed.packets,
        rejected: sum.rejected.packets,
    }
}
