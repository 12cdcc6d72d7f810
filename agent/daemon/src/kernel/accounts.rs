//! Which slots have counters for which targets, and which of them send packets to the delay line.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sabot_core::plan::{Slot, TargetId};

/// An account lives from a slot's first rule or target until its last target is forgotten.
#[derive(Debug, Default)]
pub(super) struct Accounts(Mutex<BTreeMap<Slot, Account>>);

#[derive(Debug, Default)]
struct Account {
    targets: BTreeSet<TargetId>,
    /// The slot's packets go to the delay line, or did before an edit.
    in_line: bool,
}

impl Accounts {
    pub(super) fn send_to_line(&self, slot: Slot) {
        self.lock().entry(slot).or_default().in_line = true;
    }

    pub(super) fn is_in_line(&self, slot: Slot) -> bool {
        self.lock().get(&slot).is_some_and(|account| account.in_line)
    }

    pub(super) fn in_line(&self) -> Vec<Slot> {
        let accounts = self.lock();
        let in_line = accounts.iter().filter(|(_, account)| account.in_line);
        in_line.map(|(slot, _)| *slot).collect()
    }

    pub(super) fn add(&self, slot: Slot, target: TargetId) {
        self.lock().entry(slot).or_default().targets.insert(target);
    }

    /// Says whether the line may know of the slot.
    pub(super) fn remove(&self, slot: Slot, target: TargetId) -> bool {
        let mut accounts = self.lock();
        let Entry::Occupied(mut account) = accounts.entry(slot) else {
            return false;
        };
        account.get_mut().targets.remove(&target);
        let in_line = account.get().in_line;
        if account.get().targets.is_empty() {
            account.remove();
        }
        in_line
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Slot, Account>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_ends_with_its_last_target() {
        let accounts = Accounts::default();
        for target in [1, 2] {
            accounts.add(Slot(5), TargetId(target));
        }
        accounts.add(Slot(6), TargetId(1));
        // An edit to an action of the line comes when the targets are there already.
        accounts.send_to_line(Slot(5));
        assert_eq!(accounts.in_line(), [Slot(5)]);
        assert!(accounts.is_in_line(Slot(5)) && !accounts.is_in_line(Slot(6)));
        for target in [1, 2] {
            assert!(
                accounts.remove(Slot(5), TargetId(target)),
                "the line forgets each target"
            );
        }
        assert!(!accounts.remove(Slot(5), TargetId(2)) && !accounts.remove(Slot(6), TargetId(1)));
        assert_eq!(accounts.in_line(), []);
    }
}
