//! What the delay line counts, readable while the engine runs.
//!
//! The engine's thread is the only writer of every counter, so it adds with a plain load and store; readers see each counter
//! whole, and all of them exact once traffic rests.

use std::collections::HashMap;
use std::ops::{Add, AddAssign};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use sabot_abi::DELAY_BOUNDS;
use sabot_core::plan::{Slot, TargetId};

use super::drops::{DropBook, Drops, LineDrop, NetnsDrops, OwnerDrops};
use super::frame::Wire;
use crate::engine::handle::Tally;

/// What became of the packets of one slot, target and direction that didn't go on. Answers of the line's own are in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineTallies {
    /// Waiting now.
    pub held: Tally,
    /// Consumed by `reject` or `reset`.
    pub rejected: Tally,
    /// Found no room in a shaper's queue.
    pub dropped: Tally,
    /// Refused: the line or all lines together were full.
    pub lost_bound: Tally,
    /// The write back to the TAP failed.
    pub lost_write: Tally,
    /// The daemon was stopped while they waited.
    pub lost_late: Tally,
}

/// Delays really added: from reading a frame to writing it back. A super-packet counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayHistogram {
    /// `buckets[i]` counts delays of at most `DELAY_BOUNDS[i]` that the bucket before doesn't; the last one all longer ones.
    pub buckets: [u64; DELAY_BOUNDS.len() + 1],
    pub count: u64,
    pub sum: Duration,
}

impl Default for DelayHistogram {
    fn default() -> Self {
        Self {
            buckets: [0; DELAY_BOUNDS.len() + 1],
            count: 0,
            sum: Duration::ZERO,
        }
    }
}

impl From<sabot_abi::Delays> for DelayHistogram {
    fn from(delays: sabot_abi::Delays) -> Self {
        Self {
            buckets: delays.buckets,
            count: delays.buckets.iter().sum(),
            sum: Duration::from_nanos(delays.sum),
        }
    }
}

impl AddAssign for DelayHistogram {
    fn add_assign(&mut self, other: Self) {
        for (total, more) in self.buckets.iter_mut().zip(other.buckets) {
            *total += more;
        }
        self.count += other.count;
        self.sum += other.sum;
    }
}

impl Add for DelayHistogram {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

/// Packets and bytes with one writer.
#[derive(Debug, Default)]
pub(super) struct Counter {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    pub(super) fn add(&self, wire: Wire) {
        bump(&self.packets, u64::from(wire.packets));
        bump(&self.bytes, u64::from(wire.bytes));
    }

    pub(super) fn subtract(&self, wire: Wire) {
        bump(&self.packets, u64::from(wire.packets).wrapping_neg());
        bump(&self.bytes, u64::from(wire.bytes).wrapping_neg());
    }

    pub(super) fn read(&self) -> Tally {
        Tally {
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }

    pub(super) fn reset(&self) {
        self.packets.store(0, Relaxed);
        self.bytes.store(0, Relaxed);
    }
}

fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

/// The counters behind [`LineTallies`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) held: Counter,
    pub(super) rejected: Counter,
    pub(super) drops: Drops,
}

impl Counters {
    fn read(&self) -> LineTallies {
        LineTallies {
            held: self.held.read(),
            rejected: self.rejected.read(),
            dropped: self.drops.read(LineDrop::Queue),
            lost_bound: self.drops.read(LineDrop::Bound),
            lost_write: self.drops.read(LineDrop::Write),
            lost_late: self.drops.read(LineDrop::Late),
        }
    }

    fn reset_outcomes(&self) {
        self.rejected.reset();
        self.drops.reset();
    }
}

/// The cells behind [`DelayHistogram`].
#[derive(Debug, Default)]
pub(super) struct Delays {
    buckets: [AtomicU64; DELAY_BOUNDS.len() + 1],
    sum: AtomicU64,
}

impl Delays {
    /// `delay` in ns.
    pub(super) fn record(&self, delay: u64) {
        bump(
            &self.buckets[DELAY_BOUNDS.partition_point(|&bound| bound < delay)],
            1,
        );
        bump(&self.sum, delay);
    }

    fn read(&self) -> DelayHistogram {
        let buckets = std::array::from_fn(|i| self.buckets[i].load(Relaxed));
        DelayHistogram {
            buckets,
            count: buckets.iter().sum(),
            sum: Duration::from_nanos(self.sum.load(Relaxed)),
        }
    }

