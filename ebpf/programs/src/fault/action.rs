//! What a slot that names a packet does with it.

use aya_ebpf::programs::TcContext;
use sabot_abi::{
    ACTION_CORRUPT_PAYLOAD, ACTION_CORRUPT_WIRE, ACTION_DELAY, ACTION_DROP, ACTION_DUPLICATE,
    ACTION_PARTITION, ACTION_RATE_LIMIT, ACTION_REJECT, ACTION_REORDER, ACTION_RESET, Counters,
    INCIDENT_HELPER_FAILED, OUTCOME_BYPASSED, OUTCOME_CORRUPTED, OUTCOME_DELAYED, OUTCOME_DROPPED,
    OUTCOME_DUPLICATED, OUTCOME_PASSED, OUTCOME_REJECTED, RULE_LINE, RULE_LINE_ALL, RULE_SEGMENT, Role, Rule,
    Tag, Tally,
};

use crate::choice::{self, Choice};
use crate::corrupt::{self, Damage};
use crate::counters::{add, incident};
use crate::departures::{self, Handed};
use crate::detour::{self, Detour, Stuck};
use crate::packet::{TCP, TCP_RST};
use crate::pipeline::{Journey, Step};

/// What became of a packet, and how it is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Corrupted,
    /// Its clones are counted where they are made.
    Duplicated,
    Bypassed,
    Dropped,
    Delayed,
    /// The departure queue has no room for it.
    Full,
    /// Handed to the delay line to be answered.
    Answered,
    Segmenting,
}

impl Outcome {
    #[inline(always)]
    pub fn step(self) -> Step {
        match self {
            Self::Passed | Self::Corrupted | Self::Duplicated | Self::Bypassed => Step::Continue,
            Self::Dropped => Step::Drop,
            Self::Full => Step::Lose,
            Self::Delayed | Self::Answered | Self::Segmenting => Step::Redirect,
        }
    }

    #[inline(always)]
    pub fn count(self, counters: &mut Counters, wire: &Tally) {
        match self {
            Self::Passed | Self::Duplicated => add(&mut counters.passed, wire),
            Self::Corrupted => {
                add(&mut counters.corrupted, wire);
                add(&mut counters.passed, wire);
            }
            Self::Bypassed => add(&mut counters.bypassed, wire),
            Self::Dropped => add(&mut counters.dropped, wire),
            Self::Full => add(&mut counters.lost_bound, wire),
            Self::Delayed | Self::Answered => add(&mut counters.delayed, wire),
            Self::Segmenting => add(&mut counters.segmenting, wire),
        }
    }

    /// As events say it.
    #[inline(always)]
    pub fn reported(self) -> u32 {
        match self {
            Self::Passed | Self::Segmenting => OUTCOME_PASSED,
            Self::Corrupted => OUTCOME_CORRUPTED,
            Self::Duplicated => OUTCOME_DUPLICATED,
            Self::Bypassed => OUTCOME_BYPASSED,
            Self::Dropped | Self::Full => OUTCOME_DROPPED,
            Self::Delayed => OUTCOME_DELAYED,
            Self::Answered => OUTCOME_REJECTED,
        }
    }
}

/// A packet is at a slot that names it.
pub struct Visit<'a> {
    pub slot: u32,
    pub rule: &'a Rule,
    /// It is back from the segmenter, to which this slot sent it.
    pub resumed: bool,
}

