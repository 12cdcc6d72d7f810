//! All observers together, as the API and the metrics read them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use sabot_abi::{INCIDENT_COUNT, INCIDENT_NAMES};

use super::audit::missing;
use super::cri::CriObserver;
use super::cri::containers::{CHANGES, ContainerObserver, ContainerSnapshot};
use super::dns::DnsObserver;
use super::drops::{DropObserver, DropSnapshot};
use super::event::{
    STREAM_CRI, STREAM_DNS, STREAM_DROPS, STREAM_PACKETS, STREAM_QUERIES, STREAM_SYSCALLS, STREAM_TCP,
};
use super::flows::{self, Counted, FlowList, FlowQuery};
use super::identity::Owners;
use super::identity::containers::Containers;
use super::packets::PacketObserver;
use super::queries::{QueryObserver, QuerySnapshot};
use super::source::{Audit, CriSummary, FlowsError, ObserveSource, SetTracingError, SyscallSummary};
use super::syscalls::{CallKey, SyscallObserver, Tracing};
use super::tcp::{TcpObserver, TcpSnapshot, well_known};
use super::udp::{Look, UdpFlows};
use crate::kernel::object::ObjectError;
use crate::kernel::tcp::class_of;

/// What happened in a container, of all streams, whose container isn't known.
const UNRESOLVED_CONTAINERS: &str = "containers";

/// Reads what went wrong inside the fault programs, by [`INCIDENT_NAMES`].
pub type Incidents = Box<dyn Fn() -> [u64; INCIDENT_COUNT as usize] + Send + Sync>;

/// An observer that can't run on this machine, or isn't wanted, is absent.
#[derive(Default)]
pub struct Observers {
    pub syscalls: Option<SyscallObserver>,
    pub packets: Option<PacketObserver>,
    pub dns: Option<DnsObserver>,
    pub cri: Option<CriObserver>,
    pub containers: Option<ContainerObserver>,
    pub drops: Option<DropObserver>,
    pub queries: Option<QueryObserver>,
    pub tcp: Option<TcpObserver>,
    pub udp: Option<UdpFlows>,
    pub incidents: Option<Incidents>,
    /// What is only observed while a fault is active.
    pub only_during_faults: Vec<&'static str>,
    /// Names what happens in containers.
    pub names: Containers,
}

/// How one stream of events stands.
struct Stream {
    name: &'static str,
    lost: u64,
    /// `None` for a stream in which everything has its name.
    unresolved: Option<u64>,
    is_running: bool,
}

impl Stream {
    fn of<T>(
        name: &'static str,
        observer: Option<&T>,
        lost: impl Fn(&T) -> u64,
        is_running: impl Fn(&T) -> bool,
    ) -> Self {
        Self {
            name,
            lost: observer.map_or(0, lost),
            unresolved: None,
            is_running: observer.is_none_or(is_running),
        }
    }

    fn with_unresolved<T>(self, observer: Option<&T>, unresolved: impl Fn(&T) -> u64) -> Self {
        Self {
            unresolved: Some(observer.map_or(0, unresolved)),
            ..self
        }
    }
}

impl Observers {
    /// All of them, also those whose observer is absent.
    fn streams(&self) -> [Stream; 7] {
        let (drops, queries, tcp) = (self.drops.as_ref(), self.queries.as_ref(), self.tcp.as_ref());
        [
            Stream::of(
                STREAM_CRI,
                self.cri.as_ref(),
                CriObserver::lost_chunks,
                CriObserver::is_running,
            ),
            Stream::of(
                STREAM_DNS,
                self.dns.as_ref(),
                DnsObserver::lost_answers,
                DnsObserver::is_running,
            ),
            Stream::of(
                STREAM_DROPS,
                drops,
                DropObserver::lost_events,
                DropObserver::is_running,
            )
            .with_unresolved(drops, DropObserver::unresolved),
            Stream::of(
                STREAM_PACKETS,
                self.packets.as_ref(),
                PacketObserver::lost_events,
                PacketObserver::is_running,
            ),
            Stream::of(
                STREAM_QUERIES,
                queries,
                QueryObserver::lost_events,
                QueryObserver::is_running,
            )
            .with_unresolved(queries, QueryObserver::unresolved),
            Stream::of(
                STREAM_SYSCALLS,
                self.syscalls.as_ref(),
                SyscallObserver::lost_events,
                SyscallObserver::is_running,
            ),
            Stream::of(STREAM_TCP, tcp, TcpObserver::lost_events, TcpObserver::is_running)
                .with_unresolved(tcp, TcpObserver::unresolved),
        ]
    }

    /// Events lost since the start, by stream.
    pub fn lost(&self) -> Vec<(&'static str, u64)> {
        self.streams()
            .iter()
            .map(|stream| (stream.name, stream.lost))
            .collect()
    }

    /// Things that happened to nobody who is known, since the start, by stream.
    pub fn unresolved(&self) -> Vec<(&'static str, u64)> {
        let streams = self.streams();
        let owners = streams
            .iter()
            .filter_map(|stream| Some((stream.name, stream.unresolved?)));
        owners
            .chain([(UNRESOLVED_CONTAINERS, self.names.unresolved())])
            .collect()
    }

