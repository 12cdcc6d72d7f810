//! A packet meets the slots of its target, one after the other.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use sabot_abi::{Counters, INCIDENT_NO_COUNTERS, MAX_TARGET_SLOTS, Role, Rule, Target};

use crate::action::{Outcome, Visit};
use crate::clock;
use crate::control;
use crate::counters::{self, add, incident};
use crate::detour::Detour;
use crate::events::{self, Decision};
use crate::filter::{self, Portion};
use crate::index;
use crate::packet::Packet;
use crate::raw;
use crate::rules;
use crate::targets;

/// Where in the slot list a packet begins.
#[derive(Clone, Copy)]
pub enum Entrance {
    Start,
    /// It comes back from this slot's delay.
    After(u32),
    /// This slot had it segmented; it has been counted as matched.
    At(u32),
    /// This slot had it segmented because it may not name all of the wire packets; nothing has been counted.
    Uncounted(u32),
}

/// What a slot, or the whole list, makes of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    Continue = CONTINUE,
    Drop = DROP,
    /// There is no room for it where it should be held.
    Lose = LOSE,
    /// `bpf_redirect` was called.
    Redirect = REDIRECT,
}

const CONTINUE: u32 = 0;
const DROP: u32 = 1;
const REDIRECT: u32 = 2;
const LOSE: u32 = 3;

impl Step {
    /// The verifier knows nothing of what a global function returns.
    #[inline(always)]
    fn of(step: u32) -> Self {
        match step {
            DROP => Self::Drop,
            LOSE => Self::Lose,
            REDIRECT => Self::Redirect,
            _ => Self::Continue,
        }
    }
}

/// One packet on its way through its target's slots.
pub struct Journey<'a> {
    pub packet: &'a Packet,
    pub target: &'a Target,
    pub target_id: u32,
    pub direction: u32,
    pub now: u64,
}

impl Journey<'_> {
    #[inline(always)]
    fn current(ctx: &TcContext, packet: &'static Packet, direction: u32, now: u64) -> Option<Self> {
        let target_id = targets::id_of(ctx);
        Some(Self {
            packet,
            target: targets::get(target_id)?,
            target_id,
            direction,
            now,
        })
    }
}

const _: () = assert!(MAX_TARGET_SLOTS.is_power_of_two());

#[inline(always)]
pub fn run(ctx: &TcContext, target: &Target, direction: u32, entrance: Entrance) -> Step {
    let first = match entrance {
        Entrance::Start => 0,
        Entrance::After(slot) => position(target, slot).saturating_add(1),
        Entrance::At(slot) | Entrance::Uncounted(slot) => {
            let is_counted = matches!(entrance, Entrance::At(_)) as u32;
            let step = fault_resume(raw(ctx), slot, direction, is_counted);
            if step != CONTINUE {
                return Step::of(step);
            }
            position(target, slot).saturating_add(1)
        }
    };
    let mut left = index::candidates(target, direction, first);
    for _ in 0..MAX_TARGET_SLOTS {
        if left == 0 {
            break;
        }
        // The compiler may know that the place is within the list; the verifier has nothing but the mask to go by.
        let place = core::hint::black_box(left.trailing_zeros() as usize) & (MAX_TARGET_SLOTS - 1);
        let step = fault_visit(raw(ctx), target.slots[place], direction);
        if step != CONTINUE {
            return Step::of(step);
        }
        left &= left - 1;
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

/// The packet that was parsed last on this CPU meets a slot.
///
/// A global function in the verifier's sense: it follows the function once, for all arguments, instead of anew for each of
/// the slots that a list may have. Such a function takes the context and numbers, and finds the rest again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fault_visit(context: *mut __sk_buff, slot: u32, direction: u32) -> u32 {
    let ctx = TcContext::new(context);
    visit(&ctx, slot, direction).unwrap_or(Step::Continue) as u32
}

/// A wire packet is back from the segmenter, to which a slot sent it. A global function as [`fault_visit`] is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fault_resume(context: *mut __sk_buff, slot: u32, direction: u32, is_counted: u32) -> u32 {
    let ctx = TcContext::new(context);
    let packet = Packet::current();
    let journey = packet.and_then(|packet| Journey::current(&ctx, packet, direction, clock::now()));
    match journey {
        Some(journey) => resume(&ctx, &journey, slot, is_counted != 0) as u32,
        None => CONTINUE,
    }
}

