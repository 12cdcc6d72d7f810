//! What the nodes' parts of a status come to.

use crate::status::{Condition, NodeStatus, Phase, Summary, Timestamp};

/// What the sum is about, beside the nodes' parts.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub generation: Option<i64>,
    /// The action's name, where the spec has one.
    pub action: Option<&'a str>,
    /// When the fault ends, where that is fixed.
    pub expires: Option<Timestamp>,
    pub now: Timestamp,
}

/// Sums the nodes' parts up; a condition that is what it was keeps the time since when.
pub fn summarize(subject: Subject<'_>, nodes: &[NodeStatus], before: &Summary) -> Summary {
    let phase = phase(subject, nodes);
    Summary {
        phase: Some(phase),
        action: subject.action.map(str::to_owned),
        targets: Some(nodes.iter().map(|node| node.targets).fold(0, u32::saturating_add)),
        expires_at: subject.expires,
        conditions: conditions(subject, nodes, phase, &before.conditions),
    }
}

fn phase(subject: Subject<'_>, nodes: &[NodeStatus]) -> Phase {
    let any = |phase: Phase| nodes.iter().any(|node| node.phase == phase);
    if subject.expires.is_some_and(|end| end <= subject.now) {
        return Phase::Expired;
    }
    let in_force = any(Phase::Injected) || any(Phase::Partial);
    // A node that waits for its first target is no reason to call the fault anything else.
    let lacking = any(Phase::Partial) || any(Phase::Failed) || any(Phase::Refused);
    match (in_force, lacking) {
        (true, false) => Phase::Injected,
        (true, true) => Phase::Partial,
        (false, _) if any(Phase::Failed) => Phase::Failed,
        (false, _) if any(Phase::Pending) => Phase::Pending,
        (false, _) if any(Phase::Refused) => Phase::Refused,
        (false, _) if any(Phase::Expired) => Phase::Expired,
        (false, _) => Phase::Pending,
    }
}

fn conditions(
    subject: Subject<'_>,
    nodes: &[NodeStatus],
    phase: Phase,
    before: &[Condition],
) -> Vec<Condition> {
    let refused = nodes.iter().find(|node| node.phase == Phase::Refused);
    let failed = nodes.iter().find(|node| node.phase == Phase::Failed);
    let accepted = refused.is_none() || phase != Phase::Refused;
    let refusal = refused
        .and_then(|node| node.reason.as_deref())
        .unwrap_or("Refused");
    let by_nodes = |what: &str| {
        let count = |phases: &[Phase]| nodes.iter().filter(|node| phases.contains(&node.phase)).count();
        let holding = count(&[Phase::Injected, Phase::Partial]);
        let all = if nodes.len() == 1 { "node" } else { "nodes" };
        format!("{what} {holding} of {} {all}", nodes.len())
    };
    let chosen = |holds: bool, yes: &'static str, no: &'static str| if holds { yes } else { no };
    let expired = phase == Phase::Expired;
    let acceptance = refused.map_or_else(|| "no node refuses it".to_owned(), told);
    let failure = failed.map_or_else(String::new, told);
    let failing = chosen(failed.is_some(), "NodesFailed", "NoNodeFailed");
    let over = chosen(expired, "DurationOver", "DurationNotOver");
    let in_force = by_nodes("in force on");
    let parts = [
        (
            "Accepted",
            accepted,
            if accepted { "Valid" } else { refusal },
            acceptance,
        ),
        ("Injected", phase == Phase::Injected, phase.name(), in_force),
        ("Expired", expired, over, String::new()),
        ("Failed", failed.is_some() && !expired, failing, failure),
    ];
    let condition = |(kind, holds, reason, message): (&str, bool, &str, String)| {
        let status = if holds { "True" } else { "False" };
        let known = before
            .iter()
            .find(|known| known.kind == kind && known.status == status);
        Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: known.map_or(subject.now, |known| known.last_transition_time),
            observed_generation: subject.generation,
        }
    };
    parts.map(condition).into()
}

fn told(node: &NodeStatus) -> String {
    format!("{}: {}", node.node, node.message)
}
