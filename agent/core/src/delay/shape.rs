//! The immutable part of a delay model.

use std::time::Duration;

use super::Distribution;
use super::correlation::Spectrum;
use super::tables::{Kind, Standard, probability};

/// Why there are no delays as asked for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ShapeError {
    #[error("correlation {given}: allowed: 0 or more, and less than 1")]
    Correlation { given: f64 },
    #[error("quantiles: none given; allowed: one or more, in ascending order")]
    NoQuantiles,
    #[error("quantiles[{index}] {given:?}: less than the one before it; allowed: ascending order")]
    QuantileOrder { index: usize, given: Duration },
}

/// A distribution of delays with the correlation of neighbouring ones.
#[derive(Clone, Debug, PartialEq)]
pub struct DelayShape {
    quantiles: Quantiles,
    /// The correlation of neighbouring scores, and `√(1-ρ²)`, the share of a new draw.
    rho: f64,
    fresh: f64,
}

/// Delays in ns by the normal score of their probability.
#[derive(Clone, Debug, PartialEq)]
enum Quantiles {
    Constant(u64),
    Scaled {
        latency: f64,
        jitter: f64,
        standard: &'static Standard,
    },
    Table {
        /// At least two.
        values: Box<[f64]>,
        uniform: &'static Standard,
    },
}

impl DelayShape {
    /// `correlation` is the one of two neighbouring delays, from 0 to less than 1.
    pub fn new(
        latency: Duration,
        jitter: Duration,
        distribution: &Distribution,
        correlation: f64,
    ) -> Result<Self, ShapeError> {
        if !(0.0..1.0).contains(&correlation) {
            return Err(ShapeError::Correlation { given: correlation });
        }
        let quantiles = match distribution {
            Distribution::Uniform => Quantiles::scaled(latency, jitter, Kind::Uniform),
            Distribution::Normal => Quantiles::scaled(latency, jitter, Kind::Normal),
            Distribution::Pareto => Quantiles::scaled(latency, jitter, Kind::Pareto),
            Distribution::ParetoNormal => Quantiles::scaled(latency, jitter, Kind::ParetoNormal),
            Distribution::Table(table) => Quantiles::table(table)?,
        };
        let rho = quantiles.score_correlation(correlation);
        Ok(Self {
            quantiles,
            rho,
            fresh: (1.0 - rho * rho).sqrt(),
        })
    }

    /// The same delay for every packet.
    pub fn fixed(latency: Duration) -> Self {
        Self {
            quantiles: Quantiles::Constant(nanos(latency)),
            rho: 0.0,
            fresh: 1.0,
        }
    }

    /// The delay in ns where it is the same for every packet; such a shape draws nothing from a stream.
    pub fn constant(&self) -> Option<u64> {
        match self.quantiles {
            Quantiles::Constant(delay) => Some(delay),
            Quantiles::Scaled { .. } | Quantiles::Table { .. } => None,
        }
    }

    /// The probability of a delay of at most this many ns.
    pub fn cdf(&self, delay_ns: u64) -> f64 {
        // Delays are rounded to whole ns.
        let delay = delay_ns as f64 + 0.5;
        match &self.quantiles {
            Quantiles::Constant(constant) => f64::from(delay_ns >= *constant),
            Quantiles::Scaled {
                latency,
                jitter,
                standard,
            } => standard.cdf((delay - latency) / jitter),
            Quantiles::Table { values, .. } => table_cdf(values, delay),
        }
    }

    pub fn mean(&self) -> Duration {
        Duration::from_nanos(rounded(self.quantiles.moments().0))
    }

    pub fn standard_deviation(&self) -> Duration {
        Duration::from_nanos(rounded(self.quantiles.moments().1))
    }

    /// The correlation of two delays with `lag - 1` packets between them; 0 for a constant delay.
    pub fn autocorrelation(&self, lag: u32) -> f64 {
        let rho = self.rho.powf(f64::from(lag));
        self.quantiles.with_spectrum(|spectrum| spectrum.correlation(rho))
    }

    /// The score that follows: `draw` is standard normal.
    pub(super) fn next_score(&self, former: Option<f64>, draw: f64) -> f64 {
        former.map_or(draw, |former| self.rho * former + self.fresh * draw)
    }

    /// The delay in ns of a normal score.
    pub(super) fn delay(&self, score: f64) -> u64 {
        rounded(self.quantiles.value(score))
    }
}