/// The clock is read last, since that takes as long as looking for a peer and most packets are none of the rule's.
#[inline(always)]
fn visit(ctx: &TcContext, slot: u32, direction: u32) -> Option<Step> {
    let packet = Packet::current()?;
    let rule = rules::naming(slot, packet, direction)?;
    let now = clock::now();
    if !rules::in_force(rule, now) {
        return None;
    }
    let journey = Journey::current(ctx, packet, direction, now)?;
    if control::spares(rule, journey.target, packet) {
        return None;
    }
    Some(meet(ctx, &journey, slot, rule))
}

/// The packet is one of those that the rule names.
#[inline(always)]
fn meet(ctx: &TcContext, journey: &Journey<'_>, slot: u32, rule: &Rule) -> Step {
    let portion = filter::portion(rule, journey.packet);
    if portion == Portion::Nothing {
        return Step::Continue;
    }
    let Some(counters) = counters::of(slot, journey.target_id, journey.direction) else {
        incident(INCIDENT_NO_COUNTERS);
        return Step::Continue;
    };
    if portion != Portion::Whole {
        return split(ctx, journey, slot, portion, counters);
    }
    counters::add_matched(counters, &journey.packet.wire, journey.now);
    let visit = Visit {
        slot,
        rule,
        resumed: false,
    };
    act(ctx, journey, &visit, counters)
}

/// The slot names only some of the wire packets in a super-packet: it is taken apart before anything is counted, so that
/// each of them meets the rule as it is then, and each is counted as what it was found to be.
#[inline(always)]
fn split(
    ctx: &TcContext,
    journey: &Journey<'_>,
    slot: u32,
    portion: Portion,
    counters: &mut Counters,
) -> Step {
    let outcome = journey.take(ctx, slot, Detour::Segmenter, Role::Chosen);
    if outcome == Outcome::Bypassed {
        let named = filter::weight(journey.packet, portion);
        counters::add_matched(counters, &named, journey.now);
        add(&mut counters.bypassed, &named);
    }
    outcome.step()
}

/// The slot sent the wire packet to the segmenter, and may have counted it as matched.
#[inline(always)]
fn resume(ctx: &TcContext, journey: &Journey<'_>, slot: u32, is_counted: bool) -> Step {
    let Some(counters) = counters::of(slot, journey.target_id, journey.direction) else {
        incident(INCIDENT_NO_COUNTERS);
        return Step::Continue;
    };
    let rule = if is_counted {
        rules::get(slot)
    } else {
        rules::naming(slot, journey.packet, journey.direction)
    };
    let rule = rule.filter(|rule| rules::in_force(rule, journey.now));
    if !is_counted {
        let is_named = rule.is_some_and(|rule| {
            !control::spares(rule, journey.target, journey.packet)
                && filter::portion(rule, journey.packet) == Portion::Whole
        });
        if !is_named {
            return Step::Continue;
        }
        counters::add_matched(counters, &journey.packet.wire, journey.now);
    }
    let Some(rule) = rule else {
        add(&mut counters.passed, &journey.packet.wire);
        return Step::Continue;
    };
    let visit = Visit {
        slot,
        rule,
        resumed: true,
    };
    act(ctx, journey, &visit, counters)
}

#[inline(always)]
fn act(ctx: &TcContext, journey: &Journey<'_>, visit: &Visit<'_>, counters: &mut Counters) -> Step {
    let outcome = journey.decide(ctx, visit, counters);
    outcome.count(counters, &journey.packet.wire);
    if outcome != Outcome::Segmenting {
        let decision = Decision {
            slot: visit.slot,
            target: journey.target_id,
            direction: journey.direction,
            outcome: outcome.reported(),
            time: journey.now,
        };
        events::sample(visit.rule.sample_every, journey.packet, &decision);
    }
    outcome.step()
}
