//! The registry, and the HTTP endpoint for metrics, health and readiness.
//!
//! Counters live where things happen: in the kernel, the delay line, the engine. A scrape gathers them first, since some must
//! be asked for, and then encodes them; a source that doesn't answer costs its own families, and that is counted.

mod cost;
mod dns;
mod drops;
mod family;
mod faults;
mod http;
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

pub use self::faults::DelaySource;
pub use self::http::{HttpState, Probe, serve};
pub use self::node::ReconcileDuration;
pub use self::text::Format;
use crate::engine::handle::Handle;
use crate::kernel::cost::Measuring;
use crate::kernel::features::Features;
use crate::observe::drops::{DropObserver, DropSnapshot};
use crate::observe::observers::Observers;
use crate::observe::queries::{QueryObserver, QuerySnapshot};
use crate::observe::syscalls::{SyscallObserver, SyscallSnapshot};
use crate::observe::tcp::{TcpObserver, TcpSnapshot};

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
    /// `None` unless the programs' runs are to be measured.
    pub costs: Option<Measuring>,
}

/// Everything that is measured, under one prefix.
pub struct Metrics {
    prefix: &'static str,
    /// What the daemon itself keeps.
    lasting: Registry,
    sources: Sources,
    engine_errors: AtomicU64,
    syscall_errors: AtomicU64,
    drop_errors: AtomicU64,
    query_errors: AtomicU64,
    tcp_errors: AtomicU64,
    cost_errors: AtomicU64,
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
            engine_errors: AtomicU64::new(0),
            syscall_errors: AtomicU64::new(0),
            drop_errors: AtomicU64::new(0),
            query_errors: AtomicU64::new(0),
            tcp_errors: AtomicU64::new(0),
            cost_errors: AtomicU64::new(0),
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
        self.gather_syscalls(&mut registry).await;
        self.gather_tcp(&mut registry).await;
        self.gather_traffic(&mut registry).await;
        self.gather_costs(&mut registry);
        let mut lost = self.sources.observers.lost();
        lost.push(("subscribers", (self.sources.subscribers_lost)()));
        node::register_losses(
            &mut registry,
            &lost,
            &self.sources.observers.incident_counts(),
            &self.sources.observers.unresolved(),
            &[
                ("costs", self.cost_errors.load(Ordering::Relaxed)),
                ("engine", self.engine_errors.load(Ordering::Relaxed)),
                ("syscalls", self.syscall_errors.load(Ordering::Relaxed)),
                ("drops", self.drop_errors.load(Ordering::Relaxed)),
                ("queries", self.query_errors.load(Ordering::Relaxed)),
                ("tcp", self.tcp_errors.load(Ordering::Relaxed)),
            ],
        );
        format.encode(&[&self.lasting, &registry])
    }

    async fn gather_faults(&self, registry: &mut Registry) {
        let ledgers = tokio::time::timeout(ENGINE_PATIENCE, self.sources.engine.ledgers(None)).await;
        // Taken after the ledgers, so that a fault which went meanwhile is left out of all families.
        let snapshot = self.sources.engine.snapshot();
        faults::register_state(registry, &snapshot);
        match ledgers {
            Ok(Ok(ledgers)) => faults::register_ledgers(registry, &snapshot, &ledgers),
            Ok(Err(error)) => {
                self.engine_errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "the faults' counters are missing from a scrape");
            }
            Err(_) => {
                self.engine_errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("the engine doesn't answer; the faults' counters are missing from a scrape");
            }
        }
        let delays = self.sources.delays.as_ref();
        let delays = delays.map_or_else(Vec::new, |delays| delays.histograms());
        faults::register_delays(registry, &snapshot, &delays);
    }

    fn gather_costs(&self, registry: &mut Registry) {
        cost::register_time(registry);
        if let Some(measuring) = &self.sources.costs {
            match measuring.costs() {
                Ok(costs) => cost::register_programs(registry, &costs),
                Err(error) => {
                    self.cost_errors.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "the programs' costs are missing from a scrape");
                }
            }
        }
    }

    async fn gather_syscalls(&self, registry: &mut Registry) {
        let observers = Arc::clone(&self.sources.observers);
        // Hundreds of system calls: not on a thread that others wait for.
        let snapshot = tokio::task::spawn_blocking(move || {
            observers
                .syscall_observer()
                .map_or_else(|| Ok(SyscallSnapshot::default()), SyscallObserver::snapshot)
        })
        .await;
        let error = match snapshot {
            Ok(Ok(snapshot)) => return syscalls::register(registry, &snapshot),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.syscall_errors.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(error, "the syscalls' counters are missing from a scrape");
    }

    async fn gather_tcp(&self, registry: &mut Registry) {
        let observers = Arc::clone(&self.sources.observers);
        // A system call for each pod.
        let snapshot = tokio::task::spawn_blocking(move || {
            observers
                .tcp_observer()
                .map_or_else(|| Ok(TcpSnapshot::default()), TcpObserver::snapshot)
        })
        .await;
        let error = match snapshot {
            Ok(Ok(snapshot)) => return tcp::register(registry, &snapshot),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.tcp_errors.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(error, "the counters of TCP are missing from a scrape");
    }

    async fn gather_traffic(&self, registry: &mut Registry) {
        let observers = Arc::clone(&self.sources.observers);
        let read = tokio::task::spawn_blocking(move || {
            let drops = observers.drop_observer().map(DropObserver::snapshot);
            let queries = observers.query_observer().map(QueryObserver::snapshot);
            (
                drops.unwrap_or_else(|| Ok(DropSnapshot::default())),
                queries.unwrap_or_else(|| Ok(QuerySnapshot::default())),
            )
        });
        let (drops, queries) = match read.await {
            Ok((drops, queries)) => (
                drops.map_err(|error| error.to_string()),
                queries.map_err(|error| error.to_string()),
            ),
            Err(panic) => (Err(panic.to_string()), Err(panic.to_string())),
        };
        match drops {
            Ok(snapshot) => drops::register(registry, &snapshot),
            Err(error) => missing(&self.drop_errors, "drops", &error),
        }
        match queries {
            Ok(snapshot) => dns::register(registry, &snapshot),
            Err(error) => missing(&self.query_errors, "queries", &error),
        }
    }
}

fn missing(errors: &AtomicU64, source: &'static str, error: &str) {
    errors.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(error, "the counters of {source} are missing from a scrape");
}
