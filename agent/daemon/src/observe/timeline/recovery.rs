//! When an owner's traffic is again as it was before a fault.

use std::time::Duration;

use sabot_core::model::BootTime;

use super::totals::{Sample, Window};
use crate::observe::durations::quantile;

/// Traffic is compared in pieces of this length.
const PIECE: Duration = Duration::from_secs(1);
/// So many pieces in a row are inside the baseline before it counts as recovered.
const IN_A_ROW: u32 = 3;
/// After this it is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Retransmits in a second that are no sign of trouble, whatever the baseline has.
const TOLERATED: f64 = 1.0;

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It is still compared.
    Watching,
    /// From this moment on everything was inside the baseline.
    Recovered(BootTime),
    /// Not within a minute.
    TooSlow,
    /// There was no traffic to tell by.
    NoTraffic,
}

/// Compares, piece by piece, what comes after the fault with what was before.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    /// Nine of ten round trips took no longer; `None` when none were seen.
    longest: Option<Duration>,
    /// Retransmits in a second.
    retransmits: f64,
    ended: BootTime,
    last: Sample,
    good: u32,
    since: BootTime,
    is_tellable: bool,
}

impl Watcher {
    pub(super) fn new(before: Option<&Window>, end: Sample) -> Self {
        Self {
            longest: before.and_then(|before| quantile(&before.totals.rtts, 0.9)),
            retransmits: before.map_or(0.0, |before| before.rate(before.totals.retransmits)),
            ended: end.at,
            since: end.at,
            last: end,
            good: 0,
            is_tellable: false,
        }
    }

    /// Takes a new sample in; samples that come sooner than a piece's length are passed over.
    pub(super) fn take(&mut self, now: &Sample) -> Recovery {
        let piece = Window::between(&self.last, now);
        if piece.length() >= PIECE {
            match self.judge(&piece) {
                Some(true) => {
                    if self.good == 0 {
                        self.since = piece.from;
                    }
                    self.good += 1;
                    self.is_tellable = true;
                }
                Some(false) => {
                    self.good = 0;
                    self.is_tellable = true;
                }
                None => {}
            }
            self.last = now.clone();
        }
        if self.good >= IN_A_ROW {
            return Recovery::Recovered(self.since);
        }
        if now.at.0.saturating_sub(self.ended.0) < PATIENCE.as_nanos() as u64 {
            return Recovery::Watching;
        }
        if self.is_tellable {
            Recovery::TooSlow
        } else {
            Recovery::NoTraffic
        }
    }

    /// `None` where nothing moved.
    fn judge(&self, piece: &Window) -> Option<bool> {
        let rtt = quantile(&piece.totals.rtts, 0.5);
        if rtt.is_none() && piece.totals.retransmits == 0 {
            return None;
        }
        let is_fast = match (rtt, self.longest) {
            (Some(rtt), Some(longest)) => rtt <= longest,
            // Retransmits without a single answer are no recovery; without a baseline every answer is one.
            (rtt, _) => rtt.is_some(),
        };
        let retransmits = piece.rate(piece.totals.retransmits);
        Some(is_fast && retransmits <= self.retransmits.max(TOLERATED))
    }
}

#[cfg(test)]
mod tests {
    use sabot_abi::log_linear_bucket;

    use super::super::totals::Totals;
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(seconds * 1_000_000_000)
    }

    struct Traffic(Sample);

    impl Traffic {
        fn new() -> Self {
            Self(Sample {
                at: at(100),
                totals: Totals::default(),
            })
        }

        /// Another second, with so many round trips of this many milliseconds.
        fn second(&mut self, count: u64, millis: u64, retransmits: u64) -> Sample {
            self.0.at.0 += 1_000_000_000;
            let ns = millis * 1_000_000;
            self.0.totals.rtts.buckets[log_linear_bucket(ns)] += count;
            self.0.totals.rtts.sum += count * ns;
            self.0.totals.retransmits += retransmits;
            self.0.clone()
        }
    }

    fn watcher(traffic: &mut Traffic) -> Watcher {
        let start = traffic.0.clone();
        let end = traffic.second(100, 10, 0);
        let before = Window::between(&start, &end);
        Watcher::new(Some(&before), end)
    }

    #[test]
    fn three_good_seconds_in_a_row_are_a_recovery_from_the_first_of_them_on() {
        let mut traffic = Traffic::new();
        let mut watcher = watcher(&mut traffic);
        assert_eq!(watcher.take(&traffic.second(10, 50, 0)), Recovery::Watching);
        assert_eq!(watcher.take(&traffic.second(10, 10, 0)), Recovery::Watching);
        assert_eq!(watcher.take(&traffic.second(10, 10, 9)), Recovery::Watching);
        let good = traffic.0.at;
        assert_eq!(watcher.take(&traffic.second(10, 9, 0)), Recovery::Watching);
        // A second without traffic says nothing.
        assert_eq!(watcher.take(&traffic.second(0, 1, 0)), Recovery::Watching);
        assert_eq!(watcher.take(&traffic.second(10, 10, 1)), Recovery::Watching);
        assert_eq!(
            watcher.take(&traffic.second(10, 10, 0)),
            Recovery::Recovered(good)
        );
    }

    #[test]
    fn what_stays_slow_or_silent_is_said_so_after_a_minute() {
        let mut traffic = Traffic::new();
        let mut slow = watcher(&mut traffic);
        let mut silent = slow.clone();
        let last = (0..60).map(|_| slow.take(&traffic.second(10, 50, 0))).last();
        assert_eq!(last, Some(Recovery::TooSlow));
        let mut quiet = Traffic(silent.last.clone());
        let last = (0..60).map(|_| silent.take(&quiet.second(0, 1, 0))).last();
        assert_eq!(last, Some(Recovery::NoTraffic));
    }

    #[test]
    fn without_a_baseline_any_answer_without_retransmits_will_do() {
        let mut traffic = Traffic::new();
        let mut watcher = Watcher::new(None, traffic.0.clone());
        let start = traffic.0.at;
        assert_eq!(watcher.take(&traffic.second(0, 1, 5)), Recovery::Watching);
        for _ in 0..2 {
            assert_eq!(watcher.take(&traffic.second(1, 500, 0)), Recovery::Watching);
        }
        let recovered = watcher.take(&traffic.second(1, 500, 0));
        assert_eq!(recovered, Recovery::Recovered(BootTime(start.0 + 1_000_000_000)));
    }

    #[test]
    fn samples_that_come_too_soon_change_nothing() {
        let mut traffic = Traffic::new();
        let mut watcher = watcher(&mut traffic);
        let next = traffic.second(10, 10, 0);
        let mut soon = next.clone();
        soon.at.0 -= 500_000_000;
        assert_eq!(watcher.take(&soon), Recovery::Watching);
        assert_eq!(watcher.good, 0);
        watcher.take(&next);
        assert_eq!(watcher.good, 1);
    }
}
