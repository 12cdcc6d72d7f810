//! From the correlation that is asked for to the one of the normal scores behind it.
//!
//! Scores follow `z' = ρ z + √(1-ρ²) e`, delays are `g(z)`. With the expansion `g = Σ aₖ hₖ` in normalised Hermite
//! polynomials, scores of correlation ρ give delays of covariance `Σ aₖ² ρᵏ`: a power series with no negative
//! coefficient, thus rising in ρ from 0 to the variance, and every correlation from 0 to 1 has its ρ.

use std::f64::consts::PI;

use super::normal;

/// How many polynomials are computed.
const DEGREE: usize = 256;
const GRID_LIMIT: f64 = 8.5;
const GRID_PER_SCORE: f64 = 64.0;
/// Halvings of the interval that holds ρ.
const HALVINGS: usize = 45;

/// How a function of a normal score passes the score's correlation on.
#[derive(Clone, Debug)]
pub(super) struct Spectrum {
    mean: f64,
    variance: f64,
    /// The share of the variance at each degree from 1 on; empty for a constant.
    shares: Vec<f64>,
    /// The share beyond the last degree.
    rest: f64,
}

impl Spectrum {
    pub(super) fn of(function: impl Fn(f64) -> f64) -> Self {
        let points: Vec<Point> = Point::grid(&function).collect();
        let mean: f64 = points
            .iter()
            .map(|point| point.value * point.root * point.root)
            .sum();
        let variance: f64 = (points.iter())
            .map(|point| (point.value - mean).powi(2) * point.root * point.root)
            .sum();
        let mut squares = vec![0.0; DEGREE];
        let mut polynomials: Vec<(f64, f64)> = points.iter().map(|point| (0.0, point.root)).collect();
        for (degree, square) in squares.iter_mut().enumerate() {
            let (former, next) = ((degree as f64).sqrt(), ((degree + 1) as f64).sqrt().recip());
            let mut coefficient = 0.0;
            for (point, (before, current)) in points.iter().zip(&mut polynomials) {
                let following = (point.z * *current - former * *before) * next;
                (*before, *current) = (*current, following);
                coefficient += (point.value - mean) * point.root * following;
            }
            *square = coefficient * coefficient;
        }
        // Less than this is rounding.
        let (shares, rest) = if variance.sqrt() > mean.abs() * 1e-12 {
            normalised(squares, variance)
        } else {
            (Vec::new(), 0.0)
        };
        Self {
            mean,
            variance,
            shares,
            rest,
        }
    }

    pub(super) fn mean(&self) -> f64 {
        self.mean
    }

    pub(super) fn deviation(&self) -> f64 {
        self.variance.sqrt()
    }

    /// The correlation of two values whose scores have the correlation `rho`, from 0 to 1.
    pub(super) fn correlation(&self, rho: f64) -> f64 {
        let known = (self.shares.iter().rev()).fold(0.0, |sum, share| (sum + share) * rho);
        known + self.rest * beyond_degree(rho)
    }

    /// The scores' correlation that gives the values this one; 0 for a function that is constant.
    pub(super) fn score_correlation(&self, asked: f64) -> f64 {
        if asked <= 0.0 || self.shares.is_empty() {
            return 0.0;
        }
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            if self.correlation(middle) < asked {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// A point of the integration.
struct Point {
    z: f64,
    value: f64,
    /// The square root of the point's weight, which keeps the polynomials of a high degree in bounds.
    root: f64,
}

impl Point {
    fn grid(function: &impl Fn(f64) -> f64) -> impl Iterator<Item = Self> {
        let steps = (2.0 * GRID_LIMIT * GRID_PER_SCORE) as u32;
        (0..=steps).map(move |step| {
            let z = f64::from(step) / GRID_PER_SCORE - GRID_LIMIT;
            Self {
                z,
                value: function(z),
                root: (normal::density(z) / GRID_PER_SCORE).sqrt(),
            }
        })
    }
}

/// Shares of the variance, and what is left of it.
fn normalised(squares: Vec<f64>, variance: f64) -> (Vec<f64>, f64) {
    let whole = variance.max(squares.iter().sum());
    let shares: Vec<f64> = squares.iter().map(|square| square / whole).collect();
    let rest = 1.0 - shares.iter().sum::<f64>();
    (shares, rest)
}

/// What is left of the degrees beyond the last one: `ρᵏ` averaged over a tail of `k^(-3/2)`. Only a function with a jump
/// leaves anything to speak of there, and that is how its coefficients fall.
fn beyond_degree(rho: f64) -> f64 {
    if rho <= 0.0 {
        return 0.0;
    }
    let fall = -rho.ln() * DEGREE as f64;
    let complement = 2.0 * normal::cdf(-(2.0 * fall).sqrt());
    (-fall).exp() - (PI * fall).sqrt() * complement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delay::tables::{Kind, Standard};

    const ASKED: [f64; 8] = [0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99];

    #[test]
    fn normal_values_keep_the_correlation() {
        for asked in ASKED {
            let rho = Standard::of(Kind::Normal).spectrum().score_correlation(asked);
            assert!((rho - asked).abs() < 1e-6, "{rho} for {asked}");
        }
    }

    #[test]
    fn uniform_values_have_the_closed_form() {
        for asked in ASKED {
            let rho = Standard::of(Kind::Uniform).spectrum().score_correlation(asked);
            let expected = 2.0 * (PI * asked / 6.0).sin();
            assert!(
                (rho - expected).abs() < 1e-5,
                "{rho} instead of {expected} for {asked}"
            );
        }
    }

    /// A fair coin has the slowest coefficients of all; the correlation of its faces is known (the arcsine law).
    #[test]
    fn even_a_step_has_the_closed_form() {
        let spectrum = Spectrum::of(|z| if z < 0.0 { 0.0 } else { 1e6 });
        for asked in ASKED {
            let rho = spectrum.score_correlation(asked);
            let got = 2.0 / PI * rho.asin();
            assert!((got - asked).abs() < 2e-4, "{got} for {asked}");
        }
    }

    /// The same integral in two dimensions, without the expansion.
    #[test]
    fn heavy_tails_agree_with_the_double_integral() {
        for kind in [Kind::Pareto, Kind::ParetoNormal] {
            let standard = Standard::of(kind);
            for asked in [0.25, 0.5, 0.9] {
                let rho = standard.spectrum().score_correlation(asked);
                let got = double_integral(standard, rho);
                assert!((got - asked).abs() < 2e-3, "{kind:?}: {got} for {asked}");
            }
        }
    }

    fn double_integral(standard: &Standard, rho: f64) -> f64 {
        const STEP: f64 = 0.04;
        let scores = || (-200..=200).map(|step| f64::from(step) * STEP);
        let spread = (1.0 - rho * rho).sqrt();
        scores()
            .map(|z| {
                let inner: f64 = scores()
                    .map(|e| standard.value(rho * z + spread * e) * normal::density(e) * STEP)
                    .sum();
                standard.value(z) * inner * normal::density(z) * STEP
            })
            .sum()
    }

    #[test]
    fn a_constant_has_no_correlation_to_set() {
        let spectrum = Spectrum::of(|_| 5.0);
        assert_eq!(spectrum.score_correlation(0.9), 0.0);
    }
}
