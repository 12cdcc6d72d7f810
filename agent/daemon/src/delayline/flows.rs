//! The order within flows: who waits for whom.
//!
//! Each flow with held packets has an entry. For packets in order it has the last release time, which is the earliest that
//! the next one can get. Packets that wait to be overtaken hang in it, and it counts those that pass meanwhile. Only
//! packets count that really go on, so that each waiting one is behind exactly as many as it asked for: one that waits
//! itself isn't counted by those before it, and goes behind them.
//!
//! The table's size follows the number of flows that have packets held, so it is bounded by the store's byte bounds, and
//! nothing is ever evicted from it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::arena::{Arena, BY_FLOW, Bond, List};
use super::frame::mix;
use super::treat::Order;

/// Room that stays allocated while lines are open.
const SPARE: usize = 4096;

/// By the hash of a flow in its group.
#[derive(Default)]
pub(super) struct Flows(HashMap<u64, Flow, BuildHasherDefault<Unhashed>>);

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// The last release time of those that are held in order; 0 when none is.
    last: u64,
    ordered: u32,
    /// Packets that have passed since the first one was parked.
    passed: u64,
    parked: List<BY_FLOW>,
}

/// The key is a hash already.
#[derive(Default)]
struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = mix(self.0, u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl Flows {
    /// When the last of those goes that the flow's next packet must not overtake. `None` when none is held.
    pub(super) fn last(&self, key: u64) -> Option<u64> {
        let flow = self.0.get(&key)?;
        (flow.ordered > 0).then_some(flow.last)
    }

    /// So many packets of a flow go on now. True when somebody may wait for them.
    pub(super) fn pass(&mut self, key: u64, packets: u32) -> bool {
        let Some(flow) = self.0.get_mut(&key) else {
            return false;
        };
        flow.passed += u64::from(packets);
        !flow.parked.is_empty()
    }

    /// The first of those that wait to be overtaken, if it was by as many as it waited for.
    pub(super) fn overtaken(&self, key: u64, arena: &Arena) -> Option<u32> {
        let flow = self.0.get(&key)?;
        let index = flow.parked.first()?;
        match arena[index].bond {
            Bond::Parked(until) if until <= flow.passed => Some(index),
            _ => None,
        }
    }

    /// Enters a frame into its flow's account.
    pub(super) fn bind(&mut self, arena: &mut Arena, index: u32, order: Order) {
        let held = &mut arena[index];
        match order {
            Order::Free => held.bond = Bond::Free,
            Order::Flow | Order::Group => {
                held.bond = Bond::Ordered;
                let flow = self.0.entry(held.flow).or_default();
                flow.last = flow.last.max(held.deadline);
                flow.ordered += 1;
            }
            Order::Overtaken(by) => {
                let flow = self.0.entry(held.flow).or_default();
                held.bond = Bond::Parked(flow.passed + u64::from(by));
                flow.parked.push_back(arena, index);
            }
        }
    }

    /// Takes a frame out of its flow's account.
    pub(super) fn unbind(&mut self, arena: &mut Arena, index: u32) {
        let (bond, key) = (arena[index].bond, arena[index].flow);
        if bond == Bond::Free {
            return;
        }
        let Some(flow) = self.0.get_mut(&key) else {
            return;
        };
        if bond == Bond::Ordered {
            flow.ordered -= 1;
        } else {
            flow.parked.unlink(arena, index);
        }
        if flow.ordered == 0 {
            flow.last = 0;
            if flow.parked.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    /// A frame of the flow goes at this time or earlier, and with it all before it.
    pub(super) fn hasten(&mut self, arena: &Arena, index: u32, deadline: u64) {
        if arena[index].bond == Bond::Ordered
            && let Some(flow) = self.0.get_mut(&arena[index].flow)
        {
            flow.last = flow.last.min(deadline);
        }
    }

    /// Gives back memory that far fewer flows don't need.
    pub(super) fn trim(&mut self) {
        if self.0.capacity() > SPARE && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.capacity() / 4);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
