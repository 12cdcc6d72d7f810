//! What the engine knows of faults, as the API says it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sabot_core::model::FaultName;
use sabot_proto::convert::{metadata_to_proto, spec_to_proto, timestamp_to_proto};
use sabot_proto::sabot::v1;
use tonic::Status;

use crate::engine::handle::{
    FaultView, Ledger, LedgerDirection, LedgerEntry, Phase, Preview, Tally, TargetPhase, TargetView,
};
use crate::observe::clock::system_time;

/// Counters by fault.
pub(super) type Ledgers = BTreeMap<FaultName, Vec<v1::LedgerEntry>>;

/// Neither expired nor deleted.
pub(super) fn is_active(view: &FaultView) -> bool {
    !matches!(view.phase, Phase::Expired | Phase::Deleted)
}

pub(super) fn fault(view: &FaultView, ledgers: Vec<v1::LedgerEntry>) -> Result<v1::Fault, Status> {
    // An accepted spec converts; if one ever doesn't, saying so is better than half of it.
    let spec = spec_to_proto(&view.spec).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Status::internal(format!(
            "the spec of {} can't be expressed: {}",
            view.fault.name,
            errors.join("; ")
        ))
    })?;
    Ok(v1::Fault {
        metadata: Some(metadata_to_proto(&view.metadata)),
        spec: Some(spec),
        status: Some(v1::FaultStatus {
            phase: phase(view.phase).into(),
            message: view.message.clone(),
            created_at: Some(timestamp_to_proto(view.fault.created)),
            starts_at: view.since.map(|_| timestamp_to_proto(view.fault.starts)),
            expires_at: view.since.map(|_| timestamp_to_proto(view.fault.expires)),
            injected_at: view.injected.map(timestamp_to_proto),
            ended_at: view.ended.map(timestamp_to_proto),
            targets: view.targets.iter().map(target_status).collect(),
            ledgers,
            seed: Some(view.fault.seed),
            expected_loss: view.fault.expected_loss(),
            names: view.names.iter().map(learnt_name).collect(),
        }),
    })
}

pub(super) fn preview(preview: &Preview) -> v1::PreviewFaultResponse {
    v1::PreviewFaultResponse {
        starts_at: Some(timestamp_to_proto(preview.fault.starts)),
        expires_at: Some(timestamp_to_proto(preview.fault.expires)),
        targets: preview.targets.iter().map(target_status).collect(),
        peers: preview.peers.clone(),
        warnings: preview.warnings.clone(),
    }
}

pub(super) fn ledgers(entries: Vec<LedgerEntry>) -> Ledgers {
    let mut by_fault = Ledgers::new();
    for entry in entries {
        let converted = v1::LedgerEntry {
            target: Some(target_ref(&entry.target)),
            direction: match entry.direction {
                LedgerDirection::Egress => v1::Direction::Egress,
                LedgerDirection::Ingress => v1::Direction::Ingress,
            }
            .into(),
            ledger: Some(ledger(&entry.ledger)),
            first_match_at: entry
                .ledger
                .first_match
                .map(|at| timestamp_to_proto(system_time(at))),
        };
        by_fault.entry(entry.fault).or_default().push(converted);
    }
    by_fault
}

fn phase(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Pending => v1::Phase::Pending,
        Phase::Injected => v1::Phase::Injected,
        Phase::Partial => v1::Phase::Partial,
        Phase::Failed => v1::Phase::Failed,
        Phase::Expired => v1::Phase::Expired,
        Phase::Deleted => v1::Phase::Deleted,
    }
}

fn target_status(view: &TargetView) -> v1::TargetStatus {
    let (phase, reason) = match &view.phase {
        TargetPhase::Attaching => (v1::TargetPhase::Attaching, String::new()),
        TargetPhase::Injected => (v1::TargetPhase::Injected, String::new()),
        TargetPhase::Failed(reason) => (v1::TargetPhase::Failed, reason.clone()),
        TargetPhase::Refused(reason) => (v1::TargetPhase::Refused, reason.clone()),
    };
    v1::TargetStatus {
        target: Some(target_ref(view)),
        phase: phase.into(),
        reason,
    }
}

fn learnt_name((name, addresses): (&String, &BTreeSet<IpAddr>)) -> v1::LearntName {
    v1::LearntName {
        name: name.clone(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
    }
}

fn target_ref(view: &TargetView) -> v1::TargetRef {
    v1::TargetRef {
        pod_namespace: view.pod_namespace.clone(),
        pod_name: view.pod_name.clone(),
        device: view.device.clone(),
        ifindex: view.key.as_ref().map_or(0, |k| k.ifindex),
        netns: view.key.as_ref().map_or(0, |k| k.netns.ino),
    }
}

fn ledger(ledger: &Ledger) -> v1::Ledger {
    // Every field is named, so that a new one can't be forgotten here.
    let Ledger {
        matched,
        passed,
        dropped,
        bypassed,
        rejected,
        released,
        duplicated,
        replied,
        corrupted,
        delayed,
        held,
        lost_segmenter,
        lost_queue,
        lost_bound,
        lost_write,
        lost_late,
        // Beside the tallies, in the entry.
        first_match: _,
    } = *ledger;
    v1::Ledger {
        matched: tally(matched),
        passed: tally(passed),
        dropped: tally(dropped),
        bypassed: tally(bypassed),
        released: tally(released),
        corrupted: tally(corrupted),
        delayed: tally(delayed),
        held: tally(held),
        lost_segmenter: tally(lost_segmenter),
        lost_queue: tally(lost_queue),
        lost_bound: tally(lost_bound),
        lost_write: tally(lost_write),
        lost_late: tally(lost_late),
        duplicated: tally(duplicated),
        rejected: tally(rejected),
        replied: tally(replied),
    }
}

fn tally(tally: Tally) -> Option<v1::Tally> {
    Some(v1::Tally {
        packets: tally.packets,
        bytes: tally.bytes,
    })
}
