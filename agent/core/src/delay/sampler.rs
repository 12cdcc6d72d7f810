//! The moving part of a delay model.

use std::sync::Arc;
use std::time::Duration;

use super::normal;
use super::{DelayShape, Distribution, ShapeError};

/// The state of one stream of packets, from a key: the same key and shapes give the same delays.
#[derive(Clone, Copy, Debug)]
pub struct DelayStream {
    random: SplitMix64,
    /// The former packet's normal score.
    score: Option<f64>,
}

impl DelayStream {
    pub fn new(key: u64) -> Self {
        Self {
            random: SplitMix64(key),
            score: None,
        }
    }

    /// The next packet's delay in ns. One random number is drawn for a packet, and none by a constant shape.
    pub fn next_delay(&mut self, shape: &DelayShape) -> u64 {
        if let Some(delay) = shape.constant() {
            return delay;
        }
        let draw = normal::quantile(self.random.next_share());
        let score = shape.next_score(self.score, draw);
        self.score = Some(score);
        shape.delay(score)
    }
}

/// A stream with its shape.
#[derive(Clone, Debug)]
pub struct DelayModel {
    shape: Arc<DelayShape>,
    stream: DelayStream,
}

impl DelayModel {
    pub fn new(
        latency: Duration,
        jitter: Duration,
        distribution: &Distribution,
        correlation: f64,
        key: u64,
    ) -> Result<Self, ShapeError> {
        let shape = DelayShape::new(latency, jitter, distribution, correlation)?;
        Ok(Self::of(Arc::new(shape), key))
    }

    /// One more stream of a shape that is there.
    pub fn of(shape: Arc<DelayShape>, key: u64) -> Self {
        Self {
            shape,
            stream: DelayStream::new(key),
        }
    }

    pub fn shape(&self) -> &DelayShape {
        &self.shape
    }

    /// The stream goes on where it is, with other delays.
    pub fn reshape(&mut self, shape: Arc<DelayShape>) {
        self.shape = shape;
    }

    /// The next packet's delay in ns.
    pub fn next_delay(&mut self) -> u64 {
        self.stream.next_delay(&self.shape)
    }
}

/// Steele, Lea and Flood's generator: eight bytes of state and statistically good, which is what jitter needs. The
/// kernel's side draws the same sequence from a key.
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

    /// Uniform and strictly between 0 and 1: the middle of one of 2^52 equal parts, which a double holds exactly.
    fn next_share(&mut self) -> f64 {
        const PARTS: f64 = (1u64 << 52) as f64;
        ((self.next() >> 12) as f64 + 0.5) / PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn shares_are_uniform() {
        let mut random = SplitMix64(1);
        let mut counts = [0u32; 10];
        for _ in 0..100_000 {
            counts[(random.next_share() * 10.0) as usize] += 1;
        }
        // Five standard deviations are 474.
        assert!(
            counts.iter().all(|count| count.abs_diff(10_000) < 474),
            "{counts:?}"
        );
    }
}
