//! Statistics to hold a sample against a model.

mod bursts;
mod gamma;

pub use bursts::{Bins, bursts, geometric};
use gamma::gamma_upper;

/// The Kolmogorov-Smirnov distance of a sample of whole numbers (ns) to a cdf: the greatest difference between the
/// sample's share of values of at most x and `cdf(x)`, over all whole x. Values with a probability of their own are
/// welcome.
///
/// # Panics
///
/// For an empty sample.
pub fn ks_distance(sample: &[u64], cdf: impl Fn(u64) -> f64) -> f64 {
    assert!(!sample.is_empty(), "an empty sample has no distance");
    let mut sorted = sample.to_vec();
    sorted.sort_unstable();
    let count = sorted.len() as f64;
    let (mut seen, mut worst) = (0usize, 0.0f64);
    for same in sorted.chunk_by(|one, other| one == other) {
        // The sample's share stands still from the value before up to just below this one.
        let before = same[0].checked_sub(1).map_or(0.0, &cdf);
        let share = seen as f64 / count;
        seen += same.len();
        worst = worst
            .max((before - share).abs())
            .max((cdf(same[0]) - seen as f64 / count).abs());
    }
    worst
}

/// The probability of a distance this great or greater in a sample of this many independent values of the distribution,
/// by Kolmogorov's limit with Stephens' correction for the size. Atoms make the true probability smaller.
pub fn ks_probability(distance: f64, count: usize) -> f64 {
    let root = (count as f64).sqrt();
    let x = distance * (root + 0.12 + 0.11 / root);
    // There the alternating series needs many terms, and the result is 1 to twelve digits.
    if x < 0.2 {
        return 1.0;
    }
    let terms = (1..=100u8).map(|k| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * (f64::from(k) * x).powi(2)).exp()
    });
    terms.sum::<f64>().clamp(0.0, 1.0)
}

/// Pearson's statistic of observed against expected counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChiSquare {
    pub statistic: f64,
    pub degrees: usize,
}

impl ChiSquare {
    /// One degree of freedom less than there are counts, for a model that nothing was fitted to.
    ///
    /// # Panics
    ///
    /// Unless there are as many expected counts, two or more, all of them above zero.
    pub fn of(observed: &[u64], expected: &[f64]) -> Self {
        assert_eq!(observed.len(), expected.len(), "each count has its expectation");
        assert!(observed.len() > 1, "a single count leaves nothing to compare");
        assert!(expected.iter().all(|count| *count > 0.0), "expected {expected:?}");
        let terms = observed.iter().zip(expected);
        Self {
            statistic: terms
                .map(|(got, count)| (*got as f64 - count).powi(2) / count)
                .sum(),
            degrees: observed.len() - 1,
        }
    }

    /// The probability of a statistic this great or greater if the model holds.
    pub fn probability(self) -> f64 {
        gamma_upper(self.degrees as f64 / 2.0, self.statistic / 2.0)
    }
}

/// How many standard deviations a count of successes is above (or, if negative, below) what `trials` independent trials
/// of probability `share` make one expect. Where nothing can deviate, 0 or infinite.
pub fn binomial_sigmas(successes: u64, trials: u64, share: f64) -> f64 {
    sigmas(successes, trials, share, 1.0)
}

/// The same for a Gilbert model of stationary loss `p / (p + r)`: losses in bursts spread the count by
/// `(2 - p - r) / (p + r)` times the variance of independent ones.
pub fn gilbert_sigmas(losses: u64, packets: u64, p: f64, r: f64) -> f64 {
    sigmas(losses, packets, p / (p + r), (2.0 - p - r) / (p + r))
}

fn sigmas(successes: u64, trials: u64, share: f64, spread: f64) -> f64 {
    let difference = successes as f64 - trials as f64 * share;
    let deviation = (trials as f64 * share * (1.0 - share) * spread).sqrt();
    if difference == 0.0 {
        0.0
    } else {
        difference / deviation
    }
}

/// The mean; 0 for an empty sample.
pub fn mean(sample: &[f64]) -> f64 {
    sample.iter().sum::<f64>() / sample.len().max(1) as f64
}

/// The standard deviation of the sample itself, that is, divided by its size.
pub fn deviation(sample: &[f64]) -> f64 {
    let mean = mean(sample);
    let squares: Vec<f64> = sample.iter().map(|value| (value - mean).powi(2)).collect();
    self::mean(&squares).sqrt()
}

/// The correlation of values that are `lag` apart; 0 for a sample without variance.
pub fn autocorrelation(sample: &[f64], lag: usize) -> f64 {
    let mean = mean(sample);
    let whole: f64 = sample.iter().map(|value| (value - mean).powi(2)).sum();
    if whole == 0.0 {
        return 0.0;
    }
    let pairs = sample.iter().zip(sample.iter().skip(lag));
    pairs
        .map(|(one, other)| (one - mean) * (other - mean))
        .sum::<f64>()
        / whole
}

/// The value that `percent` of 100 of the sample are at or below, linear between neighbours.
///
/// # Panics
///
/// For an empty sample, or a percent that isn't within 0 and 100.
pub fn percentile(sample: &[f64], percent: f64) -> f64 {
    assert!(!sample.is_empty(), "an empty sample has no percentiles");
    assert!((0.0..=100.0).contains(&percent), "{percent} percent");
    let mut sorted = sample.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let position = percent / 100.0 * (sorted.len() - 1) as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    sorted[below] + (position - position.floor()) * (sorted[above] - sorted[below])
}

pub fn median(sample: &[f64]) -> f64 {
    percentile(sample, 50.0)
}

#[cfg(test)]
mod tests;
