//! A packet meets the slots of its target, one after the other.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::programs::TcContext;
use sabot_abi::{
    ACTION_CORRUPT, ACTION_DELAY, ACTION_DROP, ACTION_PARTITION, Counters, DIRECTION_EGRESS, INCIDENT_HELPER_FAILED,
    INCIDENT_NO_COUNTERS, MAX_PORTS, MAX_TARGET_SLOTS, OUTCOME_BYPASSED, OUTCOME_CORRUPTED, OUTCOME_DELAYED,
    OUTCOME_DROPPED, OUTCOME_PASSED, PROTOCOL_ANY, RULE_EGRESS, RULE_INGRESS, Rule, Tag, Target,
};

use crate::clock;
use crate::corrupt;
use crate::counters::{self, add, incident};
use crate::detour::{self, Detour};
use crate::events::{self, Decision};
use crate::packet::Packet;
use crate::peers;
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
pub enum Step {
    Continue,
    Drop,
    /// The code of `bpf_redirect`.
    Redirect(i32),
}

/// One packet at one slot.
struct Visit<'a> {
    packet: &'a Packet,
    target: &'a Target,
    target_id: u32,
    slot: u32,
    direction: u32,
    now: u64,
    /// It was matched and counted before it went to the segmenter.
    resumed: bool,
}

#[inline(always)]
pub fn run(ctx: &TcContext, target: &Target, packet: &Packet, direction: u32, entrance: Entrance) -> Step {
    let now = clock::now();
    let target_id = targets::id_of(ctx);
    let mut waiting = !matches!(entrance, Entrance::Start);
    for index in 0..MAX_TARGET_SLOTS {
        if index >= target.slot_count as usize {
            break;
        }
        let slot = target.slots[index];
        let mut resumed = false;
        if waiting {
            match entrance {
                Entrance::After(last) => {
                    waiting = slot != last;
                    continue;
                }
                Entrance::At(here) if slot == here => {
                    waiting = false;
                    resumed = true;
                }
                _ => continue,
            }
        }
        let visit = Visit { packet, target, target_id, slot, direction, now, resumed };
        match visit_slot(ctx, &visit) {
            Step::Continue => {}
            end => return end,
        }
    }
    if waiting && let Entrance::At(slot) = entrance {
        // The slot went while the packet was in the segmenter: it was counted as matched there, and passes.
        match counters::of(slot, target_id, direction) {
            Some(counters) => add(&mut counters.passed, &packet.wire),
            None => incident(INCIDENT_NO_COUNTERS),
        }
    }
    Step::Continue
}

#[inline(always)]
fn visit_slot(ctx: &TcContext, visit: &Visit<'_>) -> Step {
    let Some(rule) = rules::get(visit.slot) else { return Step::Continue };
    let in_force = rules::in_force(rule, visit.now);
    if !visit.resumed && !(in_force && matches(rule, visit.packet, visit.direction)) {
        return Step::Continue;
    }
    let Some(counters) = counters::of(visit.slot, visit.target_id, visit.direction) else {
        incident(INCIDENT_NO_COUNTERS);
        return Step::Continue;
    };
    if !visit.resumed {
        add(&mut counters.matched, &visit.packet.wire);
    }
    if !in_force {
        return visit.pass(rule, counters);
    }
    match rule.action {
        ACTION_PARTITION => visit.drop(rule, counters),
        ACTION_DROP => visit.maybe(ctx, rule, counters, |visit, counters| visit.drop(rule, counters)),
        ACTION_CORRUPT => visit.maybe(ctx, rule, counters, |visit, counters| visit.corrupt(ctx, rule, counters)),
        ACTION_DELAY => visit.detour(ctx, rule, counters, Detour::Line),
        _ => visit.bypass(rule, counters),
    }
}

