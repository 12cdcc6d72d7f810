//! The registry, and the HTTP endpoint for metrics, health and readiness.
//!
//! Counters live where things happen: in the kernel, the delay line, the engine. A scrape gathers them first, since some must
//! be asked for, and then encodes them; a source that doesn't answer costs its own families, and that is counted.

mod cost;
mod cri;
mod dns;
mod drops;
mod exemplars;
mod family;
mod faults;
mod http;
mod kubernetes;
mod node;
mod syscalls;
mod tcp;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;

pub use self::exemplars::Exemplars;
pub use self::faults::DelaySource;
pub use self::http::{HttpState, Probe, serve};
pub use self::node::ReconcileDuration;
pub use self::text::Format;
use crate::engine::handle::Handle;
use crate::kernel::cost::OwnPrograms;
use crate::kernel::features::Features;
use crate::observe::cri::CriObserver;
use crate::observe::drops::DropObserver;
use crate::observe::measurement::Measurement;
use crate::observe::observers::Observers;
use crate::observe::queries::QueryObserver;
use crate::observe::syscalls::SyscallObserver;
use crate::observe::tcp::TcpObserver;
use crate::targets::kube::KubeStatus;

/// How long a scrape waits for the engine; scrapers give up after ten seconds.
const ENGINE_PATIENCE: Duration = Duration::from_secs(3);

/// Where the values come from.
pub struct Sources {
    pub engine: Handle,
    pub observers: Arc<Observers>,
    /// `None` without a delay line.
    pub delays: Option<Arc<dyn DelaySource>>,
    /// How many events subscribers were too slow for.
    pub subscribers_lost: Box<dyn Fn() -> u64 + Send + Sync>,
    pub features: Arc<Features>,
    pub reconcile: ReconcileDuration,
    /// `None` unless the programs' runs are measured.
    pub costs: Option<Measurement>,
    pub kubernetes: KubeStatus,
    /// `None`: histograms have none.
    pub exemplars: Option<Exemplars>,
}

/// Everything that is measured, under one prefix.
pub struct Metrics {
    prefix: &'static str,
    /// What the daemon itself keeps.
    lasting: Registry,
    sources: Sources,
    programs: OwnPrograms,
    errors: ScrapeErrors,
}

impl Metrics {
    pub fn new(prefix: &'static str, sources: Sources) -> Self {
        let mut lasting = Registry::with_prefix(prefix);
        node::register_build(&mut lasting, &sources.features);
        sources.reconcile.register(&mut lasting);
        Self {
            prefix,
            lasting,
            sources,
            programs: OwnPrograms::default(),
            errors: ScrapeErrors::default(),
        }
    }

    /// One scrape's answer.
    ///
    /// # Errors
    ///
    /// When a family can't be encoded.
    pub async fn render(&self, format: Format) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(self.prefix);
        self.gather_faults(&mut registry).await;
        self.gather_observed(&mut registry).await;
        self.gather_costs(&mut registry);
        kubernetes::register(&mut registry, &self.sources.kubernetes);
        let mut lost = self.sources.observers.lost();
        lost.push(("subscribers", (self.sources.subscribers_lost)()));
        node::register_losses(
            &mut registry,
            &lost,
            &self.sources.observers.incident_counts(),
            &self.sources.observers.unresolved(),
            &self.errors.read(),
        );
        let body = format.encode(&[&self.lasting, &registry])?;
        Ok(match &self.sources.exemplars {
            Some(exemplars) if format == Format::OpenMetrics => exemplars.annotate(self.prefix, &body),
            _ => body,
        })
    }

    async fn gather_faults(&self, registry: &mut Registry) {
        let ledgers = tokio::time::timeout(ENGINE_PATIENCE, self.sources.engine.ledgers(None)).await;
        // Taken after the ledgers, so that a fault which went meanwhile is left out of all families.
        let snapshot = self.sources.engine.snapshot();
        faults::register_state(registry, &snapshot);
        match ledgers {
            Ok(Ok(ledgers)) => faults::register_ledgers(registry, &snapshot, &ledgers),
            Ok(Err(error)) => self.errors.count("engine", &error.to_string()),
            Err(_) => self.errors.count("engine", "it doesn't answer"),
        }
        let delays = self.sources.delays.as_ref();
        let delays = delays.map_or_else(Vec::new, |delays| delays.histograms());
        faults::register_delays(registry, &snapshot, &delays);
    }

    fn gather_costs(&self, registry: &mut Registry) {
        cost::register_time(registry);
        match self.programs.costs() {
            Ok(costs) => {
                cost::register_misses(registry, &costs);
                if let Some(measurement) = &self.sources.costs {
                    cost::register_programs(registry, &costs, measurement.time());
                }
            }
            Err(error) => self.errors.count("costs", &error.to_string()),
        }
    }

    async fn gather_observed(&self, registry: &mut Registry) {
        let syscalls = self.observed("syscalls", |all| {
            all.syscalls.as_ref().map(SyscallObserver::snapshot)
        });
        if let Some(snapshot) = syscalls.await {
            syscalls::register(registry, &snapshot);
        }
        let tcp = self.observed("tcp", |all| all.tcp.as_ref().map(TcpObserver::snapshot));
        if let Some(snapshot) = tcp.await {
            tcp::register(registry, &snapshot);
        }
        let drops = self.observed("drops", |all| all.drops.as_ref().map(DropObserver::snapshot));
        if let Some(snapshot) = drops.await {
            drops::register(registry, &snapshot);
        }
        let queries = self.observed("queries", |all| all.queries.as_ref().map(QueryObserver::snapshot));
        if let Some(snapshot) = queries.await {
            dns::register(registry, &snapshot);
        }
        let cri = &self.sources.observers.cri;
        cri::register(
            registry,
            &cri.as_ref().map(CriObserver::snapshot).unwrap_or_default(),
        );
        cri::register_containers(registry, &self.sources.observers.told());
    }

    /// What an observer has counted, nothing from one that is absent; `None` when it can't be read, which is counted.
    async fn observed<T, E>(
        &self,
        source: &'static str,
        read: impl FnOnce(&Observers) -> Option<Result<T, E>> + Send + 'static,
    ) -> Option<T>
    where
        T: Default + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let observers = Arc::clone(&self.sources.observers);
        // Up to hundreds of system calls: not on a thread that others wait for.
        let error = match tokio::task::spawn_blocking(move || read(&observers)).await {
            Ok(None) => return Some(T::default()),
            Ok(Some(Ok(snapshot))) => return Some(snapshot),
            Ok(Some(Err(error))) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        self.errors.count(source, &error);
        None
    }
}

/// Scrapes that had to do without a source, by source.
#[derive(Default)]
struct ScrapeErrors([AtomicU64; SOURCES.len()]);

/// What a scrape asks.
const SOURCES: [&str; 6] = ["costs", "drops", "engine", "queries", "syscalls", "tcp"];

impl ScrapeErrors {
    fn count(&self, source: &'static str, error: &str) {
        if let Some(place) = SOURCES.iter().position(|&known| known == source) {
            self.0[place].fetch_add(1, Ordering::Relaxed);
        }
        tracing::warn!(error, source, "some counters are missing from a scrape");
    }

    fn read(&self) -> [(&'static str, u64); SOURCES.len()] {
        std::array::from_fn(|place| (SOURCES[place], self.0[place].load(Ordering::Relaxed)))
    }
}
