//! Writing whole families from values that were gathered for one scrape.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

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
