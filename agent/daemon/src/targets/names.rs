//! The addresses of names, as the targets' own lookups answer them.
//!
//! An address belongs to a name from the answer that has it until its time to live has passed, and for [`LEAST_LIFETIME`] at
//! least, since a target uses an answer without any lifetime once. Later answers prolong that time and never shorten it:
//! targets may hold different answers, each rightly. The addresses are shared by all targets of the node: what one of them
//! has looked up is a peer for the others as well. A name that no fault names any more learns nothing, and keeps what it has
//! while that is valid, for the next fault on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sabot_core::model::BootTime;
use tokio::sync::watch;

use crate::observe::dns::Answer;

/// For how long an address is valid at least.
pub const LEAST_LIFETIME: Duration = Duration::from_secs(1);
/// Addresses of one name; with one more, the one whose time ends first goes.
pub const MAX_ADDRESSES: usize = 1024;

/// Valid addresses of the names that faults name; a name without any is absent.
pub(super) type Addresses = BTreeMap<String, BTreeSet<IpAddr>>;

/// A cheap clone for each user.
#[derive(Clone, Debug)]
pub struct Names(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    addresses: watch::Sender<Arc<Addresses>>,
}

#[derive(Debug, Default)]
struct Known {
    wanted: BTreeSet<String>,
    /// Until when each address is valid.
    names: BTreeMap<String, BTreeMap<IpAddr, BootTime>>,
}

impl Default for Names {
    fn default() -> Self {
        Self(Arc::new(Shared {
            known: Mutex::default(),
            addresses: watch::Sender::default(),
        }))
    }
}

impl Names {
    /// Says which names to learn from now on.
    pub(super) fn want(&self, names: &BTreeSet<String>) {
        let mut known = self.lock();
        if known.wanted != *names {
            known.wanted.clone_from(names);
            self.publish(&known);
        }
    }

    /// Takes in an answer that came at this time; false when a name has more addresses than are kept.
    pub fn learn(&self, at: BootTime, answer: &Answer) -> bool {
        let mut known = self.lock();
        let (mut is_new, mut is_kept) = (false, true);
        for (name, holds) in &answer.names {
            if !known.wanted.contains(name) || answer.addresses.is_empty() {
                continue;
            }
            let addresses = known.names.entry(name.clone()).or_default();
            for (address, ttl) in &answer.addresses {
                let until = at.after((*ttl).min(*holds).max(LEAST_LIFETIME));
                let valid = addresses.entry(*address).or_insert_with(|| {
                    is_new = true;
                    until
                });
                *valid = until.max(*valid);
            }
            while addresses.len() > MAX_ADDRESSES {
                is_kept = false;
                drop_first_to_end(addresses);
            }
        }
        if is_new {
            self.publish(&known);
        }
        is_kept
    }

    /// Forgets what is no longer valid.
    pub(super) fn expire(&self, now: BootTime) {
        let mut known = self.lock();
        let mut is_gone = false;
        known.names.retain(|_, addresses| {
            addresses.retain(|_, until| {
                let stays = *until > now;
                is_gone |= !stays;
                stays
            });
            !addresses.is_empty()
        });
        if is_gone {
            self.publish(&known);
        }
    }

    /// When the next address ends to be valid.
    pub(super) fn expires_at(&self) -> Option<BootTime> {
        self.lock()
            .names
            .values()
            .flat_map(BTreeMap::values)
            .min()
            .copied()
    }

