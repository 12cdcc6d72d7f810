//! What changed between two looks at the same things.

use std::collections::BTreeMap;

use sabot_proto::sabot::v1::Change;

/// Every key whose value is new, different or gone, in the order of keys; a value that is gone is given as it was.
pub(super) fn changes<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> Vec<(Change, &'a K, &'a V)> {
    let gone = old
        .iter()
        .filter(|(key, _)| !new.contains_key(key))
        .map(|(key, value)| (Change::Deleted, key, value));
    let present = new.iter().filter_map(|(key, value)| match old.get(key) {
        None => Some((Change::Added, key, value)),
        Some(before) if before != value => Some((Change::Modified, key, value)),
        Some(_) => None,
    });
    let mut all: Vec<_> = gone.chain(present).collect();
    all.sort_by_key(|(_, key, _)| *key);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_modifications_and_deletions_are_told_apart() {
        let old = BTreeMap::from([("a", 1), ("b", 2), ("c", 3)]);
        let new = BTreeMap::from([("b", 2), ("c", 4), ("d", 5)]);
        assert_eq!(
            changes(&old, &new),
            [
                (Change::Deleted, &"a", &1),
                (Change::Modified, &"c", &4),
                (Change::Added, &"d", &5)
            ]
        );
        assert!(changes(&new, &new).is_empty());
    }
}
