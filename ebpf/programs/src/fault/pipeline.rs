//! A packet meets the slots of its target, one after the other.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::programs::TcContext;
use sabot_abi::{
    ACTION_CORRUPT_PAYLOAD, ACTION_DELAY, ACTION_DROP, ACTION_PARTITION, Counters, DIRECTION_EGRESS,
    INCIDENT_HELPER_FAILED, INCIDENT_NO_COUNTERS, MAX_TARGET_SLOTS, OUTCOME_BYPASSED, OUTCOME_CORRUPTED,
    OUTCOME_DELAYED, OUTCOME_DROPPED, OUTCOME_PASSED, RULE_EGRESS, RULE_INGRESS, Role, Rule, Tag, Tally,
    Target,
};

use crate::clock;
use crate::corrupt;
use crate::counters::{self, add, incident};
use crate::detour::{self, Detour};
use crate::events::{self, Decision};
use crate::packet::Packet;
use crate::peers;
use crate::ports;
use crate::rules;
use crate::targets;

const EVERY_PACKET: u64 = 1 << 32;

/// Where in the slot list a packet begins.
#[derive(Clone, Copy)]
pub enum Entrance {
    Start,
    /// It comes back from this slot's delay.
    After(u32),
    /// This slot had it segmented; it has been counted as matched.
    At(u32),
}

/// What a slot, or the whole list, makes of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Continue,
    Drop,
    /// `bpf_redirect` was called.
    Redirect,
}

/// One packet on its way through its target's slots.
struct Journey<'a> {
    packet: &'a Packet,
    target: &'a Target,
    target_id: u32,
    direction: u32,
    now: u64,
}

/// What a slot that matches does with a packet, and how it is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Corrupted,
    Bypassed,
    Dropped,
    Delayed,
    Segmenting,
}

#[inline(always)]
pub fn run(ctx: &TcContext, target: &Target, packet: &Packet, direction: u32, entrance: Entrance) -> Step {
    let journey = Journey {
        packet,
        target,
        target_id: targets::id_of(ctx),
        direction,
        now: clock::now(),
    };
    let mut index = match entrance {
        Entrance::Start => 0,
        Entrance::After(slot) => position(target, slot).saturating_add(1),
        Entrance::At(slot) => {
            let step = resume(ctx, &journey, slot);
            if step != Step::Continue {
                return step;
            }
            position(target, slot).saturating_add(1)
        }
    };
    while index < MAX_TARGET_SLOTS as u32 && index < target.slot_count {
        let step = visit(ctx, &journey, target.slots[index as usize]);
        if step != Step::Continue {
            return step;
        }
        index += 1;
    }
    Step::Continue
}

/// Where a slot stands in the list; behind its end when it has gone meanwhile, since its place is unknown then.
#[inline(always)]
fn position(target: &Target, slot: u32) -> u32 {
    for index in 0..MAX_TARGET_SLOTS {
        if target.slots[index] == slot {
            return index as u32;
        }
    }
    MAX_TARGET_SLOTS as u32
}

/// A packet meets a slot. A subprogram of its own, so that the verifier sees one state come out of a visit instead of
/// following each way through it into all later visits.
#[inline(never)]
fn visit(ctx: &TcContext, journey: &Journey<'_>, slot: u32) -> Step {
    let Some(rule) = rules::get(slot) else {
        return Step::Continue;
    };
    if !rules::in_force(rule, journey.now) || !matches(rule, journey.packet, journey.direction) {
        return Step::Continue;
    }
    let Some(counters) = counters::of(slot, journey.target_id, journey.direction) else {
        incident(INCIDENT_NO_COUNTERS);
        return Step::Continue;
    };
    add(&mut counters.matched, &journey.packet.wire);
    act(ctx, journey, slot, rule, counters, false)
}

/// A wire packet is back from the segmenter, to which its slot sent it, and where it was counted as matched.
#[inline(never)]
fn resume(ctx: &TcContext, journey: &Journey<'_>, slot: u32) -> Step {
    let Some(counters) = counters::of(slot, journey.target_id, journey.direction) else {
        incident(INCIDENT_NO_COUNTERS);
        return Step::Continue;
    };
    match rules::get(slot) {
        Some(rule) if rules::in_force(rule, journey.now) => act(ctx, journey, slot, rule, counters, true),
        _ => {
            add(&mut counters.passed, &journey.packet.wire);
            Step::Continue
        }
    }
}

