//! What is held, for whom, and until when. No I/O and no clock: times come in as arguments.
//!
//! Order: unless it asks for something else, a packet never leaves before an earlier one of its flow (same slot, target,
//! direction, addresses, protocol and ports): see `flows`. The wheel releases equal times in the order of arrival.

use std::sync::Arc;

use sabot_abi::{DIRECTION_EGRESS, Role, Tag};
use sabot_core::action::RejectCode;
use sabot_core::model::TargetIdentity;
use sabot_core::plan::{Slot, TargetId};

use super::arena::{Arena, BY_GROUP, Held, List};
use super::drops::{LineDrop, NetnsDrops};
use super::flows::Flows;
use super::frame::{Wire, mix};
use super::pool::{self, Pool};
use super::tally::{Counters, Delays, Registry};
use super::treat::{Order, State};
use super::wheel::Wheel;

/// Chunks of entries that stay allocated while lines are open.
const SPARE_CHUNKS: usize = 4;

/// Frames of one slot, target and direction.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) slot: Slot,
    pub(super) line: u32,
    egress: bool,
    pub(super) counters: Arc<Counters>,
    netns: Arc<NetnsDrops>,
    pub(super) delays: Arc<Delays>,
    pub(super) state: State,
    held: List<BY_GROUP>,
}

impl Group {
    /// Counts a packet that goes no further.
    pub(super) fn count_drop(&self, why: LineDrop, wire: Wire) {
        self.counters.drops.add(why, wire);
        self.netns.of(self.egress).add(why, wire);
    }
}

/// A frame that asks to be held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) group: u32,
    /// The hash from the frame; the store tells groups apart by itself.
    pub(super) flow: u64,
    pub(super) wire: Wire,
    /// When the classifier sent it here, ns.
    pub(super) sent_at: u64,
    /// ns; at `sent_at` for a frame that needn't be held.
    pub(super) deadline: u64,
    pub(super) order: Order,
    /// It isn't to go on when it has been held, but to be answered with this.
    pub(super) rejected: Option<RejectCode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It can go on right now; it isn't in the store. Tell [`Store::pass`].
    Release,
    Held,
    /// A bound is reached; it isn't in the store.
    Refused,
}

/// A frame that left the store. Its buffer goes back by [`Store::recycle`].
#[derive(Debug)]
pub(super) struct Released {
    pub(super) buffer: Box<[u8]>,
    pub(super) length: usize,
    pub(super) group: u32,
    pub(super) sent_at: u64,
    pub(super) wire: Wire,
    pub(super) rejected: Option<RejectCode>,
}

#[derive(Debug)]
struct LineAccount {
    target: TargetId,
    identity: TargetIdentity,
    netns: Arc<NetnsDrops>,
    charged: usize,
    held: usize,
    /// By the tag's 16 bits without the role; few, so a scan beats a map.
    groups: Vec<(u16, u32)>,
}

pub(super) struct Store {
    arena: Arena,
    wheel: Wheel,
    pool: Pool,
    flows: Flows,
    groups: Vec<Option<Group>>,
    lines: Vec<Option<LineAccount>>,
    open_lines: usize,
    charged: usize,
    bytes_per_line: usize,
    bytes_total: usize,
}

impl Store {
    pub(super) fn new(bytes_per_line: usize, bytes_total: usize, now: u64) -> Self {
        Self {
            arena: Arena::default(),
            wheel: Wheel::new(now),
            pool: Pool::new(bytes_total),
            flows: Flows::default(),
            groups: Vec::new(),
            lines: Vec::new(),
            open_lines: 0,
            charged: 0,
            bytes_per_line,
            bytes_total,
        }
    }

    /// The new line's index; a closed line's index is used again. What the line drops is counted to `netns`, too.
    pub(super) fn open_line(
        &mut self,
        target: TargetId,
        identity: TargetIdentity,
        netns: Arc<NetnsDrops>,
    ) -> u32 {
        self.open_lines += 1;
        let line = LineAccount {
            target,
            identity,
            netns,
            charged: 0,
            held: 0,
            groups: Vec::new(),
        };
        insert(&mut self.lines, line)
    }

    /// Forgets a line and its groups. Whatever it still holds can't be written any more, and is counted so.
    pub(super) fn close_line(&mut self, line: u32) {
        let Some(account) = self.lines.get_mut(line as usize).and_then(Option::as_mut) else {
            return;
        };
        for (_, group) in std::mem::take(&mut account.groups) {
            while let Some(index) = self.group(group).and_then(|group| group.held.first()) {
                let lost = self.take(index);
                if let Some(group) = self.group(group) {
                    group.count_drop(LineDrop::Write, lost.wire);
                }
                self.recycle(lost.buffer);
            }
            self.groups[group as usize] = None;
        }
        self.lines[line as usize] = None;
        self.open_lines -= 1;
    }

    pub(super) fn open_lines(&self) -> usize {
        self.open_lines
    }

