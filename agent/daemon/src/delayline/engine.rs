//! The engine's thread: it reads from the TAPs, keeps time, and writes back.
//!
//! Work is cut into small batches: after each batch of reads from one line everything else gets its turn (what is due,
//! the heartbeat, commands), releases come in bounded batches as well, and a line that closes is emptied in them, so
//! neither side starves the other and no line starves another. Without packets the thread wakes for the heartbeat alone,
//! and without lines not at all.
//!
//! Frames are read and written one by one. What that costs was measured against io_uring on a TAP: ns of the thread's time
//! to read a frame and write it back, the least of four runs, without anybody behind the TAP.
//!
//! | in batches of                     | 32: 100 B | 1,400 B | 60,000 B | 2: 100 B | 1,400 B | 60,000 B |
//! |-----------------------------------|-----------|---------|----------|----------|---------|----------|
//! | `read` and `write`                | 2,190     | 2,440   | 16,080   | 2,270    | 2,740   | 17,660   |
//! | io_uring                          | 1,800     | 1,910   | 13,780   | 2,670    | 3,290   | 16,760   |
//! | io_uring, registered buffers      | 1,670     | 1,890   | 16,110   | 2,580    | 3,400   | 16,400   |
//!
//! Under a bulk TCP flow a wake-up finds 1.4 frames, where io_uring loses; super-packets are copied for as long either way
//! (the kernel's two copies are 37 % of the thread's time, the receiver's stack inside the `write` 23 %, a timer set
//! 5 %). Larger batches come with the scheduling of the thread, see `priority`. GRO on the way back (`IFF_NAPI`) cost 2 % more
//! time per byte, huge pages for the buffers changed nothing that could be told from noise.
//!
//! A thread that stood still for longer than `late_after` (the daemon was stopped) finds out at its next look at the
//! clock. What is overdue by then is dropped and counted, and so is what waits in the TAPs, for an unknown time:
//! delivering a second's worth of stale packets in a burst would be a fault that nobody asked for.

mod answer;
mod lines;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use sabot_abi::Stamp;
use sabot_core::model::BootTime;
use sabot_core::plan::{Slot, TargetId};

use super::drops::LineDrop;
use super::frame::{self, Wire};
use super::lead::Lead;
use super::mailbox::Reply;
use super::poller::{Poller, Ready, boot_time};
use super::pool::Pool;
use super::priority::Priority;
use super::slots::{Edit, Slots};
use super::store::{Arrival, Released, Store, Verdict};
use super::treat::{Fate, Order};
use super::{Config, Heartbeat, Shared};

/// Frames and bytes read from one line before the others get their turn.
const READ_FRAMES: usize = 64;
const READ_BYTES: usize = 1 << 20;
/// Frames and bytes released before reading gets its turn.
const RELEASE_FRAMES: usize = 128;
const RELEASE_BYTES: usize = 1 << 20;
/// Frames taken out of a TAP that closes, or whose frames are late; more than any queue of a TAP holds, and a bound
/// where somebody goes on sending.
const DRAIN_FRAMES: usize = 1 << 16;
/// How long memory may go unneeded before it is given back, in ns.
const SPARE_PERIOD: u64 = 10_000_000_000;

struct Line {
    target: TargetId,
    tap: OwnedFd,
    /// Tells it from earlier lines at the same index.
    serial: u32,
    closing: bool,
    /// How many frames may still be read from its TAP; only of a line that closes.
    undrained: usize,
    closer: Option<Reply<OwnedFd>>,
    /// When the last frame was sent here, ns.
    last_sent: u64,
}

impl Line {
    /// When a frame that was read now was sent here: no earlier than the one before it, which another CPU may have sent.
    fn sent_at(&mut self, stamp: Stamp, now: u64) -> u64 {
        self.last_sent = stamp.time(now).max(self.last_sent);
        self.last_sent
    }
}

