//! Repeated measurements, and what is said of them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

/// Values of one quantity, in its unit.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// In milliseconds.
    pub(super) fn push_ms(&mut self, duration: Duration) {
        self.push(duration.as_secs_f64() * 1e3);
    }

    /// Each value less the one that the other quantity had in the same round.
    pub(super) fn less(&self, other: &Self) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(one, other)| one - other).collect())
    }

    /// Their distribution; all zero of none.
    pub(super) fn spread(&self) -> Spread {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        // The nearest rank: a value that was measured.
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted
                .get(rank.clamp(1, sorted.len().max(1)) - 1)
                .copied()
                .unwrap_or_default()
        };
        Spread {
            repetitions: sorted.len(),
            min: at(0.0),
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// How repeated measurements are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    pub(super) repetitions: usize,
    #[serde(deserialize_with = "number")]
    pub(super) min: f64,
    #[serde(deserialize_with = "number")]
    pub(super) p50: f64,
    #[serde(deserialize_with = "number")]
    pub(super) p99: f64,
    #[serde(deserialize_with = "number")]
    pub(super) max: f64,
}

/// JSON has `null` for what isn't a number.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Option::deserialize(deserializer).map(|value| value.unwrap_or(f64::NAN))
}

/// One value as a spread of its own.
pub(super) fn single(value: f64) -> Spread {
    let mut samples = Samples::default();
    samples.push(value);
    samples.spread()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut samples = Samples::default();
        for value in (1..=200).rev() {
            samples.push(f64::from(value));
        }
        let spread = samples.spread();
        assert_eq!(
            (spread.min, spread.p50, spread.p99, spread.max),
            (1.0, 100.0, 198.0, 200.0)
        );
        let mut one = Samples::default();
        one.push_ms(Duration::from_micros(1500));
        assert_eq!(
            one.spread(),
            Spread {
                repetitions: 1,
                min: 1.5,
                p50: 1.5,
                p99: 1.5,
                max: 1.5
            }
        );
        assert_eq!(Samples::default().spread().repetitions, 0);
    }

    #[test]
    fn differences_are_those_of_the_same_round() {
        let [mut with, mut without] = [Samples::default(), Samples::default()];
        for (one, other) in [(11.0, 1.0), (25.0, 20.0), (9.0, 2.0)] {
            with.push(one);
            without.push(other);
        }
        let added = with.less(&without).spread();
        assert_eq!((added.min, added.p50, added.max), (5.0, 7.0, 10.0));
    }
}
