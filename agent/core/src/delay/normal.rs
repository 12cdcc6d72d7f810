//! The standard normal distribution.

use std::f64::consts::PI;

/// Below this the series is exact to the last digits; beyond it the continued fraction is, also relative to the tail.
const SERIES_BELOW: f64 = 3.0;

pub(super) fn density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * PI).sqrt()
}

/// The probability of a value of at most `z`. The upper tail is `cdf(-z)`, which keeps its digits.
pub(super) fn cdf(z: f64) -> f64 {
    if z <= -SERIES_BELOW {
        lower_tail(-z)
    } else if z >= SERIES_BELOW {
        1.0 - lower_tail(z)
    } else {
        0.5 + density(z) * odd_series(z)
    }
}

/// `z + z³/3 + z⁵/(3·5) + …`, the integral of the density from 0 to `z` divided by the density at `z`.
fn odd_series(z: f64) -> f64 {
    let (mut term, mut sum, mut odd) = (z, z, 1.0);
    while term.abs() > sum.abs() * f64::EPSILON {
        odd += 2.0;
        term *= z * z / odd;
        sum += term;
    }
    sum
}

/// The probability beyond `z`, by Laplace's continued fraction `φ(z) / (z + 1/(z + 2/(z + 3/…)))`.
fn lower_tail(z: f64) -> f64 {
    let fraction = (1..=60u32).rev().fold(z, |rest, k| z + f64::from(k) / rest);
    density(z) / fraction
}

/// The value that is not exceeded with this probability, which lies strictly between 0 and 1. Acklam's rational
/// approximation: its relative error is below 1.2e-9, and only one draw in twenty needs a logarithm.
pub(super) fn quantile(probability: f64) -> f64 {
    /// Where the tails begin.
    const TAIL: f64 = 0.024_25;
    if probability < TAIL {
        tail_quantile(probability)
    } else if probability > 1.0 - TAIL {
        -tail_quantile(1.0 - probability)
    } else {
        central_quantile(probability - 0.5)
    }
}

fn central_quantile(q: f64) -> f64 {
    const NUMERATOR: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const DENOMINATOR: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    let square = q * q;
    q * polynomial(&NUMERATOR, square) / polynomial(&DENOMINATOR, square)
}

fn tail_quantile(probability: f64) -> f64 {
    const NUMERATOR: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const DENOMINATOR: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    let q = (-2.0 * probability.ln()).sqrt();
    polynomial(&NUMERATOR, q) / polynomial(&DENOMINATOR, q)
}

/// Coefficients from the highest power down.
fn polynomial<const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    coefficients
        .iter()
        .fold(0.0, |sum, coefficient| sum * x + coefficient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cdf_has_its_published_values() {
        let published = [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_542_9),
            (-1.0, 0.158_655_253_931_457_07),
            (2.0, 0.977_249_868_051_820_8),
            (-3.0, 1.349_898_031_630_094_6e-3),
            (-4.0, 3.167_124_183_311_986e-5),
            (-6.0, 9.865_876_450_376_946e-10),
        ];
        for (z, expected) in published {
            let relative = cdf(z) / expected - 1.0;
            assert!(relative.abs() < 1e-12, "at {z}: {} instead of {expected}", cdf(z));
        }
    }

    #[test]
    fn the_quantile_has_its_published_values() {
        let published = [
            (0.5, 0.0),
            (0.75, 0.674_489_750_196_081_7),
            (0.975, 1.959_963_984_540_054),
            (0.995, 2.575_829_303_548_901),
            (1e-6, -4.753_424_308_822_899),
        ];
        for (probability, expected) in published {
            let error = quantile(probability) - expected;
            assert!(error.abs() < 1e-8, "of {probability}: {error} off {expected}");
        }
    }

    #[test]
    fn quantile_and_cdf_are_each_others_inverse() {
        for step in -700..=550 {
            let z = f64::from(step) / 100.0;
            let error = quantile(cdf(z)) - z;
            assert!(error.abs() < 2e-8, "{error} off {z}");
        }
    }
}
