//! The distributions in their standard form, of mean 0, as tables over the normal score of a probability.
//!
//! Such a table turns a standard normal value `z` into the value with the same probability of not being exceeded. Its
//! knots are equally spaced in `z`, which puts them where the tails are and makes a look-up one multiplication and one
//! interpolation. The tables are computed once and shared by all shapes.

use std::fmt;
use std::sync::{LazyLock, OnceLock};

use super::correlation::Spectrum;
use super::normal;

/// Normal scores beyond this are taken for it: two values in a billion.
pub(super) const SCORE_LIMIT: f64 = 6.0;
const STEPS_PER_SCORE: f64 = 128.0;
const KNOTS: usize = (2.0 * SCORE_LIMIT * STEPS_PER_SCORE) as usize + 1;

/// What a Pareto value of shape 3 and scale 1 is cut at: its quantile of 1 - 2^-20.
const PARETO_CUT: f64 = 101.593_667_325_964_77;
/// The mean of the cut distribution, `3/2 - 1/(2 cut²)`.
const PARETO_MEAN: f64 = 1.5 - 0.5 / (PARETO_CUT * PARETO_CUT);

/// How much of a `ParetoNormal` value is normal and how much is Pareto, both of standard deviation 1.
const MIX_NORMAL: f64 = 0.25;
const MIX_PARETO: f64 = 0.75;

/// Which distribution a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// From -1 to 1, of standard deviation 1/√3.
    Uniform,
    /// All others have a standard deviation of 1.
    Normal,
    Pareto,
    ParetoNormal,
}

/// A standard distribution with its table.
pub(super) struct Standard {
    kind: Kind,
    knots: Box<[f64]>,
    /// Computed when the first fault asks for a correlation.
    spectrum: OnceLock<Spectrum>,
}

