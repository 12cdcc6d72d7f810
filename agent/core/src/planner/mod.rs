//! The planner: compares what is desired with what the kernel holds, and says which operations close the gap.
//!
//! It is level-triggered: it doesn't matter how the gap came about. Every plan holds all operations that are possible
//! now; what waits for a slow one follows when that has ended. Applying a whole plan and planning again gives nothing.

mod allocate;
mod observed;
mod rules;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{BootTime, Fault, FaultName, World};
use crate::plan::{Equipment, Failure, Observed, Operation, PeerEntry, Policy, Slot};
use crate::resolve::{self, Resolution};

pub use observed::SLOT_REST;

/// What to do now, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// To be applied in this order; slow ones are begun in it and may end in any order. When one fails, the rest of the
    /// list is void: note the failure and plan again, so that nothing builds on what isn't there.
    pub operations: Vec<Operation>,
    /// The next instant at which time alone changes the plan or a fault's phase: a start, an expiry, the end of an
    /// attachment's warm time, a retry.
    pub wake_at: Option<BootTime>,
    /// Faults that are not in force, or not everywhere, because a table is full.
    pub exhausted: Vec<(FaultName, String)>,
}

/// Plans without memory; see [`Planner::plan`].
pub fn plan(
    faults: &BTreeMap<FaultName, Arc<Fault>>,
    world: &World,
    observed: &Observed,
    policy: &Policy,
    now: BootTime,
) -> Plan {
    Planner::default().plan(faults, world, observed, policy, now)
}

/// Remembers what faults mean from plan to plan; apart from the time it takes, a plan doesn't depend on the ones before it,
/// as long as it is told when the world is another one.
#[derive(Debug, Default)]
pub struct Planner {
    memory: BTreeMap<FaultName, Remembered>,
}

#[derive(Debug)]
struct Remembered {
    /// Holding the fault keeps its address from being used again, so that the same address means the same fault.
    fault: Arc<Fault>,
    resolution: Option<Arc<Resolution>>,
    entries: Option<Arc<BTreeSet<PeerEntry>>>,
}

impl Remembered {
    /// The world is another one: what moving peers meant is forgotten.
    fn forget(&mut self) {
        self.resolution = None;
        if self.fault.has_moving_peers() {
            self.entries = None;
        }
    }
}

impl Planner {
    /// The next plan is made for another world.
    pub fn world_changed(&mut self) {
        self.memory.values_mut().for_each(Remembered::forget);
    }

    /// The next plan is made for a world in which one fault may mean something else, and no other fault does.
    pub fn fault_moved(&mut self, fault: &FaultName) {
        if let Some(known) = self.memory.get_mut(fault) {
            known.forget();
        }
    }

    /// What the fault means in the world, which is the one of the next plan.
    pub fn resolution(&mut self, fault: &Arc<Fault>, world: &World) -> Arc<Resolution> {
        let known = self.remember(fault).resolution.get_or_insert_with(|| {
            let resolution = resolve::resolve(fault, world);
            Arc::new(resolution)
        });
        Arc::clone(known)
    }

    /// The addresses that its peers mean, in the same world.
    pub fn entries(&mut self, fault: &Arc<Fault>, world: &World) -> Arc<BTreeSet<PeerEntry>> {
        let known = self.remember(fault).entries.get_or_insert_with(|| {
            let entries = resolve::peer_entries(fault, world);
            Arc::new(entries)
        });
        Arc::clone(known)
    }

    fn remember(&mut self, fault: &Arc<Fault>) -> &mut Remembered {
        let blank = || Remembered {
            fault: Arc::clone(fault),
            resolution: None,
            entries: None,
        };
        let known = self.memory.entry(fault.name.clone()).or_insert_with(blank);
        if !Arc::ptr_eq(&known.fault, fault) {
            *known = blank();
        }
        known
    }

