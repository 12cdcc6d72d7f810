//! How long each slot delays.

use std::time::Duration;

use sabot_abi::MAX_SLOTS;
use sabot_core::model::BootTime;
use sabot_core::plan::Slot;

/// A slot's delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotDelay {
    pub latency: Duration,
    /// Each packet's delay is uniform in `latency - jitter ..= latency + jitter`, but never negative.
    pub jitter: Duration,
    /// Nothing is held from here on.
    pub expires_at: BootTime,
    /// The same seed gives the same sequence of delays.
    pub seed: u64,
}

/// The delays in force, by slot.
#[derive(Debug, Default)]
pub(super) struct Slots {
    entries: Vec<Option<Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: SlotDelay,
    random: SplitMix64,
}

impl Slots {
    /// Returns the instant from which held packets may not be held any more, if the edit brought it forward. A slot
    /// outside of the kernel's table can't be in a tag and is ignored.
    pub(super) fn set(&mut self, slot: Slot, delay: SlotDelay) -> Option<BootTime> {
        if slot.0 >= MAX_SLOTS {
            return None;
        }
        let index = slot.0 as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, None);
        }
        let before = self.entries[index];
        let random = before
            .filter(|entry| entry.delay.seed == delay.seed)
            .map_or(SplitMix64(delay.seed), |entry| entry.random);
        self.entries[index] = Some(Entry { delay, random });
        before
            .is_some_and(|entry| delay.expires_at < entry.delay.expires_at)
            .then_some(delay.expires_at)
    }

    pub(super) fn clear(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot.0 as usize) {
            *entry = None;
        }
    }

    /// When a packet that was read at `now` (ns) goes on; never before `now`. `None` for a slot that is not set.
    pub(super) fn deadline(&mut self, slot: Slot, now: u64) -> Option<u64> {
        let entry = self.entries.get_mut(slot.0 as usize)?.as_mut()?;
        let latency = nanos(entry.delay.latency);
        let jitter = nanos(entry.delay.jitter);
        let delay = if jitter == 0 {
            latency
        } else {
            let span = jitter.saturating_mul(2).saturating_add(1);
            let offset = (u128::from(entry.random.next()) * u128::from(span)) >> 64;
            latency.saturating_add(offset as u64).saturating_sub(jitter)
        };
        Some(now.saturating_add(delay).min(entry.delay.expires_at.0).max(now))
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// Steele, Lea and Flood's generator: eight bytes of state and statistically good, which is what jitter needs.
#[derive(Clone, Copy, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot(3);

    fn delay(latency_us: u64, jitter_us: u64) -> SlotDelay {
        SlotDelay {
            latency: Duration::from_micros(latency_us),
            jitter: Duration::from_micros(jitter_us),
            expires_at: BootTime(u64::MAX),
            seed: 1,
        }
    }

    fn sample(slots: &mut Slots, count: usize) -> Vec<u64> {
        (0..count)
            .map(|_| slots.deadline(SLOT, 1000).expect("the slot is set") - 1000)
            .collect()
    }

    #[test]
    fn the_generator_gives_its_published_sequence() {
        let mut random = SplitMix64(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(expected, [random.next(), random.next(), random.next()]);
    }

    #[test]
    fn jitter_is_uniform_around_the_latency() {
        let mut slots = Slots::default();
        slots.set(SLOT, delay(100, 20));
        let samples = sample(&mut slots, 40_000);
        assert!(samples.iter().all(|ns| (80_000..=120_000).contains(ns)));
        // Four bins of 10,000 expected; five standard deviations are 433.
        for bin in 0..4 {
            let range = 80_000 + bin * 10_000..80_000 + (bin + 1) * 10_000;
            let count = samples.iter().filter(|&&ns| range.contains(&ns)).count();
            assert!((9_567..=10_433).contains(&count), "{count} samples in {range:?}");
        }
    }

    #[test]
    fn jitter_beyond_the_latency_never_goes_back_in_time() {
        let mut slots = Slots::default();
        slots.set(SLOT, delay(10, 1_000));
        let samples = sample(&mut slots, 1_000);
        assert!(samples.contains(&0) && samples.iter().any(|&ns| ns > 900_000));
    }

    #[test]
    fn a_seed_repeats_and_an_edit_with_the_same_seed_goes_on() {
        let (mut one, mut two) = (Slots::default(), Slots::default());
        one.set(SLOT, delay(100, 20));
        two.set(SLOT, delay(100, 20));
        assert_eq!(sample(&mut one, 50), sample(&mut two, 50));
        two.set(SLOT, delay(100, 20));
        assert_eq!(sample(&mut one, 50), sample(&mut two, 50));
        two.set(
            SLOT,
            SlotDelay {
                seed: 2,
                ..delay(100, 20)
            },
        );
        assert_ne!(sample(&mut one, 50), sample(&mut two, 50));
    }

    #[test]
    fn nothing_is_held_past_the_expiry() {
        let mut slots = Slots::default();
        slots.set(
            SLOT,
            SlotDelay {
                expires_at: BootTime(5_000),
                ..delay(1_000, 0)
            },
        );
        assert_eq!(slots.deadline(SLOT, 1_000), Some(5_000));
        assert_eq!(slots.deadline(SLOT, 6_000), Some(6_000));
    }

    #[test]
    fn only_a_shortened_expiry_concerns_held_packets() {
        let mut slots = Slots::default();
        let until = |ns| SlotDelay {
            expires_at: BootTime(ns),
            ..delay(1_000, 0)
        };
        assert_eq!(slots.set(SLOT, until(5_000)), None);
        assert_eq!(slots.set(SLOT, until(9_000)), None);
        assert_eq!(slots.set(SLOT, until(4_000)), Some(BootTime(4_000)));
    }

    #[test]
    fn a_slot_that_is_not_set_has_no_deadline() {
        let mut slots = Slots::default();
        slots.set(SLOT, delay(1, 0));
        slots.clear(SLOT);
        assert_eq!(slots.deadline(SLOT, 0), None);
        assert_eq!(slots.deadline(Slot(40_000), 0), None);
        slots.set(Slot(MAX_SLOTS), delay(1, 0));
        assert_eq!(slots.deadline(Slot(MAX_SLOTS), 0), None);
    }
}
