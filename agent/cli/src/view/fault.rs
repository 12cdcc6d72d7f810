//! Faults: a manifest, and beside it the status.

use sabot_core::spec::{API_VERSION, FaultSpec, KIND, Metadata};
use sabot_proto::convert::spec_from_proto;
use sabot_proto::sabot::v1;
use serde::Serialize;

use super::{Time, metadata, not_understood, time};
use crate::error::CliError;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct FaultsDoc {
    pub(crate) faults: Vec<FaultDoc>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FaultDoc {
    api_version: &'static str,
    kind: &'static str,
    pub(crate) metadata: Metadata,
    pub(crate) spec: FaultSpec,
    pub(crate) status: StatusDoc,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusDoc {
    pub(crate) phase: Phase,
    pub(crate) message: String,
    pub(crate) created_at: Option<Time>,
    pub(crate) starts_at: Option<Time>,
    pub(crate) expires_at: Option<Time>,
    pub(crate) injected_at: Option<Time>,
    pub(crate) ended_at: Option<Time>,
    /// What every random choice follows from; absent from a daemon that doesn't say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// The share of packets that are lost in the long run, from 0 to 1, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expected_loss: Option<f64>,
    pub(crate) targets: Vec<TargetStatusDoc>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) names: Vec<NameDoc>,
    pub(crate) ledgers: Vec<LedgerEntryDoc>,
}

/// A `host` among the peers, with the addresses that the target's lookups have answered and that are still valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NameDoc {
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Phase {
    Unknown,
    Pending,
    Injected,
    Partial,
    Failed,
    Expired,
    Deleted,
}

impl Phase {
    pub(crate) fn is_ended(self) -> bool {
        matches!(self, Self::Expired | Self::Deleted)
    }
}

impl From<v1::Phase> for Phase {
    fn from(phase: v1::Phase) -> Self {
        match phase {
            v1::Phase::Unspecified => Self::Unknown,
            v1::Phase::Pending => Self::Pending,
            v1::Phase::Injected => Self::Injected,
            v1::Phase::Partial => Self::Partial,
            v1::Phase::Failed => Self::Failed,
            v1::Phase::Expired => Self::Expired,
            v1::Phase::Deleted => Self::Deleted,
        }
    }
}

/// Absent parts are those that the target doesn't have or that aren't known yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetRefDoc {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) pod_namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) pod_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) device: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) ifindex: u32,
    /// The namespace's inode.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) netns: u64,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TargetStatusDoc {
    #[serde(flatten)]
    pub(crate) target: TargetRefDoc,
    pub(crate) phase: TargetPhase,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum TargetPhase {
    Unknown,
    Attaching,
    Injected,
    Failed,
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LedgerEntryDoc {
    #[serde(flatten)]
    pub(crate) target: TargetRefDoc,
    pub(crate) direction: &'static str,
    #[serde(flatten)]
    pub(crate) ledger: LedgerDoc,
    /// When the first packet was matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_match_at: Option<Time>,
}

/// Wire packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// At quiescence `matched + duplicated = passed + dropped + bypassed + rejected + released + (all lost*)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LedgerDoc {
    pub(crate) matched: Tally,
    pub(crate) passed: Tally,
    pub(crate) dropped: Tally,
    pub(crate) bypassed: Tally,
    pub(crate) rejected: Tally,
    pub(crate) released: Tally,
    pub(crate) duplicated: Tally,
    pub(crate) replied: Tally,
    pub(crate) corrupted: Tally,
    pub(crate) delayed: Tally,
    pub(crate) held: Tally,
    pub(crate) lost_segmenter: Tally,
    pub(crate) lost_queue: Tally,
    pub(crate) lost_bound: Tally,
    pub(crate) lost_write: Tally,
    pub(crate) lost_late: Tally,
}

impl Tally {
    fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl LedgerDoc {
    /// Everywhere that packets got lost.
    pub(crate) fn lost(&self) -> Tally {
        [
            self.lost_segmenter,
            self.lost_queue,
            self.lost_bound,
            self.lost_write,
            self.lost_late,
        ]
        .into_iter()
        .fold(Tally::default(), Tally::plus)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            matched: self.matched.plus(other.matched),
            passed: self.passed.plus(other.passed),
            dropped: self.dropped.plus(other.dropped),
            bypassed: self.bypassed.plus(other.bypassed),
            rejected: self.rejected.plus(other.rejected),
            released: self.released.plus(other.released),
            duplicated: self.duplicated.plus(other.duplicated),
            replied: self.replied.plus(other.replied),
            corrupted: self.corrupted.plus(other.corrupted),
            delayed: self.delayed.plus(other.delayed),
            held: self.held.plus(other.held),
            lost_segmenter: self.lost_segmenter.plus(other.lost_segmenter),
            lost_queue: self.lost_queue.plus(other.lost_queue),
            lost_bound: self.lost_bound.plus(other.lost_bound),
            lost_write: self.lost_write.plus(other.lost_write),
            lost_late: self.lost_late.plus(other.lost_late),
        }
    }
}

impl StatusDoc {
    /// The counters of all targets in both directions.
    pub(crate) fn total(&self) -> LedgerDoc {
        self.ledgers
            .iter()
            .fold(LedgerDoc::default(), |sum, entry| sum.plus(entry.ledger))
    }

    pub(crate) fn injected_targets(&self) -> usize {
        let injected = self.targets.iter().filter(|t| t.phase == TargetPhase::Injected);
        injected.count()
    }
}

/// What a fault would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PreviewDoc {
    pub(crate) metadata: Metadata,
    pub(crate) spec: FaultSpec,
    pub(crate) starts_at: Option<Time>,
    pub(crate) expires_at: Option<Time>,
    pub(crate) targets: Vec<TargetStatusDoc>,
    /// Empty: every other end.
    pub(crate) peers: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

impl PreviewDoc {
    pub(crate) fn new(
        metadata: Metadata,
        spec: FaultSpec,
        preview: v1::PreviewFaultResponse,
    ) -> Result<Self, CliError> {
        Ok(Self {
            metadata,
            spec,
            starts_at: time("startsAt", preview.starts_at)?,
            expires_at: time("expiresAt", preview.expires_at)?,
            targets: preview.targets.into_iter().map(target_status).collect(),
            peers: preview.peers,
            warnings: preview.warnings,
        })
    }
}

/// One line of `watch -o json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct WatchDoc {
    pub(crate) change: ChangeDoc,
    /// Absent with `synced`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<FaultDoc>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChangeDoc {
    Unknown,
    Added,
    Modified,
    Deleted,
    Synced,
    Counters,
}

