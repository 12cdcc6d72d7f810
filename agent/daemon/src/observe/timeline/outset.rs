//! What a fault did before it was first looked at.

use sabot_core::model::BootTime;

use super::record::Firsts;
use super::totals::Sample;

/// A fault is looked at some milliseconds after it came into force. Its first packet tells from when on it worked, the kernel's
/// firsts what else happened since then; so what was counted in between is found to be its own.
#[derive(Clone, Debug)]
pub(super) struct Outset {
    /// From when on the kernel kept what came first.
    pub(super) clean: Sample,
    /// What it had kept when the fault had been looked at first.
    pub(super) firsts: Firsts,
    /// Whether no other fault dropped any packet of the owner since then.
    pub(super) is_alone: bool,
}

impl Outset {
    /// What had been counted by the time of the fault's first packet; `start` is what the first look found. Where a kind's first
    /// came after that packet, all of the kind did. What the kernel keeps no first of is as it was at `start`.
    pub(super) fn at(&self, first_match: BootTime, start: &Sample) -> Sample {
        let mut totals = start.totals.clone();
        let clean = &self.clean.totals;
        let is_since = |moment: Option<BootTime>| moment.is_some_and(|at| at >= first_match);
        if is_since(self.firsts.retransmit) {
            totals.retransmits = clean.retransmits;
        }
        if is_since(self.firsts.rto) {
            totals.rtos = clean.rtos;
        }
        if is_since(self.firsts.reset) {
            totals.resets_sent = clean.resets_sent;
            totals.resets_received = clean.resets_received;
        }
        if is_since(self.firsts.connect_failure) {
            totals.take_failed(clean);
        }
        if is_since(self.firsts.connection_lost) {
            totals.lost = clean.lost;
        }
        if self.is_alone {
            totals.take_injected(clean);
        }
        Sample {
            at: first_match.min(start.at),
            totals,
        }
    }
}
