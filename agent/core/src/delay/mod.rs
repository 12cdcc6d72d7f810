//! Delays as values.

use std::sync::Arc;
use std::time::Duration;

/// How delays are spread around the latency.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Distribution {
    #[default]
    Uniform,
    Normal,
    Pareto,
    ParetoNormal,
    /// Quantiles at equally spaced probabilities from 0 to 1.
    Table(Arc<[Duration]>),
}
