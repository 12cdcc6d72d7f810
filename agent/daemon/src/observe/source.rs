//! What the API asks of the observers.

use std::time::Duration;

use sabot_abi::Histogram;

use super::drops::DropSnapshot;
use super::flows::{FlowList, FlowQuery};
use super::queries::QuerySnapshot;
use super::syscalls::{SyscallsError, Tracing};
use super::tcp::TcpSnapshot;
use super::udp::Look;

/// The calls of one (process name, syscall) pair since the daemon's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyscallSummary {
    pub process: String,
    pub syscall: String,
    pub calls: u64,
    /// Spent in all of them.
    pub total: Duration,
    /// Half of the calls took less, and 99 of 100, to a quarter of a power of two.
    pub p50: Duration,
    pub p99: Duration,
    /// All of them.
    pub durations: Histogram,
    /// Failed calls by errno, as `ENOENT`.
    pub errors: Vec<(String, u64)>,
}

/// The calls of one operation of the container runtime since the daemon's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CriSummary {
    pub operation: String,
    pub calls: u64,
    /// Spent in those whose beginning and end were seen.
    pub total: Duration,
    /// By outcome, as `OK` and `NotFound`.
    pub outcomes: Vec<(String, u64)>,
    /// Begun and not ended, now.
    pub in_flight: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum SetTracingError {
    #[error(
        "this daemon observes no syscalls: it was told not to (see --syscalls), or can't (see `raw_tracepoints` in GetNode)"
    )]
    NotObserved,
    #[error(transparent)]
    Syscalls(#[from] SyscallsError),
}

/// What the counters don't hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// For people; empty: nothing is.
    pub missing: Vec<String>,
    /// What happened to nobody who is known, by stream.
    pub unresolved: Vec<(String, u64)>,
}

/// Why there is no answer about flows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowsError {
    #[error(
        "TCP connections are not observed here; `sabot node` says why, unless it was turned off by --tcp"
    )]
    NotObserved,
    #[error("the open connections can't be read: {0}")]
    Unreadable(String),
}

/// Counters that observers hold, read at the time of the call.
///
/// An observer that can't run on this machine reports nothing; why it can't is in the node's features.
pub trait ObserveSource: Send + Sync + 'static {
    fn syscalls(&self) -> Vec<SyscallSummary>;

    /// The default is for sources that don't observe them.
    fn cri(&self) -> Vec<CriSummary> {
        Vec::new()
    }

    /// What the container runtime told of its containers and sandboxes, by change.
    fn container_events(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Whose syscalls are traced, and which; `None` where syscalls aren't observed. The default is for sources that
    /// observe none.
    fn tracing(&self) -> Option<Tracing> {
        None
    }

    /// Replaces that as a whole, or nothing of it; waits for the kernel for some milliseconds.
    ///
    /// # Errors
    ///
    /// When it isn't usable, can't be put into force, or syscalls aren't observed.
    fn set_tracing(&self, _tracing: &Tracing) -> Result<(), SetTracingError> {
        Err(SetTracingError::NotObserved)
    }

    /// What was dropped of the owners that live.
    fn drops(&self) -> DropSnapshot {
        DropSnapshot::default()
    }

    /// What the owners that live asked DNS servers.
    fn queries(&self) -> QuerySnapshot {
        QuerySnapshot::default()
    }

    /// What TCP connections did, by owner; `None` where they aren't observed.
    fn tcp(&self) -> Option<TcpSnapshot> {
        None
    }

    /// Begins to count UDP; waits for the kernel for some ten milliseconds, and is called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Why it can't be counted here.
    fn look(&self) -> Result<Look, String> {
        Err("this source counts none".to_owned())
    }

    /// The busiest of the open TCP connections and, after a look that was attempted, of the flows of UDP since it began.
    ///
    /// # Errors
    ///
    /// When TCP isn't observed here and nothing else was asked for, or what is there can't be read now.
    fn flows(&self, _query: &FlowQuery, _look: Option<Result<Look, String>>) -> Result<FlowList, FlowsError> {
        Err(FlowsError::NotObserved)
    }

    /// What the counters don't hold. The default is for sources that know nothing of it.
    fn audit(&self) -> Audit {
        Audit::default()
    }

    /// Events lost since the daemon's start, by stream.
    fn events_lost(&self) -> Vec<(String, u64)>;

    /// Things that went wrong inside the kernel programs since the daemon's start, by kind. The default is for sources
    /// that don't read those counters.
    fn incidents(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}
