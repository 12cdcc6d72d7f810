//! What lines drop by themselves: of each network namespace, of all slots together.
//!
//! The kernel's own drops are counted by owners, which are told apart by their namespaces' cookies and live longer than a
//! fault. These counts are their complement; the books of the faults have the same packets by slot.

use std::collections::HashMap;
use std::sync::Arc;

use super::frame::Wire;
use super::tally::Counter;
use crate::engine::handle::Tally;

/// Why a line dropped a packet by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LineDrop {
    /// It found no room in a shaper's queue: the fault's verdict.
    Queue,
    /// The line or all lines together were full.
    Bound,
    /// The write back to the TAP failed.
    Write,
    /// The daemon was stopped while it waited.
    Late,
}

impl LineDrop {
    pub const ALL: [Self; 4] = [Self::Queue, Self::Bound, Self::Write, Self::Late];
}

/// What lines dropped of one owner's packets, in one direction and for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerDrops {
    pub owner: u32,
    pub egress: bool,
    pub why: LineDrop,
    /// Since the owner is known; monotonic. Bytes are those of the link layer without the checksum of the frame.
    pub dropped: Tally,
}

/// A counter for each reason.
#[derive(Debug, Default)]
pub(super) struct Drops([Counter; LineDrop::ALL.len()]);

impl Drops {
    pub(super) fn add(&self, why: LineDrop, wire: Wire) {
        self.0[why as usize].add(wire);
    }

    pub(super) fn read(&self, why: LineDrop) -> Tally {
        self.0[why as usize].read()
    }

    pub(super) fn reset(&self) {
        self.0.iter().for_each(Counter::reset);
    }
}

/// A namespace's, on ingress and on egress.
#[derive(Debug, Default)]
pub(super) struct NetnsDrops([Drops; 2]);

impl NetnsDrops {
    pub(super) fn of(&self, egress: bool) -> &Drops {
        &self.0[usize::from(egress)]
    }
}

/// All namespaces that have, or had, a line. Only the engine's thread changes it, as it does the counters.
#[derive(Debug, Default)]
pub(super) struct DropBook {
    /// Who owns which namespace, by cookie; `None` until somebody wants to know what is dropped.
    owners: Option<HashMap<u64, u32>>,
    netns: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    owner: Option<u32>,
    drops: Arc<NetnsDrops>,
}

impl DropBook {
    /// The counters of a namespace, which go on from where they are as long as its owner is there. Those of one without a
    /// cookie are in no book.
    pub(super) fn of(&mut self, cookie: Option<u64>) -> Arc<NetnsDrops> {
        let (Some(owners), Some(cookie)) = (&self.owners, cookie) else {
            return Arc::default();
        };
        let entry = self.netns.entry(cookie).or_insert_with(|| Entry {
            owner: owners.get(&cookie).copied(),
            drops: Arc::default(),
        });
        Arc::clone(&entry.drops)
    }

    /// Says who owns which namespace from now on, by cookie. The counts of an owner who went begin anew for the next one;
    /// what was dropped before a namespace's first owner was known is that owner's.
    pub(super) fn set_owners(&mut self, owners: HashMap<u64, u32>) {
        self.netns.retain(|cookie, entry| {
            let now = owners.get(cookie).copied();
            if entry.owner.is_some() && entry.owner != now {
                entry.drops.0.iter().for_each(Drops::reset);
            }
            entry.owner = now;
            now.is_some() || Arc::strong_count(&entry.drops) > 1
        });
        self.owners = Some(owners);
    }

    /// What there is of the owners who are known.
    pub(super) fn read(&self) -> Vec<OwnerDrops> {
        let mut all = Vec::new();
        for entry in self.netns.values() {
            let Some(owner) = entry.owner else { continue };
            for (egress, why) in [false, true]
                .into_iter()
                .flat_map(|egress| LineDrop::ALL.map(|why| (egress, why)))
            {
                let dropped = entry.drops.of(egress).read(why);
                if dropped.packets > 0 {
                    all.push(OwnerDrops {
                        owner,
                        egress,
                        why,
                        dropped,
                    });
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: Wire = Wire {
        packets: 3,
        bytes: 300,
    };

    fn owners<const N: usize>(owners: [(u64, u32); N]) -> HashMap<u64, u32> {
        owners.into()
    }

    fn packets(book: &DropBook) -> Vec<(u32, u64)> {
        let mut all: Vec<_> = book
            .read()
            .iter()
            .map(|drops| (drops.owner, drops.dropped.packets))
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn drops_outlast_the_line_and_go_with_the_owner() {
        let mut book = DropBook::default();
        book.set_owners(owners([(10, 1)]));
        let first = book.of(Some(10));
        first.of(true).add(LineDrop::Queue, WIRE);
        drop(first);
        let second = book.of(Some(10));
        second.of(true).add(LineDrop::Queue, WIRE);
        assert_eq!(
            book.read(),
            [OwnerDrops {
                owner: 1,
                egress: true,
                why: LineDrop::Queue,
                dropped: Tally {
                    packets: 6,
                    bytes: 600
                },
            }]
        );
        book.set_owners(owners([(10, 1), (11, 2)]));
        assert_eq!(packets(&book), [(1, 6)], "others come and go");
        // The namespace gets another owner while its line is open.
        book.set_owners(owners([(10, 7)]));
        assert_eq!(packets(&book), []);
        second.of(false).add(LineDrop::Late, WIRE);
        assert_eq!(packets(&book), [(7, 3)]);
        book.set_owners(owners([]));
        assert_eq!(packets(&book), []);
        drop(second);
        book.set_owners(owners([]));
        assert!(book.netns.is_empty());
    }

    #[test]
    fn what_is_dropped_before_the_owner_is_known_is_the_owners() {
        let mut book = DropBook::default();
        book.set_owners(owners([]));
        let drops = book.of(Some(10));
        drops.of(false).add(LineDrop::Bound, WIRE);
        assert_eq!(packets(&book), []);
        book.set_owners(owners([(11, 1)]));
        book.set_owners(owners([(10, 2), (11, 1)]));
        assert_eq!(packets(&book), [(2, 3)]);
    }

    #[test]
    fn nothing_is_kept_that_nobody_asks_for() {
        let mut book = DropBook::default();
        book.of(Some(10)).of(true).add(LineDrop::Write, WIRE);
        book.set_owners(owners([(10, 1)]));
        book.of(None).of(true).add(LineDrop::Write, WIRE);
        assert!(book.netns.is_empty());
    }
}
