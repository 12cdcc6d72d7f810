//! Randomness that follows from a seed, so that what failed can be tried again.

use std::time::Duration;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice of their own for another thread: what each does follows from the seed, whoever comes first.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.number())
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ a >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        b ^ b >> 31
    }

    /// A number below `sides`.
    ///
    /// # Panics
    ///
    /// `sides` is 0.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.number() % sides
    }

    /// # Panics
    ///
    /// There is nothing to pick from.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len() as u64) as usize]
    }

    /// A whole number of milliseconds between the two.
    ///
    /// # Panics
    ///
    /// The longest is below the shortest.
    pub fn duration(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let span = (longest - shortest).as_millis() as u64 + 1;
        shortest + Duration::from_millis(self.roll(span))
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number() as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_rolls_the_same() {
        let rolls = |seed| {
            let mut dice = Dice::new(seed);
            let mut other = dice.fork();
            ((0..9).map(|_| dice.roll(100)).collect::<Vec<_>>(), other.bytes(9))
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
    }

    #[test]
    fn durations_are_within_their_bounds() {
        let (shortest, longest) = (Duration::from_millis(3), Duration::from_millis(5));
        let mut dice = Dice::new(1);
        let mut seen: Vec<_> = (0..100).map(|_| dice.duration(shortest, longest)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [3, 4, 5].map(Duration::from_millis));
    }
}
