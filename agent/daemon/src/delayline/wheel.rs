//! A hierarchical timing wheel: insertion, removal and expiry in constant time, whatever is held.
//!
//! Time is cut into ticks of 8.192 us; a deadline is rounded up to a tick, so that nothing goes early. Nine levels of 64
//! buckets span every 64-bit deadline, so there is no overflow list. An entry hangs at the level of the highest group
//! of six bits in which its tick differs from the current one, which gives the property that the delay line builds on:
//! **entries become due in the order of their ticks, and entries of one tick in the order of their insertion.** (A bucket
//! of a lower level is only ever filled directly once the bucket above it, that covers it, has been emptied into it.)
//! From there they leave in that order within their line; see `due` for the turns of the lines.

use super::arena::{Arena, BY_TIME, List};
use super::due::Due;

/// Log2 of a tick in ns.
const TICK_SHIFT: u32 = 13;
const BITS: u32 = 6;
const BUCKETS: usize = 1 << BITS;
const LEVELS: usize = 9;
const _: () = assert!(TICK_SHIFT + BITS * LEVELS as u32 >= u64::BITS);

/// `Held::bucket` of an entry that is due.
const DUE: u16 = u16::MAX;

#[derive(Debug)]
pub(super) struct Wheel {
    /// Every entry of this tick and of earlier ones is in `due`.
    current: u64,
    buckets: [[List<BY_TIME>; BUCKETS]; LEVELS],
    occupied: [u64; LEVELS],
    due: Due,
}

impl Wheel {
    /// `now` in ns.
    pub(super) fn new(now: u64) -> Self {
        Self {
            current: now >> TICK_SHIFT,
            buckets: [[List::default(); BUCKETS]; LEVELS],
            occupied: [0; LEVELS],
            due: Due::default(),
        }
    }

    /// Hangs up an entry by its deadline.
    pub(super) fn insert(&mut self, arena: &mut Arena, index: u32) {
        let tick = arena[index].deadline.div_ceil(1 << TICK_SHIFT);
        if tick <= self.current {
            return self.insert_due(arena, index);
        }
        let level = ((u64::BITS - 1 - (tick ^ self.current).leading_zeros()) / BITS) as usize;
        let bucket = (tick >> (BITS * level as u32)) as usize % BUCKETS;
        arena[index].bucket = (level * BUCKETS + bucket) as u16;
        self.occupied[level] |= 1 << bucket;
        self.buckets[level][bucket].push_back(arena, index);
    }

    /// Hangs up an entry behind everything of its line that is due already.
    pub(super) fn insert_due(&mut self, arena: &mut Arena, index: u32) {
        arena[index].bucket = DUE;
        self.due.push(arena, index);
    }

    pub(super) fn remove(&mut self, arena: &mut Arena, index: u32) {
        let place = arena[index].bucket;
        if place == DUE {
            return self.due.unlink(arena, index);
        }
        let (level, bucket) = (place as usize / BUCKETS, place as usize % BUCKETS);
        let list = &mut self.buckets[level][bucket];
        list.unlink(arena, index);
        if list.is_empty() {
            self.occupied[level] &= !(1 << bucket);
        }
    }

    pub(super) fn is_due(arena: &Arena, index: u32) -> bool {
        arena[index].bucket == DUE
    }

    /// Moves everything whose time has come into the list of due entries.
    pub(super) fn advance(&mut self, arena: &mut Arena, now: u64) {
        let target = now >> TICK_SHIFT;
        while let Some((level, bucket, start)) = self.next_bucket() {
            if start > target {
                break;
            }
            self.current = start;
            self.occupied[level] &= !(1 << bucket);
            let mut list = std::mem::take(&mut self.buckets[level][bucket]);
            while let Some(index) = list.first() {
                list.unlink(arena, index);
                self.insert(arena, index);
            }
        }
        self.current = self.current.max(target);
    }

    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The next of the due entries, still in its list; it uses up its line's turn.
    pub(super) fn next_due(&mut self, arena: &Arena) -> Option<u32> {
        self.due.next(arena)
    }

