//! What is known of one scope's objects.

use std::collections::{BTreeMap, VecDeque};

use sabot_core::model::ObjectName;

use super::objects::{Entry, Item, Version};

/// Deleted objects whose versions are remembered, so that older news of them, which come late, don't bring them back.
const REMEMBERED: usize = 1024;

/// What a scope's follower has learnt.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// Everything that there is.
    Listed(Vec<Entry>),
    Changed(Box<Entry>),
    /// It can't be read; what was known stays.
    Refused,
}

/// What news have changed.
#[derive(Debug)]
pub(super) enum Change {
    Nothing,
    /// Any object may be another one.
    All,
    One(Box<One>),
}

/// One object as it was and as it is.
#[derive(Debug)]
pub(super) struct One {
    pub(super) name: ObjectName,
    pub(super) before: Option<Item>,
    pub(super) after: Option<Item>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// It was listed once.
    pub(super) is_known: bool,
    is_refused: bool,
    objects: BTreeMap<ObjectName, (Version, Item)>,
    deleted: VecDeque<(ObjectName, Version)>,
}

impl Table {
    /// Takes news in. What is older than what is known changes nothing.
    pub(super) fn learn(&mut self, news: News) -> Change {
        let was_refused = std::mem::replace(&mut self.is_refused, matches!(news, News::Refused));
        match news {
            News::Refused if was_refused => Change::Nothing,
            News::Refused => Change::All,
            News::Listed(entries) => {
                let mut known = std::mem::take(&mut self.objects);
                let mut changes = !self.is_known || was_refused;
                for Entry { key, version, item } in entries {
                    let Some(item) = item else { continue };
                    // What is the same stays the same in memory too.
                    let item = match known.remove(&key) {
                        Some((_, before)) if before == item => before,
                        _ => {
                            changes = true;
                            item
                        }
                    };
                    self.objects.insert(key, (version, item));
                }
                changes |= !known.is_empty();
                self.is_known = true;
                self.deleted.clear();
                if changes { Change::All } else { Change::Nothing }
            }
            News::Changed(entry) => self.change(*entry),
        }
    }

    /// There is nothing to wait for.
    pub(super) fn is_answered(&self) -> bool {
        self.is_known || self.is_refused
    }

    fn change(&mut self, entry: Entry) -> Change {
        let Entry { key, version, item } = entry;
        let known = self.objects.get(&key).map(|(version, _)| *version);
        let deleted = self.deleted.iter().rfind(|(name, _)| *name == key);
        let newest = known.or(deleted.map(|(_, version)| *version));
        if newest.is_some_and(|newest| !version.is_newer_than(newest)) {
            return Change::Nothing;
        }
        let before = match &item {
            Some(item) => self.objects.insert(key.clone(), (version, item.clone())),
            None => {
                self.deleted.push_back((key.clone(), version));
                if self.deleted.len() > REMEMBERED {
                    self.deleted.pop_front();
                }
                self.objects.remove(&key)
            }
        };
        let before = before.map(|(_, before)| before);
        if before == item {
            return Change::Nothing;
        }
        Change::One(Box::new(One {
            name: key,
            before,
            after: item,
        }))
    }

    pub(super) fn item(&self, name: &ObjectName) -> Option<&Item> {
        self.objects.get(name).map(|(_, item)| item)
    }

    /// In the order of their names.
    pub(super) fn items(&self) -> impl Iterator<Item = (&ObjectName, &Item)> {
        self.objects.iter().map(|(name, (_, item))| (name, item))
    }
}
