//! Sums of counters.

use std::ops::{Add, AddAssign};

use super::handle::{Ledger, Tally};

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Ledger {
    /// Everything that got lost, wherever it happened.
    pub fn lost(&self) -> Tally {
        self.lost_segmenter + self.lost_queue + self.lost_bound + self.lost_write + self.lost_late
    }

    /// Whether every matched packet and every copy is accounted for; holds whenever no packet is on its way.
    pub fn balances(&self) -> bool {
        let became = self.passed + self.dropped + self.bypassed + self.rejected + self.released + self.lost();
        self.held == Tally::default() && self.matched + self.duplicated == became
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        // Taken apart, so that a new field can't be left out.
        let Self {
            matched,
            passed,
            dropped,
            bypassed,
            rejected,
            released,
            duplicated,
            replied,
            corrupted,
            delayed,
            held,
            lost_segmenter,
            lost_queue,
            lost_bound,
            lost_write,
            lost_late,
            first_match,
        } = other;
        self.matched += matched;
        self.passed += passed;
        self.dropped += dropped;
        self.bypassed += bypassed;
        self.rejected += rejected;
        self.released += released;
        self.duplicated += duplicated;
        self.replied += replied;
        self.corrupted += corrupted;
        self.delayed += delayed;
        self.held += held;
        self.lost_segmenter += lost_segmenter;
        self.lost_queue += lost_queue;
        self.lost_bound += lost_bound;
        self.lost_write += lost_write;
        self.lost_late += lost_late;
        self.first_match = self.first_match.into_iter().chain(first_match).min();
    }
}