impl Journey<'_> {
    #[inline(always)]
    pub fn decide(&self, ctx: &TcContext, visit: &Visit<'_>, counters: &mut Counters) -> Outcome {
        let (slot, rule, packet) = (visit.slot, visit.rule, self.packet);
        match rule.action {
            ACTION_PARTITION => return Outcome::Dropped,
            ACTION_REJECT => return self.answer(ctx, slot),
            ACTION_RESET if packet.protocol == TCP && packet.has_ports && packet.tcp_flags & TCP_RST == 0 => {
                return self.answer(ctx, slot);
            }
            ACTION_RESET => return Outcome::Passed,
            ACTION_RATE_LIMIT => {
                let is_too_large = packet.wire.bytes > rule.segment_above as u64;
                let detour = if packet.super_packet && is_too_large && !visit.resumed {
                    Detour::Segmenter
                } else {
                    Detour::Line
                };
                return self.take(ctx, slot, detour, Role::Plain);
            }
            _ => {}
        }
        if !choice::concerns(rule, packet) {
            return Outcome::Passed;
        }
        if rule.flags & RULE_SEGMENT != 0 {
            if !visit.resumed && (packet.super_packet || rule.action == ACTION_CORRUPT_WIRE) {
                if packet.super_packet && choice::spares_all(self, slot, rule) {
                    return Outcome::Passed;
                }
                return self.take(ctx, slot, Detour::Segmenter, Role::Plain);
            }
            if packet.super_packet {
                // The segmenter gave a super-packet back; it must not go round for ever.
                return Outcome::Bypassed;
            }
        }
        if rule.action == ACTION_DELAY {
            return self.delay(ctx, slot, rule, counters);
        }
        self.act_by_choice(ctx, visit, counters)
    }

    #[inline(always)]
    fn act_by_choice(&self, ctx: &TcContext, visit: &Visit<'_>, counters: &mut Counters) -> Outcome {
        let (slot, rule) = (visit.slot, visit.rule);
        let mut draw = 0;
        match choice::choose(self, slot, rule, &mut draw) {
            Choice::Undecided => return Outcome::Bypassed,
            Choice::Spared if rule.flags & RULE_LINE_ALL != 0 => {
                return self.take(ctx, slot, Detour::Line, Role::Plain);
            }
            Choice::Spared => return Outcome::Passed,
            Choice::Chosen => {}
        }
        match rule.action {
            ACTION_DROP => Outcome::Dropped,
            ACTION_CORRUPT_PAYLOAD | ACTION_CORRUPT_WIRE => self.corrupt(ctx, rule, draw),
            ACTION_DUPLICATE => self.duplicate(ctx, slot, rule, counters),
            ACTION_REORDER => self.take(ctx, slot, Detour::Line, Role::Chosen),
            _ => Outcome::Bypassed,
        }
    }

    /// The departure queue has what it can hold; the delay line has the rest.
    #[inline(always)]
    fn delay(&self, ctx: &TcContext, slot: u32, rule: &Rule, counters: &mut Counters) -> Outcome {
        match departures::hand_over(ctx, self, slot, rule, counters) {
            Handed::Over => Outcome::Delayed,
            Handed::Full => Outcome::Full,
            Handed::Unfit => self.take(ctx, slot, Detour::Line, Role::Plain),
            Handed::Failed => Outcome::Bypassed,
        }
    }

    #[inline(always)]
    pub fn take(&self, ctx: &TcContext, slot: u32, detour: Detour, role: Role) -> Outcome {
        if !detour::is_open(ctx, self.target, detour, self.now) {
            return Outcome::Bypassed;
        }
        match detour::take(ctx, self.target, detour, self.tag(slot, role), self.now) {
            Ok(()) if detour == Detour::Line => Outcome::Delayed,
            Ok(()) => Outcome::Segmenting,
            Err(which) => {
                incident(which);
                Outcome::Bypassed
            }
        }
    }

    #[inline(always)]
    fn answer(&self, ctx: &TcContext, slot: u32) -> Outcome {
        match self.take(ctx, slot, Detour::Line, Role::Plain) {
            Outcome::Delayed => Outcome::Answered,
            other => other,
        }
    }

    #[inline(always)]
    fn corrupt(&self, ctx: &TcContext, rule: &Rule, draw: u64) -> Outcome {
        match corrupt::corrupt(ctx, rule, self.packet, draw) {
            Damage::Done => Outcome::Corrupted,
            Damage::Impossible => Outcome::Passed,
            Damage::Unnoticed => Outcome::Bypassed,
            Damage::Failed => {
                incident(INCIDENT_HELPER_FAILED);
                Outcome::Bypassed
            }
        }
    }

    #[inline(always)]
    fn duplicate(&self, ctx: &TcContext, slot: u32, rule: &Rule, counters: &mut Counters) -> Outcome {
        let (detour, sent) = if rule.flags & RULE_LINE != 0 {
            (Detour::Line, &mut counters.delayed)
        } else {
            (Detour::Segmenter, &mut counters.segmenting)
        };
        if !detour::is_open(ctx, self.target, detour, self.now) {
            return Outcome::Bypassed;
        }
        let tag = self.tag(slot, Role::Copy);
        match detour::send_clones(ctx, self.target, detour, tag, self.now, rule.copies) {
            Ok(0) => Outcome::Bypassed,
            Ok(made) => {
                let clones = Tally {
                    packets: self.packet.wire.packets * made as u64,
                    bytes: self.packet.wire.bytes * made as u64,
                };
                add(sent, &clones);
                add(&mut counters.duplicated, &clones);
                Outcome::Duplicated
            }
            Err(Stuck) => Outcome::Dropped,
        }
    }

    #[inline(always)]
    fn tag(&self, slot: u32, role: Role) -> Tag {
        Tag {
            slot,
            direction: self.direction,
            role,
        }
    }
}
