//! A line without a thread, a clock or a TAP: the policy, a target's state and the store, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use sabot_abi::{DIRECTION_EGRESS, Role, Tag};
use sabot_core::action::{QueueBound, RateLimit};
use sabot_core::delay::DelayShape;
use sabot_core::model::{BootTime, TargetIdentity};
use sabot_core::plan::{Slot, TargetId};

use super::frame::Wire;
use super::pool::Pool;
use super::slots::{Edit, SlotPolicy, Slots, Treatment};
use super::store::{Arrival, Released, Store, Verdict};
use super::tally::Registry;
use super::test_rig::uniform;
use super::treat::{Fate, Order};

pub(super) const SLOT: Slot = Slot(3);
pub(super) const START: u64 = 1_000_000_000;
pub(super) const MILLI: u64 = 1_000_000;
/// A release is never early, and at most a tick of the wheel late.
pub(super) const TICK: u64 = 8192;

pub(super) fn policy(treatment: Treatment) -> SlotPolicy {
    SlotPolicy {
        treatment,
        starts_at: BootTime(START),
        expires_at: BootTime(u64::MAX),
        ramp: None,
        seed: 7,
    }
}

pub(super) fn constant(latency: u64) -> Treatment {
    Treatment::Delay {
        shape: Arc::new(DelayShape::fixed(Duration::from_nanos(latency))),
        allow_reorder: false,
    }
}

pub(super) fn jittered(allow_reorder: bool) -> Treatment {
    Treatment::Delay {
        shape: uniform(Duration::from_millis(20), Duration::from_millis(10)),
        allow_reorder,
    }
}

pub(super) fn gap(gap: u32) -> Treatment {
    Treatment::Reorder {
        gap: Some(gap),
        delay: Duration::from_secs(1),
    }
}

pub(super) fn limited(rate: u64, queue: Duration) -> Treatment {
    Treatment::RateLimit(RateLimit {
        rate,
        burst: 3028,
        queue: QueueBound::Time(queue),
    })
}

/// A packet as the kernel sends it here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) role: Role,
    pub(super) flow: u64,
    pub(super) bytes: u32,
}

pub(super) const PLAIN: Sent = Sent {
    role: Role::Plain,
    flow: 1,
    bytes: 100,
};

/// A packet that went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) id: u64,
    pub(super) at: u64,
}

/// The engine's part, by the same calls.
pub(super) struct Line {
    pub(super) slots: Slots,
    pub(super) store: Store,
    pub(super) registry: Registry,
    pub(super) line: u32,
    direction: u32,
    scratch: Box<[u8]>,
    pub(super) now: u64,
    pub(super) sent: Vec<Sent>,
    pub(super) out: Vec<Out>,
    /// Ids of what was consumed.
    pub(super) consumed: Vec<u64>,
}

impl Line {
    pub(super) fn new(treatment: Treatment) -> Self {
        Self::of(TargetIdentity(1), DIRECTION_EGRESS, 1 << 30, policy(treatment))
    }

    pub(super) fn of(identity: TargetIdentity, direction: u32, bytes: usize, policy: SlotPolicy) -> Self {
        let mut store = Store::new(bytes, bytes, START);
        let line = store.open_line(TargetId(1), identity, Arc::default());
        let mut this = Self {
            slots: Slots::default(),
            store,
            registry: Registry::default(),
            line,
            direction,
            scratch: Pool::scratch(),
            now: START,
            sent: Vec::new(),
            out: Vec::new(),
            consumed: Vec::new(),
        };
        this.set(policy);
        this
    }

    pub(super) fn set(&mut self, policy: SlotPolicy) {
        if let Some(limit) = self.slots.edit(SLOT, Edit::Set(policy)) {
            self.store.shorten_slot(SLOT, limit.0.max(self.now));
        }
    }

    /// Lets time pass, and releases what is due as it becomes due.
    pub(super) fn run_until(&mut self, until: u64) {
        loop {
            self.store.advance(self.now);
            while let Some(released) = self.store.pop_due() {
                self.release(released);
            }
            if self.now == until {
                return;
            }
            self.now = self
                .store
                .next_wake()
                .map_or(until, |wake| wake.clamp(self.now, until));
        }
    }

    pub(super) fn drain(&mut self) {
        while let Some(wake) = self.store.next_wake() {
            self.run_until(wake.max(self.now));
        }
        self.run_until(self.now);
    }

    pub(super) fn send(&mut self, sent: Sent) {
        self.run_until(self.now);
        let id = self.sent.len() as u64;
        self.sent.push(sent);
        let wire = Wire {
            packets: 1,
            bytes: sent.bytes,
        };
        let tag = Tag {
            slot: SLOT.0,
            direction: self.direction,
            role: sent.role,
        };
        let group = self
            .store
            .group_of(self.line, tag, &self.registry)
            .expect("the line is open");
        let fate = match (self.slots.get(SLOT), self.store.group_mut(group)) {
            (Some(entry), Some(group)) => group.state.decide(entry, sent.role, wire, self.now),
            _ => Fate::Hold {
                deadline: self.now,
                order: Order::Flow,
            },
        };
        let Fate::Hold { deadline, order } = fate else {
            return self.consumed.push(id);
        };
        let arrival = Arrival {
            group,
            flow: sent.flow,
            wire,
            sent_at: self.now,
            deadline,
            order,
            rejected: None,
        };
        self.scratch[..8].copy_from_slice(&id.to_be_bytes());
        match self.store.admit(&mut self.scratch, 8, arrival) {
            Verdict::Held => {}
            Verdict::Refused => {
                self.consumed.push(id);
                self.store
                    .group_mut(group)
                    .expect("it is there")
                    .state
                    .take_back();
            }
            Verdict::Release => {
                self.out.push(Out { id, at: self.now });
                self.store.pass(&arrival);
                while let Some(released) = self.store.pop_overtaken(&arrival) {
                    self.release(released);
                }
            }
        }
    }

    pub(super) fn release(&mut self, released: Released) {
        let id = released.buffer[..8].try_into().map(u64::from_be_bytes);
        let id = id.expect("eight bytes");
        self.out.push(Out { id, at: self.now });
        self.store.recycle(released.buffer);
    }

    pub(super) fn ids(&self) -> Vec<u64> {
        self.out.iter().map(|out| out.id).collect()
    }

    /// The delays of packets of different flows, so that none waits for another.
    pub(super) fn sample(&mut self, count: u64) -> Vec<u64> {
        let (start, first) = (self.now, self.sent.len() as u64);
        (0..count).for_each(|flow| self.send(Sent { flow, ..PLAIN }));
        self.drain();
        let mut out: Vec<_> = self.out.iter().filter(|out| out.id >= first).collect();
        out.sort_by_key(|out| out.id);
        out.iter().map(|out| out.at - start).collect()
    }
}
