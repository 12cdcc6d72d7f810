//! Lengths of bursts, observed and expected.

/// The fewest that may be expected in a bin for the chi-square distribution to hold.
const LEAST_EXPECTED: f64 = 5.0;

/// The lengths of the runs of `true`, in order. A run that the end cuts off is left out: its length isn't known.
pub fn bursts(lost: impl IntoIterator<Item = bool>) -> Vec<u64> {
    let mut run = 0;
    let mut lengths = Vec::new();
    for lost in lost {
        if lost {
            run += 1;
        } else if run > 0 {
            lengths.push(std::mem::take(&mut run));
        }
    }
    lengths
}

/// The shares of lengths 1, 2 and so on of a geometric distribution with this mean, which is 1 or more.
pub fn geometric(mean: f64) -> impl Iterator<Item = f64> {
    let end = 1.0 / mean;
    std::iter::successors(Some(end), move |share| Some(share * (1.0 - end)))
}

/// Counts for [`ChiSquare`](super::ChiSquare): neighbouring lengths are pooled until five or more are expected of each,
/// and the last bin is everything beyond.
#[derive(Clone, Debug, PartialEq)]
pub struct Bins {
    /// The least length of each bin.
    pub from: Vec<u64>,
    pub observed: Vec<u64>,
    pub expected: Vec<f64>,
}

impl Bins {
    /// `shares` are the model's, of lengths 1, 2 and so on.
    pub fn of(lengths: &[u64], shares: impl IntoIterator<Item = f64>) -> Self {
        let count = lengths.len() as f64;
        let (mut from, mut expected) = (vec![1], Vec::new());
        let (mut bin, mut rest) = (0.0, count);
        for (length, share) in (1u64..).zip(shares) {
            bin += share * count;
            if rest - bin < LEAST_EXPECTED {
                break;
            }
            if bin >= LEAST_EXPECTED {
                expected.push(bin);
                from.push(length + 1);
                rest -= bin;
                bin = 0.0;
            }
        }
        expected.push(rest);
        let mut observed = vec![0; from.len()];
        for length in lengths {
            let bin = from.partition_point(|from| from <= length);
            observed[bin.saturating_sub(1)] += 1;
        }
        Self {
            from,
            observed,
            expected,
        }
    }
}