    /// Frames held for a line.
    pub(super) fn held_by_line(&self, line: u32) -> usize {
        self.lines
            .get(line as usize)
            .and_then(Option::as_ref)
            .map_or(0, |line| line.held)
    }

    /// Some flow has an entry.
    #[cfg(test)]
    pub(super) fn knows_flows(&self) -> bool {
        !self.flows.is_empty()
    }

    pub(super) fn holds_slot(&self, slot: Slot) -> bool {
        self.groups
            .iter()
            .flatten()
            .any(|group| group.slot == slot && !group.held.is_empty())
    }

    /// The group of a tag on a line, made when it is new.
    pub(super) fn group_of(&mut self, line: u32, tag: Tag, all: &Registry) -> Option<u32> {
        let account = self.lines.get_mut(line as usize)?.as_mut()?;
        let tci = Tag {
            role: Role::Plain,
            ..tag
        }
        .tci();
        if let Some(&(_, group)) = account.groups.iter().find(|(known, _)| *known == tci) {
            return Some(group);
        }
        let slot = Slot(tag.slot);
        let egress = tag.direction == DIRECTION_EGRESS;
        let group = Group {
            slot,
            line,
            egress,
            counters: all.counters((slot, account.target, egress)),
            netns: Arc::clone(&account.netns),
            delays: all.delays(slot),
            state: State::new(account.identity, tag.direction),
            held: List::default(),
        };
        let index = insert(&mut self.groups, group);
        account.groups.push((tci, index));
        Some(index)
    }

    pub(super) fn group(&self, group: u32) -> Option<&Group> {
        self.groups.get(group as usize)?.as_ref()
    }

    pub(super) fn group_mut(&mut self, group: u32) -> Option<&mut Group> {
        self.groups.get_mut(group as usize)?.as_mut()
    }

    /// Forgets the groups of a slot that hold nothing.
    pub(super) fn retire_groups(&mut self, slot: Slot) {
        for index in 0..self.groups.len() {
            let retired = self.groups[index].take_if(|group| group.slot == slot && group.held.is_empty());
            if let Some(group) = retired
                && let Some(line) = self.lines[group.line as usize].as_mut()
            {
                line.groups.retain(|&(_, known)| known != index as u32);
            }
        }
    }

    /// Takes a frame from `scratch` unless it can go on at once or there is no room for it.
    pub(super) fn admit(&mut self, scratch: &mut Box<[u8]>, length: usize, arrival: Arrival) -> Verdict {
        let key = arrival.flow_key();
        let Some(group) = self
            .groups
            .get_mut(arrival.group as usize)
            .and_then(Option::as_mut)
        else {
            return Verdict::Release;
        };
        let last = match arrival.order {
            Order::Free | Order::Overtaken(_) => None,
            Order::Flow => self.flows.last(key),
            Order::Group if group.held.is_empty() => None,
            Order::Group => Some(self.flows.last(key).unwrap_or(0)),
        };
        let deadline = arrival.deadline.max(last.unwrap_or(0));
        if deadline <= arrival.sent_at && last.is_none() {
            return Verdict::Release;
        }
        let Some(line) = self.lines[group.line as usize].as_mut() else {
            return Verdict::Release;
        };
        let charge = pool::charge(length);
        if line.charged + charge > self.bytes_per_line || self.charged + charge > self.bytes_total {
            return Verdict::Refused;
        }
        let Some(buffer) = self.pool.keep(scratch, length) else {
            return Verdict::Refused;
        };
        line.charged += charge;
        line.held += 1;
        self.charged += charge;
        let mut held = Held::new(buffer);
        held.deadline = deadline;
        held.sent_at = arrival.sent_at;
        held.flow = key;
        held.length = length as u32;
        held.packets = arrival.wire.packets;
        held.bytes = arrival.wire.bytes;
        held.group = arrival.group;
        held.line = group.line;
        held.rejected = arrival.rejected;
        let index = self.arena.insert(held);
        self.wheel.insert(&mut self.arena, index);
        group.held.push_back(&mut self.arena, index);
        group.counters.held.add(arrival.wire);
        self.flows.bind(&mut self.arena, index, arrival.order);
        Verdict::Held
    }

    /// Tells those of a flow that wait to be overtaken that this one goes on. True when [`Store::pop_overtaken`] may have
    /// some.
    pub(super) fn pass(&mut self, passing: &Arrival) -> bool {
        self.flows.pass(passing.flow_key(), passing.wire.packets)
    }

    /// The next of the frames that have been overtaken by as many as they waited for, `passing` being the last.
    pub(super) fn pop_overtaken(&mut self, passing: &Arrival) -> Option<Released> {
        let index = self.flows.overtaken(passing.flow_key(), &self.arena)?;
        Some(self.take(index))
    }

    /// Makes everything due whose time has come.
    pub(super) fn advance(&mut self, now: u64) {
        self.wheel.advance(&mut self.arena, now);
    }

    /// The next frame that is due.
    pub(super) fn pop_due(&mut self) -> Option<Released> {
        let index = self.wheel.next_due(&self.arena)?;
        Some(self.take(index))
    }

