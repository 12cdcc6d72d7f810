//! A daemon's life in small: faults and pods come and go, workers are slow and fail, time passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sabot_core::model::{BootTime, Fault, FaultName, Peer, TargetDevice, TargetKey, World};
use sabot_core::plan::{Failure, Observed, Operation, Policy, Slot, TargetId};
use sabot_core::{Plan, Planner, equipment, peer_entries, plan};

use super::kernel::Kernel;
use crate::fixtures::SECOND;

pub(crate) const POLICY: Policy = Policy {
    keep_warm: Duration::from_secs(5),
    attach_eagerly: false,
    max_slots: 64,
    max_targets: 64,
    max_slots_per_target: 16,
};

pub(crate) struct Simulation {
    pub(crate) faults: BTreeMap<FaultName, Arc<Fault>>,
    pub(crate) world: World,
    pub(crate) observed: Observed,
    pub(crate) kernel: Kernel,
    pub(crate) policy: Policy,
    pub(crate) now: BootTime,
    /// Operations that were applied, in order, since it was last emptied.
    pub(crate) log: Vec<Operation>,
    /// Devices on which a delay line can't be made.
    pub(crate) lineless: BTreeSet<TargetKey>,
    /// This many quick operations are to fail.
    pub(crate) fail_quick: u32,
    /// Faults that have had targets since they began.
    had_targets: BTreeSet<FaultName>,
    planner: Planner,
    /// The world that the planner knows.
    planned_for: World,
}