    /// When [`Wheel::advance`] has work to do next, in ns. It may be earlier than the next deadline (by a step of a
    /// higher level), never later than its tick.
    pub(super) fn next_wake(&self) -> Option<u64> {
        self.next_bucket()
            .map(|(_, _, start)| start.saturating_mul(1 << TICK_SHIFT))
    }

    /// Level, bucket and first tick of the earliest bucket in use: the lowest level comes before all higher ones.
    fn next_bucket(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let bucket = self.occupied[level].trailing_zeros() as usize;
        let shift = BITS * level as u32;
        let above = self.current.checked_shr(shift + BITS).unwrap_or(0);
        let base = above.checked_shl(shift + BITS).unwrap_or(0);
        Some((level, bucket, base | (bucket as u64) << shift))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delayline::arena::Held;

    const TICK: u64 = 1 << TICK_SHIFT;

    fn held(deadline: u64) -> Held {
        let mut held = Held::new(Box::default());
        held.deadline = deadline;
        held
    }

    fn pop_all(wheel: &mut Wheel, arena: &mut Arena) -> Vec<u32> {
        let mut popped = Vec::new();
        while let Some(index) = wheel.next_due(arena) {
            wheel.remove(arena, index);
            popped.push(index);
        }
        popped
    }

    #[test]
    fn the_last_representable_deadline_fits() {
        let mut arena = Arena::default();
        let mut wheel = Wheel::new(5);
        let index = arena.insert(held(u64::MAX));
        wheel.insert(&mut arena, index);
        assert!(wheel.next_wake().is_some());
        wheel.remove(&mut arena, index);
        assert_eq!(wheel.next_wake(), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Advance(u64),
        Remove(prop::sample::Index),
        /// As the engine does: wake when the wheel asks for it.
        Wake,
    }

    fn step() -> impl Strategy<Value = Step> {
        let span = prop_oneof![0..4 * TICK, 0..300 * TICK, 0..20_000 * TICK, 0..1u64 << 45];
        prop_oneof![
            4 => span.clone().prop_map(Step::Insert),
            2 => span.prop_map(Step::Advance),
            1 => any::<prop::sample::Index>().prop_map(Step::Remove),
            2 => Just(Step::Wake),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(start in 0..1u64 << 50, steps in prop::collection::vec(step(), 1..200)) {
            let (mut arena, mut wheel, mut now) = (Arena::default(), Wheel::new(start), start);
            // (tick, insertion number, index), the model.
            let mut model: Vec<(u64, usize, u32)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(delay) => {
                        let index = arena.insert(held(now + delay));
                        wheel.insert(&mut arena, index);
                        model.push(((now + delay).div_ceil(TICK), number, index));
                    }
                    Step::Advance(by) => now += by,
                    Step::Remove(which) if !model.is_empty() => {
                        let (_, _, index) = model.remove(which.index(model.len()));
                        wheel.remove(&mut arena, index);
                        arena.take(index);
                    }
                    Step::Remove(_) => {}
                    Step::Wake => now = wheel.next_wake().map_or(now, |wake| wake.max(now)),
                }
                wheel.advance(&mut arena, now);
                let (mut due, later): (Vec<_>, Vec<_>) =
                    model.into_iter().partition(|&(tick, _, _)| tick <= now >> TICK_SHIFT);
                model = later;
                due.sort_unstable();
                let popped = pop_all(&mut wheel, &mut arena);
                prop_assert_eq!(&popped, &due.iter().map(|&(_, _, index)| index).collect::<Vec<_>>());
                popped.into_iter().for_each(|index| drop(arena.take(index)));
                let next = model.iter().map(|&(tick, _, _)| tick * TICK).min();
                prop_assert_eq!(wheel.next_wake().is_some(), next.is_some());
                prop_assert!(wheel.next_wake() <= next, "a wake never comes after a deadline");
            }
        }
    }
}
