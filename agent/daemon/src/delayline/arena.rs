//! Storage of held frames: a slab that never moves its entries, and the lists that run through them.

use std::ops::{Index, IndexMut};

use sabot_core::action::RejectCode;

/// "No entry" in a link.
pub(super) const NONE: u32 = u32::MAX;

/// The list of frames that fall due together.
pub(super) const BY_TIME: usize = 0;
/// The list of frames of one slot, target and direction, in the order in which they were read.
pub(super) const BY_GROUP: usize = 1;
/// The list of a flow's frames that wait to be overtaken, in the order in which they were read.
pub(super) const BY_FLOW: usize = 2;
const KINDS: usize = 3;

/// Entries are allocated this many at a time, so that growing never copies what is already held.
const CHUNK: usize = 1024;

/// What a held frame is to the other ones of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bond {
    /// Nothing.
    Free,
    /// Later ones wait for it.
    Ordered,
    /// It goes when the flow's count of passed packets is this.
    Parked(u64),
}

/// A frame that waits for its time.
#[derive(Debug)]
pub(super) struct Held {
    /// When it goes on; `CLOCK_BOOTTIME`, ns.
    pub(super) deadline: u64,
    /// When the classifier sent it here; `CLOCK_BOOTTIME`, ns.
    pub(super) sent_at: u64,
    /// The key of its flow in the store's table of flows.
    pub(super) flow: u64,
    pub(super) bond: Bond,
    /// It doesn't go on, it is answered with this.
    pub(super) rejected: Option<RejectCode>,
    pub(super) buffer: Box<[u8]>,
    /// Bytes of `buffer` in use.
    pub(super) length: u32,
    pub(super) packets: u32,
    pub(super) bytes: u32,
    pub(super) group: u32,
    pub(super) line: u32,
    /// Where in the wheel it hangs; the wheel's own.
    pub(super) bucket: u16,
    links: [Link; KINDS],
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

const UNLINKED: Link = Link {
    previous: NONE,
    next: NONE,
};

impl Held {
    fn vacant() -> Self {
        Self::new(Box::default())
    }

    pub(super) fn new(buffer: Box<[u8]>) -> Self {
        Self {
            deadline: 0,
            sent_at: 0,
            flow: 0,
            bond: Bond::Free,
            rejected: None,
            buffer,
            length: 0,
            packets: 0,
            bytes: 0,
            group: NONE,
            line: 0,
            bucket: 0,
            links: [UNLINKED; KINDS],
        }
    }
}

/// A slab of [`Held`]. Indexes stay valid until they are taken.
#[derive(Debug, Default)]
pub(super) struct Arena {
    chunks: Vec<Box<[Held]>>,
    free: Vec<u32>,
    used: usize,
}

impl Arena {
    pub(super) fn insert(&mut self, held: Held) -> u32 {
        if self.free.is_empty() {
            self.grow();
        }
        let index = self.free.pop().unwrap_or(0);
        self.used += 1;
        self[index] = held;
        index
    }

    /// The entry must be in no list any more.
    pub(super) fn take(&mut self, index: u32) -> Held {
        let held = std::mem::replace(&mut self[index], Held::vacant());
        self.free.push(index);
        self.used -= 1;
        held
    }

    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Gives the memory back when nothing is held and there are more than `spare` chunks of it.
    pub(super) fn trim(&mut self, spare: usize) {
        if self.used == 0 && self.chunks.len() > spare {
            *self = Self::default();
        }
    }

    fn grow(&mut self) {
        let start = self.chunks.len() * CHUNK;
        self.chunks.push((0..CHUNK).map(|_| Held::vacant()).collect());
        self.free.reserve(start + CHUNK);
        self.free
            .extend((start..start + CHUNK).rev().map(|index| index as u32));
    }
}

impl Index<u32> for Arena {
    type Output = Held;

    fn index(&self, index: u32) -> &Held {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

impl IndexMut<u32> for Arena {
    fn index_mut(&mut self, index: u32) -> &mut Held {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

/// A doubly linked list through the link `KIND` of an arena's entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<const KIND: usize> {
    head: u32,
    tail: u32,
}

impl<const KIND: usize> Default for List<KIND> {
    fn default() -> Self {
        Self {
            head: NONE,
            tail: NONE,
        }
    }
}

impl<const KIND: usize> List<KIND> {
    pub(super) fn is_empty(&self) -> bool {
        self.head == NONE
    }

    pub(super) fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// The entry behind `index` in the list that `index` is in.
    pub(super) fn after(arena: &Arena, index: u32) -> Option<u32> {
        let next = arena[index].links[KIND].next;
        (next != NONE).then_some(next)
    }

    pub(super) fn push_back(&mut self, arena: &mut Arena, index: u32) {
        arena[index].links[KIND] = Link {
            previous: self.tail,
            next: NONE,
        };
        if self.tail == NONE {
            self.head = index;
        } else {
            arena[self.tail].links[KIND].next = index;
        }
        self.tail = index;
    }

    /// `index` must be in this very list.
    pub(super) fn unlink(&mut self, arena: &mut Arena, index: u32) {
        let Link { previous, next } = std::mem::replace(&mut arena[index].links[KIND], UNLINKED);
        if previous == NONE {
            self.head = next;
        } else {
            arena[previous].links[KIND].next = next;
        }
        if next == NONE {
            self.tail = previous;
        } else {
            arena[next].links[KIND].previous = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_order_across_unlinking() {
        let mut arena = Arena::default();
        let mut list = List::<BY_TIME>::default();
        let entries: Vec<u32> = (0..5).map(|_| arena.insert(Held::vacant())).collect();
        for &entry in &entries {
            list.push_back(&mut arena, entry);
        }
        for gone in [0, 4, 2] {
            list.unlink(&mut arena, entries[gone]);
        }
        let first = list.first().expect("two entries remain");
        assert_eq!(first, entries[1]);
        assert_eq!(List::<BY_TIME>::after(&arena, first), Some(entries[3]));
        assert_eq!(List::<BY_TIME>::after(&arena, entries[3]), None);
    }

    #[test]
    fn indexes_are_reused_and_memory_goes_when_empty() {
        let mut arena = Arena::default();
        let indexes: Vec<u32> = (0..CHUNK + 1).map(|_| arena.insert(Held::vacant())).collect();
        assert_eq!(arena.chunks.len(), 2);
        for &index in &indexes {
            arena.take(index);
        }
        for _ in 0..2 * CHUNK {
            arena.insert(Held::vacant());
        }
        assert_eq!(
            arena.chunks.len(),
            2,
            "freed entries are used before new ones are made"
        );
        arena.trim(0);
        assert_eq!(arena.len(), 2 * CHUNK, "entries in use stay");
        (0..2 * CHUNK as u32).for_each(|index| drop(arena.take(index)));
        arena.trim(2);
        assert_eq!(arena.chunks.len(), 2);
        arena.trim(0);
        assert_eq!(arena.chunks.len(), 0);
    }
}