impl Simulation {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            faults: BTreeMap::new(),
            world: World::default(),
            observed: Observed::default(),
            kernel: Kernel::default(),
            policy,
            now: BootTime(100 * SECOND),
            log: Vec::new(),
            lineless: BTreeSet::new(),
            fail_quick: 0,
            had_targets: BTreeSet::new(),
            planner: Planner::default(),
            planned_for: World::default(),
        }
    }

    pub(crate) fn apply(&mut self, fault: Fault) {
        self.faults.insert(fault.name.clone(), Arc::new(fault));
    }

    pub(crate) fn plan(&mut self) -> Plan {
        self.plan_at(self.now)
    }

    fn plan_at(&mut self, now: BootTime) -> Plan {
        if self.planned_for != self.world {
            self.planned_for = self.world.clone();
            self.planner.world_changed();
        }
        let remembering = self
            .planner
            .plan(&self.faults, &self.world, &self.observed, &self.policy, now);
        let fresh = plan(&self.faults, &self.world, &self.observed, &self.policy, now);
        assert_eq!(remembering, fresh, "a plan must not depend on the ones before it");
        fresh
    }

    /// Plans and applies until nothing is left to do now; workers stay busy. Returns the last, empty plan.
    pub(crate) fn converge(&mut self) -> Plan {
        self.note_targets();
        for _ in 0..64 {
            let plan = self.plan();
            if plan.operations.is_empty() {
                self.forget_targets();
                self.check_alarm(&plan);
                return plan;
            }
            for operation in &plan.operations {
                if !self.execute(operation) {
                    break;
                }
            }
        }
        panic!("it never settles; the next plan is {:#?}", self.plan());
    }

    fn note_targets(&mut self) {
        let live = self
            .faults
            .iter()
            .filter(|(_, fault)| self.now < fault.expires_at);
        let with_targets = live.filter(|(_, fault)| devices_possible(fault, &self.world).next().is_some());
        self.had_targets
            .extend(with_targets.map(|(name, _)| name.clone()));
    }

    /// One that has ended begins anew once its slot is cleared.
    fn forget_targets(&mut self) {
        let owners: BTreeSet<&FaultName> = self.kernel.owners.values().collect();
        let is_live = |name: &FaultName| (self.faults.get(name)).is_some_and(|f| self.now < f.expires_at);
        self.had_targets
            .retain(|name| owners.contains(name) || is_live(name));
    }

    /// Returns whether the rest of the plan is still valid.
    fn execute(&mut self, operation: &Operation) -> bool {
        self.log.push(operation.clone());
        if matches!(operation, Operation::Equip { .. } | Operation::Strip { .. }) {
            self.kernel.begin(operation);
            self.observed.begin(operation);
            return true;
        }
        if self.fail_quick > 0 && !matches!(operation, Operation::Claim { .. }) {
            self.fail_quick -= 1;
            self.half_do(operation);
            self.observed.apply(operation, Err(self.failure(false)), self.now);
            return false;
        }
        self.kernel.run(operation, self.now);
        self.observed.apply(operation, Ok(()), self.now);
        true
    }

    /// What fails may have done a part of its work.
    fn half_do(&mut self, operation: &Operation) {
        let half = match operation {
            Operation::AddPeers { set, entries } if entries.len() > 1 => Operation::AddPeers {
                set: *set,
                entries: entries[..entries.len() / 2].to_vec(),
            },
            Operation::RemovePeers { set, entries } if entries.len() > 1 => Operation::RemovePeers {
                set: *set,
                entries: entries[..entries.len() / 2].to_vec(),
            },
            _ => return,
        };
        self.kernel.run(&half, self.now);
    }

    fn failure(&self, permanent: bool) -> Failure {
        Failure {
            reason: "the test wants it".to_owned(),
            permanent,
            attempts: 1,
            retry_at: self.now.after(Duration::from_millis(500)),
        }
    }

    pub(crate) fn in_flight(&self) -> Vec<TargetId> {
        let busy = self
            .kernel
            .targets
            .iter()
            .filter(|(_, target)| target.in_flight.is_some());
        busy.map(|(id, _)| *id).collect()
    }

    /// Ends a worker. What can't be done fails for good, whatever is asked for.
    pub(crate) fn finish(&mut self, target: TargetId, success: bool) {
        let attached = &self.kernel.targets[&target];
        let operation = attached.in_flight.clone().expect("a worker");
        let impossible = matches!(&operation, Operation::Equip { equipment, .. } if equipment.line)
            && self.lineless.contains(&attached.key);
        let outcome = if impossible {
            Err(self.failure(true))
        } else if success {
            Ok(())
        } else {
            Err(self.failure(false))
        };
        self.kernel.finish(target, outcome.is_ok());
        self.observed.apply(&operation, outcome, self.now);
    }

    pub(crate) fn finish_all(&mut self) {
        for target in self.in_flight() {
            self.finish(target, true);
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Lets workers end and time pass until nothing but a keep-warm end or an expiry is ahead.
    pub(crate) fn quiesce(&mut self) {
        self.fail_quick = 0;
        for _ in 0..12 {
            self.converge();
            self.finish_all();
            self.pass(Duration::from_millis(600));
        }
        for _ in 0..12 {
            self.converge();
            if self.in_flight().is_empty() {
                return;
            }
            self.finish_all();
        }
        panic!("workers never come to rest");
    }

    /// Before the alarm rings nothing changes by itself.
    fn check_alarm(&mut self, plan: &Plan) {
        let last_quiet = match plan.wake_at {
            Some(at) => {
                assert!(at > self.now, "an alarm for the past");
                BootTime(at.0 - 1)
            }
            None => self.now.after(Duration::from_secs(100_000)),
        };
        let later = self.plan_at(last_quiet);
        assert_eq!(
            later.operations,
            Vec::new(),
            "the alarm at {:?} is too late",
            plan.wake_at
        );
    }

    /// Compares what the kernel holds with what an independent reading of the faults says, at quiescence and with
    /// tables that are large enough.
    pub(crate) fn check_desired(&self) {
        let live: BTreeMap<&FaultName, &Arc<Fault>> = self
            .faults
            .iter()
            .filter(|(name, fault)| self.now < fault.expires_at && self.had_targets.contains(*name))
            .collect();
        let owners: BTreeMap<&FaultName, Slot> = self
            .kernel
            .owners
            .iter()
            .map(|(slot, name)| (name, *slot))
            .collect();
        assert_eq!(
            owners.keys().copied().collect::<Vec<_>>(),
            live.keys().copied().collect::<Vec<_>>(),
            "faults with a slot: those that have had targets"
        );
        assert_eq!(self.kernel.rules.len(), live.len(), "one rule for each fault");
        for (name, fault) in &live {
            self.check_rule(owners[name], fault);
        }
        self.check_targets(&live, &owners);
        self.check_observed();
    }

    /// What is believed of the kernel is what is in it.
    fn check_observed(&self) {
        let rules: BTreeMap<Slot, _> = (self.observed.rules.iter())
            .filter_map(|(slot, rule)| Some((*slot, rule.rule.clone()?)))
            .collect();
        assert_eq!(rules, self.kernel.rules);
        for (slot, rule) in &self.observed.rules {
            assert_eq!(self.kernel.owners.get(slot), Some(&rule.fault));
            assert!(
                rule.doubtful.is_empty() && rule.spare.is_empty(),
                "{slot:?} has leftovers"
            );
            let believed: BTreeMap<_, _> = rule
                .peers
                .iter()
                .map(|entry| ((entry.net, entry.only), entry.excepted))
                .collect();
            assert_eq!(
                believed,
                self.kernel.peers.get(&rule.peer_set).cloned().unwrap_or_default()
            );
        }
        let believed = self
            .observed
            .targets
            .values()
            .map(|t| (t.id, (&t.device.key, t.equipment, &t.slots)));
        let present = self
            .kernel
            .targets
            .iter()
            .map(|(id, t)| (*id, (&t.key, t.equipment, &t.slots)));
        assert_eq!(
            believed.collect::<BTreeMap<_, _>>(),
            present.collect::<BTreeMap<_, _>>()
        );
    }

    fn check_rule(&self, slot: Slot, fault: &Fault) {
        let rule = &self.kernel.rules[&slot];
        assert_eq!((&rule.action, rule.direction), (&fault.action, fault.direction));
        assert_eq!(
            (rule.starts_at, rule.expires_at),
            (fault.starts_at, fault.expires_at)
        );
        assert_eq!((&rule.ports, rule.packets), (&fault.ports, fault.packets));
        assert_eq!(
            (rule.pulse, rule.ramp, rule.seed),
            (fault.pulse, fault.ramp, fault.seed)
        );
        let has_names = fault.peers.iter().any(|peer| matches!(peer, Peer::Host(_)));
        assert_eq!(rule.watches_dns, has_names);
        assert_eq!(rule.peers.is_some(), !fault.peers.is_empty());
        let wanted: BTreeMap<_, _> = peer_entries(fault, &self.world)
            .into_iter()
            .map(|entry| ((entry.net, entry.only), entry.excepted))
            .collect();
        let full = |net: &ipnet::IpNet| net.prefix_len() == net.max_prefix_len();
        assert_eq!(rule.peers_exact, wanted.keys().any(|(net, _)| full(net)));
        assert_eq!(rule.peers_prefix, wanted.keys().any(|(net, _)| !full(net)));
        for set in [slot.peer_set(), slot.peer_set().other()] {
            let present = self.kernel.peers.get(&set).cloned().unwrap_or_default();
            let expected = if rule.peers == Some(set) {
                wanted.clone()
            } else {
                BTreeMap::new()
            };
            assert_eq!(present, expected, "{set:?} of {}", fault.name);
        }
    }

    fn check_targets(&self, live: &BTreeMap<&FaultName, &Arc<Fault>>, owners: &BTreeMap<&FaultName, Slot>) {
        let mut expected: BTreeMap<TargetKey, Vec<(u8, Slot)>> = BTreeMap::new();
        for (name, fault) in live {
            for device in devices_possible(fault, &self.world) {
                let refused = equipment(fault).line && self.lineless.contains(&device.key);
                if !refused {
                    let order = [
                        "partition",
                        "reject",
                        "reset",
                        "drop",
                        "corrupt",
                        "duplicate",
                        "rate_limit",
                        "delay",
                        "reorder",
                    ];
                    let rank = order
                        .iter()
                        .position(|n| *n == fault.action.name())
                        .expect("a known action");
                    expected
                        .entry(device.key.clone())
                        .or_default()
                        .push((rank as u8, owners[name]));
                }
            }
        }
        let mut listed = BTreeMap::new();
        for target in self
            .kernel
            .targets
            .values()
            .filter(|target| !target.slots.is_empty())
        {
            listed.insert(target.key.clone(), target.slots.clone());
        }
        let expected: BTreeMap<TargetKey, Vec<Slot>> = expected
            .into_iter()
            .map(|(key, mut ranked)| {
                ranked.sort_unstable();
                (key, ranked.into_iter().map(|(_, slot)| slot).collect())
            })
            .collect();
        assert_eq!(listed, expected, "slots in force");
    }
}

/// Those of the devices that a fault means on which it may be tried.
fn devices_possible<'a>(fault: &Fault, world: &'a World) -> impl Iterator<Item = &'a TargetDevice> {
    let need = equipment(fault);
    let aside = need.line || need.segmenter;
    let meant = super::properties::devices_meant(fault, world).into_iter();
    meant.filter(move |device| device.mac_header || !aside)
}
