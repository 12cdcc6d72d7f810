//! What the API asks of the observers.

use std::time::Duration;

use super::drops::DropSnapshot;
use super::flows::{Flow, FlowQuery};
use super::queries::QuerySnapshot;
use super::tcp::TcpSnapshot;

/// The calls of one (process name, syscall) pair since the daemon's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyscallSummary {
    pub process: String,
    pub syscall: String,
    pub calls: u64,
    /// Spent in all of them.
    pub total: Duration,
    /// Failed calls by errno, as `ENOENT`.
    pub errors: Vec<(String, u64)>,
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

    /// What the kernel dropped of the owners that live.
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

    /// The busiest of the open TCP connections.
    ///
    /// # Errors
    ///
    /// When they aren't observed here, or can't be read now.
    fn flows(&self, _query: &FlowQuery) -> Result<Vec<Flow>, FlowsError> {
        Err(FlowsError::NotObserved)
    }

    /// Events lost since the daemon's start, by stream.
    fn events_lost(&self) -> Vec<(String, u64)>;

    /// Things that went wrong inside the kernel programs since the daemon's start, by kind. The default is for sources
    /// that don't read those counters.
    fn incidents(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}
