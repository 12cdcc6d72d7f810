//! The one door through which the engine changes the kernel.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use sabot_core::model::{BootTime, TargetDevice, TargetKey};
use sabot_core::plan::{Equipment, PeerEntry, PeerSetId, RuleBody, Slot, TargetId};

use super::handle::{Ledger, LedgerDirection};

/// Why the kernel refused an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct DatapathError {
    /// The operation, its object and the cause, for people.
    pub reason: String,
    /// Trying again can't help while the target is what it is (no MAC header, say).
    pub permanent: bool,
}

/// What the engine asks of the kernel. Only the reconciler calls the operations that change something, one at a time
/// for one target; `equip` and `strip` of different targets may run at the same time on different threads.
pub trait Datapath: Send + Sync + 'static {
    /// Brings the target to at least this equipment. Blocks for tens of milliseconds.
    ///
    /// # Errors
    /// What could not be attached or created. What was added before the failure may stay; `strip` removes it.
    fn equip(
        &self,
        target: TargetId,
        device: &TargetDevice,
        equipment: Equipment,
    ) -> Result<(), DatapathError>;

    /// Detaches everything from the target and frees its id. Blocks for tens of milliseconds; succeeds when the
    /// target's netns is already gone, or when the target was never equipped.
    ///
    /// # Errors
    /// What could not be detached; it is tried again.
    fn strip(&self, target: TargetId, key: &TargetKey) -> Result<(), DatapathError>;

    /// Adds entries to a peer set; an entry that is there is overwritten.
    ///
    /// # Errors
    /// A full table, or the kernel's refusal.
    fn add_peers(&self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), DatapathError>;

    /// Removes entries from a peer set; an entry that isn't there is no error.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn remove_peers(&self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), DatapathError>;

    /// Says which addresses are the node's own, spared by rules that say so.
    ///
    /// # Errors
    /// A full table, or the kernel's refusal.
    fn set_node_addresses(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), DatapathError>;

    /// Says which ends of TCP connections keep the node reachable; rules on the node's devices spare them unless they say
    /// otherwise.
    ///
    /// # Errors
    /// A full table, or the kernel's refusal.
    fn set_control_plane(&self, ends: &BTreeSet<SocketAddr>) -> Result<(), DatapathError>;

    /// Writes the slot's other body and swaps to it; the counters of the slot stay.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn write_rule(&self, slot: Slot, rule: &RuleBody) -> Result<(), DatapathError>;

    /// Frees the slot; nothing that it held is acted upon afterwards.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn clear_rule(&self, slot: Slot) -> Result<(), DatapathError>;

    /// Puts exactly these slots in force on the target, in this order; creates the counters of new ones first.
    ///
    /// # Errors
    /// A target that isn't equipped, or the kernel's refusal.
    fn set_slots(&self, target: TargetId, slots: &[Slot]) -> Result<(), DatapathError>;

    /// The counters of a slot on a target, summed over CPUs, with the delay line's and the devices' losses. All zero
    /// where there are none.
    fn ledger(&self, slot: Slot, target: TargetId, direction: LedgerDirection) -> Ledger;

    /// Whether nothing of a slot that left the target is on its way any more: not held, and not in a device's queue.
    fn rests(&self, slot: Slot, target: TargetId) -> bool;

    /// Frees the counters of a slot on a target and says what they were at last, in the order of [`LedgerDirection::BOTH`].
    fn close(&self, slot: Slot, target: TargetId) -> [Ledger; 2];

    /// Makes everything that is attached inert at once by closing the gate, while the slow detaching at shutdown goes on.
    fn disarm(&self);

    /// `CLOCK_BOOTTIME`, as the kernel programs read it.
    fn now(&self) -> BootTime;
}