#[inline(always)]
fn act(
    ctx: &TcContext,
    journey: &Journey<'_>,
    slot: u32,
    rule: &Rule,
    counters: &mut Counters,
    resumed: bool,
) -> Step {
    let outcome = journey.decide(ctx, slot, rule, resumed);
    account(counters, outcome, &journey.packet.wire);
    if outcome != Outcome::Segmenting {
        let decision = Decision {
            slot,
            target: journey.target_id,
            direction: journey.direction,
            outcome: reported(outcome),
            time: journey.now,
        };
        events::sample(rule.sample_every, journey.packet, &decision);
    }
    match outcome {
        Outcome::Passed | Outcome::Corrupted | Outcome::Bypassed => Step::Continue,
        Outcome::Dropped => Step::Drop,
        Outcome::Delayed | Outcome::Segmenting => Step::Redirect,
    }
}

impl Journey<'_> {
    #[inline(always)]
    fn decide(&self, ctx: &TcContext, slot: u32, rule: &Rule, resumed: bool) -> Outcome {
        match rule.action {
            ACTION_PARTITION => Outcome::Dropped,
            ACTION_DELAY => self.take(ctx, slot, Detour::Line),
            ACTION_DROP if rule.threshold >= EVERY_PACKET => Outcome::Dropped,
            ACTION_DROP | ACTION_CORRUPT_PAYLOAD if rule.threshold == 0 => Outcome::Passed,
            // The wire packets in a super-packet may fare differently.
            ACTION_DROP | ACTION_CORRUPT_PAYLOAD if self.packet.super_packet && !resumed => {
                self.take(ctx, slot, Detour::Segmenter)
            }
            // The segmenter gave a super-packet back; it must not go round for ever.
            ACTION_DROP | ACTION_CORRUPT_PAYLOAD if self.packet.super_packet => Outcome::Bypassed,
            ACTION_DROP if chosen(rule) => Outcome::Dropped,
            ACTION_CORRUPT_PAYLOAD if chosen(rule) => self.corrupt(ctx),
            ACTION_DROP | ACTION_CORRUPT_PAYLOAD => Outcome::Passed,
            _ => Outcome::Bypassed,
        }
    }

    #[inline(always)]
    fn take(&self, ctx: &TcContext, slot: u32, detour: Detour) -> Outcome {
        if !detour::is_open(ctx, self.target, detour, self.now) {
            return Outcome::Bypassed;
        }
        match detour::take(
            ctx,
            self.target,
            detour,
            Tag {
                slot,
                direction: self.direction,
                role: Role::Plain,
            },
        ) {
            Ok(()) if detour == Detour::Line => Outcome::Delayed,
            Ok(()) => Outcome::Segmenting,
            Err(which) => {
                incident(which);
                Outcome::Bypassed
            }
        }
    }

    #[inline(always)]
    fn corrupt(&self, ctx: &TcContext) -> Outcome {
        if !corrupt::is_corruptible(self.packet) {
            return Outcome::Passed;
        }
        if corrupt::corrupt(ctx, self.packet).is_err() {
            incident(INCIDENT_HELPER_FAILED);
            return Outcome::Bypassed;
        }
        Outcome::Corrupted
    }
}

/// The rule's share of packets, each decided on its own.
#[inline(always)]
fn chosen(rule: &Rule) -> bool {
    // SAFETY: the helper takes nothing and returns a number.
    (unsafe { bpf_get_prandom_u32() } as u64) < rule.threshold
}

#[inline(always)]
fn account(counters: &mut Counters, outcome: Outcome, wire: &Tally) {
    match outcome {
        Outcome::Passed => add(&mut counters.passed, wire),
        Outcome::Corrupted => {
            add(&mut counters.corrupted, wire);
            add(&mut counters.passed, wire);
        }
        Outcome::Bypassed => add(&mut counters.bypassed, wire),
        Outcome::Dropped => add(&mut counters.dropped, wire),
        Outcome::Delayed => add(&mut counters.delayed, wire),
        Outcome::Segmenting => add(&mut counters.segmenting, wire),
    }
}

#[inline(always)]
fn reported(outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Passed | Outcome::Segmenting => OUTCOME_PASSED,
        Outcome::Corrupted => OUTCOME_CORRUPTED,
        Outcome::Bypassed => OUTCOME_BYPASSED,
        Outcome::Dropped => OUTCOME_DROPPED,
        Outcome::Delayed => OUTCOME_DELAYED,
    }
}

#[inline(never)]
fn matches(rule: &Rule, packet: &Packet, direction: u32) -> bool {
    let (wanted, other_end) = if direction == DIRECTION_EGRESS {
        (RULE_EGRESS, &packet.destination)
    } else {
        (RULE_INGRESS, &packet.source)
    };
    rule.flags & wanted != 0 && ports::include(rule, packet) && peers::include(rule, other_end)
}
