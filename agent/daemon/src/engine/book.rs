//! The book of counters: which ones live in the kernel, and what remains of those that don't.
//!
//! Counters belong to a (slot, target). They outlive the target's membership for as long as packets may still be held for
//! it, are then read one last time, kept here and freed in the kernel. So a fault's totals never go backwards, whatever
//! happens to its targets, and a slot isn't given to another fault while a packet of the former one is on its way.

use std::collections::BTreeMap;
use std::time::Duration;

use sabot_core::model::{BootTime, FaultName};
use sabot_core::plan::{Slot, TargetId};

use super::datapath::Datapath;
use super::handle::{Ledger, LedgerDirection, LedgerEntry, TargetView};

/// How long packets are under way at least without being held by anything: the segmenter's queue, a CPU in the middle of one.
const SETTLE: Duration = Duration::from_millis(50);
/// How long packets may be held past their time, or be under way, before their counters are closed without them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Targets whose last counters are kept apart, for each fault; older ones are added up.
const KEPT_TARGETS: usize = 1024;

/// One life of a fault: a name that is used again after its end gets a new one, edits keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run(pub(super) u64);

/// A (slot, target) whose counters are in the kernel.
#[derive(Debug)]
struct Pair {
    run: Run,
    target: TargetView,
    /// The longest that the slot has held a packet on this target.
    holds: Duration,
    leaving: Option<Leaving>,
}

/// It is out of the target's list.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    settle_at: BootTime,
    give_up_at: BootTime,
}

/// The last counters of a target.
#[derive(Debug)]
struct Kept {
    target: TargetView,
    egress: Ledger,
    ingress: Ledger,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pairs: BTreeMap<(Slot, TargetId), Pair>,
    kept: BTreeMap<Run, Vec<Kept>>,
}

impl Book {
    /// The slot is in force on the target, with a rule that holds packets for at most `holds`.
    pub(super) fn enter(
        &mut self,
        slot: Slot,
        target: TargetId,
        run: Run,
        view: &TargetView,
        holds: Duration,
    ) {
        self.kept.entry(run).or_default();
        let pair = self.pairs.entry((slot, target)).or_insert_with(|| Pair {
            run,
            target: view.clone(),
            holds,
            leaving: None,
        });
        pair.holds = pair.holds.max(holds);
        pair.leaving = None;
        if pair.target != *view {
            pair.target = view.clone();
        }
    }

    /// The slot left the target's list.
    pub(super) fn leave(&mut self, slot: Slot, target: TargetId, now: BootTime) {
        if let Some(pair) = self.pairs.get_mut(&(slot, target)) {
            let settle_at = now.after(pair.holds + SETTLE);
            pair.leaving = Some(Leaving {
                settle_at,
                give_up_at: settle_at.after(PATIENCE),
            });
        }
    }

    /// Closes the counters of everything that has left and of which no packet is under way any more.
    pub(super) fn settle_due(&mut self, datapath: &dyn Datapath, now: BootTime) {
        let due: Vec<_> = self
            .pairs
            .iter()
            .filter(|(_, pair)| pair.leaving.is_some_and(|l| l.settle_at <= now))
            .map(|(key, _)| *key)
            .collect();
        for (slot, target) in due {
            // What waits in a device's queue is in no counter, and on a busy machine it waits for longer than one would think.
            // Were it counted after this, it would be in the account of the slot's next fault.
            let waits = !datapath.rests(slot, target);
            if let Some(leaving) = self
                .pairs
                .get_mut(&(slot, target))
                .and_then(|p| p.leaving.as_mut())
                && waits
                && now < leaving.give_up_at
            {
                leaving.settle_at = now.after(SETTLE);
            } else {
                self.settle(datapath, slot, target);
            }
        }
    }

    /// Closes all counters of a target, before its devices and with them their losses are gone.
    pub(super) fn settle_target(&mut self, datapath: &dyn Datapath, target: TargetId) {
        let slots: Vec<_> = self.pairs.keys().filter(|k| k.1 == target).map(|k| k.0).collect();
        for slot in slots {
            self.settle(datapath, slot, target);
        }
    }

    fn settle(&mut self, datapath: &dyn Datapath, slot: Slot, target: TargetId) {
        let Some(pair) = self.pairs.remove(&(slot, target)) else {
            return;
        };
        let [egress, ingress] = datapath.close(slot, target).map(closed);
        let last = Kept {
            target: pair.target,
            egress,
            ingress,
        };
        if let Some(kept) = self.kept.get_mut(&pair.run) {
            keep(kept, last);
        }
    }

    /// When counters are to be closed next.
    pub(super) fn wake_at(&self) -> Option<BootTime> {
        self.pairs
            .values()
            .filter_map(|pair| pair.leaving.map(|l| l.settle_at))
            .min()
    }

    /// Slots that other faults may not have yet, and until when at least.
    pub(super) fn leaving(&self) -> impl Iterator<Item = (Slot, BootTime)> {
        self.pairs
            .iter()
            .filter_map(|((slot, _), pair)| pair.leaving.map(|leaving| (*slot, leaving.settle_at)))
    }

    /// The counters of a fault by target: what was kept, plus what the kernel has now.
    pub(super) fn entries(&self, datapath: &dyn Datapath, run: Run, fault: &FaultName) -> Vec<LedgerEntry> {
        let mut sums: Vec<Kept> = Vec::new();
        for kept in self.kept.get(&run).into_iter().flatten() {
            merge(&mut sums, kept.target.clone(), kept.egress, kept.ingress);
        }
        for ((slot, target), pair) in self.pairs.iter().filter(|(_, p)| p.run == run) {
            let egress = datapath.ledger(*slot, *target, LedgerDirection::Egress);
            let ingress = datapath.ledger(*slot, *target, LedgerDirection::Ingress);
            merge(&mut sums, pair.target.clone(), egress, ingress);
        }
        sums.into_iter()
            .flat_map(|sum| {
                [
                    (LedgerDirection::Egress, sum.egress),
                    (LedgerDirection::Ingress, sum.ingress),
                ]
                .map(|(direction, ledger)| LedgerEntry {
                    fault: fault.clone(),
                    target: sum.target.clone(),
                    direction,
                    ledger,
                })
            })
            .collect()
    }

    /// Forgets what was kept of a fault that isn't listed any more.
    pub(super) fn discard(&mut self, run: Run) {
        self.kept.remove(&run);
    }
}

/// What is held still doesn't go on any more as far as these counters are concerned: its device goes, or it waits for ever.
fn closed(mut ledger: Ledger) -> Ledger {
    ledger.lost_write += std::mem::take(&mut ledger.held);
    ledger
}

fn keep(kept: &mut Vec<Kept>, last: Kept) {
    merge(kept, last.target, last.egress, last.ingress);
    if kept.len() > KEPT_TARGETS {
        let oldest = kept.remove(1);
        let sum = &mut kept[0];
        sum.egress += oldest.egress;
        sum.ingress += oldest.ingress;
        sum.target.key = None;
        sum.target.id = None;
        sum.target.pod_name.clear();
        sum.target.device.clear();
    }
}

fn merge(into: &mut Vec<Kept>, target: TargetView, egress: Ledger, ingress: Ledger) {
    match into.iter_mut().find(|k| k.target.key == target.key) {
        Some(known) => {
            known.target = target;
            known.egress += egress;
            known.ingress += ingress;
        }
        None => into.push(Kept {
            target,
            egress,
            ingress,
        }),
    }
}
