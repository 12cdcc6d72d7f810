//! A shaper in virtual time: when a packet's last bit has left at a rate, with some bytes free at once.
//!
//! The bytes sent so far need the time until `clear_at` at the rate; a packet departs when what they need beyond the
//! burst's own time is over. That is a bucket of tokens that may go below zero, without a clock that ticks. The part of a
//! nanosecond that a packet leaves over is carried to the next, so that no error adds up.

use sabot_core::action::{QueueBound, RateLimit};

/// ns in a second, times the bits of a byte: bytes times this, divided by the rate, are ns.
const NANOS_PER_BYTE: u64 = 8_000_000_000;

/// The state of one queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shaper {
    /// When all bytes so far are sent at the rate, ns.
    clear_at: u64,
    /// What is missing there, in units of a nanosecond divided by `rate`.
    remainder: u64,
    rate: u64,
    /// The last packet's.
    departure: u64,
}

impl Shaper {
    /// When a packet of this many bytes goes on that came at `now` (ns): not before `now`, and not before an earlier one.
    /// `None` when there is no room for it in the queue; it counts for nothing then.
    pub(super) fn send(&mut self, now: u64, bytes: u32, limit: &RateLimit) -> Option<u64> {
        let rate = limit.rate.max(1);
        let (clear_at, remainder) = if self.clear_at < now {
            (now, 0)
        } else {
            (self.clear_at, rescaled(self.remainder, self.rate, rate))
        };
        let needed = nanos_times_rate(bytes.into()).saturating_add(remainder);
        let next = Self {
            clear_at: clear_at.saturating_add(needed / rate),
            remainder: needed % rate,
            rate,
            departure: 0,
        };
        let sent = next.clear_at.saturating_add(u64::from(next.remainder > 0));
        let burst = nanos_times_rate(limit.burst.into()) / rate;
        let departure = sent.saturating_sub(burst).max(now).max(self.departure);
        let patience = match limit.queue {
            QueueBound::Time(time) => u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            QueueBound::Bytes(bytes) => {
                let nanos = u128::from(bytes) * u128::from(NANOS_PER_BYTE) / u128::from(rate);
                u64::try_from(nanos).unwrap_or(u64::MAX)
            }
        };
        if departure - now > patience {
            return None;
        }
        *self = Self { departure, ..next };
        Some(departure)
    }
}

/// The time that bytes need, times the rate.
fn nanos_times_rate(bytes: u64) -> u64 {
    bytes.saturating_mul(NANOS_PER_BYTE)
}