pub(super) struct Engine {
    config: Config,
    heartbeat: Box<dyn Heartbeat>,
    shared: Arc<Shared>,
    poller: Poller,
    store: Store,
    slots: Slots,
    /// By the store's index of the line.
    lines: Vec<Option<Line>>,
    serial: u32,
    /// Lines that only wait for their last packets to go.
    closing: usize,
    clearing: Vec<(Slot, Reply<()>)>,
    stopping: Option<Reply<Vec<OwnedFd>>>,
    stopped: Vec<OwnedFd>,
    /// What a frame is read into.
    scratch: Box<[u8]>,
    /// What an answer is built in.
    draft: Vec<u8>,
    edits: Vec<(Slot, Edit)>,
    flow_key: u64,
    late_after: u64,
    beat_every: u64,
    next_beat: u64,
    next_mark: u64,
    lead: Lead,
    /// The last look at the clock, ns.
    seen_at: u64,
    stalled: bool,
    /// Known once the thread runs.
    priority: Option<Priority>,
}

/// Whatever way the thread ends, nobody waits for it afterwards.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Release);
        self.0.open().clear();
        self.0.mailbox.close();
    }
}

enum Written {
    Yes,
    No,
    /// The device doesn't exist any more.
    Gone,
}

impl Engine {
    pub(super) fn new(
        config: Config,
        heartbeat: Box<dyn Heartbeat>,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        use std::hash::BuildHasher;
        let now = boot_time();
        let late_after = config.late_after.max(config.heartbeat_every * 4);
        Ok(Self {
            config,
            heartbeat,
            poller: Poller::new(Arc::clone(&shared.mailbox.wake))?,
            shared,
            store: Store::new(config.bytes_per_line, config.bytes_total, now),
            slots: Slots::default(),
            lines: Vec::new(),
            serial: 0,
            closing: 0,
            clearing: Vec::new(),
            stopping: None,
            stopped: Vec::new(),
            scratch: Pool::scratch(),
            draft: Vec::new(),
            edits: Vec::new(),
            flow_key: std::hash::RandomState::new().hash_one(now),
            late_after: late_after.as_nanos() as u64,
            // Twice as often as promised, so that a late wake-up still keeps the promise.
            beat_every: config.heartbeat_every.as_nanos() as u64 / 2,
            next_beat: 0,
            next_mark: now,
            lead: Lead::default(),
            seen_at: now,
            stalled: false,
            priority: None,
        })
    }

