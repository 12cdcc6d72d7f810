//! What the API asks of the observers.

use std::time::Duration;

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

/// Counters that observers hold, read at the time of the call.
///
/// An observer that can't run on this machine reports nothing; why it can't is in the node's features.
pub trait ObserveSource: Send + Sync + 'static {
    fn syscalls(&self) -> Vec<SyscallSummary>;

    /// The default is for sources that don't observe them.
    fn cri(&self) -> Vec<CriSummary> {
        Vec::new()
    }

    /// Events lost since the daemon's start, by stream.
    fn events_lost(&self) -> Vec<(String, u64)>;

    /// Things that went wrong inside the kernel programs since the daemon's start, by kind. The default is for sources
    /// that don't read those counters.
    fn incidents(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}