    fn reset(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
        self.sum.store(0, Relaxed);
    }
}

/// Whose counters: slot, target, and whether it is egress.
pub(super) type CountersKey = (Slot, TargetId, bool);

/// All counters. The locks are held for a lookup; the engine takes them when it meets a new combination, not per packet.
#[derive(Debug, Default)]
pub(super) struct Registry {
    counters: Mutex<HashMap<CountersKey, Arc<Counters>>>,
    delays: Mutex<HashMap<Slot, Arc<Delays>>>,
    drops: Mutex<DropBook>,
    /// Frames without our tag, of all lines.
    pub(super) untagged: Counter,
}

impl Registry {
    /// Finds them or begins at zero.
    pub(super) fn counters(&self, key: CountersKey) -> Arc<Counters> {
        Arc::clone(lock(&self.counters).entry(key).or_default())
    }

    /// Finds them or begins at zero.
    pub(super) fn delays(&self, slot: Slot) -> Arc<Delays> {
        Arc::clone(lock(&self.delays).entry(slot).or_default())
    }

    /// The counts of the network namespace with this cookie; see [`DropBook::of`].
    pub(super) fn netns_drops(&self, cookie: Option<u64>) -> Arc<NetnsDrops> {
        lock(&self.drops).of(cookie)
    }

    /// See [`DropBook::set_owners`].
    pub(super) fn set_owners(&self, owners: HashMap<u64, u32>) {
        lock(&self.drops).set_owners(owners);
    }

    pub(super) fn owner_drops(&self) -> Vec<OwnerDrops> {
        lock(&self.drops).read()
    }

    pub(super) fn tallies(&self, key: CountersKey) -> LineTallies {
        lock(&self.counters)
            .get(&key)
            .map(|counters| counters.read())
            .unwrap_or_default()
    }

    pub(super) fn histogram(&self, slot: Slot) -> DelayHistogram {
        lock(&self.delays)
            .get(&slot)
            .map(|delays| delays.read())
            .unwrap_or_default()
    }

    /// Drops a slot's counters on a target, and its delays once no target has counters for it. Those that the engine still
    /// uses go on from zero, except for what is held.
    pub(super) fn forget(&self, slot: Slot, target: TargetId) {
        let mut all = lock(&self.counters);
        all.retain(|key, counters| {
            if (key.0, key.1) != (slot, target) {
                return true;
            }
            counters.reset_outcomes();
            Arc::strong_count(counters) > 1
        });
        if all.keys().any(|key| key.0 == slot && key.1 != target) {
            return;
        }
        lock(&self.delays).retain(|&key, delays| {
            if key != slot {
                return true;
            }
            delays.reset();
            Arc::strong_count(delays) > 1
        });
    }
}

/// The maps stay valid whatever a panicking reader did.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_fall_into_the_bucket_that_bounds_them() {
        let delays = Delays::default();
        for ns in [0, 1_000, 1_001, 5_000_000, 60_000_000_000, 60_000_000_001] {
            delays.record(ns);
        }
        let histogram = delays.read();
        let used: Vec<_> = (0..histogram.buckets.len())
            .filter(|&i| histogram.buckets[i] > 0)
            .collect();
        assert_eq!(used, [0, 1, 11, 24, 25]);
        assert_eq!(histogram.buckets[0], 2);
        assert_eq!(
            (histogram.count, histogram.sum),
            (6, Duration::from_nanos(120_005_002_002))
        );
        assert!(DELAY_BOUNDS.is_sorted());
    }

    #[test]
    fn forgetting_a_slot_leaves_the_others_alone() {
        let registry = Registry::default();
        let wire = Wire {
            packets: 3,
            bytes: 300,
        };
        let key = |slot| (Slot(slot), TargetId(1), true);
        let in_use = registry.counters(key(1));
        in_use.held.add(wire);
        for slot in [1, 2] {
            registry.counters(key(slot)).drops.add(LineDrop::Bound, wire);
            registry.delays(Slot(slot)).record(5);
        }
        registry
            .counters((Slot(1), TargetId(2), true))
            .drops
            .add(LineDrop::Bound, wire);
        registry.forget(Slot(1), TargetId(2));
        assert_eq!(
            registry.tallies(key(1)).lost_bound.packets,
            3,
            "another target's were dropped"
        );
        assert_eq!(
            registry.histogram(Slot(1)).count,
            1,
            "a target still has the slot"
        );
        registry.forget(Slot(1), TargetId(1));
        let lost = Tally {
            packets: 3,
            bytes: 300,
        };
        assert_eq!(
            registry.tallies(key(1)),
            LineTallies {
                held: lost,
                ..LineTallies::default()
            }
        );
        assert_eq!(registry.tallies(key(2)).lost_bound, lost);
        assert_eq!(
            (
                registry.histogram(Slot(1)).count,
                registry.histogram(Slot(2)).count
            ),
            (0, 1)
        );
        in_use.drops.add(LineDrop::Late, wire);
        assert_eq!(
            registry.tallies(key(1)).lost_late,
            lost,
            "counters in use stay readable"
        );
    }
}