impl Visit<'_> {
    /// Acts on the rule's share of wire packets, and lets the others pass. A super-packet whose wire packets could differ
    /// goes to the segmenter first.
    #[inline(always)]
    fn maybe(
        &self,
        ctx: &TcContext,
        rule: &Rule,
        counters: &mut Counters,
        act: impl FnOnce(&Self, &mut Counters) -> Step,
    ) -> Step {
        if rule.threshold == 0 {
            return self.pass(rule, counters);
        }
        let alike = rule.action == ACTION_DROP && rule.threshold >= EVERY_PACKET;
        if self.packet.super_packet && !alike {
            return self.detour(ctx, rule, counters, Detour::Segmenter);
        }
        // SAFETY: the helper takes nothing and returns a number.
        if (unsafe { bpf_get_prandom_u32() } as u64) < rule.threshold {
            act(self, counters)
        } else {
            self.pass(rule, counters)
        }
    }

    #[inline(always)]
    fn pass(&self, rule: &Rule, counters: &mut Counters) -> Step {
        add(&mut counters.passed, &self.packet.wire);
        self.report(rule, OUTCOME_PASSED);
        Step::Continue
    }

    #[inline(always)]
    fn bypass(&self, rule: &Rule, counters: &mut Counters) -> Step {
        add(&mut counters.bypassed, &self.packet.wire);
        self.report(rule, OUTCOME_BYPASSED);
        Step::Continue
    }

    #[inline(always)]
    fn drop(&self, rule: &Rule, counters: &mut Counters) -> Step {
        add(&mut counters.dropped, &self.packet.wire);
        self.report(rule, OUTCOME_DROPPED);
        Step::Drop
    }

    #[inline(always)]
    fn corrupt(&self, ctx: &TcContext, rule: &Rule, counters: &mut Counters) -> Step {
        if !corrupt::is_corruptible(self.packet) {
            return self.pass(rule, counters);
        }
        if corrupt::corrupt(ctx, self.packet).is_err() {
            incident(INCIDENT_HELPER_FAILED);
            return self.bypass(rule, counters);
        }
        add(&mut counters.corrupted, &self.packet.wire);
        add(&mut counters.passed, &self.packet.wire);
        self.report(rule, OUTCOME_CORRUPTED);
        Step::Continue
    }

    #[inline(always)]
    fn detour(&self, ctx: &TcContext, rule: &Rule, counters: &mut Counters, detour: Detour) -> Step {
        if !detour::is_open(ctx, self.target, detour, self.now) {
            return self.bypass(rule, counters);
        }
        let tag = Tag { slot: self.slot, direction: self.direction };
        match detour::take(ctx, self.target, detour, tag) {
            Ok(code) => {
                if detour == Detour::Line {
                    add(&mut counters.delayed, &self.packet.wire);
                    self.report(rule, OUTCOME_DELAYED);
                } else {
                    add(&mut counters.segmenting, &self.packet.wire);
                }
                Step::Redirect(code)
            }
            Err(which) => {
                incident(which);
                self.bypass(rule, counters)
            }
        }
    }

    #[inline(always)]
    fn report(&self, rule: &Rule, outcome: u32) {
        let decision = Decision {
            slot: self.slot,
            target: self.target_id,
            direction: self.direction,
            outcome,
            time: self.now,
        };
        events::sample(rule.sample_every, self.packet, decision);
    }
}

#[inline(always)]
fn matches(rule: &Rule, packet: &Packet, direction: u32) -> bool {
    let (wanted, other_end) = if direction == DIRECTION_EGRESS {
        (RULE_EGRESS, &packet.destination)
    } else {
        (RULE_INGRESS, &packet.source)
    };
    rule.flags & wanted != 0 && ports_match(rule, packet) && peers::include(rule, other_end)
}

/// A later fragment matches a whole protocol, never a port: the datagram's first fragment decides for it, and a fragment
/// of somebody else's datagram is never touched.
#[inline(always)]
fn ports_match(rule: &Rule, packet: &Packet) -> bool {
    if rule.port_count == 0 {
        return true;
    }
    for index in 0..MAX_PORTS {
        if index >= rule.port_count as usize {
            break;
        }
        let port = &rule.ports[index];
        if port.protocol != PROTOCOL_ANY && port.protocol != packet.protocol {
            continue;
        }
        if port.first == 0 && port.last == u16::MAX as u32 {
            return true;
        }
        let range = port.first..=port.last;
        if packet.has_ports
            && (range.contains(&(packet.source_port as u32)) || range.contains(&(packet.destination_port as u32)))
        {
            return true;
        }
    }
    false
}
