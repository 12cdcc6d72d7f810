//! How long to wait before a failed operation is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use sabot_core::model::BootTime;
use sabot_core::plan::{Failure, Operation, Slot, TargetId};

use super::datapath::DatapathError;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// What an operation is about: attempts are counted for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Rule(Slot),
    Equipment(TargetId),
    List(TargetId),
}

/// Attempts that failed since the last success.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<Subject, u32>);

impl Retries {
    /// Takes note of a failure and says when to try again: after 100 ms, doubling to 5 s.
    pub(super) fn failed(&mut self, operation: &Operation, error: DatapathError, now: BootTime) -> Failure {
        let attempts = self.0.entry(subject(operation)).or_default();
        *attempts = attempts.saturating_add(1);
        let doubled = FIRST.saturating_mul(1 << (*attempts - 1).min(16));
        Failure {
            reason: error.reason,
            permanent: error.permanent,
            attempts: *attempts,
            retry_at: now.after(doubled.min(LONGEST)),
        }
    }

    /// Takes note of a success. Peers that were written don't count: a rule has succeeded when it is written or cleared.
    pub(super) fn succeeded(&mut self, operation: &Operation) {
        match operation {
            Operation::AddPeers { .. } | Operation::RemovePeers { .. } => {}
            Operation::Strip { target, .. } => {
                self.0.remove(&Subject::Equipment(*target));
                self.0.remove(&Subject::List(*target));
            }
            Operation::Claim { .. }
            | Operation::Equip { .. }
            | Operation::WriteRule { .. }
            | Operation::ClearRule { .. }
            | Operation::SetSlots { .. } => {
                self.0.remove(&subject(operation));
            }
        }
    }
}

fn subject(operation: &Operation) -> Subject {
    match operation {
        Operation::Claim { slot, .. } | Operation::WriteRule { slot, .. } | Operation::ClearRule { slot } => {
            Subject::Rule(*slot)
        }
        Operation::AddPeers { set, .. } | Operation::RemovePeers { set, .. } => Subject::Rule(set.slot()),
        Operation::Equip { target, .. } | Operation::Strip { target, .. } => Subject::Equipment(*target),
        Operation::SetSlots { target, .. } => Subject::List(*target),
    }
}
