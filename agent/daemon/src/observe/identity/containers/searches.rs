//! What was looked for, so that nothing that can't be found is looked for forever.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A new container's cgroup is there before the runtime lists it; what some looks in a row haven't found isn't to be found.
const LOOKS: u32 = 3;
/// After this time it is looked for again.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Things that are looked for at a time; beyond, they are found when others are.
const MOST: usize = 4096;

/// Something that isn't known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Missing {
    Cgroup(u64),
    /// By the id of which the runtime knows no container.
    Container(String),
}

#[derive(Default)]
pub(super) struct Searches(HashMap<Missing, Search>);

struct Search {
    since: Instant,
    /// Looks that ended without it.
    looks: u32,
}

impl Searches {
    /// Somebody met something that isn't known; whether a look is worth it.
    pub(super) fn meet(&mut self, missing: Missing, now: Instant) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&missing) {
            return false;
        }
        let search = self.0.entry(missing).or_insert(Search { since: now, looks: 0 });
        search.looks < LOOKS
    }

    /// A look is over.
    pub(super) fn looked(&mut self, now: Instant) {
        self.0
            .retain(|_, search| now.duration_since(search.since) < FORGOTTEN);
        for search in self.0.values_mut() {
            search.looks += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_some_looks_have_not_found_waits_until_it_is_forgotten() {
        let (mut searches, start) = (Searches::default(), Instant::now());
        let second = |n| start + Duration::from_secs(n);
        for n in 0..u64::from(LOOKS) {
            assert!(searches.meet(Missing::Cgroup(7), second(n)), "look {n}");
            searches.looked(second(n));
        }
        assert!(!searches.meet(Missing::Cgroup(7), second(3)));
        assert!(searches.meet(Missing::Cgroup(8), second(3)), "another one");
        assert!(searches.meet(Missing::Container("7".into()), second(3)));
        searches.looked(second(60));
        assert!(searches.meet(Missing::Cgroup(7), second(60)));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let (mut searches, now) = (Searches::default(), Instant::now());
        for cgroup in 0..MOST as u64 {
            assert!(searches.meet(Missing::Cgroup(cgroup), now));
        }
        assert!(!searches.meet(Missing::Cgroup(MOST as u64), now));
        assert!(searches.meet(Missing::Cgroup(0), now), "it has its place");
    }
}
