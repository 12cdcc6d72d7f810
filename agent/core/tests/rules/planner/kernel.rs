//! A strict stand-in for the kernel: it panics at an operation that refers to what isn't there, or comes too early.

use std::collections::BTreeMap;

use ipnet::IpNet;
use sabot_core::model::{BootTime, FaultName, TargetKey};
use sabot_core::plan::{Equipment, Operation, PeerPort, PeerSetId, RuleBody, Slot, TargetId};
use sabot_core::planner::SLOT_REST;
use sabot_core::resolve::rule_equipment;

/// Whether each is excepted; ports of an address stand beside the address itself.
pub(crate) type PeerSet = BTreeMap<(IpNet, Option<PeerPort>), bool>;

#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) key: TargetKey,
    pub(crate) equipment: Equipment,
    pub(crate) slots: Vec<Slot>,
    /// A worker is on it.
    pub(crate) in_flight: Option<Operation>,
}

#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) owners: BTreeMap<Slot, FaultName>,
    pub(crate) rules: BTreeMap<Slot, RuleBody>,
    pub(crate) peers: BTreeMap<PeerSetId, PeerSet>,
    pub(crate) targets: BTreeMap<TargetId, Attached>,
    cleared: BTreeMap<Slot, BootTime>,
}

impl Kernel {
    pub(crate) fn begin(&mut self, operation: &Operation) {
        match operation {
            Operation::Equip { target, device, .. } => {
                let attached = self.targets.entry(*target).or_insert_with(|| Attached {
                    key: device.key.clone(),
                    equipment: Equipment::default(),
                    slots: Vec::new(),
                    in_flight: None,
                });
                assert_eq!(attached.key, device.key, "{target:?} belongs to another device");
                assert!(
                    attached.in_flight.is_none(),
                    "{target:?} has a worker: {operation:?}"
                );
                attached.in_flight = Some(operation.clone());
            }
            Operation::Strip { target, key } => {
                let attached = self
                    .targets
                    .get_mut(target)
                    .expect("only known targets are stripped");
                assert_eq!(attached.key, *key);
                assert!(
                    attached.in_flight.is_none(),
                    "{target:?} has a worker: {operation:?}"
                );
                assert!(
                    attached.slots.is_empty(),
                    "{target:?} is stripped while slots are in force on it"
                );
                attached.in_flight = Some(operation.clone());
            }
            other => panic!("{other:?} is not slow"),
        }
    }

    /// A worker ended.
    pub(crate) fn finish(&mut self, target: TargetId, success: bool) {
        let attached = self.targets.get_mut(&target).expect("a target in flight");
        match attached.in_flight.take().expect("a worker") {
            Operation::Equip { equipment, .. } if success => {
                attached.equipment = attached.equipment.union(equipment);
            }
            Operation::Strip { .. } if success => {
                self.targets.remove(&target);
            }
            _ => {}
        }
    }

    pub(crate) fn run(&mut self, operation: &Operation, now: BootTime) {
        match operation {
            Operation::Claim { slot, fault } => {
                assert!(!self.owners.contains_key(slot), "{slot:?} is claimed twice");
                if let Some(cleared) = self.cleared.get(slot) {
                    assert!(now >= cleared.after(SLOT_REST), "{slot:?} had no rest");
                }
                for set in [slot.peer_set(), slot.peer_set().other()] {
                    assert!(!self.peers.contains_key(&set), "{set:?} of a free slot has peers");
                }
                self.owners.insert(*slot, fault.clone());
            }
            Operation::AddPeers { set, entries } => {
                assert!(
                    self.owners.contains_key(&set.slot()),
                    "{set:?} belongs to no fault"
                );
                assert!(!entries.is_empty());
                let peers = self.peers.entry(*set).or_default();
                for entry in entries {
                    assert!(entry.only.is_none() || entry.is_exact() && !entry.excepted);
                    peers.insert((entry.net, entry.only), entry.excepted);
                }
            }
            Operation::RemovePeers { set, entries } => {
                assert!(!entries.is_empty());
                if let Some(peers) = self.peers.get_mut(set) {
                    for entry in entries {
                        peers.remove(&(entry.net, entry.only));
                    }
                }
                self.peers.retain(|_, peers| !peers.is_empty());
            }
            Operation::WriteRule { slot, rule } => self.write_rule(*slot, rule),
            Operation::ClearRule { slot } => {
                assert!(self.owners.remove(slot).is_some(), "{slot:?} belongs to no fault");
                let listed = self.targets.values().any(|target| target.slots.contains(slot));
                assert!(!listed, "{slot:?} is cleared while a target lists it");
                self.rules.remove(slot);
                self.cleared.insert(*slot, now);
            }
            Operation::SetSlots { target, slots } => {
                let attached = self
                    .targets
                    .get_mut(target)
                    .expect("only known targets have slots");
                assert!(
                    !matches!(attached.in_flight, Some(Operation::Strip { .. })),
                    "{target:?} is being stripped"
                );
                assert_ne!(attached.slots, *slots, "nothing changes");
                for slot in slots {
                    let rule = self
                        .rules
                        .get(slot)
                        .expect("a slot is listed after its rule is written");
                    let need = rule_equipment(rule);
                    assert!(
                        attached.equipment.contains(need),
                        "{target:?} lacks what {slot:?} needs"
                    );
                }
                attached.slots.clone_from(slots);
            }
            slow => panic!("{slow:?} is slow"),
        }
    }

    fn write_rule(&mut self, slot: Slot, rule: &RuleBody) {
        assert!(self.owners.contains_key(&slot), "{slot:?} belongs to no fault");
        if let Some(set) = rule.peers {
            assert_eq!(set.slot(), slot, "a peer set of another slot");
            let full = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
            let present = self.peers.get(&set);
            let has =
                |exact: bool| present.is_some_and(|peers| peers.keys().any(|(net, _)| full(net) == exact));
            assert!(
                !rule.peers_exact || has(true),
                "{slot:?} is written before its addresses"
            );
            assert!(
                !rule.peers_prefix || has(false),
                "{slot:?} is written before its networks"
            );
        }
        let need = rule_equipment(rule);
        for target in self
            .targets
            .values()
            .filter(|target| target.slots.contains(&slot))
        {
            assert!(
                target.equipment.contains(need),
                "{slot:?} is rewritten to what {:?} lacks",
                target.key
            );
        }
        self.rules.insert(slot, rule.clone());
    }
}
