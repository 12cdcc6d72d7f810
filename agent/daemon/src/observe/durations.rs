//! What log-linear histograms say.

use std::time::Duration;

use sabot_abi::{HISTOGRAM_BUCKETS, Histogram, log_linear_bound};

/// The duration below which this share of the durations lies, exact to the bucket: its upper bound. `None` without any, and
/// where it lies beyond the last bound.
pub fn quantile(histogram: &Histogram, share: f64) -> Option<Duration> {
    let count = histogram.count();
    let rank = (count as f64 * share).ceil().max(1.0) as u64;
    let mut below = 0;
    let place = histogram.buckets.iter().position(|bucket| {
        below += bucket;
        below >= rank
    })?;
    (place + 1 < HISTOGRAM_BUCKETS).then(|| Duration::from_nanos(log_linear_bound(place)))
}

/// `None` without any.
pub fn mean(histogram: &Histogram) -> Option<Duration> {
    let mean = histogram.sum.checked_div(histogram.count())?;
    Some(Duration::from_nanos(mean))
}

/// What was added since an earlier reading.
pub fn since(now: &Histogram, earlier: &Histogram) -> Histogram {
    Histogram {
        sum: now.sum.saturating_sub(earlier.sum),
        buckets: std::array::from_fn(|place| now.buckets[place].saturating_sub(earlier.buckets[place])),
    }
}

/// A histogram of which the buckets that aren't empty are kept: a third of its size, for what most of them are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    sum: u64,
    /// By place, in its order.
    buckets: Box<[(u8, u64)]>,
}

const _: () = assert!(HISTOGRAM_BUCKETS <= 1 << u8::BITS);

impl Sparse {
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Of all durations, ns.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// What was added since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        Self::from(&since(&self.into(), &earlier.into()))
    }

    pub fn with(&self, other: &Histogram) -> Self {
        let mut both = Histogram::from(self);
        both.add(other);
        Self::from(&both)
    }
}

impl From<&Histogram> for Sparse {
    fn from(histogram: &Histogram) -> Self {
        let places = (0..=u8::MAX).zip(histogram.buckets);
        Self {
            sum: histogram.sum,
            buckets: places.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl From<&Sparse> for Histogram {
    fn from(sparse: &Sparse) -> Self {
        let mut histogram = Self {
            sum: sparse.sum,
            ..Self::EMPTY
        };
        for &(place, count) in &sparse.buckets {
            histogram.buckets[usize::from(place)] = count;
        }
        histogram
    }
}

#[cfg(test)]
mod tests {
    use sabot_abi::log_linear_bucket;

    use super::*;

    fn histogram(millis: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for ns in millis.iter().map(|ms| ms * 1_000_000) {
            histogram.sum += ns;
            histogram.buckets[log_linear_bucket(ns)] += 1;
        }
        histogram
    }

    /// Its bucket ends above it, by no more than a quarter.
    fn assert_near(found: Option<Duration>, millis: u64) {
        let value = Duration::from_millis(millis);
        let found = found.expect("there are durations");
        assert!(found > value && found <= value * 5 / 4, "{found:?} {value:?}");
    }

    #[test]
    fn quantiles_lie_at_the_end_of_their_buckets() {
        let values = histogram(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 100]);
        assert_near(quantile(&values, 0.0), 1);
        assert_near(quantile(&values, 0.5), 5);
        assert_near(quantile(&values, 0.9), 9);
        assert_near(quantile(&values, 1.0), 100);
        assert_eq!(mean(&values), Some(Duration::from_micros(14_500)));
        assert_eq!(
            (quantile(&Histogram::default(), 0.5), mean(&Histogram::default())),
            (None, None)
        );
        assert_eq!(quantile(&histogram(&[20_000]), 0.5), None);
    }

    #[test]
    fn a_difference_holds_what_came_between() {
        let later = histogram(&[1, 2, 3, 50]);
        assert_eq!(since(&later, &histogram(&[1, 2])), histogram(&[3, 50]));
        // Counters that begin anew never make it negative.
        assert_eq!(since(&histogram(&[1]), &later), Histogram::default());
    }

    #[test]
    fn a_sparse_histogram_says_the_same() {
        let (earlier, later) = (histogram(&[1, 2]), histogram(&[1, 2, 2, 30_000]));
        let sparse = Sparse::from(&later);
        assert_eq!(Histogram::from(&sparse), later);
        assert_eq!((sparse.count(), sparse.sum()), (4, later.sum));
        assert_eq!(
            Histogram::from(&sparse.since(&Sparse::from(&earlier))),
            histogram(&[2, 30_000])
        );
        assert_eq!(Sparse::default().with(&later), sparse);
    }
}
