//! The guards at work: they look at every fault that comes, and at every change of the world.

use std::collections::BTreeSet;
use std::sync::Arc;

use sabot_core::model::{Fault, FaultName};
use sabot_core::resolve::Presence;

use super::handle::EngineError;
use super::reconciler::Engine;
use super::store::Active;
use crate::targets::WorldUpdate;

impl Engine {
    /// Whether the guards let a fault in that is new, or an edit.
    ///
    /// # Errors
    /// `Refused`, with the guard's name.
    pub(super) fn guard(&self, fault: &Fault) -> Result<(), EngineError> {
        let others = self
            .desired
            .values()
            .filter(|other| other.name != fault.name)
            .map(Arc::as_ref);
        self.options
            .guards
            .check(fault, &self.world, others)
            .map_err(|guarded| EngineError::Refused {
                guard: guarded.guard.name(),
                message: guarded.reason,
            })
    }

    /// Takes over what is known of the world, with what is guarded in it, and looks up again what each fault means that this
    /// concerns.
    pub(super) fn see(&mut self, update: Arc<WorldUpdate>) {
        let mut update = Arc::unwrap_or_clone(update);
        let shares_moved = std::mem::take(&mut self.shares_moved);
        let concerned = self.concerned(&update);
        // Pods are counted that no fault means by now, for the one that comes next.
        let counts =
            self.options.guards.limit_workloads() && !update.world.cluster.has_same_pods(&self.world.cluster);
        let rests = concerned.as_ref().is_some_and(BTreeSet::is_empty) && !shares_moved && !counts;
        if rests {
            update.world.guarded.clone_from(&self.world.guarded);
            update.world.protections = Arc::clone(&self.world.protections);
            let elsewhere = &mut update.world.guarded_elsewhere;
            elsewhere.clone_from(&self.world.guarded_elsewhere);
        } else {
            let faults = self.desired.values().map(Arc::as_ref);
            let guards = &self.options.guards;
            self.standing = guards.apply(&mut update.world, faults, &self.standing);
        }
        let guarded = (&update.world.guarded, &update.world.guarded_elsewhere);
        let same = guarded == (&self.world.guarded, &self.world.guarded_elsewhere);
        let concerned = concerned.filter(|_| same);
        self.world = Arc::new(update.world.clone());
        self.update = Arc::new(update);
        match concerned {
            Some(names) => {
                for name in &names {
                    self.planner.fault_moved(name);
                    self.resolve(name);
                }
                self.dirty |= !names.is_empty();
            }
            None => {
                self.planner.world_changed();
                let names: Vec<FaultName> = self.store.active.keys().cloned().collect();
                for name in &names {
                    self.resolve(name);
                }
                self.dirty = true;
            }
        }
    }

    /// The faults that may mean something else since the last update; `None`: all of them.
    fn concerned(&self, update: &WorldUpdate) -> Option<BTreeSet<FaultName>> {
        if !update.is_same_beside_cluster(&self.update) {
            return None;
        }
        let (now, before) = (&update.world.cluster, &self.world.cluster);
        let moved = now.moved_services(before);
        let whole = self.world.protections.whole_workloads;
        let is_concerned = |active: &&Active| {
            let mut wanted = Presence::Here.wanted(&active.fault.target, &active.fault.peers, whole);
            wanted.all_nodes = active.sight.cluster().all_nodes;
            !now.is_same_for(&wanted, before, &moved)
        };
        let concerned = self.store.active.values().filter(is_concerned);
        Some(concerned.map(|active| active.fault.name.clone()).collect())
    }

    /// Looks up again what the fault means. What it needed of the cluster is kept in sight for a while where it doesn't need it
    /// any more: a pod that restarts finds its peers known.
    pub(super) fn resolve(&mut self, name: &FaultName) {
        let Some(active) = self.store.active.get_mut(name) else {
            return;
        };
        let before = active.sight.clone();
        active.resolve(&self.update, &mut self.planner);
        if !active.sight.covers(&before) {
            let until = self.datapath.now().after(self.options.policy.keep_warm);
            self.places.linger(before, until);
        }
    }

    /// Shares are taken and given back as faults come, change and go.
    pub(super) fn share_again(&mut self) {
        if self.shares_moved && self.options.guards.limit_shares() {
            self.see(Arc::clone(&self.update));
        }
        self.shares_moved = false;
    }
}
