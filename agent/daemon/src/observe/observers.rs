//! All observers together, as the API and the metrics read them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use sabot_abi::{INCIDENT_COUNT, INCIDENT_NAMES};

use super::dns::DnsObserver;
use super::drops::{DropObserver, DropSnapshot};
use super::event::{STREAM_DNS, STREAM_DROPS, STREAM_PACKETS, STREAM_QUERIES, STREAM_SYSCALLS, STREAM_TCP};
use super::flows::{Flow, FlowQuery};
use super::packets::PacketObserver;
use super::queries::{QueryObserver, QuerySnapshot};
use super::source::{FlowsError, ObserveSource, SyscallSummary};
use super::syscalls::{CallKey, SyscallObserver};
use super::tcp::{TcpObserver, TcpSnapshot};

/// Reads what went wrong inside the fault programs, by [`INCIDENT_NAMES`].
pub type Incidents = Box<dyn Fn() -> [u64; INCIDENT_COUNT as usize] + Send + Sync>;

/// An observer that can't run on this machine is absent.
pub struct Observers {
    syscalls: Option<SyscallObserver>,
    packets: Option<PacketObserver>,
    dns: Option<DnsObserver>,
    drops: Option<DropObserver>,
    queries: Option<QueryObserver>,
    tcp: Option<TcpObserver>,
    incidents: Incidents,
}

impl Observers {
    pub fn new(
        syscalls: Option<SyscallObserver>,
        packets: Option<PacketObserver>,
        dns: Option<DnsObserver>,
        incidents: Incidents,
    ) -> Self {
        Self {
            syscalls,
            packets,
            dns,
            drops: None,
            queries: None,
            tcp: None,
            incidents,
        }
    }

    #[must_use]
    pub fn with_drops(self, drops: Option<DropObserver>) -> Self {
        Self { drops, ..self }
    }

    #[must_use]
    pub fn with_queries(self, queries: Option<QueryObserver>) -> Self {
        Self { queries, ..self }
    }

    pub fn drop_observer(&self) -> Option<&DropObserver> {
        self.drops.as_ref()
    }

    pub fn query_observer(&self) -> Option<&QueryObserver> {
        self.queries.as_ref()
    }

    pub fn with_tcp(mut self, tcp: Option<TcpObserver>) -> Self {
        self.tcp = tcp;
        self
    }

    pub fn tcp_observer(&self) -> Option<&TcpObserver> {
        self.tcp.as_ref()
    }

    pub fn syscall_observer(&self) -> Option<&SyscallObserver> {
        self.syscalls.as_ref()
    }

    /// Events lost since the start, by stream; every stream is named, even one whose observer is absent.
    pub fn lost(&self) -> Vec<(&'static str, u64)> {
        vec![
            (STREAM_DNS, self.dns.as_ref().map_or(0, DnsObserver::lost_answers)),
            (
                STREAM_DROPS,
                self.drops.as_ref().map_or(0, DropObserver::lost_events),
            ),
            (
                STREAM_PACKETS,
                self.packets.as_ref().map_or(0, PacketObserver::lost_events),
            ),
            (
                STREAM_QUERIES,
                self.queries.as_ref().map_or(0, QueryObserver::lost_events),
            ),
            (
                STREAM_SYSCALLS,
                self.syscalls.as_ref().map_or(0, SyscallObserver::lost_events),
            ),
            (STREAM_TCP, self.tcp.as_ref().map_or(0, TcpObserver::lost_events)),
        ]
    }

    /// Things that happened to nobody who is known, since the start, by stream.
    pub fn unresolved(&self) -> Vec<(&'static str, u64)> {
        vec![
            (
                STREAM_DROPS,
                self.drops.as_ref().map_or(0, DropObserver::unresolved),
            ),
            (
                STREAM_QUERIES,
                self.queries.as_ref().map_or(0, QueryObserver::unresolved),
            ),
            (STREAM_TCP, self.tcp.as_ref().map_or(0, TcpObserver::unresolved)),
        ]
    }

