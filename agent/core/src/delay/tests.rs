use std::f64::consts::FRAC_1_SQRT_2;
use std::hint::black_box;
use std::time::Instant;

use super::*;

const LATENCY: Duration = Duration::from_millis(100);
const JITTER: Duration = Duration::from_millis(20);
const CORRELATIONS: [f64; 4] = [0.0, 0.25, 0.5, 0.9];
const KEY: u64 = 7;
const COUNT: usize = 100_000;

fn millis(values: &[u64]) -> Distribution {
    Distribution::Table(values.iter().copied().map(Duration::from_millis).collect())
}

/// Each distribution, a short and a long latency for those that it makes a difference to, and tables with an atom at an
/// edge and within.
fn shapes() -> Vec<(Duration, Distribution)> {
    let short = Duration::from_millis(10);
    vec![
        (LATENCY, Distribution::Uniform),
        (short, Distribution::Uniform),
        (LATENCY, Distribution::Normal),
        (short, Distribution::Normal),
        (LATENCY, Distribution::Pareto),
        (LATENCY, Distribution::ParetoNormal),
        (short, Distribution::ParetoNormal),
        (Duration::ZERO, millis(&[5, 9, 40])),
        (Duration::ZERO, millis(&[0, 0, 0, 100, 100])),
        (Duration::ZERO, millis(&[1, 10, 20, 20, 20, 30, 400])),
    ]
}

fn shape(latency: Duration, distribution: &Distribution, correlation: f64) -> DelayShape {
    DelayShape::new(latency, JITTER, distribution, correlation).expect("the shape is valid")
}

fn sample(shape: DelayShape, key: u64, count: usize) -> Vec<u64> {
    let mut model = DelayModel::of(Arc::new(shape), key);
    (0..count).map(|_| model.next_delay()).collect()
}

/// The greatest distance between the sample's share and the cdf at any whole ns.
fn ks(mut sample: Vec<u64>, shape: &DelayShape) -> f64 {
    sample.sort_unstable();
    let count = sample.len() as f64;
    let mut worst: f64 = 0.0;
    let mut below = 0;
    for same in sample.chunk_by(|one, other| one == other) {
        // The sample's share is the same from the value before up to just below this one.
        let before = same[0].checked_sub(1).map_or(0.0, |ns| shape.cdf(ns));
        worst = worst.max((before - below as f64 / count).abs());
        below += same.len();
        worst = worst.max((shape.cdf(same[0]) - below as f64 / count).abs());
    }
    worst
}