    /// The thread.
    pub(super) fn run(self) {
        let _ending = Ending(Arc::clone(&self.shared));
        // Dropped before `_ending`: when the engine is seen to be dead, its descriptors are closed.
        let mut engine = self;
        engine.priority = Some(Priority::of_this_thread(engine.config.real_time, engine.seen_at));
        while !engine.finished() {
            if let Err(error) = engine.turn() {
                tracing::error!(%error, "the delay line can't wait for packets and ends");
                return;
            }
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let count = self.poller.wait(self.next_wake(), self.seen_at)?;
        let woken_at = boot_time();
        self.serve();
        for event in 0..count {
            match self.poller.ready(event) {
                Ready::Line(token) => {
                    if let Some(index) = self.line_of(token) {
                        self.read_batch(index);
                        self.serve();
                    }
                }
                Ready::Gone(token) => {
                    if let Some(index) = self.line_of(token) {
                        self.bury(index, "its device is gone");
                    }
                }
                Ready::Time(until) => self.lead.learn(woken_at.saturating_sub(until)),
                Ready::Nothing => {}
            }
        }
        Ok(())
    }

    /// Everything but reading.
    fn serve(&mut self) {
        self.clock();
        if self.stalled {
            self.recover();
        }
        self.beat();
        self.apply_edits();
        while let Some(command) = self.shared.mailbox.take_command() {
            self.execute(command);
        }
        self.drain();
        self.release();
        self.answer();
    }

    fn finished(&mut self) -> bool {
        if self.store.open_lines() > 0 {
            return false;
        }
        let Some(reply) = self.stopping.take() else {
            return false;
        };
        let _ = reply.send(std::mem::take(&mut self.stopped));
        true
    }

    fn next_wake(&self) -> Option<u64> {
        if self.store.has_due() || self.drains() {
            return Some(0);
        }
        let beat = (self.store.open_lines() > 0).then_some(self.next_beat);
        let due = self.store.next_wake().map(|due| self.lead.before(due));
        due.into_iter().chain(beat).min()
    }

    /// Every look at the clock is also a check for having stood still.
    fn clock(&mut self) -> u64 {
        let now = boot_time();
        if self.store.open_lines() > 0 && now.saturating_sub(self.seen_at) > self.late_after {
            self.stalled = true;
        }
        self.seen_at = now;
        now
    }

    fn beat(&mut self) {
        if self.store.open_lines() == 0 || self.seen_at < self.next_beat {
            return;
        }
        self.heartbeat.beat(BootTime(self.seen_at));
        self.next_beat = self.seen_at.saturating_add(self.beat_every);
        if let Some(priority) = &mut self.priority {
            priority.review(self.seen_at);
        }
        self.store.trim();
        if self.seen_at >= self.next_mark {
            self.store.mark();
            self.next_mark = self.seen_at.saturating_add(SPARE_PERIOD);
        }
    }

    fn release(&mut self) {
        self.store.advance(self.seen_at);
        let mut bytes = 0;
        for _ in 0..RELEASE_FRAMES {
            if bytes >= RELEASE_BYTES || !self.store.has_due() {
                break;
            }
            let now = self.clock();
            if self.stalled {
                break;
            }
            let Some(frame) = self.store.pop_due() else {
                break;
            };
            bytes += frame.length;
            self.release_one(frame, now);
        }
    }

    fn release_one(&mut self, frame: Released, now: u64) {
        if let Some(code) = frame.rejected {
            self.reject(&frame, code);
            return self.store.recycle(frame.buffer);
        }
        let delay = now.saturating_sub(frame.sent_at);
        self.write_back(
            frame.group,
            &frame.buffer[..frame.length],
            frame.wire,
            Some(delay),
        );
        self.store.recycle(frame.buffer);
    }

    /// `delay` (ns) goes into the slot's histogram.
    fn write_back(&mut self, group: u32, bytes: &[u8], wire: Wire, delay: Option<u64>) {
        let Some(group) = self.store.group(group) else {
            return;
        };
        let index = group.line;
        let Some(line) = self.lines.get(index as usize).and_then(Option::as_ref) else {
            return;
        };
        match write(&line.tap, bytes) {
            Written::Yes => {
                if let Some(delay) = delay {
                    group.delays.record(delay);
                }
            }
            // Not tried again: a TAP refuses for want of memory or because it is down, and holding the packet any longer
            // would hold up its whole flow.
            Written::No => group.count_drop(LineDrop::Write, wire),
            Written::Gone => {
                group.count_drop(LineDrop::Write, wire);
                self.bury(index, "its device is gone");
            }
        }
    }

    /// Whether there may be more.
    fn read_batch(&mut self, index: u32) -> bool {
        let mut bytes = 0;
        for _ in 0..READ_FRAMES {
            let Some(length) = self.read(index) else {
                return false;
            };
            self.accept(index, length);
            bytes += length;
            if bytes >= READ_BYTES || self.stalled {
                break;
            }
        }
        true
    }

    /// Reads the next frame into the scratch buffer. `None` when there is none, or no line any more.
    fn read(&mut self, index: u32) -> Option<usize> {
        loop {
            let line = self.lines.get(index as usize)?.as_ref()?;
            match nix::unistd::read(&line.tap, &mut self.scratch) {
                Ok(0) => {
                    self.bury(index, "its other end is closed");
                    return None;
                }
                Ok(length) => return Some(length),
                Err(Errno::EAGAIN) => return None,
                Err(Errno::EINTR) => {}
                Err(error) => {
                    self.bury(index, error.desc());
                    return None;
                }
            }
        }
    }

    /// Decides on the frame in the scratch buffer.
    fn accept(&mut self, index: u32, length: usize) {
        let now = self.clock();
        self.apply_edits();
        let Some(tagged) = frame::parse(&self.scratch[..length], self.config.vnet_header, self.flow_key)
        else {
            self.shared.registry.untagged.add(Wire {
                packets: 1,
                bytes: length.saturating_sub(self.config.vnet_header) as u32,
            });
            return;
        };
        let Some(group) = self.store.group_of(index, tagged.tag, &self.shared.registry) else {
            return;
        };
        if self.stalled {
            return self.count_drop(group, LineDrop::Late, tagged.wire);
        }
        if length == self.scratch.len() {
            // It may have been cut off, and no kernel makes such a frame.
            return self.count_drop(group, LineDrop::Bound, tagged.wire);
        }
        let (closing, sent_at) = match self.lines[index as usize].as_mut() {
            Some(line) => (line.closing, line.sent_at(tagged.stamp, now)),
            None => (false, now),
        };
        let arrival = Arrival {
            group,
            flow: tagged.flow,
            wire: tagged.wire,
            sent_at,
            deadline: sent_at,
            order: Order::Flow,
            rejected: None,
        };
        let entry = self.slots.get(Slot(tagged.tag.slot)).filter(|_| !closing);
        let fate = match (entry, self.store.group_mut(group)) {
            (Some(entry), Some(group)) => group.state.decide(entry, tagged.tag.role, tagged.wire, sent_at),
            _ => return self.admit(length, arrival, false),
        };
        match fate {
            Fate::Hold { deadline, order } => {
                let arrival = Arrival {
                    deadline,
                    order,
                    ..arrival
                };
                self.admit(length, arrival, true);
            }
            Fate::Drop => self.count_drop(group, LineDrop::Queue, tagged.wire),
            Fate::Reject(code) => self.admit(length, answer::later(arrival, code), false),
            Fate::Reset(to) => self.reset(length, arrival, tagged.tag.direction, to),
        }
    }

    /// Holds the frame in the scratch buffer or lets it go on at once, into the slot's histogram if it is `measured`.
    fn admit(&mut self, length: usize, arrival: Arrival, measured: bool) {
        match self.store.admit(&mut self.scratch, length, arrival) {
            Verdict::Held => {}
            Verdict::Refused => {
                self.count_drop(arrival.group, LineDrop::Bound, arrival.wire);
                if let Some(group) = self.store.group_mut(arrival.group) {
                    group.state.take_back();
                }
            }
            Verdict::Release => {
                let scratch = std::mem::take(&mut self.scratch);
                let now = boot_time();
                let delay = measured.then(|| now.saturating_sub(arrival.sent_at));
                self.write_back(arrival.group, &scratch[..length], arrival.wire, delay);
                self.scratch = scratch;
                if self.store.pass(&arrival) {
                    while let Some(overtaken) = self.store.pop_overtaken(&arrival) {
                        self.release_one(overtaken, now);
                    }
                }
            }
        }
    }

    fn count_drop(&self, group: u32, why: LineDrop, wire: Wire) {
        if let Some(group) = self.store.group(group) {
            group.count_drop(why, wire);
        }
    }

    fn count_rejected(&self, group: u32, wire: Wire) {
        if let Some(group) = self.store.group(group) {
            group.counters.rejected.add(wire);
        }
    }

    /// After standing still: nothing beats before this is done, so the classifier still lets packets pass the line by.
    fn recover(&mut self) {
        let now = self.seen_at;
        self.store.drop_late(now, self.late_after);
        for index in 0..self.lines.len() as u32 {
            for _ in 0..DRAIN_FRAMES {
                let Some(length) = self.read(index) else {
                    break;
                };
                self.accept(index, length);
            }
        }
        self.stalled = false;
        tracing::warn!("the delay line stood still; packets that had waited too long were dropped");
    }

    fn apply_edits(&mut self) {
        self.shared.mailbox.take_edits(&mut self.edits);
        for (slot, edit) in self.edits.drain(..) {
            if let Some(limit) = self.slots.edit(slot, edit) {
                self.store.shorten_slot(slot, limit.0.max(self.seen_at));
            }
        }
    }
}

fn write(tap: &OwnedFd, bytes: &[u8]) -> Written {
    loop {
        return match nix::unistd::write(tap, bytes) {
            Ok(_) => Written::Yes,
            Err(Errno::EINTR) => continue,
            Err(Errno::EBADFD | Errno::EBADF | Errno::ENODEV | Errno::EPIPE | Errno::ECONNRESET) => {
                Written::Gone
            }
            Err(_) => Written::No,
        };
    }
}
