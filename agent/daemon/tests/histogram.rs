//! The log-linear histograms that the kernel programs count in.

use proptest::prelude::*;
use sabot_abi::{
    HISTOGRAM_BUCKETS, HISTOGRAM_FIRST_BIT, HISTOGRAM_LAST_BIT, Histogram, SUB_BITS, log_linear_bound,
    log_linear_bucket,
};

/// Durations of every magnitude alike; evenly spread ones would nearly all be in the last bucket.
fn durations() -> impl Strategy<Value = u64> {
    (0..u64::BITS, any::<u64>()).prop_map(|(shift, value)| value >> shift)
}

fn lower_bound(bucket: usize) -> u64 {
    bucket.checked_sub(1).map_or(0, log_linear_bound)
}

proptest! {
    #[test]
    fn a_bucket_holds_what_is_between_its_bounds(ns in durations()) {
        let bucket = log_linear_bucket(ns);
        prop_assert!(bucket < HISTOGRAM_BUCKETS);
        prop_assert!(lower_bound(bucket) <= ns);
        prop_assert!(ns < log_linear_bound(bucket) || bucket == HISTOGRAM_BUCKETS - 1);
    }

    #[test]
    fn a_longer_duration_is_in_no_earlier_bucket(one in durations(), other in durations()) {
        let (short, long) = (one.min(other), one.max(other));
        prop_assert!(log_linear_bucket(short) <= log_linear_bucket(long));
    }
}

#[test]
fn bounds_are_a_quarter_of_their_power_of_two_apart() {
    for bucket in 1..HISTOGRAM_BUCKETS - 1 {
        let (lower, upper) = (lower_bound(bucket), log_linear_bound(bucket));
        let power = 1 << lower.ilog2();
        assert_eq!(upper - lower, power >> SUB_BITS, "bucket {bucket}");
        assert_eq!(log_linear_bucket(lower), bucket);
        assert_eq!(log_linear_bucket(upper - 1), bucket);
    }
    assert_eq!(log_linear_bound(0), 1 << HISTOGRAM_FIRST_BIT);
    assert_eq!(lower_bound(HISTOGRAM_BUCKETS - 1), 1 << HISTOGRAM_LAST_BIT);
}

#[test]
fn histograms_add_up() {
    let mut one = Histogram::EMPTY;
    one.buckets[log_linear_bucket(1500)] += 1;
    one.sum += 1500;
    let mut total = one;
    total.add(&one);
    assert_eq!((total.sum, total.count()), (3000, 2));
    assert_eq!(total.buckets[log_linear_bucket(1500)], 2);
}
