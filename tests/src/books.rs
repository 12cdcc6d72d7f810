//! A fault's counters, as numbers that can be compared with what a witness saw.

use std::iter::Sum;
use std::ops::Add;

use sabot_proto::sabot::v1::{Direction, Fault, Ledger, Tally};

use crate::witness::Count;

/// The counters of a fault in one direction, summed over its targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub matched: Count,
    pub passed: Count,
    pub dropped: Count,
    pub bypassed: Count,
    pub released: Count,
    pub duplicated: Count,
    pub rejected: Count,
    pub replied: Count,
    pub corrupted: Count,
    pub delayed: Count,
    pub held: Count,
    pub lost_segmenter: Count,
    pub lost_queue: Count,
    pub lost_bound: Count,
    pub lost_write: Count,
    pub lost_late: Count,
}

impl Books {
    pub fn of(fault: &Fault, direction: Direction) -> Self {
        let ledgers = fault.status.iter().flat_map(|status| &status.ledgers);
        ledgers
            .filter(|entry| entry.direction == direction as i32)
            .filter_map(|entry| entry.ledger.as_ref())
            .map(Self::from)
            .sum()
    }

    /// Everything that got lost, wherever it happened.
    pub fn lost(&self) -> Count {
        self.lost_segmenter + self.lost_queue + self.lost_bound + self.lost_write + self.lost_late
    }

    /// What the fault let on, sooner or later.
    pub fn went_on(&self) -> Count {
        self.passed + self.bypassed + self.released
    }

    /// The identity that must hold once nothing is on its way.
    pub fn is_balanced(&self) -> bool {
        let met = self.matched + self.duplicated;
        let became = self.went_on() + self.dropped + self.rejected + self.lost();
        self.held == Count::default() && met == became
    }

    /// # Panics
    ///
    /// [`Books::is_balanced`] doesn't hold.
    pub fn assert_balanced(&self) {
        assert!(
            self.is_balanced(),
            "matched and duplicated aren't what became of them, or packets are still held: {self:#?}"
        );
    }
}

impl From<&Ledger> for Books {
    fn from(ledger: &Ledger) -> Self {
        let count = |tally: Option<Tally>| {
            let tally = tally.unwrap_or_default();
            Count {
                packets: tally.packets,
                bytes: tally.bytes,
            }
        };
        Self {
            matched: count(ledger.matched),
            passed: count(ledger.passed),
            dropped: count(ledger.dropped),
            bypassed: count(ledger.bypassed),
            released: count(ledger.released),
            duplicated: count(ledger.duplicated),
            rejected: count(ledger.rejected),
            replied: count(ledger.replied),
            corrupted: count(ledger.corrupted),
            delayed: count(ledger.delayed),
            held: count(ledger.held),
            lost_segmenter: count(ledger.lost_segmenter),
            lost_queue: count(ledger.lost_queue),
            lost_bound: count(ledger.lost_bound),
            lost_write: count(ledger.lost_write),
            lost_late: count(ledger.lost_late),
        }
    }
}

impl Add for Books {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            matched: self.matched + other.matched,
            passed: self.passed + other.passed,
            dropped: self.dropped + other.dropped,
            bypassed: self.bypassed + other.bypassed,
            released: self.released + other.released,
            duplicated: self.duplicated + other.duplicated,
            rejected: self.rejected + other.rejected,
            replied: self.replied + other.replied,
            corrupted: self.corrupted + other.corrupted,
            delayed: self.delayed + other.delayed,
            held: self.held + other.held,
            lost_segmenter: self.lost_segmenter + other.lost_segmenter,
            lost_queue: self.lost_queue + other.lost_queue,
            lost_bound: self.lost_bound + other.lost_bound,
            lost_write: self.lost_write + other.lost_write,
            lost_late: self.lost_late + other.lost_late,
        }
    }
}

impl Sum for Books {
    fn sum<I: Iterator<Item = Self>>(books: I) -> Self {
        books.fold(Self::default(), Add::add)
    }
}
