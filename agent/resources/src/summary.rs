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

/// A condition's type, whether it holds, and why, in a word and for people. The last is never empty: an API server was seen
/// to apply an empty text as none, and to refuse it.
type Aspect<'a> = (&'static str, bool, &'a str, String);

fn conditions(
    subject: Subject<'_>,
    nodes: &[NodeStatus],
    phase: Phase,
    before: &[Condition],
) -> Vec<Condition> {
    let condition = |(kind, holds, reason, message): Aspect<'_>| {
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
    aspects(nodes, phase).map(condition).into()
}

fn aspects(nodes: &[NodeStatus], phase: Phase) -> [Aspect<'_>; 4] {
    let refused = nodes.iter().find(|node| node.phase == Phase::Refused);
    let failed = nodes.iter().find(|node| node.phase == Phase::Failed);
    let refusal = refused
        .and_then(|node| node.reason.as_deref())
        .unwrap_or("Refused");
    let (accepted, why_accepted) = match phase {
        Phase::Refused if refused.is_some() => (false, refusal),
        _ => (true, "Valid"),
    };
    let no_refusal = || "no node refuses it".to_owned();
    let (over, over_said) = match phase {
        Phase::Expired => ("DurationOver", "its duration is over"),
        _ => ("DurationNotOver", "its duration isn't over"),
    };
    let failure = if failed.is_some() {
        "NodesFailed"
    } else {
        "NoNodeFailed"
    };
    let no_failure = || "it has failed on no node".to_owned();
    let is_over = phase == Phase::Expired;
    [
        (
            "Accepted",
            accepted,
            why_accepted,
            refused.map_or_else(no_refusal, told),
        ),
        (
            "Injected",
            phase == Phase::Injected,
            phase.name(),
            in_force(nodes),
        ),
        ("Expired", is_over, over, over_said.to_owned()),
        (
            "Failed",
            failed.is_some() && !is_over,
            failure,
            failed.map_or_else(no_failure, told),
        ),
    ]
}

fn in_force(nodes: &[NodeStatus]) -> String {
    let holds = |node: &&NodeStatus| matches!(node.phase, Phase::Injected | Phase::Partial);
    let holding = nodes.iter().filter(holds).count();
    let all = if nodes.len() == 1 { "node" } else { "nodes" };
    format!("in force on {holding} of {} {all}", nodes.len())
}

fn told(node: &NodeStatus) -> String {
    format!("{}: {}", node.node, node.message)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{Subject, summarize};
    use crate::status::{NodeStatus, Phase, Summary, Timestamp};

    #[test]
    fn every_condition_says_why() {
        let now = Timestamp::new(SystemTime::now());
        let subject = Subject {
            generation: Some(1),
            action: Some("drop"),
            expires: None,
            now,
        };
        for phase in [
            Phase::Pending,
            Phase::Injected,
            Phase::Failed,
            Phase::Refused,
            Phase::Expired,
        ] {
            let node: NodeStatus = serde_json::from_value(serde_json::json!({"node": "n1", "phase": phase}))
                .expect("a node's part");
            let summary = summarize(subject, &[node], &Summary::default());
            assert_eq!(summary.phase, Some(phase));
            for condition in summary.conditions {
                let said = [&condition.reason, &condition.message];
                assert!(
                    said.iter().all(|text| !text.is_empty()),
                    "{phase:?}: {condition:?}"
                );
            }
        }
    }
}
