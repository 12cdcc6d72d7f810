//! Faults and what they did to packets. A series goes when its fault goes from the engine's snapshot.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use prometheus_client::registry::Registry;
use sabot_core::model::FaultName;
use sabot_core::plan::Slot;

use super::family::{Count, Distribution, Family, Level};
use crate::delayline::{DELAY_BOUNDS, DelayHistogram};
use crate::engine::handle::{
    FaultView, Ledger, LedgerDirection, LedgerEntry, Phase, Snapshot, Tally, TargetPhase,
};
use crate::kernel::Injector;

const FAULT: [&str; 2] = ["namespace", "fault"];
const OUTCOME: [&str; 4] = ["namespace", "fault", "direction", "outcome"];
const DIRECTION: [&str; 3] = ["namespace", "fault", "direction"];

/// Knows the delays that were really added, by slot.
pub trait DelaySource: Send + Sync + 'static {
    fn histograms(&self) -> Vec<(Slot, DelayHistogram)>;
}

impl DelaySource for Injector {
    fn histograms(&self) -> Vec<(Slot, DelayHistogram)> {
        self.delay_histograms()
    }
}

/// What the snapshot alone tells.
pub(super) fn register_state(registry: &mut Registry, snapshot: &Snapshot) {
    let mut active = Family::new(
        "fault_active",
        "Whether the fault is in force on at least one target.",
        ["namespace", "fault", "action"],
    );
    let mut targets = Family::new("fault_targets", "Targets on which the fault is in force.", FAULT);
    let mut expiry = Family::new(
        "fault_expiry_timestamp_seconds",
        "When the fault ends by itself, in seconds since the epoch.",
        FAULT,
    );
    for (name, view) in &snapshot.faults {
        let labels = [name.namespace.as_str(), name.name.as_str()];
        let in_force = in_force(view);
        active.push(
            [labels[0], labels[1], view.fault.action.name()],
            Level(if in_force == 0 { 0.0 } else { 1.0 }),
        );
        targets.push(labels, Level(in_force as f64));
        // Without a begin there is no end.
        if view.since.is_some() {
            expiry.push(labels, Level(seconds(view.fault.expires)));
        }
    }
    active.register(registry);
    targets.register(registry);
    expiry.register(registry);
}

/// What the kernel and the delay line counted, summed over a fault's targets.
pub(super) fn register_ledgers(registry: &mut Registry, snapshot: &Snapshot, entries: &[LedgerEntry]) {
    let mut sums: BTreeMap<(&FaultName, &str), Ledger> = BTreeMap::new();
    for entry in entries
        .iter()
        .filter(|entry| snapshot.faults.contains_key(&entry.fault))
    {
        let direction = match entry.direction {
            LedgerDirection::Egress => "egress",
            LedgerDirection::Ingress => "ingress",
        };
        *sums.entry((&entry.fault, direction)).or_default() += entry.ledger;
    }
    let mut packets = Family::new(
        "fault_packets",
        "Wire packets that the fault matched, and what became of them.",
        OUTCOME,
    );
    let mut bytes = Family::new(
        "fault_bytes",
        "Bytes of the wire packets that the fault matched, and what became of them.",
        OUTCOME,
    );
    let mut held_packets = Family::new(
        "fault_held_packets",
        "Wire packets that the delay line or the departure queue holds now.",
        DIRECTION,
    );
    let mut held_bytes = Family::new(
        "fault_held_bytes",
        "Bytes of the wire packets that the delay line or the departure queue holds now.",
        DIRECTION,
    );
    for ((name, direction), ledger) in &sums {
        let labels = [name.namespace.as_str(), name.name.as_str(), direction];
        for (outcome, tally) in outcomes(ledger) {
            let labels = [labels[0], labels[1], labels[2], outcome];
            packets.push(labels, Count(tally.packets));
            bytes.push(labels, Count(tally.bytes));
        }
        held_packets.push(labels, Level(ledger.held.packets as f64));
        held_bytes.push(labels, Level(ledger.held.bytes as f64));
    }
    packets.register(registry);
    bytes.register(registry);
    held_packets.register(registry);
    held_bytes.register(registry);
}

/// The delays that delay faults really added.
pub(super) fn register_delays(
    registry: &mut Registry,
    snapshot: &Snapshot,
    delays: &[(Slot, DelayHistogram)],
) {
    let mut family = Family::new(
        "delay_seconds",
        "Delays that the fault really added to frames, from when the classifier sent one away to letting it go; a frame may be several wire packets.",
        FAULT,
    );
    // A slot that an ended fault had may be another one's by now.
    let owners: HashMap<Slot, &FaultName> = snapshot
        .faults
        .iter()
        .filter(|(_, view)| !matches!(view.phase, Phase::Expired | Phase::Deleted))
        .filter_map(|(name, view)| Some((view.slot?, name)))
        .collect();
    for (slot, delays) in delays {
        let Some(name) = owners.get(slot) else { continue };
        family.push(
            [name.namespace.as_str(), name.name.as_str()],
            Distribution {
                bounds: DELAY_BOUNDS.to_vec(),
                buckets: delays.buckets.to_vec(),
                sum: delays.sum,
            },
        );
    }
    family.register(registry);
}

fn in_force(view: &FaultView) -> usize {
    if !matches!(view.phase, Phase::Injected | Phase::Partial) {
        return 0;
    }
    view.targets
        .iter()
        .filter(|target| target.phase == TargetPhase::Injected)
        .count()
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

fn outcomes(ledger: &Ledger) -> [(&'static str, Tally); 15] {
    [
        ("matched", ledger.matched),
        ("passed", ledger.passed),
        ("dropped", ledger.dropped),
        ("bypassed", ledger.bypassed),
        ("rejected", ledger.rejected),
        ("released", ledger.released),
        ("duplicated", ledger.duplicated),
        ("replied", ledger.replied),
        ("corrupted", ledger.corrupted),
        ("delayed", ledger.delayed),
        ("lost_segmenter", ledger.lost_segmenter),
        ("lost_queue", ledger.lost_queue),
        ("lost_bound", ledger.lost_bound),
        ("lost_write", ledger.lost_write),
        ("lost_late", ledger.lost_late),
    ]
}