/// The same part of a nanosecond in units of another rate.
fn rescaled(remainder: u64, from: u64, to: u64) -> u64 {
    if from == to || from == 0 {
        return remainder;
    }
    (u128::from(remainder) * u128::from(to) / u128::from(from)) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(rate: u64, burst: u32, queue: QueueBound) -> RateLimit {
        RateLimit { rate, burst, queue }
    }

    fn patient(rate: u64, burst: u32) -> RateLimit {
        limit(rate, burst, QueueBound::Time(Duration::MAX))
    }

    #[test]
    fn the_burst_goes_at_once_and_the_rest_at_the_rate() {
        // 8 Mbit/s are a byte in a microsecond.
        let limit = patient(8_000_000, 3000);
        let mut shaper = Shaper::default();
        let departures: Vec<_> = (0..5).map(|_| shaper.send(SECOND, 1000, &limit)).collect();
        let expected = [0, 0, 0, 1_000_000, 2_000_000].map(|after| Some(SECOND + after));
        assert_eq!(departures, expected);
        // After a pause of 2.5 ms two and a half of them are free again.
        let later = SECOND + 4_500_000;
        let departures: Vec<_> = (0..4).map(|_| shaper.send(later, 1000, &limit)).collect();
        let expected = [0, 0, 500_000, 1_500_000].map(|after| Some(later + after));
        assert_eq!(departures, expected);
    }

    #[test]
    fn a_packet_beyond_the_burst_waits_for_what_is_missing() {
        let mut shaper = Shaper::default();
        let limit = patient(8_000_000, 1000);
        assert_eq!(shaper.send(SECOND, 1500, &limit), Some(SECOND + 500_000));
    }

    #[test]
    fn a_full_queue_drops_at_its_tail_and_forgets_what_it_dropped() {
        let time = QueueBound::Time(Duration::from_micros(2500));
        for queue in [time, QueueBound::Bytes(2500)] {
            let limit = limit(8_000_000, 1000, queue);
            let mut shaper = Shaper::default();
            let sent: Vec<_> = (0..6)
                .map(|_| shaper.send(SECOND, 1000, &limit).is_some())
                .collect();
            assert_eq!(sent, [true, true, true, false, false, false], "{queue:?}");
            assert!(
                shaper.send(SECOND, 500, &limit).is_some(),
                "a smaller one still fits"
            );
            assert!(shaper.send(SECOND + 1_000_000, 1000, &limit).is_some());
            assert!(shaper.send(SECOND + 1_000_000, 1, &limit).is_none());
        }
    }

    /// A full queue for ten seconds: what left is the rate, to a millionth.
    #[test]
    fn the_rate_is_exact_from_a_kilobit_to_ten_gigabits() {
        for rate in [
            1_000,
            999_983,
            1_000_000,
            1_000_000_000,
            9_999_999_967,
            10_000_000_000,
        ] {
            for size in [60, 1514, 66_000] {
                let limit = patient(rate, 0);
                let mut shaper = Shaper::default();
                let count = (rate * 10 / 8 / size).clamp(2, 100_000);
                let mut departure = 0;
                for _ in 0..count {
                    departure = shaper.send(SECOND, size as u32, &limit).expect("it is patient");
                }
                let exact = u128::from(count * size) * u128::from(NANOS_PER_BYTE);
                let exact = exact.div_ceil(u128::from(rate)) as u64;
                assert_eq!(departure - SECOND, exact, "{count} of {size} B at {rate} bit/s");
            }
        }
    }

    #[test]
    fn a_new_rate_holds_from_the_next_packet_on() {
        let mut shaper = Shaper::default();
        shaper.send(SECOND, 1000, &patient(8_000_000, 0));
        let departure = shaper.send(SECOND, 1000, &patient(80_000_000, 0));
        assert_eq!(departure, Some(SECOND + 1_000_000 + 100_000));
        let departure = shaper.send(SECOND, 1000, &patient(80_000_000, 10_000));
        assert_eq!(
            departure,
            Some(SECOND + 1_100_000),
            "no overtaking by a larger burst"
        );
    }

    #[test]
    fn extreme_values_stay_in_range() {
        for rate in [0, 1, u64::MAX] {
            for queue in [QueueBound::Bytes(u64::MAX), QueueBound::Time(Duration::MAX)] {
                let mut shaper = Shaper::default();
                for now in [0, SECOND, u64::MAX] {
                    let departure = shaper.send(now, u32::MAX, &limit(rate, u32::MAX, queue));
                    assert!(departure.is_none_or(|departure| departure >= now));
                }
            }
        }
    }

    proptest! {
        /// Over every stretch of time no more leaves than the burst and what the rate gives, and nothing waits for longer
        /// than it may, is early or out of order.
        #[test]
        fn no_stretch_exceeds_the_rate(
            rate in 1_000_000u64..10_000_000_000,
            burst in 0u32..20_000,
            patience in 1u64..100_000_000,
            packets in prop::collection::vec((0u64..200_000, 40u32..9000), 2..200),
        ) {
            let limit = limit(rate, burst, QueueBound::Time(Duration::from_nanos(patience)));
            let (mut shaper, mut now) = (Shaper::default(), SECOND);
            let mut sent: Vec<(u64, u64)> = Vec::new();
            for (pause, bytes) in packets {
                now += pause;
                if let Some(departure) = shaper.send(now, bytes, &limit) {
                    prop_assert!(departure >= now && departure - now <= patience);
                    prop_assert!(sent.last().is_none_or(|last| last.0 <= departure));
                    sent.push((departure, u64::from(bytes)));
                }
            }
            for first in 0..sent.len() {
                let mut bytes = 0;
                for &(departure, more) in &sent[first..] {
                    bytes += more;
                    // What the first one alone had to wait for was there before the stretch began.
                    let allowed = u128::from(burst.max(sent[first].1 as u32)) * u128::from(NANOS_PER_BYTE)
                        + u128::from(departure - sent[first].0 + 1) * u128::from(rate);
                    prop_assert!(u128::from(bytes) * u128::from(NANOS_PER_BYTE) <= allowed);
                }
            }
        }
    }
}
