//! What an owner's traffic went through, and the difference between two moments.

use std::array;
use std::collections::BTreeMap;
use std::time::Duration;

use sabot_abi::{CONNECTION_FAILED, CONNECTION_OUTCOMES, Histogram, PEER_CLASSES};
use sabot_core::model::BootTime;

use crate::observe::drops::DropKind;
use crate::observe::durations;

/// Counts by name; what there was none of is left out.
pub type Named = BTreeMap<&'static str, u64>;

/// By the peer's class, `PEER_*`, and what became of them, `CONNECTION_*`.
pub type Connections = [[u64; CONNECTION_OUTCOMES]; PEER_CLASSES];

/// Everything counted of one owner since it is known; monotonic. What no observer counts stays zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub connections: Connections,
    /// Those that failed, by errno.
    pub connect_errors: Named,
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
    /// Wire packets.
    pub drops: BTreeMap<DropKind, u64>,
    pub dns_queries: u64,
    /// Answers in time, by response code.
    pub dns_answers: Named,
    pub dns_unanswered: u64,
    pub dns_retries: u64,
    /// Answers to what had been counted as unanswered.
    pub dns_late: u64,
    pub dns: Histogram,
}

/// What grew, by key; the other keys are left out.
pub(super) fn added<K: Clone + Ord>(now: &BTreeMap<K, u64>, earlier: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let grown = now.iter().map(|(key, &count)| {
        let before = earlier.get(key).copied().unwrap_or_default();
        (key.clone(), count.saturating_sub(before))
    });
    grown.filter(|(_, count)| *count > 0).collect()
}

/// Answers that are as they should be; that a name doesn't exist is one of them.
const DNS_ANSWERS: [&str; 2] = ["NOERROR", "NXDOMAIN"];

impl Totals {
    /// Connections with this outcome, `CONNECTION_*`, whoever the peer.
    pub fn connections(&self, outcome: usize) -> u64 {
        self.connections.iter().map(|outcomes| outcomes[outcome]).sum()
    }

    /// Wire packets that faults dropped, or else those that the kernel dropped for its own reasons.
    pub fn dropped(&self, by_faults: bool) -> u64 {
        let drops = self.drops.iter().filter(|(kind, _)| kind.injected == by_faults);
        drops.map(|(_, packets)| packets).sum()
    }

    /// Queries that were answered by an error.
    pub fn dns_failed(&self) -> u64 {
        let answers = self.dns_answers.iter();
        let failed = answers.filter(|(code, _)| !DNS_ANSWERS.contains(code));
        failed.map(|(_, count)| count).sum()
    }

    /// Takes the packets that faults dropped from another reading.
    pub(super) fn take_injected(&mut self, other: &Self) {
        self.drops.retain(|kind, _| !kind.injected);
        let injected = other.drops.iter().filter(|(kind, _)| kind.injected);
        self.drops
            .extend(injected.map(|(kind, &packets)| (kind.clone(), packets)));
    }

    /// Takes the connections that failed from another reading.
    pub(super) fn take_failed(&mut self, other: &Self) {
        for (own, others) in self.connections.iter_mut().zip(&other.connections) {
            own[CONNECTION_FAILED] = others[CONNECTION_FAILED];
        }
        self.connect_errors.clone_from(&other.connect_errors);
    }

    /// What was added since an earlier moment.
    pub fn since(&self, earlier: &Self) -> Self {
        let grown = |now: u64, before: u64| now.saturating_sub(before);
        Self {
            connections: array::from_fn(|peer| {
                let (now, before) = (&self.connections[peer], &earlier.connections[peer]);
                array::from_fn(|outcome| grown(now[outcome], before[outcome]))
            }),
            connect_errors: added(&self.connect_errors, &earlier.connect_errors),
            lost: grown(self.lost, earlier.lost),
            retransmits: grown(self.retransmits, earlier.retransmits),
            rtos: grown(self.rtos, earlier.rtos),
            resets_sent: grown(self.resets_sent, earlier.resets_sent),
            resets_received: grown(self.resets_received, earlier.resets_received),
            bytes_sent: grown(self.bytes_sent, earlier.bytes_sent),
            bytes_received: grown(self.bytes_received, earlier.bytes_received),
            rtts: durations::since(&self.rtts, &earlier.rtts),
            handshakes: durations::since(&self.handshakes, &earlier.handshakes),
            drops: added(&self.drops, &earlier.drops),
            dns_queries: grown(self.dns_queries, earlier.dns_queries),
            dns_answers: added(&self.dns_answers, &earlier.dns_answers),
            dns_unanswered: grown(self.dns_unanswered, earlier.dns_unanswered),
            dns_retries: grown(self.dns_retries, earlier.dns_retries),
            dns_late: grown(self.dns_late, earlier.dns_late),
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

#[cfg(test)]
mod tests {
    use sabot_abi::{CONNECTION_CLOSED, CONNECTION_OPENED, PEER_POD, PEER_SERVICE};

    use super::*;

    /// So many connections were opened and failed, to this class of peers.
    fn add(totals: &mut Totals, peer: u32, opened: u64, failed: u64) {
        let outcomes = &mut totals.connections[peer as usize];
        outcomes[CONNECTION_OPENED] += opened;
        outcomes[CONNECTION_FAILED] += failed;
        *totals.connect_errors.entry("ETIMEDOUT").or_default() += failed;
    }

    #[test]
    fn connections_are_told_by_the_peers_class() {
        let mut earlier = Totals::default();
        add(&mut earlier, PEER_POD, 3, 1);
        let mut now = earlier.clone();
        add(&mut now, PEER_POD, 2, 0);
        add(&mut now, PEER_SERVICE, 5, 4);
        let grown = now.since(&earlier);
        assert_eq!(grown.connections[PEER_POD as usize], [2, 0, 0, 0]);
        assert_eq!(grown.connections[PEER_SERVICE as usize], [5, 0, 0, 4]);
        assert_eq!(grown.connections(CONNECTION_OPENED), 7);
        assert_eq!(grown.connections(CONNECTION_FAILED), 4);
        assert_eq!(grown.connections(CONNECTION_CLOSED), 0);
        // Counters that begin anew never make it negative.
        assert_eq!(earlier.since(&now), Totals::default());
    }

    #[test]
    fn failures_of_another_reading_are_taken_without_anything_else() {
        let (mut clean, mut start) = (Totals::default(), Totals::default());
        add(&mut clean, PEER_SERVICE, 1, 1);
        add(&mut start, PEER_SERVICE, 9, 6);
        add(&mut start, PEER_POD, 2, 3);
        start.take_failed(&clean);
        assert_eq!(start.connections[PEER_SERVICE as usize], [9, 0, 0, 1]);
        assert_eq!(start.connections[PEER_POD as usize], [2, 0, 0, 0]);
        assert_eq!(start.connect_errors, [("ETIMEDOUT", 1)].into());
    }
}