impl TryFrom<v1::WatchFaultsResponse> for WatchDoc {
    type Error = CliError;

    fn try_from(message: v1::WatchFaultsResponse) -> Result<Self, CliError> {
        let change = match message.change() {
            v1::Change::Unspecified => ChangeDoc::Unknown,
            v1::Change::Added => ChangeDoc::Added,
            v1::Change::Modified => ChangeDoc::Modified,
            v1::Change::Deleted => ChangeDoc::Deleted,
            v1::Change::Synced => ChangeDoc::Synced,
            v1::Change::Counters => ChangeDoc::Counters,
        };
        Ok(Self {
            change,
            fault: message.fault.map(FaultDoc::try_from).transpose()?,
        })
    }
}

impl TryFrom<v1::Fault> for FaultDoc {
    type Error = CliError;

    fn try_from(fault: v1::Fault) -> Result<Self, CliError> {
        let spec = spec_from_proto(fault.spec.unwrap_or_default()).map_err(|e| not_understood(&e))?;
        let status = fault.status.unwrap_or_default();
        Ok(Self {
            api_version: API_VERSION,
            kind: KIND,
            metadata: metadata(fault.metadata),
            spec,
            status: StatusDoc {
                phase: status.phase().into(),
                created_at: time("status.createdAt", status.created_at)?,
                starts_at: time("status.startsAt", status.starts_at)?,
                expires_at: time("status.expiresAt", status.expires_at)?,
                injected_at: time("status.injectedAt", status.injected_at)?,
                ended_at: time("status.endedAt", status.ended_at)?,
                message: status.message,
                seed: status.seed,
                expected_loss: status.expected_loss,
                names: status.names.into_iter().map(name).collect(),
                targets: status.targets.into_iter().map(target_status).collect(),
                ledgers: status
                    .ledgers
                    .into_iter()
                    .map(ledger_entry)
                    .collect::<Result<_, _>>()?,
            },
        })
    }
}

fn name(learnt: v1::LearntName) -> NameDoc {
    NameDoc {
        name: learnt.name,
        addresses: learnt.addresses,
    }
}

fn target_status(status: v1::TargetStatus) -> TargetStatusDoc {
    TargetStatusDoc {
        phase: match status.phase() {
            v1::TargetPhase::Unspecified => TargetPhase::Unknown,
            v1::TargetPhase::Attaching => TargetPhase::Attaching,
            v1::TargetPhase::Injected => TargetPhase::Injected,
            v1::TargetPhase::Failed => TargetPhase::Failed,
            v1::TargetPhase::Refused => TargetPhase::Refused,
        },
        target: target_ref(status.target.unwrap_or_default()),
        reason: status.reason,
    }
}

fn target_ref(target: v1::TargetRef) -> TargetRefDoc {
    TargetRefDoc {
        pod_namespace: target.pod_namespace,
        pod_name: target.pod_name,
        device: target.device,
        ifindex: target.ifindex,
        netns: target.netns,
    }
}

fn ledger_entry(entry: v1::LedgerEntry) -> Result<LedgerEntryDoc, CliError> {
    Ok(LedgerEntryDoc {
        first_match_at: time("status.ledgers.firstMatchAt", entry.first_match_at)?,
        direction: super::event::direction(entry.direction()),
        target: target_ref(entry.target.unwrap_or_default()),
        ledger: ledger(&entry.ledger.unwrap_or_default()),
    })
}

fn ledger(ledger: &v1::Ledger) -> LedgerDoc {
    LedgerDoc {
        matched: tally(ledger.matched),
        passed: tally(ledger.passed),
        dropped: tally(ledger.dropped),
        bypassed: tally(ledger.bypassed),
        rejected: tally(ledger.rejected),
        released: tally(ledger.released),
        duplicated: tally(ledger.duplicated),
        replied: tally(ledger.replied),
        corrupted: tally(ledger.corrupted),
        delayed: tally(ledger.delayed),
        held: tally(ledger.held),
        lost_segmenter: tally(ledger.lost_segmenter),
        lost_queue: tally(ledger.lost_queue),
        lost_bound: tally(ledger.lost_bound),
        lost_write: tally(ledger.lost_write),
        lost_late: tally(ledger.lost_late),
    }
}

fn tally(tally: Option<v1::Tally>) -> Tally {
    let tally = tally.unwrap_or_default();
    Tally {
        packets: tally.packets,
        bytes: tally.bytes,
    }
}
