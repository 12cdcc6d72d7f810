//! One pass of the reconciler: what has come due, the plan and its operations, and what is said about it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sabot_core::model::{BootTime, FaultName};
use sabot_core::plan::{Operation, Slot, TargetId};

use super::handle::{FaultView, Phase, Snapshot};
use super::reconciler::Engine;
use super::store::Active;
use super::view;
use super::workers::{Done, execute};
use crate::observe::event::{Event, EventKind, FaultEvent};
use crate::targets::Wanted;

/// Plans in one pass: each but the last found something to do that the one before it could not know of.
const MAX_PLANS: usize = 16;
/// Until the next look when a pass had to be cut off.
const BREATH: Duration = Duration::from_millis(100);

impl Engine {
    /// Brings the kernel as close to what is desired as is possible now, and tells everybody who wants to know.
    pub(super) fn reconcile(&mut self) {
        let started = Instant::now();
        let now = self.datapath.now();
        self.end_expired(now);
        self.forget_ended(now);
        self.share_again();
        self.settle(now);
        let control = self.control_plane.ends(&self.world);
        self.node
            .write(&*self.datapath, &self.world.node_addresses, control, now);
        // Before any answer can come that a fault in force waits for.
        self.tell_places(now);
        self.close_the_gap();
        self.refresh_views();
        self.publish();
        self.waiters.answer(&self.store, &self.observed);
        (self.on_reconcile)(started.elapsed());
    }

    fn end_expired(&mut self, now: BootTime) {
        let expired: Vec<FaultName> = self
            .desired
            .values()
            .filter(|fault| fault.expires_at <= now)
            .map(|fault| fault.name.clone())
            .collect();
        for name in expired {
            self.end(&name, Phase::Expired);
        }
    }

    /// Takes the fault out of the desired state; the next plan takes it out of the kernel.
    pub(super) fn end(&mut self, name: &FaultName, phase: Phase) -> Option<FaultView> {
        let now = self.datapath.now();
        self.desired.remove(name);
        let sight = self.store.active.get(name).map(|active| active.sight.clone());
        let view = self.store.end(name, phase, now, self.options.keep_ended)?.clone();
        let until = now.after(self.options.policy.keep_warm);
        self.places.linger(sight.unwrap_or_default(), until);
        let change = if phase == Phase::Expired {
            "expired"
        } else {
            "deleted"
        };
        self.announce(name, change, &view.message);
        self.dirty = true;
        self.shares_moved = true;
        Some(view)
    }

    fn forget_ended(&mut self, now: BootTime) {
        for run in self.store.forget_ended(now) {
            self.book.discard(run);
            self.dirty = true;
        }
    }

    /// Closes counters that are complete, and keeps slots from being used again whose counters aren't.
    fn settle(&mut self, now: BootTime) {
        self.book.settle_due(&*self.datapath, now);
        for (slot, until) in self.book.leaving() {
            if let Some(free_at) = self.observed.cooling.get_mut(&slot) {
                *free_at = until.max(*free_at);
            }
        }
    }

    pub(super) fn close_the_gap(&mut self) {
        for _ in 0..MAX_PLANS {
            let now = self.datapath.now();
            let plan = self.planner.plan(
                &self.desired,
                &self.world,
                &self.observed,
                &self.options.policy,
                now,
            );
            self.plan_at = plan.wake_at;
            if plan.operations.is_empty() {
                for active in self.store.active.values_mut() {
                    active.exhausted = None;
                }
                for (name, reason) in plan.exhausted {
                    if let Some(active) = self.store.active.get_mut(&name) {
                        active.exhausted = Some(reason);
                    }
                }
                return;
            }
            for operation in plan.operations {
                // What comes after an operation that failed may depend on it: the next plan knows.
                if !self.perform(operation) {
                    break;
                }
            }
        }
        tracing::error!("the kernel isn't as desired after {MAX_PLANS} plans; looking again soon");
        self.plan_at = Some(self.datapath.now().after(BREATH));
    }

    /// Begins a slow operation, or does a quick one; false when it failed.
    fn perform(&mut self, operation: Operation) -> bool {
        tracing::debug!(?operation, "operation");
        match &operation {
            Operation::Strip { target, .. } => self.book.settle_target(&*self.datapath, *target),
            Operation::Equip { .. } => {}
            _ => {
                let result = execute(&*self.datapath, &operation);
                return self.conclude(&operation, result);
            }
        }
        self.observed.begin(&operation);
        self.workers.start(operation);
        true
    }

    /// A worker has ended a slow operation.
    pub(super) fn finished(&mut self, done: Done) {
        self.workers.finished();
        self.conclude(&done.operation, done.result);
    }

    fn conclude(
        &mut self,
        operation: &Operation,
        result: Result<(), super::datapath::DatapathError>,
    ) -> bool {
        let now = self.datapath.now();
        let succeeded = result.is_ok();
        let outcome = result.map_err(|error| self.retries.failed(operation, error, now));
        match &outcome {
            Ok(()) => {
                self.retries.succeeded(operation);
                if let Operation::SetSlots { target, slots } = operation {
                    self.leave(*target, slots, now);
                }
            }
            // Not every one of many: the first, the second, the fourth.
            Err(failure) if failure.attempts.is_power_of_two() => {
                let (reason, attempts) = (&failure.reason, failure.attempts);
                tracing::warn!(operation = %Named(operation), %reason, attempts, permanent = failure.permanent, "failed");
            }
            Err(_) => {}
        }
        self.observed.apply(operation, outcome, now);
        succeeded
    }

