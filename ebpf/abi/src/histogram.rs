//! Log-linear histograms of durations: each power of two is cut into equal buckets, so that a bucket's bounds are never
//! further apart than a quarter of the value.

use crate::{assert_layout, pod};

/// Log2 of the number of buckets in each power of two.
pub const SUB_BITS: u32 = 2;
/// Log2 of the first bucket's bound in ns: 1.024 us. What is below it isn't told apart.
pub const HISTOGRAM_FIRST_BIT: u32 = 10;
/// Log2 of the last bucket's lower bound in ns: 17.2 s. What is above it isn't told apart.
pub const HISTOGRAM_LAST_BIT: u32 = 34;
/// All buckets: the first one, four in each power of two, and the last one, which has no upper bound.
pub const HISTOGRAM_BUCKETS: usize = 2 + (((HISTOGRAM_LAST_BIT - HISTOGRAM_FIRST_BIT) as usize) << SUB_BITS);

/// Durations, counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Of all durations, ns.
    pub sum: u64,
    /// Not cumulative; `buckets[log_linear_bucket(ns)]` counts a duration.
    pub buckets: [u64; HISTOGRAM_BUCKETS],
}
assert_layout!(Histogram, size = 8 + 8 * HISTOGRAM_BUCKETS, align = 8);
pod!(Histogram);

impl Histogram {
    pub const EMPTY: Self = Self {
        sum: 0,
        buckets: [0; HISTOGRAM_BUCKETS],
    };

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds what another CPU, or another key, has counted.
    pub fn add(&mut self, other: &Self) {
        self.sum += other.sum;
        for (total, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *total += count;
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// The bucket of a duration. Always below [`HISTOGRAM_BUCKETS`].
#[inline(always)]
pub const fn log_linear_bucket(ns: u64) -> usize {
    if ns < 1 << HISTOGRAM_FIRST_BIT {
        return 0;
    }
    if ns >= 1 << HISTOGRAM_LAST_BIT {
        return HISTOGRAM_BUCKETS - 1;
    }
    let bit = u64::BITS - 1 - ns.leading_zeros();
    // The value's highest bits: a one, which says nothing new, and those that tell the power's buckets apart.
    let high = (ns >> (bit - SUB_BITS)) as usize;
    let power = (bit - HISTOGRAM_FIRST_BIT) as usize;
    (power << SUB_BITS) + high - (1 << SUB_BITS) + 1
}

/// The exclusive upper bound of a bucket, ns; `u64::MAX` for the last one, which has none.
pub const fn log_linear_bound(bucket: usize) -> u64 {
    if bucket + 1 >= HISTOGRAM_BUCKETS {
        return u64::MAX;
    }
    let power = (bucket >> SUB_BITS) as u32 + HISTOGRAM_FIRST_BIT;
    let quarter = (bucket & ((1 << SUB_BITS) - 1)) as u64;
    (1 << power) + (quarter << (power - SUB_BITS))
}

const _: () = assert!(SUB_BITS <= HISTOGRAM_FIRST_BIT);
const _: () = assert!(log_linear_bucket(0) == 0 && log_linear_bucket(1023) == 0);
const _: () = assert!(log_linear_bucket(1024) == 1 && log_linear_bound(0) == 1024);
const _: () = assert!(log_linear_bucket(u64::MAX) == HISTOGRAM_BUCKETS - 1);
const _: () = assert!(log_linear_bound(HISTOGRAM_BUCKETS - 2) == 1 << HISTOGRAM_LAST_BIT);
