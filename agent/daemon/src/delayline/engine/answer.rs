//! Packets that are answered and go no further.

use sabot_core::action::{RejectCode, ResetTo};

use super::{Engine, Written, write};
use crate::delayline::reply::{self, End};
use crate::delayline::store::Arrival;

impl Engine {
    /// Consumes the frame in the scratch buffer; its sender gets an error where one is in order.
    pub(super) fn reject(&mut self, length: usize, arrival: &Arrival, code: RejectCode) {
        self.answer_with(length, arrival, |frame, out| reply::unreachable(frame, code, out));
        self.count(arrival.group, |counters| counters.rejected.add(arrival.wire));
    }

    /// Consumes the frame in the scratch buffer if a reset can be sent to one of the ends that are to get one; otherwise it
    /// goes on.
    pub(super) fn reset(&mut self, length: usize, arrival: Arrival, direction: u32, to: ResetTo) {
        let mut answered = false;
        for end in End::chosen(to, direction).into_iter().flatten() {
            answered |= self.answer_with(length, &arrival, |frame, out| reply::reset(frame, end, out));
        }
        if answered {
            self.count(arrival.group, |counters| counters.rejected.add(arrival.wire));
        } else {
            self.admit(length, arrival, true);
        }
    }

    /// Writes what `build` makes of the frame in the scratch buffer. False when it makes nothing. An answer that can't be
    /// written is not among those that the kernel counts.
    fn answer_with(
        &mut self,
        length: usize,
        arrival: &Arrival,
        build: impl FnOnce(&[u8], &mut Vec<u8>) -> bool,
    ) -> bool {
        let vnet_header = self.config.vnet_header;
        self.draft.clear();
        self.draft.resize(vnet_header, 0);
        if !build(&self.scratch[vnet_header..length], &mut self.draft) {
            return false;
        }
        let Some(index) = self.store.group(arrival.group).map(|group| group.line) else {
            return true;
        };
        let line = self.lines.get(index as usize).and_then(Option::as_ref);
        if line.is_some_and(|line| matches!(write(&line.tap, &self.draft), Written::Gone)) {
            self.bury(index, "its device is gone");
        }
        true
    }
}
