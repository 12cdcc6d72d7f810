//! Whose lookups are watched.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use sabot_abi as abi;
use sabot_core::plan::Slot;

/// The slots whose faults name peers by their DNS names.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<BTreeSet<Slot>>);

impl Watches {
    /// Takes down whether a slot's fault names such peers; says whether that is new.
    pub(super) fn note(&self, slot: Slot, watches: bool) -> bool {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if watches {
            slots.insert(slot)
        } else {
            slots.remove(&slot)
        }
    }

    /// Has the target's lookups watched when, and only when, one of its slots asks for it.
    pub(super) fn mark(&self, body: &mut abi::Target) {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = &body.slots[..body.slot_count as usize];
        if listed.iter().any(|slot| slots.contains(&Slot(*slot))) {
            body.flags |= abi::TARGET_WATCH_DNS;
        } else {
            body.flags &= !abi::TARGET_WATCH_DNS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(slots: &[u32]) -> abi::Target {
        let mut body = abi::Target {
            ifindex: 2,
            line_ifindex: 0,
            segmenter_ifindex: 0,
            departures_ifindex: 0,
            flags: abi::TARGET_MAC_HEADER,
            slot_count: slots.len() as u32,
            index: abi::TARGET_NO_INDEX,
            departures_bytes: 0,
            identity: 0,
            slots: [0; abi::MAX_TARGET_SLOTS],
        };
        body.slots[..slots.len()].copy_from_slice(slots);
        body
    }

    fn is_marked(watches: &Watches, mut body: abi::Target) -> bool {
        watches.mark(&mut body);
        assert_eq!(
            body.flags & !abi::TARGET_WATCH_DNS,
            abi::TARGET_MAC_HEADER,
            "other flags stay"
        );
        body.flags & abi::TARGET_WATCH_DNS != 0
    }

    #[test]
    fn a_target_is_watched_while_one_of_its_slots_asks_for_it() {
        let watches = Watches::default();
        assert!(watches.note(Slot(3), true));
        assert!(!watches.note(Slot(3), true), "it is known");
        assert!(!watches.note(Slot(4), false), "it never was");
        assert!(is_marked(&watches, target(&[1, 3])));
        assert!(!is_marked(&watches, target(&[1, 4])));
        // What lies behind the count has no meaning.
        assert!(!is_marked(
            &watches,
            abi::Target {
                slot_count: 1,
                ..target(&[1, 3])
            }
        ));
        assert!(watches.note(Slot(3), false));
        let was_marked = abi::Target {
            flags: abi::TARGET_MAC_HEADER | abi::TARGET_WATCH_DNS,
            ..target(&[1, 3])
        };
        assert!(!is_marked(&watches, was_marked));
    }
}