    /// What went wrong inside the fault programs since the start.
    pub fn incident_counts(&self) -> [(&'static str, u64); INCIDENT_COUNT as usize] {
        let counts = (self.incidents)();
        std::array::from_fn(|index| (INCIDENT_NAMES[index], counts[index]))
    }

    /// # Errors
    ///
    /// The streams that are no longer being read, although their observer was started.
    pub fn alive(&self) -> Result<(), String> {
        let packets = self.packets.as_ref().is_none_or(PacketObserver::is_running);
        let syscalls = self.syscalls.as_ref().is_none_or(SyscallObserver::is_running);
        let dns = self.dns.as_ref().is_none_or(DnsObserver::is_running);
        let drops = self.drops.as_ref().is_none_or(DropObserver::is_running);
        let queries = self.queries.as_ref().is_none_or(QueryObserver::is_running);
        let tcp = self.tcp.as_ref().is_none_or(TcpObserver::is_running);
        let stopped: Vec<_> = [
            (STREAM_DNS, dns),
            (STREAM_DROPS, drops),
            (STREAM_PACKETS, packets),
            (STREAM_QUERIES, queries),
            (STREAM_SYSCALLS, syscalls),
            (STREAM_TCP, tcp),
        ]
        .iter()
        .filter(|(_, running)| !running)
        .map(|&(stream, _)| stream)
        .collect();
        if stopped.is_empty() {
            Ok(())
        } else {
            Err(format!("no longer reading {}", stopped.join(", ")))
        }
    }
}

impl ObserveSource for Observers {
    fn syscalls(&self) -> Vec<SyscallSummary> {
        let Some(observer) = &self.syscalls else {
            return Vec::new();
        };
        let snapshot = match observer.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(%error, "the syscall counters can't be read");
                return Vec::new();
            }
        };
        let mut errors: BTreeMap<CallKey, Vec<(String, u64)>> = BTreeMap::new();
        for ((call, errno), count) in snapshot.errors {
            errors.entry(call).or_default().push((errno.to_owned(), count));
        }
        snapshot
            .calls
            .into_iter()
            .map(|(key, stats)| SyscallSummary {
                errors: errors.remove(&key).unwrap_or_default(),
                process: Arc::as_ref(&key.0).to_owned(),
                syscall: key.1.to_owned(),
                calls: stats.calls,
                total: stats.total,
            })
            .collect()
    }

    fn drops(&self) -> DropSnapshot {
        let snapshot = self.drops.as_ref().map(DropObserver::snapshot);
        read("drops", snapshot)
    }

    fn queries(&self) -> QuerySnapshot {
        let snapshot = self.queries.as_ref().map(QueryObserver::snapshot);
        read("queries", snapshot)
    }

    fn tcp(&self) -> Option<TcpSnapshot> {
        let snapshot = self.tcp.as_ref()?.snapshot();
        snapshot
            .inspect_err(|error| tracing::warn!(%error, "the TCP counters can't be read"))
            .ok()
    }

    fn flows(&self, query: &FlowQuery) -> Result<Vec<Flow>, FlowsError> {
        let observer = self.tcp.as_ref().ok_or(FlowsError::NotObserved)?;
        observer
            .flows(query)
            .map_err(|error| FlowsError::Unreadable(error.to_string()))
    }

    fn events_lost(&self) -> Vec<(String, u64)> {
        named(&self.lost())
    }

    fn incidents(&self) -> Vec<(String, u64)> {
        named(&self.incident_counts())
    }
}

/// What an observer that is there could read.
fn read<T: Default, E: Display>(what: &'static str, snapshot: Option<Result<T, E>>) -> T {
    match snapshot {
        Some(Ok(snapshot)) => snapshot,
        Some(Err(error)) => {
            tracing::warn!(%error, "the counters of {what} can't be read");
            T::default()
        }
        None => T::default(),
    }
}

fn named(counts: &[(&'static str, u64)]) -> Vec<(String, u64)> {
    counts
        .iter()
        .map(|&(name, count)| (name.to_owned(), count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_observers_are_named_and_lose_nothing() {
        let incidents = || std::array::from_fn(|which| which as u64);
        let observers = Observers::new(None, None, None, Box::new(incidents));
        assert_eq!(
            observers
                .lost()
                .into_iter()
                .map(|(stream, _)| stream)
                .collect::<Vec<_>>(),
            ["dns", "drops", "packets", "queries", "syscalls", "tcp"]
        );
        assert!(observers.lost().iter().all(|&(_, lost)| lost == 0));
        assert_eq!(observers.unresolved(), [("drops", 0), ("queries", 0), ("tcp", 0)]);
        assert_eq!(observers.incident_counts()[2], ("no_counters", 2));
        assert!(observers.syscalls().is_empty());
        assert_eq!(observers.alive(), Ok(()));
    }
}
