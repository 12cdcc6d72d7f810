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

#[derive(Debug, Default)]
pub(super) struct Table {
    /// It was listed once.
    pub(super) is_known: bool,
    is_refused: bool,
    objects: BTreeMap<ObjectName, (Version, Item)>,
    deleted: VecDeque<(ObjectName, Version)>,
}

impl Table {
    /// Takes news in; whether that changed anything. What is older than what is known changes nothing.
    pub(super) fn learn(&mut self, news: News) -> bool {
        let was_refused = std::mem::replace(&mut self.is_refused, matches!(news, News::Refused));
        match news {
            News::Refused => !was_refused,
            News::Listed(entries) => {
                let present = |entry: Entry| Some((entry.key, (entry.version, entry.item?)));
                let objects: BTreeMap<_, _> = entries.into_iter().filter_map(present).collect();
                let same = self.is_known && self.objects == objects;
                (self.is_known, self.objects) = (true, objects);
                self.deleted.clear();
                !same || was_refused
            }
            News::Changed(entry) => self.change(*entry),
        }
    }

    /// There is nothing to wait for.
    pub(super) fn is_answered(&self) -> bool {
        self.is_known || self.is_refused
    }

    fn change(&mut self, entry: Entry) -> bool {
        let Entry { key, version, item } = entry;
        let known = self.objects.get(&key).map(|(version, _)| *version);
        let deleted = self.deleted.iter().rfind(|(name, _)| *name == key);
        let newest = known.or(deleted.map(|(_, version)| *version));
        if newest.is_some_and(|newest| !version.is_newer_than(newest)) {
            return false;
        }
        match item {
            Some(item) => {
                let before = self.objects.insert(key, (version, item.clone()));
                before.is_none_or(|(_, before)| before != item)
            }
            None => {
                let before = self.objects.remove(&key);
                self.deleted.push_back((key, version));
                if self.deleted.len() > REMEMBERED {
                    self.deleted.pop_front();
                }
                before.is_some()
            }
        }
    }

    /// In the order of their names.
    pub(super) fn items(&self) -> impl Iterator<Item = (&ObjectName, &Item)> {
        self.objects.iter().map(|(name, (_, item))| (name, item))
    }
}
