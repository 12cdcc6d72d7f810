//! What an owner's traffic went through, and the difference between two moments.

use std::time::Duration;

use sabot_abi::Histogram;
use sabot_core::model::BootTime;

use crate::observe::durations;

/// Everything counted of one owner since it is known; monotonic. What no observer counts stays zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub opened: u64,
    pub accepted: u64,
    /// Connections that were asked for and never established.
    pub failed: u64,
    /// Established connections that an error ended.
    pub lost: u64,
    /// Segments, SYN-ACKs among them.
    pub retransmits: u64,
    pub rtos: u64,
    pub resets_sent: u64,
    pub resets_received: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub rtts: Histogram,
    pub handshakes: Histogram,
    /// Wire packets that faults dropped.
    pub drops_injected: u64,
    /// Wire packets that the kernel dropped for its own reasons.
    pub drops_other: u64,
    pub dns_queries: u64,
    pub dns_failed: u64,
    pub dns_unanswered: u64,
    pub dns: Histogram,
}

impl Totals {
    /// What was added since an earlier moment.
    pub fn since(&self, earlier: &Self) -> Self {
        let grown = |now: u64, before: u64| now.saturating_sub(before);
        Self {
            opened: grown(self.opened, earlier.opened),
            accepted: grown(self.accepted, earlier.accepted),
            failed: grown(self.failed, earlier.failed),
            lost: grown(self.lost, earlier.lost),
            retransmits: grown(self.retransmits, earlier.retransmits),
            rtos: grown(self.rtos, earlier.rtos),
            resets_sent: grown(self.resets_sent, earlier.resets_sent),
            resets_received: grown(self.resets_received, earlier.resets_received),
            bytes_sent: grown(self.bytes_sent, earlier.bytes_sent),
            bytes_received: grown(self.bytes_received, earlier.bytes_received),
            rtts: durations::since(&self.rtts, &earlier.rtts),
            handshakes: durations::since(&self.handshakes, &earlier.handshakes),
            drops_injected: grown(self.drops_injected, earlier.drops_injected),
            drops_other: grown(self.drops_other, earlier.drops_other),
            dns_queries: grown(self.dns_queries, earlier.dns_queries),
            dns_failed: grown(self.dns_failed, earlier.dns_failed),
            dns_unanswered: grown(self.dns_unanswered, earlier.dns_unanswered),
            dns: durations::since(&self.dns, &earlier.dns),
        }
    }
}

/// What was counted at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at: BootTime,
    pub(super) totals: Totals,
}

/// What was counted between two moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub from: BootTime,
    pub to: BootTime,
    pub totals: Totals,
}

impl Window {
    pub(super) fn between(earlier: &Sample, later: &Sample) -> Self {
        Self {
            from: earlier.at,
            to: later.at,
            totals: later.totals.since(&earlier.totals),
        }
    }

    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.to.0.saturating_sub(self.from.0))
    }

    pub(super) fn rate(&self, count: u64) -> f64 {
        let seconds = self.length().as_secs_f64();
        if seconds > 0.0 {
            count as f64 / seconds
        } else {
            0.0
        }
    }
}
