//! Packets that are answered and go no further.
//!
//! An error waits for a moment. The kernel lets go by what reaches a socket whose thread is still inside the system call
//! that sent the packet (`LockDroppedIcmps`): `connect` would then be woken without an error, or fail a second later, at its
//! next SYN. 2 in 1,000 connections that were answered at once met that. A reset waits for the socket in the kernel.

use sabot_core::action::{RejectCode, ResetTo};

use super::{Engine, Written, write};
use crate::delayline::reply::{self, End};
use crate::delayline::store::{Arrival, Released};
use crate::delayline::treat::Order;

/// How long an error waits, ns.
const PAUSE: u64 = 500_000;

/// The frame as it is held until it is rejected.
pub(super) fn later(arrival: Arrival, code: RejectCode) -> Arrival {
    Arrival {
        deadline: arrival.sent_at + PAUSE,
        order: Order::Free,
        rejected: Some(code),
        ..arrival
    }
}

impl Engine {
    /// The frame's sender gets an error where one is in order.
    pub(super) fn reject(&mut self, frame: &Released, code: RejectCode) {
        self.answer_with(&frame.buffer[..frame.length], frame.group, |frame, out| {
            reply::unreachable(frame, code, out)
        });
        self.count_rejected(frame.group, frame.wire);
    }

    /// Consumes the frame in the scratch buffer if a reset can be sent to one of the ends that are to get one; otherwise it
    /// goes on.
    pub(super) fn reset(&mut self, length: usize, arrival: Arrival, direction: u32, to: ResetTo) {
        let scratch = std::mem::take(&mut self.scratch);
        let mut answered = false;
        for end in End::chosen(to, direction).into_iter().flatten() {
            answered |= self.answer_with(&scratch[..length], arrival.group, |frame, out| {
                reply::reset(frame, end, out)
            });
        }
        self.scratch = scratch;
        if answered {
            self.count_rejected(arrival.group, arrival.wire);
        } else {
            self.admit(length, arrival, true);
        }
    }

    /// Writes what `build` makes of the frame. False when it makes nothing. An answer that can't be written is not among
    /// those that the kernel counts.
    fn answer_with(
        &mut self,
        frame: &[u8],
        group: u32,
        build: impl FnOnce(&[u8], &mut Vec<u8>) -> bool,
    ) -> bool {
        let vnet_header = self.config.vnet_header;
        self.draft.clear();
        self.draft.resize(vnet_header, 0);
        if !build(&frame[vnet_header..], &mut self.draft) {
            return false;
        }
        let Some(index) = self.store.group(group).map(|group| group.line) else {
            return true;
        };
        let line = self.lines.get(index as usize).and_then(Option::as_ref);
        if line.is_some_and(|line| matches!(write(&line.tap, &self.draft), Written::Gone)) {
            self.bury(index, "its device is gone");
        }
        true
    }
}
