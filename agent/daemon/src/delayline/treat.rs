//! What becomes of a packet: its slot's policy, applied to the state that the slot has on one target in one direction.
//!
//! The state (random stream, shaper) outlives edits of the policy, so that an edit goes on where the former policy was.
//! No I/O and no clock.

use std::time::Duration;

use sabot_abi::{Role, stream_key};
use sabot_core::action::{RateLimit, RejectCode, ResetTo};
use sabot_core::delay::DelayStream;
use sabot_core::model::{BootTime, Ramp, TargetIdentity};

use super::frame::Wire;
use super::shaper::Shaper;
use super::slots::{Entry, SlotPolicy, Treatment};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on at `deadline` (ns), now at the earliest.
    Hold {
        deadline: u64,
        order: Order,
    },
    /// The shaper's queue is full.
    Drop,
    Reject(RejectCode),
    Reset(ResetTo),
}

/// Which others a packet waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It goes behind the earlier ones of its flow.
    Flow,
    /// It goes behind all earlier ones of its slot, target and direction.
    Group,
    /// It goes by its own time alone.
    Free,
    /// It goes when so many later packets of its flow have passed, or by its own time.
    Overtaken(u32),
}

/// The moving parts of a slot's policy on one target in one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    identity: TargetIdentity,
    /// `DIRECTION_*`.
    direction: u32,
    /// Whose state it is: a later fault in the same slot begins anew, another seed draws anew.
    life: u64,
    seed: u64,
    stream: DelayStream,
    shaper: Shaper,
    /// What the shaper was before the last packet.
    former_shaper: Shaper,
}

impl State {
    pub(super) fn new(identity: TargetIdentity, direction: u32) -> Self {
        Self {
            identity,
            direction,
            life: 0,
            seed: 0,
            stream: DelayStream::new(0),
            shaper: Shaper::default(),
            former_shaper: Shaper::default(),
        }
    }

    /// Decides on a packet that was read at `now` (ns).
    pub(super) fn decide(&mut self, entry: &Entry, role: Role, wire: Wire, now: u64) -> Fate {
        self.follow(entry);
        self.former_shaper = self.shaper;
        let policy = &entry.policy;
        let at_once = Fate::Hold {
            deadline: now,
            order: Order::Flow,
        };
        if now < policy.starts_at.0 || now >= policy.expires_at.0 {
            return at_once;
        }
        let (delay, order) = match &policy.treatment {
            Treatment::Delay { shape, allow_reorder } => {
                let delay = scaled(self.stream.next_delay(shape), policy, now);
                let free = *allow_reorder || role == Role::Copy;
                (delay, if free { Order::Free } else { Order::Flow })
            }
            Treatment::Reorder { gap, delay } if role == Role::Chosen => {
                (nanos(*delay), gap.map_or(Order::Free, Order::Overtaken))
            }
            Treatment::Duplicate { delay } if role == Role::Copy => (nanos(*delay), Order::Free),
            Treatment::Reorder { .. } | Treatment::Duplicate { .. } => return at_once,
            Treatment::RateLimit(limit) => {
                let limit = RateLimit {
                    rate: scaled(limit.rate, policy, now).max(1),
                    ..*limit
                };
                let Some(departure) = self.shaper.send(now, wire.bytes, &limit) else {
                    return Fate::Drop;
                };
                (departure - now, Order::Group)
            }
            Treatment::Reject(code) => return Fate::Reject(*code),
            Treatment::Reset(to) => return Fate::Reset(*to),
        };
        Fate::Hold {
            deadline: now.saturating_add(delay).min(policy.expires_at.0),
            order,
        }
    }

    /// The packet that was decided on last is not sent after all.
    pub(super) fn take_back(&mut self) {
        self.shaper = self.former_shaper;
    }

    fn follow(&mut self, entry: &Entry) {
        let seed = entry.policy.seed;
        if self.life != entry.life {
            *self = Self::new(self.identity, self.direction);
        } else if self.seed == seed {
            return;
        }
        self.life = entry.life;
        self.seed = seed;
        self.stream = DelayStream::new(stream_key(seed, self.identity.0, self.direction));
    }
}

/// The part of a value that the policy's ramp has reached.
fn scaled(value: u64, policy: &SlotPolicy, now: u64) -> u64 {
    match &policy.ramp {
        None => value,
        Some(ramp) => (value as f64 * reached(ramp, policy.starts_at, now)).round() as u64,
    }
}

fn reached(ramp: &Ramp, starts_at: BootTime, now: u64) -> f64 {
    let over = nanos(ramp.over).max(1) as f64;
    let passed = now.saturating_sub(starts_at.0) as f64;
    ramp.from + (ramp.to - ramp.from) * (passed / over).min(1.0)
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}
