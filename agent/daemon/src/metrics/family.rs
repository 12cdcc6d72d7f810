//! Writing whole families from values that were gathered for one scrape.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use sabot_abi::{HISTOGRAM_BUCKETS, Histogram, log_linear_bound};

/// One family: its name without the registry's prefix (and without `_total` for a counter), and its series.
#[derive(Debug)]
pub(super) struct Family<const LABELS: usize, Value> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; LABELS],
    series: Vec<([String; LABELS], Value)>,
}

/// A monotonic count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count(pub(super) u64);

/// A monotonic sum of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seconds(pub(super) Duration);

/// A value that goes up and down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level(pub(super) f64);

/// A histogram that somebody else counted.
#[derive(Clone, Debug)]
pub(super) struct Distribution {
    /// Upper bounds of all buckets but the last one, ns.
    pub(super) bounds: Vec<u64>,
    /// How many values each bucket has for itself; one more than there are bounds.
    pub(super) buckets: Vec<u64>,
    pub(super) sum: Duration,
}

impl Distribution {
    /// Of a histogram that the kernel counted, with every `step`th of its bounds. The first bucket and the last one, which
    /// has no bound, stand for themselves.
    pub(super) fn of(histogram: &Histogram, step: usize) -> Self {
        const { assert!(HISTOGRAM_BUCKETS >= 2) };
        let [first, between @ .., unbounded] = &histogram.buckets;
        let mut bounds = vec![log_linear_bound(0)];
        let mut buckets = vec![*first];
        let mut last = 0;
        for merged in between.chunks(step.max(1)) {
            last += merged.len();
            bounds.push(log_linear_bound(last));
            buckets.push(merged.iter().sum());
        }
        buckets.push(*unbounded);
        Self {
            bounds,
            buckets,
            sum: Duration::from_nanos(histogram.sum),
        }
    }
}

/// A kind of metric.
pub(super) trait Value: fmt::Debug + Send + Sync + 'static {
    const TYPE: MetricType;

    /// # Errors
    ///
    /// When the writer fails.
    fn encode(&self, labels: &impl EncodeLabelSet, family: &mut MetricEncoder<'_>) -> fmt::Result;
}

impl<const LABELS: usize, V: Value> Family<LABELS, V> {
    pub(super) fn new(name: &'static str, help: &'static str, labels: [&'static str; LABELS]) -> Self {
        Self {
            name,
            help,
            labels,
            series: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, values: [&str; LABELS], value: V) {
        self.series.push((values.map(str::to_owned), value));
    }

    pub(super) fn register(self, registry: &mut Registry) {
        registry.register_collector(Box::new(self));
    }
}

impl<const LABELS: usize, V: Value> Collector for Family<LABELS, V> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(self.name, self.help, None, V::TYPE)?;
        for (values, value) in &self.series {
            let labels: [(&str, &str); LABELS] =
                std::array::from_fn(|index| (self.labels[index], values[index].as_str()));
            value.encode(&labels, &mut family)?;
        }
        Ok(())
    }
}

impl Value for Count {
    const TYPE: MetricType = MetricType::Counter;

    fn encode(&self, labels: &impl EncodeLabelSet, family: &mut MetricEncoder<'_>) -> fmt::Result {
        family
            .encode_family(labels)?
            .encode_counter::<NoLabelSet, u64, u64>(&self.0, None)
    }
}

impl Value for Seconds {
    const TYPE: MetricType = MetricType::Counter;

    fn encode(&self, labels: &impl EncodeLabelSet, family: &mut MetricEncoder<'_>) -> fmt::Result {
        family
            .encode_family(labels)?
            .encode_counter::<NoLabelSet, f64, f64>(&self.0.as_secs_f64(), None)
    }
}

impl Value for Level {
    const TYPE: MetricType = MetricType::Gauge;

    fn encode(&self, labels: &impl EncodeLabelSet, family: &mut MetricEncoder<'_>) -> fmt::Result {
        family.encode_family(labels)?.encode_gauge(&self.0)
    }
}

impl Value for Distribution {
    const TYPE: MetricType = MetricType::Histogram;

    fn encode(&self, labels: &impl EncodeLabelSet, family: &mut MetricEncoder<'_>) -> fmt::Result {
        let bounds = self
            .bounds
            .iter()
            .map(|&bound| bound as f64 / 1e9)
            .chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().copied()).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        family.encode_family(labels)?.encode_histogram::<NoLabelSet>(
            self.sum.as_secs_f64(),
            count,
            &buckets,
            None,
        )
    }
}

#[cfg(test)]
mod tests {
    use sabot_abi::{HISTOGRAM_FIRST_BIT, HISTOGRAM_LAST_BIT, SUB_BITS, log_linear_bucket};

    use super::*;

    #[test]
    fn every_duration_is_in_the_bucket_whose_bounds_hold_it() {
        for step in [1, 2, 4, 8, 7] {
            for ns in [
                0,
                1023,
                1024,
                5000,
                16_384,
                1_000_000,
                17_179_869_183,
                17_179_869_184,
                u64::MAX,
            ] {
                let mut histogram = Histogram::EMPTY;
                histogram.buckets[log_linear_bucket(ns)] = 1;
                let distribution = Distribution::of(&histogram, step);
                let expected = distribution.bounds.partition_point(|&bound| bound <= ns);
                let found = distribution.buckets.iter().position(|&count| count == 1);
                assert_eq!(found, Some(expected), "{ns} ns, every {step}th bound");
                assert_eq!(distribution.buckets.iter().sum::<u64>(), 1);
                assert_eq!(distribution.bounds.len() + 1, distribution.buckets.len());
            }
        }
    }

    #[test]
    fn bounds_are_powers_of_two_where_the_step_is_one() {
        let distribution = Distribution::of(&Histogram::EMPTY, 1 << SUB_BITS);
        let powers: Vec<u64> = (HISTOGRAM_FIRST_BIT..=HISTOGRAM_LAST_BIT)
            .map(|bit| 1 << bit)
            .collect();
        assert_eq!(distribution.bounds, powers);
    }
}
