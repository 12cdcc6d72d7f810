//! How much earlier than needed the thread has itself woken.

/// In ns. A thread that isn't woken sooner than this is on a busy machine, where asking earlier would only take more of its time.
const MOST: u64 = 100_000;
/// In ns: a hundred wake-ups find the median of an idle machine.
const STEP: u64 = 500;

/// By how much a wake-up usually comes late: the median of the recent ones, roughly, so that a few that take long don't count.
///
/// Packets don't go before their time: of the thread that was woken too early the clock is asked until it has come. So half of
/// the packets are as punctual as the clock, and of what the others are late the usual part is gone.
#[derive(Debug, Default)]
pub(super) struct Lead(u64);

impl Lead {
    /// The moment to be woken at for what is due at this one, both in ns.
    pub(super) fn before(&self, due: u64) -> u64 {
        due.saturating_sub(self.0)
    }

    /// The thread was woken so much after the moment that it had asked for, ns.
    pub(super) fn learn(&mut self, late: u64) {
        self.0 = if late > self.0 {
            (self.0 + STEP).min(MOST)
        } else {
            self.0.saturating_sub(STEP)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(late: impl Iterator<Item = u64>) -> u64 {
        let mut lead = Lead::default();
        late.for_each(|late| lead.learn(late));
        1_000_000 - lead.before(1_000_000)
    }

    #[test]
    fn it_is_the_usual_lateness_whatever_a_few_take() {
        let late = (0..2000).map(|wake| if wake % 10 == 0 { 5_000_000 } else { 40_000 });
        assert!((39_000..=41_000).contains(&learned(late)));
    }

    #[test]
    fn it_is_bounded_and_forgets() {
        let slow = std::iter::repeat_n(5_000_000, 1000);
        assert_eq!(learned(slow.clone()), MOST);
        let fast = std::iter::repeat_n(1000, 1000);
        assert!(learned(slow.chain(fast)) <= 1000 + STEP);
    }

    #[test]
    fn nothing_is_asked_for_before_the_beginning_of_time() {
        let mut lead = Lead::default();
        lead.learn(1000);
        assert_eq!(lead.before(100), 0);
    }
}
