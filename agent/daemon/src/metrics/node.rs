//! The daemon itself and the machine it runs on.

use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::family::{Count, Family, Level};
use crate::kernel::features::Features;

/// The times that the reconciler's rounds take; a cheap clone for the engine and the registry.
#[derive(Clone, Debug)]
pub struct ReconcileDuration(Histogram);

impl Default for ReconcileDuration {
    fn default() -> Self {
        // 100 us to 6.5 s.
        Self(Histogram::new(exponential_buckets(1e-4, 2.0, 17)))
    }
}

impl ReconcileDuration {
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "reconcile_duration_seconds",
            "How long the reconciler's rounds take, from reading the desired state to the last operation's end",
            self.0.clone(),
        );
    }
}

/// What doesn't change while the daemon runs.
pub(super) fn register_build(registry: &mut Registry, features: &Features) {
    let mut build = Family::new(
        "build_info",
        "The daemon's version and architecture; always 1.",
        ["version", "architecture"],
    );
    build.push([env!("CARGO_PKG_VERSION"), std::env::consts::ARCH], Level(1.0));
    build.register(registry);

    let mut kernel = Family::new(
        "kernel_feature",
        "Whether the machine has what the daemon needs; GetNode says what is missing and what follows from it.",
        ["feature"],
    );
    for feature in &features.list {
        kernel.push([feature.name], Level(if feature.available { 1.0 } else { 0.0 }));
    }
    kernel.register(registry);
}

/// What went wrong, by its name.
pub(super) fn register_losses(
    registry: &mut Registry,
    events_lost: &[(&str, u64)],
    incidents: &[(&str, u64)],
    unresolved: &[(&str, u64)],
    scrape_errors: &[(&str, u64)],
) {
    let families = [
        (
            "events_lost",
            "Events that didn't reach their stream's readers.",
            "stream",
            events_lost,
        ),
        (
            "datapath_incidents",
            "Things that went wrong inside the fault programs.",
            "incident",
            incidents,
        ),
        (
            "unresolved",
            "Things seen in the kernel whose pod is not known.",
            "stream",
            unresolved,
        ),
        (
            "scrape_errors",
            "Scrapes from which a source's families are missing, for it could not be read.",
            "source",
            scrape_errors,
        ),
    ];
    for (name, help, label, counts) in families {
        let mut family = Family::new(name, help, [label]);
        for &(value, count) in counts {
            family.push([value], Count(count));
        }
        family.register(registry);
    }
}