    /// The slots that a target is about to lose.
    fn leave(&mut self, target: TargetId, slots: &[Slot], now: BootTime) {
        let known = self.observed.targets.values().find(|known| known.id == target);
        for slot in known
            .into_iter()
            .flat_map(|known| &known.slots)
            .filter(|slot| !slots.contains(slot))
        {
            self.book.leave(*slot, target, now);
        }
    }

    fn refresh_views(&mut self) {
        let now = self.datapath.now();
        let slots = view::slots(&self.observed);
        let mut changes = Vec::new();
        for (name, active) in &mut self.store.active {
            self.dirty |= view::refresh(active, slots.get(name).copied(), &self.observed, now);
            if active.phase == Phase::Injected && active.injected.is_none() {
                active.injected = Some(SystemTime::now());
            }
            if let Some(change) = change(active) {
                active.announced = Some(active.phase);
                changes.push((name.clone(), change, active.message.clone()));
            }
            // Counters belong to the fault from the moment that a target lists its slot.
            for view in &active.targets {
                if let (Some(slot), Some(key), Some(id)) = (active.slot, &view.key, view.id)
                    && self
                        .observed
                        .targets
                        .get(key)
                        .is_some_and(|t| t.slots.contains(&slot))
                {
                    self.book.enter(slot, id, active.run, view, holds(active));
                }
            }
        }
        for (name, change, message) in changes {
            self.announce(&name, change, &message);
        }
    }

    fn tell_places(&mut self, now: BootTime) {
        let wanted = self.wanted(now);
        if self.places.tell(&wanted) {
            self.source.want(wanted);
        }
    }

    /// Everything that the source is to look at now.
    pub(super) fn wanted(&mut self, now: BootTime) -> Wanted {
        let faults = self.store.active.values();
        let faults = faults.map(|active| (&*active.fault, &active.sight));
        self.places.wanted(faults, now)
    }

    fn publish(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let active = self
            .store
            .active
            .iter()
            .map(|(name, active)| (name.clone(), active.view(None)));
        let ended = self
            .store
            .ended
            .iter()
            .map(|(name, ended)| (name.clone(), ended.view.clone()));
        let generation = self.snapshots.borrow().generation + 1;
        self.snapshots.send_replace(Arc::new(Snapshot {
            generation,
            faults: ended.chain(active).collect(),
            world: Arc::clone(&self.world),
            runtime: self.update.runtime.clone(),
        }));
    }

    pub(super) fn announce(&self, fault: &FaultName, change: &'static str, message: &str) {
        tracing::info!(%fault, change, message);
        self.events.publish(Event {
            time: SystemTime::now(),
            container: None,
            kind: EventKind::Fault(FaultEvent {
                fault: fault.clone(),
                change,
                message: message.to_owned(),
                target: None,
            }),
        });
    }
}

/// The event that the fault's phase is, where it wasn't made known yet.
fn change(active: &Active) -> Option<&'static str> {
    match active.phase {
        phase if active.announced == Some(phase) => None,
        // The one target after the other is no news; that it stays so is.
        Phase::Partial if active.exhausted.is_none() && view::is_attaching(&active.targets) => None,
        Phase::Injected => Some("injected"),
        Phase::Partial => Some("partial"),
        Phase::Failed => Some("failed"),
        Phase::Pending | Phase::Expired | Phase::Deleted => None,
    }
}

/// The longest that the fault's rule holds a packet.
fn holds(active: &Active) -> Duration {
    let stretch = active
        .fault
        .ramp
        .map_or(1.0, |ramp| ramp.from.max(ramp.to).max(1.0));
    let hold = active.fault.action.longest_hold().as_secs_f64() * stretch;
    Duration::try_from_secs_f64(hold).unwrap_or(Duration::MAX)
}

/// An operation in a log line: what it is about, without the lists in it.
struct Named<'a>(&'a Operation);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Operation::Claim { slot, fault } => write!(f, "claim slot {} for {fault}", slot.0),
            Operation::Equip { device, .. } => {
                write!(f, "equip {} (netns {})", device.key.device, device.key.netns.ino)
            }
            Operation::Strip { key, .. } => write!(f, "strip {} (netns {})", key.device, key.netns.ino),
            Operation::AddPeers { set, entries } => {
                write!(f, "add {} peers to slot {}", entries.len(), set.slot().0)
            }
            Operation::RemovePeers { set, entries } => {
                write!(f, "remove {} peers from slot {}", entries.len(), set.slot().0)
            }
            Operation::WriteRule { slot, .. } => write!(f, "write the rule of slot {}", slot.0),
            Operation::ClearRule { slot } => write!(f, "clear the rule of slot {}", slot.0),
            Operation::SetSlots { target, .. } => write!(f, "set the slots of target {}", target.0),
        }
    }
}