    /// The addresses of wanted names, and their changes.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<Addresses>> {
        self.0.addresses.subscribe()
    }

    fn publish(&self, known: &Known) {
        let addresses: Addresses = known
            .names
            .iter()
            .filter(|(name, _)| known.wanted.contains(*name))
            .map(|(name, addresses)| (name.clone(), addresses.keys().copied().collect()))
            .collect();
        self.0.addresses.send_if_modified(|current| {
            let changed = **current != addresses;
            if changed {
                *current = Arc::new(addresses);
            }
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_first_to_end(addresses: &mut BTreeMap<IpAddr, BootTime>) {
    let first = addresses.iter().min_by_key(|(_, until)| **until);
    if let Some(address) = first.map(|(address, _)| *address) {
        addresses.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> BootTime {
        BootTime(seconds * 1_000_000_000)
    }

    fn ip(last: u16) -> IpAddr {
        let [high, low] = last.to_be_bytes();
        [192, 0, high, low].into()
    }

    fn answer(name: &str, addresses: &[(u16, u64)]) -> Answer {
        Answer {
            names: vec![(name.to_owned(), Duration::MAX)],
            addresses: addresses
                .iter()
                .map(|(last, ttl)| (ip(*last), SECOND * *ttl as u32))
                .collect(),
            is_partial: false,
        }
    }

    fn wanting(names: &[&str]) -> Names {
        let store = Names::default();
        store.want(&wanted(names));
        store
    }

    fn wanted(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn of(names: &Names, name: &str) -> Vec<IpAddr> {
        let addresses = names.watch().borrow().clone();
        addresses.get(name).into_iter().flatten().copied().collect()
    }

    #[test]
    fn addresses_of_wanted_names_are_valid_for_their_time() {
        let names = wanting(&["a.test"]);
        assert!(names.learn(at(10), &answer("a.test", &[(1, 30), (2, 60)])));
        assert!(names.learn(at(10), &answer("b.test", &[(3, 60)])));
        assert_eq!(of(&names, "a.test"), [ip(1), ip(2)]);
        assert!(of(&names, "b.test").is_empty());
        assert_eq!(names.expires_at(), Some(at(40)));
        names.expire(at(39));
        assert_eq!(of(&names, "a.test"), [ip(1), ip(2)]);
        names.expire(at(40));
        assert_eq!(of(&names, "a.test"), [ip(2)]);
        names.expire(at(70));
        assert_eq!(*names.watch().borrow().clone(), Addresses::new());
        assert_eq!(names.expires_at(), None);
    }

    #[test]
    fn later_answers_prolong_and_never_shorten() {
        let names = wanting(&["a.test"]);
        names.learn(at(0), &answer("a.test", &[(1, 30)]));
        names.learn(at(10), &answer("a.test", &[(1, 30)]));
        names.learn(at(11), &answer("a.test", &[(1, 5)]));
        assert_eq!(names.expires_at(), Some(at(40)));
    }

    #[test]
    fn an_address_without_a_lifetime_is_valid_for_a_second() {
        let names = wanting(&["a.test"]);
        names.learn(at(5), &answer("a.test", &[(1, 0)]));
        assert_eq!(of(&names, "a.test"), [ip(1)]);
        assert_eq!(names.expires_at(), Some(at(6)));
    }

    #[test]
    fn an_alias_ends_with_its_own_lifetime() {
        let names = wanting(&["www.test", "edge.test"]);
        let mut answer = answer("www.test", &[(1, 300)]);
        answer.names[0].1 = SECOND * 20;
        answer.names.push(("edge.test".to_owned(), Duration::MAX));
        names.learn(at(0), &answer);
        assert_eq!(of(&names, "edge.test"), [ip(1)]);
        names.expire(at(20));
        assert!(of(&names, "www.test").is_empty());
        assert_eq!(of(&names, "edge.test"), [ip(1)]);
    }

    #[test]
    fn a_name_that_is_wanted_again_has_what_is_still_valid() {
        let names = wanting(&["a.test"]);
        names.learn(at(0), &answer("a.test", &[(1, 30), (2, 300)]));
        names.want(&wanted(&["b.test"]));
        assert!(of(&names, "a.test").is_empty());
        names.learn(at(1), &answer("a.test", &[(3, 300)]));
        names.expire(at(100));
        names.want(&wanted(&["a.test"]));
        assert_eq!(of(&names, "a.test"), [ip(2)]);
    }

    #[test]
    fn the_first_to_end_makes_room_and_that_is_said() {
        let names = wanting(&["a.test"]);
        let all: Vec<(u16, u64)> = (0..MAX_ADDRESSES as u16)
            .map(|n| (n, 100 + u64::from(n)))
            .collect();
        assert!(names.learn(at(0), &answer("a.test", &all)));
        assert!(
            names.learn(at(0), &answer("a.test", &all)),
            "the same again is no more"
        );
        assert!(!names.learn(at(0), &answer("a.test", &[(5000, 5000)])));
        let left = of(&names, "a.test");
        assert_eq!(left.len(), MAX_ADDRESSES);
        assert!(!left.contains(&ip(0)) && left.contains(&ip(5000)));
    }

    #[test]
    fn only_changes_are_told() {
        let names = wanting(&["a.test"]);
        let mut told = names.watch();
        names.learn(at(0), &answer("a.test", &[(1, 30)]));
        assert!(told.has_changed().unwrap());
        told.mark_unchanged();
        names.learn(at(1), &answer("a.test", &[(1, 30)]));
        names.learn(at(1), &answer("a.test", &[]));
        names.expire(at(2));
        assert!(!told.has_changed().unwrap());
    }
}
