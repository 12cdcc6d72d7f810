//! A kernel that remembers what it was told, and minds the order in which it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard};

use sabot_core::model::{BootTime, TargetDevice, TargetKey};
use sabot_core::plan::{Equipment, PeerEntry, PeerSetId, RuleBody, Slot, TargetId};
use tokio::time::Instant;

use crate::engine::datapath::{Datapath, DatapathError};
use crate::engine::handle::{Ledger, LedgerDirection, Tally};

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) equipped: BTreeMap<TargetId, (TargetKey, Equipment)>,
    pub(crate) rules: BTreeMap<Slot, RuleBody>,
    pub(crate) lists: BTreeMap<TargetId, Vec<Slot>>,
    pub(crate) peers: BTreeMap<PeerSetId, BTreeSet<PeerEntry>>,
    pub(crate) node: BTreeSet<IpAddr>,
    pub(crate) control_plane: BTreeSet<SocketAddr>,
    pub(crate) counters: BTreeMap<(Slot, TargetId), Ledger>,
    pub(crate) disarmed: bool,
    /// Calls by name.
    pub(crate) calls: BTreeMap<&'static str, u32>,
    /// Errors to give, by call: the next ones, in order.
    pub(crate) errors: BTreeMap<&'static str, Vec<DatapathError>>,
    /// Devices that can never be equipped, and why.
    pub(crate) refused: BTreeMap<String, String>,
    /// Things that must not happen.
    pub(crate) wrong: Vec<String>,
}

pub(crate) struct FakeKernel {
    origin: Instant,
    state: Mutex<State>,
}

impl FakeKernel {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            state: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no test panics while it holds the state")
    }

    /// The next `count` calls of that name fail.
    pub(crate) fn fail(&self, call: &'static str, count: usize) {
        let error = DatapathError {
            reason: format!("{call} was told to fail"),
            permanent: false,
        };
        self.state()
            .errors
            .entry(call)
            .or_default()
            .extend(std::iter::repeat_n(error, count));
    }

    pub(crate) fn calls(&self, call: &'static str) -> u32 {
        self.state().calls.get(call).copied().unwrap_or_default()
    }

    /// Lets packets match on a target, all of them dropped.
    pub(crate) fn drop_packets(&self, slot: Slot, target: TargetId, packets: u64) {
        let tally = Tally {
            packets,
            bytes: packets * 100,
        };
        self.count(slot, target, |ledger| {
            ledger.matched += tally;
            ledger.dropped += tally;
        });
    }

    /// Counts as the programs would.
    pub(crate) fn count(&self, slot: Slot, target: TargetId, change: impl FnOnce(&mut Ledger)) {
        let mut state = self.state();
        let ledger = state.counters.get_mut(&(slot, target));
        change(ledger.expect("counters for a slot in force"));
    }

    /// The devices on which a slot is in force.
    pub(crate) fn devices(&self, slot: Slot) -> BTreeSet<String> {
        let state = self.state();
        let listing = state.lists.iter().filter(|(_, slots)| slots.contains(&slot));
        listing
            .map(|(id, _)| state.equipped[id].0.device.clone())
            .collect()
    }

    pub(crate) fn assert_bare(&self) {
        let state = self.state();
        assert!(state.equipped.is_empty(), "{:?}", state.equipped);
        assert!(state.rules.is_empty(), "{:?}", state.rules);
        assert!(state.peers.values().all(BTreeSet::is_empty), "{:?}", state.peers);
        assert!(state.counters.is_empty(), "{:?}", state.counters);
    }
}

impl Drop for FakeKernel {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let wrong = &self.state().wrong;
            assert!(wrong.is_empty(), "{wrong:?}");
        }
    }
}

impl State {
    fn called(&mut self, call: &'static str) -> Result<(), DatapathError> {
        *self.calls.entry(call).or_default() += 1;
        match self.errors.get_mut(call) {
            Some(errors) if !errors.is_empty() => Err(errors.remove(0)),
            _ => Ok(()),
        }
    }

    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }
}

