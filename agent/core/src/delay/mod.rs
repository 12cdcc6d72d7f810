//! Delay models as values: how long each packet of a stream is held.
//!
//! A [`DelayShape`] is the asked distribution and correlation, immutable and shared by all streams of a fault; a
//! [`DelayStream`] is the small state of one stream, which survives an edit of the shape. A [`DelayModel`] is both.
//!
//! Each packet draws a standard normal score `z' = ρ z + √(1-ρ²) e` and is held for the quantile of the score's
//! probability. So the delays have the asked distribution exactly, from the first packet on and whatever the correlation,
//! and ρ is computed such that neighbouring *delays*, not scores, have the asked correlation `c`. At a distance of `k`
//! packets the correlation is `c^k` for normal delays and a little more for the others: [`DelayShape::autocorrelation`].
//!
//! A sample has noise of its own. Of 20,000 independent delays the greatest distance from the distribution is 0.006 in the
//! median and up to 0.015; at a correlation of 0.9 it is 0.013 and up to 0.05. Their correlation is off by 0.008 (root mean
//! square), but with a heavy tail, where a few delays decide it, by 0.04.

mod correlation;
mod normal;
mod sampler;
mod shape;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use sampler::{DelayModel, DelayStream};
pub use shape::{DelayShape, ShapeError};

/// How delays are spread. `latency` and `jitter` are the fault's; the range is the one of `(delay - latency) / jitter`.
///
/// | distribution | mean | standard deviation | range |
/// |---|---|---|---|
/// | `Uniform` | latency | jitter / √3 | -1 to 1 |
/// | `Normal` | latency | jitter | -6 to 6 |
/// | `Pareto` | latency | jitter | -0.58 to 117 |
/// | `ParetoNormal` | latency | jitter | -2.3 to 112 |
/// | `Table` | its own | its own | first to last quantile |
///
/// A delay below zero becomes zero. Where the range goes below `-latency / jitter` that raises the mean and lowers the
/// deviation; [`DelayShape::mean`] and [`DelayShape::standard_deviation`] are those of the delays as they are given out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// Every delay from `latency - jitter` to `latency + jitter` is as likely.
    #[default]
    Uniform,
    /// Cut at six standard deviations.
    Normal,
    /// The Pareto distribution of shape 3, shifted and scaled to the asked mean and deviation. Most delays are a little
    /// below `latency`, few are far above. Cut at the quantile of 1 - 2^-20, as its tail would be without bound.
    Pareto,
    /// A quarter of a normal and three quarters of a Pareto value, scaled to the asked deviation: the tail of the one
    /// without the sharp lower edge of it.
    ParetoNormal,
    /// Measured quantiles, in ascending order, of equally spaced probabilities from 0 to 1, and linear in between.
    /// `latency` and `jitter` don't apply.
    Table(Arc<[Duration]>),
}