    pub(super) fn has_due(&self) -> bool {
        self.wheel.has_due()
    }

    /// When [`Store::advance`] has work to do next, in ns.
    pub(super) fn next_wake(&self) -> Option<u64> {
        self.wheel.next_wake()
    }

    /// Gives a buffer back for reuse.
    pub(super) fn recycle(&mut self, buffer: Box<[u8]>) {
        self.pool.give(buffer);
    }

    /// Makes everything due at once that a slot holds.
    pub(super) fn flush_slot(&mut self, slot: Slot, now: u64) {
        self.flush(now, |group| group.slot == slot);
    }

    /// Makes everything due at once that a line holds.
    pub(super) fn flush_line(&mut self, line: u32, now: u64) {
        self.flush(now, |group| group.line == line);
    }

    fn flush(&mut self, now: u64, which: impl Fn(&Group) -> bool) {
        // Earlier packets of a flow must be in the list of due ones before its later ones get there.
        self.advance(now);
        self.each_held(which, |store, index| {
            if !Wheel::is_due(&store.arena, index) {
                store.wheel.remove(&mut store.arena, index);
                store.wheel.insert_due(&mut store.arena, index);
            }
            store.retime(index, now);
        });
    }

    /// Brings the packets of a slot forward that would be held past `limit` (ns).
    pub(super) fn shorten_slot(&mut self, slot: Slot, limit: u64) {
        self.each_held(
            |group| group.slot == slot,
            |store, index| {
                if store.arena[index].deadline > limit {
                    store.wheel.remove(&mut store.arena, index);
                    store.retime(index, limit);
                    store.wheel.insert(&mut store.arena, index);
                }
            },
        );
    }

    /// Drops what is due since more than `late_after` (ns).
    pub(super) fn drop_late(&mut self, now: u64, late_after: u64) {
        // A pass over everything: this happens once after the whole daemon stood still.
        self.each_held(
            |_| true,
            |store, index| {
                if now.saturating_sub(store.arena[index].deadline) <= late_after {
                    return;
                }
                let lost = store.take(index);
                if let Some(group) = store.group(lost.group) {
                    group.count_drop(LineDrop::Late, lost.wire);
                }
                store.recycle(lost.buffer);
            },
        );
    }

    /// Starts a new period after which spare memory is given back by [`Store::trim`].
    pub(super) fn mark(&mut self) {
        self.pool.mark();
        self.arena.trim(SPARE_CHUNKS);
        self.flows.trim();
    }

    /// Gives back some memory that isn't needed; all of it when no line is open.
    pub(super) fn trim(&mut self) {
        if self.open_lines == 0 && self.arena.len() == 0 {
            self.pool.clear();
            self.arena.trim(0);
            self.flows = Flows::default();
            self.groups = Vec::new();
        } else {
            self.pool.trim();
        }
    }

    /// Visits held frames in the order of arrival within their group; `visit` may take the frame that it gets.
    fn each_held(&mut self, which: impl Fn(&Group) -> bool, mut visit: impl FnMut(&mut Self, u32)) {
        for group in 0..self.groups.len() {
            let mut next = self.groups[group]
                .as_ref()
                .filter(|group| which(group))
                .and_then(|g| g.held.first());
            while let Some(index) = next {
                next = List::<BY_GROUP>::after(&self.arena, index);
                visit(self, index);
            }
        }
    }

    /// `deadline` must not be later than the present one.
    fn retime(&mut self, index: u32, deadline: u64) {
        let held = &mut self.arena[index];
        held.deadline = held.deadline.min(deadline);
        self.flows.hasten(&self.arena, index, deadline);
    }

    /// Takes a frame out of every list and account.
    fn take(&mut self, index: u32) -> Released {
        self.wheel.remove(&mut self.arena, index);
        let group_index = self.arena[index].group;
        let wire = Wire {
            packets: self.arena[index].packets,
            bytes: self.arena[index].bytes,
        };
        let charge = pool::charge(self.arena[index].length as usize);
        if let Some(group) = self.groups[group_index as usize].as_mut() {
            group.held.unlink(&mut self.arena, index);
            group.counters.held.subtract(wire);
            if let Some(line) = self.lines[group.line as usize].as_mut() {
                line.charged -= charge;
                line.held -= 1;
            }
        }
        self.charged -= charge;
        self.flows.unbind(&mut self.arena, index);
        let held = self.arena.take(index);
        Released {
            buffer: held.buffer,
            length: held.length as usize,
            group: group_index,
            sent_at: held.sent_at,
            wire,
            rejected: held.rejected,
        }
    }
}

impl Arrival {
    fn flow_key(&self) -> u64 {
        mix(self.flow, u64::from(self.group))
    }
}

/// Puts an item into the first vacant place.
fn insert<T>(places: &mut Vec<Option<T>>, item: T) -> u32 {
    let index = places.iter().position(Option::is_none).unwrap_or(places.len());
    if index == places.len() {
        places.push(Some(item));
    } else {
        places[index] = Some(item);
    }
    index as u32
}