impl Datapath for FakeKernel {
    fn equip(
        &self,
        target: TargetId,
        device: &TargetDevice,
        equipment: Equipment,
    ) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.called("equip")?;
        if let Some(reason) = state.refused.get(&device.key.device) {
            return Err(DatapathError {
                reason: reason.clone(),
                permanent: true,
            });
        }
        let known = state
            .equipped
            .entry(target)
            .or_insert((device.key.clone(), Equipment::default()));
        known.1 = known.1.union(equipment);
        let same = known.0 == device.key;
        state.must(same, || format!("{target:?} stands for two devices"));
        Ok(())
    }

    fn strip(&self, target: TargetId, _key: &TargetKey) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.called("strip")?;
        state.equipped.remove(&target);
        state.lists.remove(&target);
        let counted = state.counters.keys().any(|(_, t)| *t == target);
        state.must(!counted, || format!("counters of {target:?} outlive it"));
        Ok(())
    }

    fn add_peers(&self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.called("add_peers")?;
        let known = state.peers.entry(set).or_default();
        for entry in entries {
            known.remove(&entry.twin());
            known.insert(*entry);
        }
        Ok(())
    }

    fn remove_peers(&self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.called("remove_peers")?;
        let known = state.peers.entry(set).or_default();
        for entry in entries {
            known.remove(entry);
            known.remove(&entry.twin());
        }
        Ok(())
    }

    fn set_node_addresses(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.called("set_node_addresses")?;
        state.node = addresses.clone();
        Ok(())
    }

    fn set_control_plane(&self, ends: &BTreeSet<SocketAddr>) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.called("set_control_plane")?;
        state.control_plane = ends.clone();
        Ok(())
    }

    fn write_rule(&self, slot: Slot, rule: &RuleBody) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.called("write_rule")?;
        state.rules.insert(slot, rule.clone());
        Ok(())
    }

    fn clear_rule(&self, slot: Slot) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.called("clear_rule")?;
        state.rules.remove(&slot);
        let listed = state.lists.values().any(|slots| slots.contains(&slot));
        state.must(!listed, || format!("{slot:?} is cleared while a target lists it"));
        Ok(())
    }

    fn set_slots(&self, target: TargetId, slots: &[Slot]) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.called("set_slots")?;
        let equipped = state.equipped.contains_key(&target);
        state.must(equipped, || {
            format!("{target:?} lists slots and has no equipment")
        });
        for slot in slots {
            let written = state.rules.contains_key(slot);
            state.must(written, || {
                format!("{target:?} lists {slot:?}, which has no rule")
            });
            state.counters.entry((*slot, target)).or_default();
        }
        state.lists.insert(target, slots.to_vec());
        Ok(())
    }

    fn ledger(&self, slot: Slot, target: TargetId, direction: LedgerDirection) -> Ledger {
        match direction {
            LedgerDirection::Egress => self
                .state()
                .counters
                .get(&(slot, target))
                .copied()
                .unwrap_or_default(),
            LedgerDirection::Ingress => Ledger::default(),
        }
    }

    fn rests(&self, slot: Slot, target: TargetId) -> bool {
        LedgerDirection::BOTH
            .into_iter()
            .all(|direction| self.ledger(slot, target, direction).balances())
    }

    fn close(&self, slot: Slot, target: TargetId) -> [Ledger; 2] {
        let last = LedgerDirection::BOTH.map(|direction| self.ledger(slot, target, direction));
        let mut state = self.state();
        let listed = state
            .lists
            .get(&target)
            .is_some_and(|slots| slots.contains(&slot));
        // A target that is about to be stripped may still list it.
        let present = state.equipped.contains_key(&target) && state.rules.contains_key(&slot);
        state.must(!(listed && present), || {
            format!("counters of {slot:?} on {target:?} are freed while they count")
        });
        state.counters.remove(&(slot, target));
        last
    }

    fn disarm(&self) {
        self.state().disarmed = true;
    }

    fn now(&self) -> BootTime {
        let since = Instant::now() - self.origin;
        BootTime(1_000_000_000_000 + u64::try_from(since.as_nanos()).expect("a test is short"))
    }
}