impl Quantiles {
    fn scaled(latency: Duration, jitter: Duration, kind: Kind) -> Self {
        if jitter.is_zero() {
            return Self::Constant(nanos(latency));
        }
        Self::Scaled {
            latency: nanos(latency) as f64,
            jitter: nanos(jitter) as f64,
            standard: Standard::of(kind),
        }
    }

    fn table(table: &[Duration]) -> Result<Self, ShapeError> {
        let (Some(first), Some(last)) = (table.first(), table.last()) else {
            return Err(ShapeError::NoQuantiles);
        };
        if let Some(before) = table.windows(2).position(|pair| pair[1] < pair[0]) {
            return Err(ShapeError::QuantileOrder {
                index: before + 1,
                given: table[before + 1],
            });
        }
        if first == last {
            return Ok(Self::Constant(nanos(*first)));
        }
        Ok(Self::Table {
            values: table.iter().map(|quantile| nanos(*quantile) as f64).collect(),
            uniform: Standard::of(Kind::Uniform),
        })
    }

    fn value(&self, score: f64) -> f64 {
        match self {
            Self::Constant(delay) => *delay as f64,
            Self::Scaled {
                latency,
                jitter,
                standard,
            } => (latency + jitter * standard.value(score)).max(0.0),
            Self::Table { values, uniform } => {
                let position = probability(uniform, score) * (values.len() - 1) as f64;
                let below = (position as usize).min(values.len() - 2);
                values[below] + (position - below as f64) * (values[below + 1] - values[below])
            }
        }
    }

    /// Whether some delays would be below zero.
    fn cut_at_zero(&self) -> bool {
        match self {
            Self::Scaled {
                latency,
                jitter,
                standard,
            } => latency + jitter * standard.least() < 0.0,
            Self::Constant(_) | Self::Table { .. } => false,
        }
    }

    fn score_correlation(&self, asked: f64) -> f64 {
        match self {
            Self::Constant(_) => 0.0,
            _ if asked == 0.0 => 0.0,
            _ => self.with_spectrum(|spectrum| spectrum.score_correlation(asked)),
        }
    }

    fn with_spectrum(&self, ask: impl FnOnce(&Spectrum) -> f64) -> f64 {
        match self {
            Self::Constant(_) => 0.0,
            // Neither latency nor jitter matter then, and the spectrum is there already.
            Self::Scaled { standard, .. } if !self.cut_at_zero() => ask(standard.spectrum()),
            _ => ask(&Spectrum::of(|score| self.value(score))),
        }
    }

    /// Mean and standard deviation in ns.
    fn moments(&self) -> (f64, f64) {
        match self {
            Self::Constant(delay) => (*delay as f64, 0.0),
            Self::Scaled {
                latency,
                jitter,
                standard,
            } if !self.cut_at_zero() => match standard.kind() {
                Kind::Uniform => (*latency, jitter / 3f64.sqrt()),
                Kind::Normal | Kind::Pareto | Kind::ParetoNormal => (*latency, *jitter),
            },
            Self::Scaled { .. } => {
                let spectrum = Spectrum::of(|score| self.value(score));
                (spectrum.mean(), spectrum.deviation())
            }
            Self::Table { values, .. } => table_moments(values),
        }
    }
}

fn table_cdf(values: &[f64], delay: f64) -> f64 {
    let above = values.partition_point(|value| *value <= delay);
    let Some(below) = above.checked_sub(1) else {
        return 0.0;
    };
    let Some(next) = values.get(above) else {
        return 1.0;
    };
    let within = (delay - values[below]) / (next - values[below]);
    (below as f64 + within) / (values.len() - 1) as f64
}

/// Exact: between two quantiles delays are uniform.
fn table_moments(values: &[f64]) -> (f64, f64) {
    let segments = (values.len() - 1) as f64;
    let mean = values
        .windows(2)
        .map(|ends| (ends[0] + ends[1]) / 2.0)
        .sum::<f64>()
        / segments;
    let variance = (values.windows(2))
        .map(|ends| (ends[0] - mean, ends[1] - mean))
        .map(|(low, high)| (low * low + low * high + high * high) / 3.0)
        .sum::<f64>()
        / segments;
    (mean, variance.sqrt())
}

/// To whole ns; below zero is zero.
fn rounded(nanos: f64) -> u64 {
    (nanos + 0.5) as u64
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