    /// The operations that bring `observed` closer to what `faults` mean in `world`. Faults past their expiry aren't
    /// desired, whether they are in `faults` or not.
    pub fn plan(
        &mut self,
        faults: &BTreeMap<FaultName, Arc<Fault>>,
        world: &World,
        observed: &Observed,
        policy: &Policy,
        now: BootTime,
    ) -> Plan {
        self.memory
            .retain(|name, known| faults.get(name).is_some_and(|f| Arc::ptr_eq(f, &known.fault)));
        let mut draft = Draft::new(now);
        let live: Vec<&Arc<Fault>> = faults.values().filter(|fault| now < fault.expires_at).collect();
        for fault in &live {
            draft.alarm.set(fault.starts_at);
            draft.alarm.set(fault.expires_at);
        }
        let placed = allocate::slots(&mut draft, &live, observed, policy, |fault| {
            self.resolution(fault, world)
        });
        let desired = targets::Desired::new(&placed, world, observed, policy);
        let held = targets::edits_to_hold(&placed, &desired, observed, now);
        let effective = rules::plan(&mut draft, &placed, &held, observed, |fault| {
            self.entries(fault, world)
        });
        let lists = targets::plan_lists(&mut draft, &desired, &effective, observed, policy, &placed);
        rules::retire(&mut draft, &placed, &lists, observed);
        targets::plan_equipment(&mut draft, &desired, &lists, observed, policy, &placed);
        draft.into_plan()
    }
}

/// A live fault that has a slot.
struct Placed<'a> {
    fault: &'a Arc<Fault>,
    need: Equipment,
    resolution: Arc<Resolution>,
}

/// Live faults by slot.
type PlacedFaults<'a> = BTreeMap<Slot, Placed<'a>>;

/// What a slot's rule does once this plan's operations are applied.
#[derive(Clone, Copy, Debug)]
struct Effective {
    need: Equipment,
    /// Actions that let the fewest packets on come first.
    rank: u8,
    /// This plan replaces the body of the rule.
    rewritten: bool,
    /// An edit of the rule must wait; until then nothing is added to the targets that list it.
    outdated: bool,
}

/// The earliest of the instants that lie ahead.
#[derive(Debug)]
struct Alarm {
    now: BootTime,
    at: Option<BootTime>,
}

impl Alarm {
    /// Instants that have passed ring no alarm.
    fn set(&mut self, at: BootTime) {
        if at > self.now {
            self.at = Some(self.at.map_or(at, |known| known.min(at)));
        }
    }
}

/// A plan in the making. Its parts are joined in this order: workers start first, since they take longest; faults that
/// go go before others come; peers, rules and lists follow each other.
struct Draft {
    now: BootTime,
    alarm: Alarm,
    equips: Vec<Operation>,
    /// Lists that only get shorter, and lists from which a slot goes before its rule changes.
    removals: Vec<Operation>,
    rules: Vec<Operation>,
    lists: Vec<Operation>,
    retired: Vec<Operation>,
    strips: Vec<Operation>,
    exhausted: BTreeMap<FaultName, String>,
}

impl Draft {
    fn new(now: BootTime) -> Self {
        Self {
            now,
            alarm: Alarm { now, at: None },
            equips: Vec::new(),
            removals: Vec::new(),
            rules: Vec::new(),
            lists: Vec::new(),
            retired: Vec::new(),
            strips: Vec::new(),
            exhausted: BTreeMap::new(),
        }
    }

    /// The first reason that is found for a fault stays.
    fn exhausted(&mut self, fault: &FaultName, reason: impl FnOnce() -> String) {
        if !self.exhausted.contains_key(fault) {
            self.exhausted.insert(fault.clone(), reason());
        }
    }

    /// Whether a thing that failed must still wait; if so, the alarm rings when it may be tried again.
    fn must_wait(&mut self, failure: Option<&Failure>) -> bool {
        let Some(failure) = failure else { return false };
        self.alarm.set(failure.retry_at);
        self.now < failure.retry_at
    }

    fn into_plan(self) -> Plan {
        let parts = [
            self.equips,
            self.removals,
            self.rules,
            self.lists,
            self.retired,
            self.strips,
        ];
        Plan {
            operations: parts.into_iter().flatten().collect(),
            wake_at: self.alarm.at,
            exhausted: self.exhausted.into_iter().collect(),
        }
    }
}
