//! When faults end, why, and what they counted.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use sabot_core::model::FaultName;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::AuditLog;
use crate::engine::handle::{FaultView, Handle, Ledger, Phase, Tally};

/// Packets may still be under way when a fault ends; then its counters stand still.
const SETTLE: Duration = Duration::from_millis(250);
/// For the last lines when the daemon ends.
const CLOSING: Duration = Duration::from_secs(2);

/// A fault's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ending {
    fault: String,
    reason: &'static str,
    created: String,
    /// When it was in force on all its targets; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    injected: Option<String>,
    ended: String,
    /// Over all targets and both directions.
    counters: BTreeMap<&'static str, Count>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Count {
    packets: u64,
    bytes: u64,
}

impl From<Tally> for Count {
    fn from(tally: Tally) -> Self {
        Self {
            packets: tally.packets,
            bytes: tally.bytes,
        }
    }
}

/// Follows the faults and notes their ends.
#[derive(Debug)]
pub struct Endings {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Endings {
    /// Begins; `None` where there is no log.
    pub fn follow(log: &AuditLog, engine: Handle) -> Option<Self> {
        if !log.is_open() {
            return None;
        }
        let (stop, stopped) = oneshot::channel();
        let follower = Follower {
            log: log.clone(),
            engine,
            told: BTreeMap::new(),
        };
        Some(Self {
            stop,
            task: tokio::spawn(follower.run(stopped)),
        })
    }

    /// Notes the ends of the faults that the daemon's end will end, while their counters can still be read.
    pub async fn close(self) {
        // Without a receiver the task is over.
        let _ = self.stop.send(());
        if tokio::time::timeout(CLOSING, self.task).await.is_err() {
            tracing::warn!("the audit log has not all of the last faults' ends");
        }
    }
}

struct Follower {
    log: AuditLog,
    engine: Handle,
    /// The ends that were noted, of faults that are still listed.
    told: BTreeMap<FaultName, SystemTime>,
}

impl Follower {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut snapshots = self.engine.watch();
        loop {
            let is_over = tokio::select! {
                changed = snapshots.changed() => changed.is_err(),
                _ = &mut stopped => true,
            };
            if is_over {
                break;
            }
            if !self.fresh().is_empty() {
                tokio::time::sleep(SETTLE).await;
                self.note_ended().await;
            }
        }
        self.note_ended().await;
        let snapshot = self.engine.snapshot();
        let active = snapshot.faults.values().filter(|fault| fault.ended.is_none());
        for fault in active {
            self.note(fault, SystemTime::now(), "the daemon ended").await;
        }
    }

    /// The faults that have ended and aren't noted yet.
    fn fresh(&self) -> Vec<(FaultView, SystemTime)> {
        let snapshot = self.engine.snapshot();
        snapshot
            .faults
            .iter()
            .filter_map(|(name, fault)| Some((name, fault, fault.ended?)))
            .filter(|(name, _, ended)| self.told.get(*name) != Some(ended))
            .map(|(_, fault, ended)| (fault.clone(), ended))
            .collect()
    }

    async fn note_ended(&mut self) {
        for (fault, ended) in self.fresh() {
            let reason = match fault.phase {
                Phase::Expired => "expired",
                _ => "deleted",
            };
            self.note(&fault, ended, reason).await;
            self.told.insert(fault.fault.name.clone(), ended);
        }
        let snapshot = self.engine.snapshot();
        self.told.retain(|name, _| snapshot.faults.contains_key(name));
    }

    async fn note(&self, fault: &FaultView, ended: SystemTime, reason: &'static str) {
        let name = &fault.fault.name;
        let mut sum = Ledger::default();
        // A fault that is forgotten already has no counters any more, and then none are told.
        let entries = self.engine.ledgers(Some(name.clone())).await;
        let is_known = entries.is_ok();
        for entry in entries.into_iter().flatten() {
            sum += entry.ledger;
        }
        let text = |time| humantime::format_rfc3339_millis(time).to_string();
        self.log.ended(&Ending {
            fault: name.to_string(),
            reason,
            created: text(fault.fault.created),
            injected: fault.injected.map(text),
            ended: text(ended),
            counters: if is_known { counters(&sum) } else { BTreeMap::new() },
        });
    }
}

fn counters(sum: &Ledger) -> BTreeMap<&'static str, Count> {
    [
        ("matched", sum.matched),
        ("passed", sum.passed),
        ("dropped", sum.dropped),
        ("bypassed", sum.bypassed),
        ("rejected", sum.rejected),
        ("released", sum.released),
        ("duplicated", sum.duplicated),
        ("corrupted", sum.corrupted),
        ("delayed", sum.delayed),
        ("lost", sum.lost()),
    ]
    .map(|(name, tally)| (name, tally.into()))
    .into()
}
