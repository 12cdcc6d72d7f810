//! What the API asks of the observers.

use std::time::Duration;

use super::drops::DropSnapshot;
use super::queries::QuerySnapshot;

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

    /// Events lost since the daemon's start, by stream.
    fn events_lost(&self) -> Vec<(String, u64)>;

    /// Things that went wrong inside the kernel programs since the daemon's start, by kind. The default is for sources
    /// that don't read those counters.
    fn incidents(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}