    /// What the container runtime told of its containers; nothing where it tells nothing.
    pub fn told(&self) -> ContainerSnapshot {
        let containers = self.containers.as_ref();
        containers.map(ContainerObserver::snapshot).unwrap_or_default()
    }

    /// What went wrong inside the fault programs since the start.
    pub fn incident_counts(&self) -> [(&'static str, u64); INCIDENT_COUNT as usize] {
        let nothing = [0; INCIDENT_COUNT as usize];
        let counts = self.incidents.as_ref().map_or(nothing, |read| read());
        std::array::from_fn(|index| (INCIDENT_NAMES[index], counts[index]))
    }

    /// Who lives, as those know who count flows.
    fn owners(&self) -> Arc<Owners> {
        match (&self.tcp, &self.udp) {
            (Some(tcp), _) => tcp.owners(),
            (None, Some(udp)) => udp.owners(),
            (None, None) => Arc::default(),
        }
    }

    /// # Errors
    ///
    /// The streams that are no longer being read, although their observer was started.
    pub fn alive(&self) -> Result<(), String> {
        let stopped: Vec<_> = self
            .streams()
            .iter()
            .filter(|stream| !stream.is_running)
            .map(|stream| stream.name)
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
                calls: stats.calls(),
                total: stats.total(),
                p50: stats.quantile(0.5).unwrap_or_default(),
                p99: stats.quantile(0.99).unwrap_or_default(),
                durations: stats.durations,
            })
            .collect()
    }

    fn cri(&self) -> Vec<CriSummary> {
        let operations = self
            .cri
            .as_ref()
            .map(CriObserver::snapshot)
            .unwrap_or_default()
            .operations;
        operations
            .into_iter()
            .map(|(operation, stats)| CriSummary {
                operation: operation.to_owned(),
                calls: stats.calls(),
                total: stats.total,
                outcomes: named(&stats.outcomes.into_iter().collect::<Vec<_>>()),
                in_flight: stats.in_flight,
            })
            .collect()
    }

    fn container_events(&self) -> Vec<(String, u64)> {
        let counts = CHANGES.into_iter().zip(self.told().changes);
        named(&counts.filter(|(_, count)| *count > 0).collect::<Vec<_>>())
    }

    fn tracing(&self) -> Option<Tracing> {
        self.syscalls.as_ref().map(SyscallObserver::tracing)
    }

    fn set_tracing(&self, tracing: &Tracing) -> Result<(), SetTracingError> {
        let observer = self.syscalls.as_ref().ok_or(SetTracingError::NotObserved)?;
        Ok(observer.set_tracing(tracing)?)
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

    fn look(&self) -> Result<Look, String> {
        let udp = self.udp.as_ref().ok_or("it is not observed here")?;
        udp.look().map_err(|error| error.to_string())
    }

    fn flows(&self, query: &FlowQuery, look: Option<Result<Look, String>>) -> Result<FlowList, FlowsError> {
        let unreadable = |error: ObjectError| FlowsError::Unreadable(error.to_string());
        let mut missing = Vec::new();
        let mut counted = Vec::new();
        match (&self.tcp, &look) {
            (Some(tcp), _) => {
                counted.extend(
                    tcp.connections()
                        .map_err(unreadable)?
                        .into_iter()
                        .map(Counted::Tcp),
                );
                missing.extend(said(
                    tcp.untracked(),
                    "TCP connections have found no room since the daemon's start",
                ));
            }
            (None, Some(_)) => missing.push("TCP connections are not observed".to_owned()),
            (None, None) => return Err(FlowsError::NotObserved),
        }
        match look.map(|look| look.map(Look::end)) {
            None => {}
            Some(Err(why)) => missing.push(format!("UDP is not counted: {why}")),
            Some(Ok(udp)) => {
                let udp = udp.map_err(unreadable)?;
                counted.extend(udp.flows.iter().map(|(key, counts)| Counted::Udp(*key, *counts)));
                missing.extend(said(
                    udp.no_room,
                    "packets are of flows of UDP that found no room",
                ));
                missing.extend(said(udp.unresolved, "packets of UDP are nobody's who is known"));
            }
        }
        let peers = match &self.tcp {
            Some(tcp) => tcp.peers(),
            None => well_known().collect(),
        };
        Ok(FlowList {
            flows: flows::top(counted, &self.owners(), query, |address| {
                class_of(&peers, address)
            }),
            missing,
        })
    }

    fn audit(&self) -> Audit {
        Audit {
            missing: missing(self),
            unresolved: named(&self.unresolved()),
        }
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

fn said(count: u64, what: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} {what}"))
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
        let observers = Observers {
            incidents: Some(Box::new(incidents)),
            ..Observers::default()
        };
        assert_eq!(
            observers.lost(),
            ["cri", "dns", "drops", "packets", "queries", "syscalls", "tcp"].map(|stream| (stream, 0))
        );
        assert_eq!(
            observers.unresolved(),
            [("drops", 0), ("queries", 0), ("tcp", 0), ("containers", 0)]
        );
        assert_eq!(observers.incident_counts()[2], ("no_counters", 2));
        assert!(observers.syscalls().is_empty() && observers.cri().is_empty());
        assert_eq!(observers.alive(), Ok(()));
    }
}
