//! What is done with the packets of each slot.

use std::sync::Arc;
use std::time::Duration;

use sabot_abi::MAX_SLOTS;
use sabot_core::action::{Action, RateLimit, RejectCode, ResetTo};
use sabot_core::delay::{DelayShape, ShapeError};
use sabot_core::model::{BootTime, Ramp};
use sabot_core::plan::Slot;

/// What a slot does with its packets, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotPolicy {
    pub treatment: Treatment,
    /// Packets pass at once before.
    pub starts_at: BootTime,
    /// Packets pass at once from here on, and nothing is held any longer.
    pub expires_at: BootTime,
    /// Scales delays and rates, from the start on.
    pub ramp: Option<Ramp>,
    /// The same seed gives the same sequence of delays on the same target in the same direction.
    pub seed: u64,
}

/// What is done with a packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Treatment {
    /// Each packet is held, and goes on behind the earlier ones of its flow unless it may overtake them.
    Delay {
        shape: Arc<DelayShape>,
        allow_reorder: bool,
    },
    /// Chosen packets are held until `gap` later packets of their flow have passed them, and in any case no longer than
    /// `delay`; without a gap until `delay` is over. The others go on at once.
    Reorder { gap: Option<u32>, delay: Duration },
    /// Copies are held; whatever else comes goes on at once.
    Duplicate { delay: Duration },
    /// Packets go on at a rate.
    RateLimit(RateLimit),
    /// Packets go no further; their senders get an ICMP or ICMPv6 error.
    Reject(RejectCode),
    /// TCP packets go no further; one end of their connection or both get a reset.
    Reset(ResetTo),
}

impl Treatment {
    /// The line's part of an action; `None` for an action that sends nothing here.
    pub fn of(action: &Action) -> Result<Option<Self>, ShapeError> {
        Ok(match action {
            Action::Delay(delay) => Some(Self::Delay {
                shape: Arc::new(DelayShape::new(
                    delay.latency,
                    delay.jitter,
                    &delay.distribution,
                    delay.correlation,
                )?),
                allow_reorder: delay.allow_reorder,
            }),
            Action::Reorder(reorder) => Some(Self::Reorder {
                gap: reorder.gap,
                delay: reorder.delay,
            }),
            Action::Duplicate(duplicate) if !duplicate.delay.is_zero() => Some(Self::Duplicate {
                delay: duplicate.delay,
            }),
            Action::RateLimit(limit) => Some(Self::RateLimit(*limit)),
            Action::Reject(code) => Some(Self::Reject(*code)),
            Action::Reset(to) => Some(Self::Reset(*to)),
            Action::Partition | Action::Drop(_) | Action::Corrupt(_) | Action::Duplicate(_) => None,
        })
    }
}

/// An edit of a slot's policy.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Set(SlotPolicy),
    /// The policy ends at this instant, unless it does earlier.
    Expire(BootTime),
}

/// The policies in force, by slot.
#[derive(Debug, Default)]
pub(super) struct Slots {
    entries: Vec<Option<Entry>>,
    lives: u64,
}

/// A slot's policy.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) policy: SlotPolicy,
    /// Tells one fault in a slot from the next; edits leave it.
    pub(super) life: u64,
}

impl Slots {
    /// Returns the instant from which held packets may not be held any more, if the edit brought it forward. A slot
    /// outside of the kernel's table can't be in a tag and is ignored.
    pub(super) fn edit(&mut self, slot: Slot, edit: Edit) -> Option<BootTime> {
        match edit {
            Edit::Set(policy) => self.set(slot, policy),
            Edit::Expire(at) => self.expire(slot, at),
        }
    }

    fn set(&mut self, slot: Slot, policy: SlotPolicy) -> Option<BootTime> {
        if slot.0 >= MAX_SLOTS {
            return None;
        }
        let index = slot.0 as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        let expires_at = policy.expires_at;
        if let Some(entry) = &mut self.entries[index] {
            let before = std::mem::replace(&mut entry.policy, policy).expires_at;
            return (expires_at < before).then_some(expires_at);
        }
        self.lives += 1;
        self.entries[index] = Some(Entry {
            policy,
            life: self.lives,
        });
        None
    }

    fn expire(&mut self, slot: Slot, at: BootTime) -> Option<BootTime> {
        let policy = &mut self.entries.get_mut(slot.0 as usize)?.as_mut()?.policy;
        let earlier = at < policy.expires_at;
        policy.expires_at = policy.expires_at.min(at);
        earlier.then_some(at)
    }

    pub(super) fn clear(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot.0 as usize) {
            *entry = None;
        }
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot.0 as usize)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot(3);

    fn policy(expires_at: u64) -> SlotPolicy {
        SlotPolicy {
            treatment: Treatment::Duplicate {
                delay: Duration::from_millis(1),
            },
            starts_at: BootTime(0),
            expires_at: BootTime(expires_at),
            ramp: None,
            seed: 1,
        }
    }

    #[test]
    fn an_edit_tells_when_it_brings_the_expiry_forward() {
        let mut slots = Slots::default();
        assert_eq!(
            slots.edit(SLOT, Edit::Expire(BootTime(5))),
            None,
            "nothing is set"
        );
        assert_eq!(slots.edit(SLOT, Edit::Set(policy(100))), None);
        assert_eq!(slots.edit(SLOT, Edit::Set(policy(200))), None);
        assert_eq!(slots.edit(SLOT, Edit::Set(policy(50))), Some(BootTime(50)));
        assert_eq!(slots.edit(SLOT, Edit::Expire(BootTime(60))), None);
        assert_eq!(slots.edit(SLOT, Edit::Expire(BootTime(40))), Some(BootTime(40)));
        let entry = slots.get(SLOT).expect("it is set");
        assert_eq!(entry.policy.expires_at, BootTime(40));
    }

    #[test]
    fn a_life_ends_with_clearing_and_not_with_an_edit() {
        let mut slots = Slots::default();
        let life = |slots: &Slots| slots.get(SLOT).map(|entry| entry.life);
        slots.edit(SLOT, Edit::Set(policy(1)));
        let first = life(&slots);
        slots.edit(SLOT, Edit::Set(policy(2)));
        assert_eq!(life(&slots), first);
        slots.clear(SLOT);
        assert_eq!(life(&slots), None);
        slots.edit(SLOT, Edit::Set(policy(3)));
        assert!(life(&slots).is_some() && life(&slots) != first);
    }

    #[test]
    fn a_slot_outside_of_the_table_is_ignored() {
        let mut slots = Slots::default();
        slots.edit(Slot(MAX_SLOTS), Edit::Set(policy(1)));
        slots.edit(Slot(MAX_SLOTS - 1), Edit::Set(policy(1)));
        assert!(slots.get(Slot(MAX_SLOTS)).is_none() && slots.get(Slot(40_000)).is_none());
        assert!(slots.get(Slot(MAX_SLOTS - 1)).is_some());
    }
}