impl Standard {
    pub(super) fn of(kind: Kind) -> &'static Self {
        static UNIFORM: LazyLock<Standard> = LazyLock::new(|| Standard::compute(Kind::Uniform));
        static NORMAL: LazyLock<Standard> = LazyLock::new(|| Standard::compute(Kind::Normal));
        static PARETO: LazyLock<Standard> = LazyLock::new(|| Standard::compute(Kind::Pareto));
        static PARETO_NORMAL: LazyLock<Standard> = LazyLock::new(|| Standard::compute(Kind::ParetoNormal));
        match kind {
            Kind::Uniform => &UNIFORM,
            Kind::Normal => &NORMAL,
            Kind::Pareto => &PARETO,
            Kind::ParetoNormal => &PARETO_NORMAL,
        }
    }

    pub(super) fn compute(kind: Kind) -> Self {
        let scores = (0..KNOTS).map(score_of_knot);
        let knots = match kind {
            Kind::Uniform => scores.map(|z| 2.0 * normal::cdf(z) - 1.0).collect(),
            Kind::Normal => scores.collect(),
            Kind::Pareto => scores.map(|z| pareto(normal::cdf(-z))).collect(),
            Kind::ParetoNormal => pareto_normal_knots(),
        };
        Self {
            kind,
            knots,
            spectrum: OnceLock::new(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The value of the normal score `z`.
    pub(super) fn value(&self, z: f64) -> f64 {
        let position = ((z + SCORE_LIMIT) * STEPS_PER_SCORE).clamp(0.0, (KNOTS - 1) as f64);
        let knot = (position as usize).min(KNOTS - 2);
        let (below, above) = (self.knots[knot], self.knots[knot + 1]);
        below + (position - knot as f64) * (above - below)
    }

    /// The least value.
    pub(super) fn least(&self) -> f64 {
        self.knots[0]
    }

    /// The probability of a value of at most `value`.
    pub(super) fn cdf(&self, value: f64) -> f64 {
        let (least, greatest) = (self.knots[0], self.knots[KNOTS - 1]);
        if value < least {
            return 0.0;
        }
        if value >= greatest {
            return 1.0;
        }
        match self.kind {
            Kind::Uniform => (value + 1.0) / 2.0,
            Kind::Normal => normal::cdf(value),
            Kind::Pareto => 1.0 - pareto_beyond(value),
            Kind::ParetoNormal => normal::cdf(self.score(value)),
        }
    }

    /// The normal score of a value between the least and the greatest.
    fn score(&self, value: f64) -> f64 {
        let above = self
            .knots
            .partition_point(|knot| *knot <= value)
            .clamp(1, KNOTS - 1);
        let (low, high) = (self.knots[above - 1], self.knots[above]);
        score_of_knot(above - 1) + (value - low) / (high - low) / STEPS_PER_SCORE
    }

    pub(super) fn spectrum(&self) -> &Spectrum {
        self.spectrum.get_or_init(|| Spectrum::of(|z| self.value(z)))
    }
}

impl PartialEq for Standard {
    /// There is one table of a kind.
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl fmt::Debug for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Standard({:?})", self.kind)
    }
}

/// The share of the standard normal distribution below `z`, from the table of the uniform one.
pub(super) fn probability(uniform: &Standard, z: f64) -> f64 {
    (uniform.value(z) + 1.0) / 2.0
}

fn score_of_knot(knot: usize) -> f64 {
    knot as f64 / STEPS_PER_SCORE - SCORE_LIMIT
}

/// The standard deviation of the cut distribution, whose mean square is `3 - 2/cut`.
fn pareto_deviation() -> f64 {
    (3.0 - 2.0 / PARETO_CUT - PARETO_MEAN * PARETO_MEAN).sqrt()
}

/// The standardised Pareto value that is exceeded with this probability.
fn pareto(beyond: f64) -> f64 {
    let value = beyond.cbrt().recip().min(PARETO_CUT);
    (value - PARETO_MEAN) / pareto_deviation()
}

/// The probability of a standardised Pareto value beyond this one.
fn pareto_beyond(value: f64) -> f64 {
    let value = PARETO_MEAN + value * pareto_deviation();
    if value < 1.0 {
        1.0
    } else if value >= PARETO_CUT {
        0.0
    } else {
        (value * value * value).recip()
    }
}

/// The quantiles of the mixture at the knots: its cdf on a grid of values, inverted by interpolation.
fn pareto_normal_knots() -> Box<[f64]> {
    /// Probabilities below this are beyond the last knot, and too small to have a score.
    const NEGLIGIBLE: f64 = 1e-12;
    let weights = MixtureWeights::new();
    let points: Vec<(f64, f64)> = mixture_grid()
        .filter_map(|value| {
            let (below, beyond) = weights.shares(value);
            let score = if below < beyond {
                (below > NEGLIGIBLE).then(|| normal::quantile(below))
            } else {
                (beyond > NEGLIGIBLE).then(|| -normal::quantile(beyond))
            };
            score.map(|score| (score, value))
        })
        .collect();
    (0..KNOTS)
        .map(|knot| interpolated(&points, score_of_knot(knot)))
        .collect()
}

/// Values at which the mixture's cdf is computed: fine where most of them are, and by a hundredth in the tail.
fn mixture_grid() -> impl Iterator<Item = f64> {
    let body = (-350..400).map(|step| f64::from(step) / 100.0);
    let tail = std::iter::successors(Some(4.0), |value| (*value < 120.0).then_some(value * 1.01));
    body.chain(tail)
}

/// The normal part of the mixture as points with weights, over which the Pareto part is integrated.
struct MixtureWeights {
    points: Vec<(f64, f64)>,
    scale: f64,
}

impl MixtureWeights {
    fn new() -> Self {
        const STEP: f64 = 0.05;
        Self {
            points: (-150..=150)
                .map(|step| f64::from(step) * STEP)
                .map(|z| (z, normal::density(z) * STEP))
                .collect(),
            scale: (MIX_NORMAL * MIX_NORMAL + MIX_PARETO * MIX_PARETO).sqrt(),
        }
    }

    /// The probabilities below and beyond a value of the mixture, each exact relative to itself.
    fn shares(&self, value: f64) -> (f64, f64) {
        let whole = value * self.scale;
        self.points
            .iter()
            .fold((0.0, 0.0), |(below, beyond), (z, weight)| {
                let share = pareto_beyond((whole - MIX_NORMAL * z) / MIX_PARETO);
                (below + weight * (1.0 - share), beyond + weight * share)
            })
    }
}

/// The value at `x` of points in ascending order; beyond them the value of the nearest one.
fn interpolated(points: &[(f64, f64)], x: f64) -> f64 {
    let above = points.partition_point(|point| point.0 <= x);
    match (above.checked_sub(1).map(|below| points[below]), points.get(above)) {
        (Some(low), Some(high)) => low.1 + (x - low.0) / (high.0 - low.0) * (high.1 - low.1),
        (Some(last), None) => last.1,
        (None, Some(first)) => first.1,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 4] = [Kind::Uniform, Kind::Normal, Kind::Pareto, Kind::ParetoNormal];

    /// Mean and standard deviation by integration over the score.
    fn moments(standard: &Standard) -> (f64, f64) {
        const STEP: f64 = 1.0 / 500.0;
        let (mut mean, mut square) = (0.0, 0.0);
        for step in -4000..=4000 {
            let z = f64::from(step) * STEP;
            let value = standard.value(z);
            mean += value * normal::density(z) * STEP;
            square += value * value * normal::density(z) * STEP;
        }
        (mean, (square - mean * mean).sqrt())
    }

    #[test]
    fn the_pareto_is_cut_at_its_quantile() {
        assert!((PARETO_CUT - 2f64.powf(20.0 / 3.0)).abs() < 1e-12);
    }

    #[test]
    fn the_tables_have_mean_zero_and_their_deviation() {
        for kind in KINDS {
            let (mean, deviation) = moments(Standard::of(kind));
            let expected = if kind == Kind::Uniform {
                (1f64 / 3.0).sqrt()
            } else {
                1.0
            };
            assert!(mean.abs() < 1e-3, "{kind:?} has a mean of {mean}");
            assert!(
                (deviation - expected).abs() < 2e-3,
                "{kind:?} has a deviation of {deviation}"
            );
        }
    }

    #[test]
    fn the_tables_reach_as_far_as_documented() {
        let range = |kind| {
            let standard = Standard::of(kind);
            (standard.least(), standard.value(SCORE_LIMIT))
        };
        let near = |(low, high): (f64, f64), (least, greatest): (f64, f64)| {
            (low - least).abs() < 0.01 && (high - greatest).abs() < 0.5
        };
        assert!(near(range(Kind::Uniform), (-1.0, 1.0)));
        assert!(near(range(Kind::Normal), (-6.0, 6.0)));
        assert!(
            near(range(Kind::Pareto), (-0.585, 117.1)),
            "{:?}",
            range(Kind::Pareto)
        );
        assert!(
            near(range(Kind::ParetoNormal), (-2.34, 112.0)),
            "{:?}",
            range(Kind::ParetoNormal)
        );
    }

    /// Between the knots, where the interpolation is worst, and in both tails.
    #[test]
    fn the_interpolated_quantile_has_the_probability_that_was_asked() {
        for kind in KINDS {
            let standard = Standard::of(kind);
            let worst = (-5990..=5990)
                .map(|step| f64::from(step) / 1000.0)
                .map(|z| (standard.cdf(standard.value(z)) - normal::cdf(z)).abs())
                .fold(0.0, f64::max);
            // The cut of the Pareto is an atom of a millionth.
            assert!(worst < 2e-5, "{kind:?}: {worst}");
        }
    }

    /// The table against the mixture's definition: many values of it, drawn on a grid of both parts' probabilities.
    #[test]
    fn the_pareto_normal_is_the_mixture_of_both() {
        const SIDE: u32 = 600;
        let share = |step: u32| (f64::from(step) + 0.5) / f64::from(SIDE);
        let scale = MIX_NORMAL.hypot(MIX_PARETO);
        let mut values = Vec::new();
        for n in 0..SIDE {
            let normal = normal::quantile(share(n));
            values.extend((0..SIDE).map(|p| (MIX_NORMAL * normal + MIX_PARETO * pareto(share(p))) / scale));
        }
        values.sort_unstable_by(f64::total_cmp);
        let standard = Standard::of(Kind::ParetoNormal);
        let worst = (values.iter().enumerate())
            .map(|(rank, value)| (standard.cdf(*value) - rank as f64 / values.len() as f64).abs())
            .fold(0.0, f64::max);
        assert!(worst < 1e-3, "{worst}");
    }
}
