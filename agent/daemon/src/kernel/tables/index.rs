//! The indexes of lists of several slots, kept up with what the slots' rules and peers are.
//!
//! An index may name a slot too many, and never one too few: it names what comes before that comes, and goes on naming what
//! goes until that has gone.

mod buckets;

use std::collections::{HashMap, HashSet};

use aya::Ebpf;
use aya::maps::{HashMap as KernelHash, MapData};
use sabot_abi as abi;
use sabot_core::plan::{PeerSetId, Slot};

use super::{TableError, on, take, unless_absent};

pub(super) use self::buckets::{Buckets, Summary};

/// Slots that are visited without an index: to look one up costs less than the visits that it saves from two slots on.
const FEW: usize = 1;

pub(super) struct Indexes {
    map: KernelHash<MapData, u32, abi::PeerIndex>,
    /// Where the entries of each set are, or are about to be.
    sets: HashMap<PeerSetId, Buckets>,
    /// Slots whose rules name every other end.
    unlimited: HashSet<Slot>,
    /// By the keys of the indexes.
    lists: HashMap<u32, List>,
}

struct List {
    slots: Vec<Slot>,
    index: Box<abi::PeerIndex>,
}

impl Indexes {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, TableError> {
        Ok(Self {
            map: take(ebpf, "PEER_INDEXES")?,
            sets: HashMap::new(),
            unlimited: HashSet::new(),
            lists: HashMap::new(),
        })
    }

    /// Makes the index of a list; returns the key that stands for it in the target's body.
    pub(super) fn list(&mut self, key: u32, slots: &[u32]) -> Result<u32, TableError> {
        if slots.len() <= FEW {
            return Ok(abi::TARGET_NO_INDEX);
        }
        let slots: Vec<Slot> = slots.iter().map(|slot| Slot(*slot)).collect();
        let mut index = Box::new(abi::PeerIndex::EMPTY);
        for (place, slot) in slots.iter().enumerate() {
            self.buckets(*slot).mark(&mut index, place);
        }
        self.lists.insert(key, List { slots, index });
        self.write(key)?;
        Ok(key)
    }

    /// No target's body has this key any more.
    pub(super) fn unlist(&mut self, key: u32) -> Result<(), TableError> {
        if self.lists.remove(&key).is_none() {
            return Ok(());
        }
        self.erase(key)
    }

    /// The rule that a slot is about to have names every other end, or only those in its sets.
    pub(super) fn before_rule(&mut self, slot: Slot, unlimited: bool) -> Result<(), TableError> {
        if unlimited && self.unlimited.insert(slot) {
            return self.update(slot);
        }
        Ok(())
    }

    /// The slot has the rule now.
    pub(super) fn after_rule(&mut self, slot: Slot, unlimited: bool) -> Result<(), TableError> {
        if !unlimited && self.unlimited.remove(&slot) {
            return self.update(slot);
        }
        Ok(())
    }

    /// These entries are about to come into a set.
    pub(super) fn before_peers(&mut self, set: PeerSetId, more: &Buckets) -> Result<(), TableError> {
        let buckets = self.sets.entry(set).or_default();
        if buckets.include(more) {
            return self.update(set.slot());
        }
        Ok(())
    }

    /// The set has entries in these buckets now, and in no others.
    pub(super) fn after_peers(&mut self, set: PeerSetId, all: Buckets) -> Result<(), TableError> {
        let before = if all.is_empty() {
            self.sets.remove(&set)
        } else {
            self.sets.insert(set, all.clone())
        };
        if before.unwrap_or_default() != all {
            return self.update(set.slot());
        }
        Ok(())
    }

    /// Where a slot's peers are, in whichever of its sets.
    fn buckets(&self, slot: Slot) -> Buckets {
        if self.unlimited.contains(&slot) {
            return Buckets::every_address();
        }
        let mut all = Buckets::default();
        for set in [slot.peer_set(), slot.peer_set().other()] {
            if let Some(buckets) = self.sets.get(&set) {
                all.include(buckets);
            }
        }
        all
    }

    /// Writes the indexes that have a slot anew.
    fn update(&mut self, slot: Slot) -> Result<(), TableError> {
        let buckets = self.buckets(slot);
        let mut changed = Vec::new();
        for (key, list) in &mut self.lists {
            let places = list.slots.iter().enumerate();
            for (place, _) in places.filter(|(_, listed)| **listed == slot) {
                buckets.mark(&mut list.index, place);
                changed.push(*key);
            }
        }
        changed.into_iter().try_for_each(|key| self.write(key))
    }

    /// Where the kernel has no memory for an index, it has none: every slot is visited.
    fn write(&mut self, key: u32) -> Result<(), TableError> {
        let Some(list) = self.lists.get(&key) else {
            return Ok(());
        };
        let Err(error) = self.map.insert(key, *list.index, 0) else {
            return Ok(());
        };
        tracing::warn!(%error, "no index of a target's faults: each of them costs each packet time");
        self.erase(key)
    }

    fn erase(&mut self, key: u32) -> Result<(), TableError> {
        unless_absent(self.map.remove(&key)).map_err(on("remove the index of a list of slots"))
    }
}