fn moments(sample: &[u64]) -> (f64, f64) {
    let count = sample.len() as f64;
    let mean = sample.iter().map(|ns| *ns as f64).sum::<f64>() / count;
    let variance = sample.iter().map(|ns| (*ns as f64 - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

fn autocorrelation(sample: &[u64], lag: usize) -> f64 {
    let (mean, deviation) = moments(sample);
    let pairs = sample.iter().zip(&sample[lag..]);
    let products = pairs.map(|(one, other)| (*one as f64 - mean) * (*other as f64 - mean));
    products.sum::<f64>() / (sample.len() as f64 * deviation * deviation)
}

/// One sample of each shape and correlation, held against all that the shape says of itself.
#[test]
fn samples_have_the_distribution_moments_and_correlation_of_their_shape() {
    for (latency, distribution) in shapes() {
        for correlation in CORRELATIONS {
            let shape = shape(latency, &distribution, correlation);
            let sample = sample(shape.clone(), KEY, COUNT);
            let check = Check {
                place: format!("{latency:?} {distribution:?} {correlation}"),
                heavy: matches!(distribution, Distribution::Pareto | Distribution::ParetoNormal),
                noise: ((1.0 + correlation) / (1.0 - correlation) / COUNT as f64).sqrt(),
            };
            check.moments(&sample, &shape);
            check.autocorrelation(&sample, &shape);
            check.distribution(sample, &shape);
        }
    }
}

struct Check {
    place: String,
    /// A few values decide the deviation and the correlation of a sample with a heavy tail.
    heavy: bool,
    /// The standard deviation of the mean, in deviations of the delays. Correlated delays wander.
    noise: f64,
}

impl Check {
    fn moments(&self, sample: &[u64], shape: &DelayShape) {
        let (mean, deviation) = moments(sample);
        let asked = shape.standard_deviation().as_nanos() as f64;
        let error = (mean - shape.mean().as_nanos() as f64) / asked;
        assert!(
            error.abs() < 4.0 * self.noise,
            "{}: the mean is {error} deviations off",
            self.place
        );
        let error = deviation / asked - 1.0;
        let allowed = if self.heavy { 0.3 } else { 5.0 * self.noise };
        assert!(
            error.abs() < allowed,
            "{}: the deviation is off by {error}",
            self.place
        );
    }

    fn autocorrelation(&self, sample: &[u64], shape: &DelayShape) {
        let allowed = if self.heavy { 0.05 } else { 0.015 };
        for lag in 1..=3u8 {
            let expected = shape.autocorrelation(lag.into());
            let got = autocorrelation(sample, lag.into());
            let place = &self.place;
            assert!(
                (got - expected).abs() < allowed,
                "{place}: {got} instead of {expected} at {lag}"
            );
        }
    }

    /// An independent sample's distance exceeds 1.95 / √n once in a thousand times.
    fn distribution(&self, sample: Vec<u64>, shape: &DelayShape) {
        let distance = ks(sample, shape);
        assert!(distance < 1.95 * self.noise, "{}: {distance}", self.place);
    }
}

/// The first delay of each of many streams: a stream needs no time to come into its distribution.
#[test]
fn first_delays_have_the_asked_distribution() {
    for (latency, distribution) in shapes() {
        let shape = Arc::new(shape(latency, &distribution, 0.9));
        let firsts = (0..40_000).map(|key| DelayModel::of(Arc::clone(&shape), key).next_delay());
        let distance = ks(firsts.collect(), &shape);
        assert!(distance < 0.01, "{latency:?} {distribution:?}: {distance}");
    }
}

#[test]
fn the_moments_are_the_documented_ones() {
    let of = |distribution| {
        let shape = shape(LATENCY, &distribution, 0.0);
        (shape.mean(), shape.standard_deviation())
    };
    let uniform = Duration::from_nanos(11_547_005);
    assert_eq!(of(Distribution::Uniform), (LATENCY, uniform));
    // Six standard deviations are more than the latency, but what is cut off is less than a nanosecond's part of it.
    let (mean, deviation) = of(Distribution::Normal);
    assert!(mean.abs_diff(LATENCY) < Duration::from_micros(1), "{mean:?}");
    assert!(
        deviation.abs_diff(JITTER) < Duration::from_micros(1),
        "{deviation:?}"
    );
    assert_eq!(of(Distribution::Pareto), (LATENCY, JITTER));
    assert_eq!(of(Distribution::ParetoNormal), (LATENCY, JITTER));
    let table = Duration::from_micros(15_750);
    assert_eq!(of(millis(&[5, 9, 40])).0, table);
}

/// The positive part of a normal value of mean 0 has a mean of `1/√(2π)` and a mean square of 1/2.
#[test]
fn a_delay_below_zero_is_zero() {
    let shape = shape(Duration::ZERO, &Distribution::Normal, 0.0);
    let jitter = JITTER.as_nanos() as f64;
    let mean = 0.398_942_280_4;
    let deviation = (0.5f64 - mean * mean).sqrt();
    assert!((shape.mean().as_nanos() as f64 / jitter / mean - 1.0).abs() < 1e-3);
    assert!((shape.standard_deviation().as_nanos() as f64 / jitter / deviation - 1.0).abs() < 1e-3);
    assert!((shape.cdf(0) - 0.5).abs() < 1e-6);
    let zeros = sample(shape, KEY, 10_000).iter().filter(|ns| **ns == 0).count();
    assert!(zeros.abs_diff(5_000) < 250, "{zeros}");
}

/// The calculated correlation; the spectrum's own tests compare it with closed forms and with a double integral.
#[test]
fn neighbouring_delays_have_the_asked_correlation() {
    for (latency, distribution) in shapes() {
        for asked in CORRELATIONS {
            let shape = shape(latency, &distribution, asked);
            let got = shape.autocorrelation(1);
            assert!(
                (got - asked).abs() < 1e-6,
                "{latency:?} {distribution:?}: {got} for {asked}"
            );
        }
    }
}

/// By Jensen's inequality never faster than `c^k`; an atom slows it most.
#[test]
fn the_correlation_falls_nearly_geometrically() {
    for (latency, distribution) in shapes() {
        let slowest = match distribution {
            Distribution::Uniform | Distribution::Normal => 0.02,
            _ => 0.065,
        };
        for asked in CORRELATIONS {
            let shape = shape(latency, &distribution, asked);
            for lag in 1..=3u8 {
                let got = shape.autocorrelation(lag.into());
                let slower = got - asked.powi(lag.into());
                let place = format!("{latency:?} {distribution:?} {asked} at {lag}: {slower}");
                assert!((-1e-9..slowest).contains(&slower), "{place}");
            }
        }
    }
}

#[test]
fn normal_delays_fall_as_the_powers_of_their_correlation() {
    let shape = shape(Duration::from_secs(1), &Distribution::Normal, FRAC_1_SQRT_2);
    assert!((shape.autocorrelation(2) - 0.5).abs() < 1e-6);
    assert!((shape.autocorrelation(4) - 0.25).abs() < 1e-6);
}

#[test]
fn a_key_repeats_its_delays_and_another_has_others() {
    let shape = || shape(LATENCY, &Distribution::ParetoNormal, 0.5);
    assert_eq!(sample(shape(), 1, 100), sample(shape(), 1, 100));
    assert_ne!(sample(shape(), 1, 100), sample(shape(), 2, 100));
}

#[test]
fn an_edit_goes_on_with_the_stream() {
    let slow = Arc::new(shape(LATENCY, &Distribution::Uniform, 0.5));
    let fast = Arc::new(shape(LATENCY / 2, &Distribution::Uniform, 0.5));
    let mut edited = DelayModel::of(Arc::clone(&slow), KEY);
    let mut former = DelayModel::of(slow, KEY);
    for _ in 0..10 {
        assert_eq!(edited.next_delay(), former.next_delay());
    }
    edited.reshape(fast);
    for _ in 0..10 {
        let earlier = former.next_delay() - edited.next_delay();
        assert!(earlier.abs_diff(50_000_000) <= 1, "{earlier}");
    }
}

#[test]
fn delays_without_jitter_are_constant_and_draw_nothing() {
    let constant = DelayShape::new(LATENCY, Duration::ZERO, &Distribution::Pareto, 0.5).expect("it is valid");
    assert_eq!(constant, DelayShape::fixed(LATENCY));
    assert_eq!(constant.constant(), Some(100_000_000));
    assert_eq!(
        (constant.mean(), constant.standard_deviation()),
        (LATENCY, Duration::ZERO)
    );
    assert_eq!((constant.cdf(99_999_999), constant.cdf(100_000_000)), (0.0, 1.0));
    assert_eq!(constant.autocorrelation(1), 0.0);
    let jittered = Arc::new(shape(LATENCY, &Distribution::Uniform, 0.0));
    assert_eq!(jittered.constant(), None);
    let mut model = DelayModel::of(Arc::new(constant), KEY);
    assert_eq!(model.next_delay(), 100_000_000);
    model.reshape(Arc::clone(&jittered));
    assert_eq!(model.next_delay(), DelayModel::of(jittered, KEY).next_delay());
    assert_eq!(shape(LATENCY, &millis(&[3, 3]), 0.9).constant(), Some(3_000_000));
    assert_eq!(shape(LATENCY, &millis(&[3]), 0.9).constant(), Some(3_000_000));
}

#[test]
fn what_is_not_a_shape_is_refused_with_the_reason() {
    let error = |distribution: &Distribution, correlation| {
        DelayShape::new(LATENCY, JITTER, distribution, correlation)
            .expect_err("it is invalid")
            .to_string()
    };
    for correlation in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
        let text = error(&Distribution::Uniform, correlation);
        assert_eq!(
            text,
            format!("correlation {correlation}: allowed: 0 or more, and less than 1")
        );
    }
    let text = error(&millis(&[]), 0.0);
    assert_eq!(
        text,
        "quantiles: none given; allowed: one or more, in ascending order"
    );
    let text = error(&millis(&[1, 5, 4]), 0.0);
    assert_eq!(
        text,
        "quantiles[2] 4ms: less than the one before it; allowed: ascending order"
    );
}

#[test]
fn extremes_stay_in_range() {
    let longest = Duration::MAX;
    let shape = DelayShape::new(longest, longest, &Distribution::Pareto, 0.99).expect("it is valid");
    assert!(sample(shape, KEY, 1_000).iter().all(|ns| *ns > 1 << 60));
    let least = Duration::from_nanos(1);
    let shape =
        DelayShape::new(Duration::ZERO, least, &Distribution::Uniform, 0.999_999).expect("it is valid");
    assert!(sample(shape, KEY, 1_000).iter().all(|ns| *ns <= 1));
}

/// Printed, for a look at the costs: a machine's load must not fail a test.
#[test]
fn the_costs() {
    const COUNT: u32 = 50_000;
    for (latency, distribution) in shapes() {
        let started = Instant::now();
        let shape = shape(latency, &distribution, 0.5);
        let built = started.elapsed();
        let mut model = DelayModel::of(Arc::new(shape), KEY);
        let started = Instant::now();
        for _ in 0..COUNT {
            black_box(model.next_delay());
        }
        let each = started.elapsed() / COUNT;
        println!("{latency:?} {distribution:?}: built in {built:?}, {each:?} each");
    }
}
