//! Which slots have counters for which targets, and which of them send packets to the delay line.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sabot_core::plan::{Slot, TargetId};

/// An account lives for as long as its slot has a rule, or counters for a target: a rule may have no target for a while.
#[derive(Debug, Default)]
pub(super) struct Accounts(Mutex<BTreeMap<Slot, Account>>);

#[derive(Debug, Default)]
struct Account {
    targets: BTreeSet<TargetId>,
    has_rule: bool,
    /// The slot's packets go to the delay line, or did before an edit.
    in_line: bool,
}

impl Accounts {
    /// The slot has a rule, by which its packets go to the delay line or don't.
    pub(super) fn rule(&self, slot: Slot, for_line: bool) {
        let mut accounts = self.lock();
        let account = accounts.entry(slot).or_default();
        account.has_rule = true;
        account.in_line |= for_line;
    }

    /// The slot has no rule any more. Says whether the line may know of it.
    pub(super) fn clear(&self, slot: Slot) -> bool {
        self.change(slot, |account| account.has_rule = false)
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

    /// The slot has no counters for the target any more. Says whether the line may know of the slot.
    pub(super) fn remove(&self, slot: Slot, target: TargetId) -> bool {
        self.change(slot, |account| {
            account.targets.remove(&target);
        })
    }

    fn change(&self, slot: Slot, change: impl FnOnce(&mut Account)) -> bool {
        let mut accounts = self.lock();
        let Entry::Occupied(mut account) = accounts.entry(slot) else {
            return false;
        };
        change(account.get_mut());
        let Account {
            has_rule, in_line, ..
        } = *account.get();
        if !has_rule && account.get().targets.is_empty() {
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
    fn an_account_ends_with_its_rule_and_its_last_target() {
        let accounts = Accounts::default();
        for target in [1, 2] {
            accounts.add(Slot(5), TargetId(target));
        }
        accounts.add(Slot(6), TargetId(1));
        // An edit to an action of the line comes when the targets are there already.
        accounts.rule(Slot(5), true);
        assert_eq!(accounts.in_line(), [Slot(5)]);
        assert!(accounts.is_in_line(Slot(5)) && !accounts.is_in_line(Slot(6)));
        assert!(accounts.clear(Slot(5)), "the line clears the slot");
        for target in [1, 2] {
            assert!(
                accounts.remove(Slot(5), TargetId(target)),
                "the line forgets each target"
            );
        }
        assert!(!accounts.remove(Slot(5), TargetId(2)) && !accounts.remove(Slot(6), TargetId(1)));
        assert!(accounts.lock().is_empty());
    }

    #[test]
    fn a_rule_that_has_no_target_for_a_while_is_still_the_lines() {
        let accounts = Accounts::default();
        accounts.rule(Slot(5), true);
        accounts.add(Slot(5), TargetId(1));
        // Its pod goes, and another one comes.
        assert!(accounts.remove(Slot(5), TargetId(1)));
        assert!(accounts.is_in_line(Slot(5)));
        accounts.add(Slot(5), TargetId(2));
        assert!(accounts.clear(Slot(5)));
        assert!(
            accounts.remove(Slot(5), TargetId(2)),
            "or its tallies are the slot's next fault's"
        );
        assert!(accounts.lock().is_empty());
    }
}
