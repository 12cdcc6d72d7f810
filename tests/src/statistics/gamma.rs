//! The regularised incomplete gamma function, which the chi-square distribution is.

/// More than enough: both expansions converge within some multiple of √a steps.
const STEPS: u32 = 10_000;

/// Q(a, x), the upper share of the gamma distribution of shape `a` beyond `x`.
pub(super) fn gamma_upper(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        1.0
    } else if x < a + 1.0 {
        1.0 - lower_series(a, x)
    } else {
        upper_fraction(a, x)
    }
}

/// `x^a e^-x / Γ(a)`, a factor of both expansions.
fn factor(a: f64, x: f64) -> f64 {
    (a * x.ln() - x - ln_gamma(a)).exp()
}

/// P(a, x) as the factor times `1/a + x/(a(a+1)) + …`.
fn lower_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum) = (1.0 / a, 1.0 / a);
    for step in 1..STEPS {
        term *= x / (a + f64::from(step));
        sum += term;
        if term < sum * f64::EPSILON {
            break;
        }
    }
    sum * factor(a, x)
}

/// Q(a, x) as the factor times the continued fraction `1/(x+1-a - 1(1-a)/(x+3-a - 2(2-a)/(x+5-a - …)))`, by Lentz's
/// method.
fn upper_fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut base = x + 1.0 - a;
    let mut numerator = 1.0 / TINY;
    let mut denominator = 1.0 / base;
    let mut fraction = denominator;
    for step in 1..STEPS {
        let step = f64::from(step);
        let partial = step * (a - step);
        base += 2.0;
        denominator = 1.0 / away_from_zero(base + partial * denominator, TINY);
        numerator = away_from_zero(base + partial / numerator, TINY);
        let change = numerator * denominator;
        fraction *= change;
        if (change - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    fraction * factor(a, x)
}

fn away_from_zero(value: f64, least: f64) -> f64 {
    if value.abs() < least { least } else { value }
}

/// The logarithm of Γ(x) for x > 0: Stirling's series, where it is exact to the last digits, and the recurrence
/// `Γ(x + 1) = x Γ(x)` down to there.
fn ln_gamma(x: f64) -> f64 {
    const STIRLING_FROM: f64 = 16.0;
    let (mut at, mut product) = (x, 1.0);
    while at < STIRLING_FROM {
        product *= at;
        at += 1.0;
    }
    let square = at * at;
    let series = 1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / 1680.0 / square) / square) / square;
    (at - 0.5) * at.ln() - at + 0.5 * (2.0 * std::f64::consts::PI).ln() + series / at - f64::ln(product)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gamma_function_has_its_known_values() {
        let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
        for n in [1, 2, 3, 9, 15, 20, 100] {
            let error = ln_gamma(f64::from(n) + 1.0) - factorial(n).ln();
            assert!(error.abs() < 1e-12 * f64::from(n), "{error} at {n}!");
        }
        let half = std::f64::consts::PI.sqrt().ln();
        assert!((ln_gamma(0.5) - half).abs() < 1e-13);
    }

    /// For a = 1 it is the exponential distribution; for a = 1/2 the squared normal one; for whole a a Poisson sum.
    #[test]
    fn the_upper_share_has_its_closed_forms() {
        for x in [0.1, 0.9, 1.9, 2.1, 5.0, 30.0] {
            assert!((gamma_upper(1.0, x) / (-x).exp() - 1.0).abs() < 1e-12);
            let poisson = (-x).exp() * (1.0 + x + x * x / 2.0 + x * x * x / 6.0);
            assert!((gamma_upper(4.0, x) / poisson - 1.0).abs() < 1e-12, "at {x}");
        }
        // The probability of a normal value beyond ±1.
        assert!((gamma_upper(0.5, 0.5) - 0.317_310_507_862_914).abs() < 1e-13);
        assert_eq!(gamma_upper(3.0, 0.0), 1.0);
    }
}
