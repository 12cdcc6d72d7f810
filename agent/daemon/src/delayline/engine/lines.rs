//! How lines come and go, and the commands of the handle.

use std::os::fd::{AsFd, OwnedFd};

use sabot_core::model::TargetIdentity;
use sabot_core::plan::TargetId;

use super::{DRAIN_FRAMES, Engine, Line, READ_FRAMES};
use crate::delayline::mailbox::{Command, Reply};
use crate::delayline::{LineError, poller};

impl Engine {
    pub(super) fn execute(&mut self, command: Command) {
        match command {
            Command::Open {
                target,
                identity,
                netns,
                tap,
                reply,
            } => {
                let _ = reply.send(self.open(target, identity, netns, tap));
            }
            Command::Close { target, reply } => {
                if let Some(index) = self.index_of(target) {
                    self.begin_close(index, Some(reply));
                }
            }
            Command::ClearSlot { slot, reply } => {
                self.slots.clear(slot);
                self.store.flush_slot(slot, self.seen_at);
                self.clearing.push((slot, reply));
            }
            Command::IsDrained { target, reply } => {
                let _ = reply.send(self.is_drained(target));
            }
            Command::Forget { slot, target, reply } => {
                self.store.retire_groups(slot);
                self.shared.registry.forget(slot, target);
                let _ = reply.send(());
            }
            Command::SetOwners { owners, reply } => {
                self.shared.registry.set_owners(owners);
                let _ = reply.send(());
            }
            Command::Stop { reply } => {
                self.stopping = Some(reply);
                for index in 0..self.lines.len() as u32 {
                    self.begin_close(index, None);
                }
            }
        }
    }

    fn index_of(&self, target: TargetId) -> Option<u32> {
        let is_it = |line: &Option<Line>| line.as_ref().is_some_and(|line| line.target == target);
        self.lines.iter().position(is_it).map(|index| index as u32)
    }

    fn is_drained(&self, target: TargetId) -> bool {
        let line = self
            .index_of(target)
            .and_then(|index| self.lines[index as usize].as_ref());
        line.is_none_or(|line| !poller::is_readable(&line.tap))
    }

    fn open(
        &mut self,
        target: TargetId,
        identity: TargetIdentity,
        netns: Option<u64>,
        tap: OwnedFd,
    ) -> Result<(), LineError> {
        if self.stopping.is_some() {
            return Err(LineError::Stopped);
        }
        if self.lines.iter().flatten().any(|line| line.target == target) {
            return Err(LineError::AlreadyOpen(target));
        }
        let drops = self.shared.registry.netns_drops(netns);
        let index = self.store.open_line(target, identity, drops);
        self.serial = self.serial.wrapping_add(1);
        if let Err(source) = self.poller.add(tap.as_fd(), token(self.serial, index)) {
            self.store.close_line(index);
            return Err(LineError::Tap {
                target,
                operation: "wait for",
                source,
            });
        }
        if index as usize >= self.lines.len() {
            self.lines.resize_with(index as usize + 1, || None);
        }
        self.lines[index as usize] = Some(Line {
            target,
            tap,
            serial: self.serial,
            closing: false,
            undrained: 0,
            closer: None,
            last_sent: 0,
        });
        self.shared.open().insert(target);
        self.next_beat = self.seen_at;
        self.beat();
        Ok(())
    }

    /// Makes everything of the line due, also what waits in its TAP. `answer` does the rest.
    fn begin_close(&mut self, index: u32, closer: Option<Reply<OwnedFd>>) {
        let Some(line) = self.lines.get_mut(index as usize).and_then(Option::as_mut) else {
            return;
        };
        if line.closing {
            return;
        }
        line.closing = true;
        line.closer = closer;
        self.closing += 1;
        line.undrained = DRAIN_FRAMES;
        self.poller.remove(&line.tap);
        self.store.flush_line(index, self.seen_at);
    }

    /// Reads a batch from each line that closes, until its TAP is empty.
    pub(super) fn drain(&mut self) {
        if self.closing == 0 {
            return;
        }
        for index in 0..self.lines.len() as u32 {
            if self.undrained(index) == 0 {
                continue;
            }
            let more = self.read_batch(index);
            if let Some(line) = &mut self.lines[index as usize] {
                line.undrained = if more {
                    line.undrained.saturating_sub(READ_FRAMES)
                } else {
                    0
                };
            }
        }
    }

    /// Whether a line that closes may still have frames in its TAP.
    pub(super) fn drains(&self) -> bool {
        self.closing > 0 && (0..self.lines.len() as u32).any(|index| self.undrained(index) > 0)
    }

    fn undrained(&self, index: u32) -> usize {
        self.lines[index as usize]
            .as_ref()
            .map_or(0, |line| line.undrained)
    }

    /// Tells those who wait that what they wait for has happened.
    pub(super) fn answer(&mut self) {
        let store = &mut self.store;
        self.clearing.retain(|(slot, reply)| {
            let holds = store.holds_slot(*slot);
            if !holds {
                store.retire_groups(*slot);
                let _ = reply.send(());
            }
            holds
        });
        if self.closing == 0 {
            return;
        }
        for index in 0..self.lines.len() as u32 {
            let closing = self.lines[index as usize]
                .as_ref()
                .is_some_and(|line| line.closing);
            if closing && self.undrained(index) == 0 && self.store.held_by_line(index) == 0 {
                self.remove(index);
            }
        }
    }

    /// Closes a line that can't be used any more.
    pub(super) fn bury(&mut self, index: u32, reason: &str) {
        if let Some(line) = self.lines.get(index as usize).and_then(Option::as_ref) {
            tracing::info!(target_id = line.target.0, reason, "a delay line ends");
            self.poller.remove(&line.tap);
        }
        self.remove(index);
    }

    fn remove(&mut self, index: u32) {
        let Some(line) = self.lines.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        self.store.close_line(index);
        self.shared.open().remove(&line.target);
        self.closing -= usize::from(line.closing);
        match (line.closer, &self.stopping) {
            (Some(closer), _) => {
                let _ = closer.send(line.tap);
            }
            (None, Some(_)) => self.stopped.push(line.tap),
            // Its device is gone: closing it doesn't take long.
            (None, None) => drop(line.tap),
        }
        if self.store.open_lines() == 0 {
            self.store.trim();
        }
    }

    pub(super) fn line_of(&self, token: u64) -> Option<u32> {
        let (serial, index) = ((token >> 32) as u32, token as u32);
        let line = self.lines.get(index as usize)?.as_ref()?;
        (line.serial == serial).then_some(index)
    }
}

fn token(serial: u32, index: u32) -> u64 {
    u64::from(serial) << 32 | u64::from(index)
}
