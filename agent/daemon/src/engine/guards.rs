//! The guards at work: they look at every fault that comes, and at every change of the world.

use std::sync::Arc;

use sabot_core::model::Fault;

use super::handle::EngineError;
use super::reconciler::Engine;
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

    /// Takes over what is known of the world, with what is guarded in it, and looks up again what each fault means.
    pub(super) fn see(&mut self, update: Arc<WorldUpdate>) {
        let mut update = Arc::unwrap_or_clone(update);
        let faults = self.desired.values().map(Arc::as_ref);
        self.standing = self
            .options
            .guards
            .apply(&mut update.world, faults, &self.standing);
        if update.world != *self.world {
            self.world = Arc::new(update.world.clone());
            self.planner.world_changed();
        }
        self.update = Arc::new(update);
        for active in self.store.active.values_mut() {
            active.resolve(&self.update);
        }
        self.dirty = true;
    }

    /// Shares are taken and given back as faults come, change and go.
    pub(super) fn share_again(&mut self) {
        if std::mem::take(&mut self.shares_moved) && self.options.guards.limit_shares() {
            self.see(Arc::clone(&self.update));
        }
    }
}
