//! Loss as values.

/// A chain of a good and a bad state; all four are probabilities per packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GilbertElliott {
    /// From good to bad.
    pub p: f64,
    /// From bad to good.
    pub r: f64,
    pub loss_good: f64,
    pub loss_bad: f64,
}
