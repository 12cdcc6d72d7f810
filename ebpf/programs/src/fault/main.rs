//! The fault object: what is done to the packets of targets.
//!
//! Each attachment runs a tiny entry program that the daemon writes by hand: it puts the target's id into `skb->cb[0]` and
//! tail-calls one of the five programs here through the gate. When the gate is closed, nothing here runs any more.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod action;
mod choice;
mod clock;
mod connections;
mod control;
mod corrupt;
mod counters;
mod departures;
mod detour;
mod dns;
mod events;
mod filter;
mod headers;
mod index;
mod note;
mod packet;
mod peers;
mod pipeline;
mod ports;
mod rules;
mod streams;
mod targets;
#[cfg_attr(feature = "locked", path = "words_locked.rs")]
mod words;

#[path = "../common/atomic.rs"]
mod atomic;
#[path = "../common/waking.rs"]
mod waking;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT};
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::TcContext;
use sabot_abi::{
    Counters, DIRECTION_EGRESS, DIRECTION_INGRESS, GATE_SIZE, INCIDENT_ORPHANED, INCIDENT_UNPARSED,
    INCIDENT_UNTAGGED, Role, Tag, Tally,
};

use crate::counters::{add, incident};
use crate::detour::Detour;
use crate::packet::{Packet, ParseError};
use crate::pipeline::{Entrance, Step};

/// The one switch of everything: entry programs reach the programs below only through it, and the kernel empties it when
/// the daemon's last file descriptor for it closes.
#[map]
static GATE: ProgramArray = ProgramArray::with_max_entries(GATE_SIZE, 0);

/// Let the packet on to whoever is attached after us. The same number is tcx's `TCX_NEXT` and clsact's `TC_ACT_UNSPEC`.
const PASS: i32 = -1;

#[classifier]
pub fn fault_egress(ctx: TcContext) -> i32 {
    verdict(&ctx, try_arrive(&ctx, DIRECTION_EGRESS), DIRECTION_EGRESS)
}

#[classifier]
pub fn fault_ingress(ctx: TcContext) -> i32 {
    verdict(&ctx, try_arrive(&ctx, DIRECTION_INGRESS), DIRECTION_INGRESS)
}

/// On the TAP: a packet that the delay line gives back.
#[classifier]
pub fn fault_line(ctx: TcContext) -> i32 {
    returned(&ctx, Detour::Line)
}

/// On the segmenter's near end: a wire packet of what was a super-packet.
#[classifier]
pub fn fault_segmenter(ctx: TcContext) -> i32 {
    returned(&ctx, Detour::Segmenter)
}

/// On the near end of the departure queue: a packet whose time has come.
#[classifier]
pub fn fault_departures(ctx: TcContext) -> i32 {
    returned(&ctx, Detour::Departures)
}

/// Why a program can't decide. At a target's device the packet passes; on our own devices it is dropped.
enum Trouble {
    /// Not IP: no fault names it.
    NotIp,
    Incident(u32),
}

impl From<ParseError> for Trouble {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::NotIp => Self::NotIp,
            ParseError::Malformed => Self::Incident(INCIDENT_UNPARSED),
        }
    }
}

/// A packet at the target's device: new, or on its way on after a detour.
fn try_arrive(ctx: &TcContext, direction: u32) -> Result<Step, Trouble> {
    let Some(target) = targets::get(targets::id_of(ctx)) else {
        return Ok(Step::Continue);
    };
    if detour::has_been_away(ctx, target, direction) || target.slot_count == 0 {
        return Ok(Step::Continue);
    }
    let packet = Packet::parse(ctx, target.flags)?;
    if direction == DIRECTION_INGRESS && dns::is_watched(target, packet) {
        dns::copy(ctx, packet);
    }
    Ok(pipeline::run(ctx, target, direction, Entrance::Start))
}

/// A packet that comes back from a detour: it meets the slots behind the one that sent it away, and goes on in its
/// direction, which is returned too. Inlined for the same reason as [`returned`].
#[inline(always)]
fn try_return(ctx: &TcContext, detour: Detour) -> Result<(Step, u32), Trouble> {
    let target_id = targets::id_of(ctx);
    let target = targets::get(target_id).ok_or(Trouble::Incident(INCIDENT_ORPHANED))?;
    let tag: Tag = detour::take_tag(ctx, detour).map_err(Trouble::Incident)?;
    if detour == Detour::Departures {
        let departure = departures::departure(ctx).ok_or(Trouble::Incident(INCIDENT_UNTAGGED))?;
        departures::let_go(ctx, target_id, tag.slot, departure);
    }
    let packet = Packet::parse(ctx, target.flags)?;
    let entrance = entrance(detour, tag);
    counters::count(tag.slot, target_id, tag.direction, |counters| {
        count_return(counters, detour, tag.role, &packet.wire);
    });
    let step = match entrance {
        Some(entrance) => pipeline::run(ctx, target, tag.direction, entrance),
        None => Step::Continue,
    };
    if step == Step::Continue {
        detour::leave(ctx, target.ifindex, tag.direction);
        return Ok((Step::Redirect, tag.direction));
    }
    Ok((step, tag.direction))
}

/// Where a packet that comes back goes on; an answer meets no slot.
#[inline(always)]
fn entrance(detour: Detour, tag: Tag) -> Option<Entrance> {
    match (detour, tag.role) {
        (Detour::Line, Role::Reply) => None,
        (Detour::Line | Detour::Departures, _) | (Detour::Segmenter, Role::Copy) => {
            Some(Entrance::After(tag.slot))
        }
        (Detour::Segmenter, Role::Chosen) => Some(Entrance::Uncounted(tag.slot)),
        (Detour::Segmenter, _) => Some(Entrance::At(tag.slot)),
    }
}

#[inline(always)]
fn count_return(counters: &mut Counters, detour: Detour, role: Role, wire: &Tally) {
    match (detour, role) {
        (Detour::Line, Role::Reply) => add(&mut counters.replied, wire),
        (Detour::Line, _) => add(&mut counters.released, wire),
        (Detour::Departures, _) => {
            add(&mut counters.departed, wire);
            add(&mut counters.released, wire);
        }
        (Detour::Segmenter, Role::Copy) => {
            add(&mut counters.segmented, wire);
            add(&mut counters.passed, wire);
        }
        // It is counted where it is decided whether the slot names it.
        (Detour::Segmenter, Role::Chosen) => {}
        (Detour::Segmenter, _) => add(&mut counters.segmented, wire),
    }
}

/// The verdict at a target's device: an error never costs a packet.
fn verdict(ctx: &TcContext, outcome: Result<Step, Trouble>, direction: u32) -> i32 {
    match outcome {
        Ok(Step::Continue) | Err(Trouble::NotIp) => PASS,
        Ok(Step::Redirect) => TC_ACT_REDIRECT,
        Ok(step @ (Step::Drop | Step::Lose)) if direction == DIRECTION_EGRESS => {
            note::of_fault(ctx, direction, step == Step::Lose);
            // `TC_ACT_SHOT` would tell the sender (`NET_XMIT_DROP`): TCP takes it for local congestion and does not count
            // a loss, a raw socket gets ENOBUFS.
            detour::into_nothing();
            TC_ACT_REDIRECT
        }
        Ok(step @ (Step::Drop | Step::Lose)) => {
            note::of_fault(ctx, direction, step == Step::Lose);
            TC_ACT_SHOT
        }
        Err(Trouble::Incident(which)) => {
            incident(which);
            PASS
        }
    }
}

/// The verdict on our own devices: what isn't ours never enters the target's stack.
///
/// Inlined, since a chain of calls has 512 bytes of stack, and Linux 6.1 counts each frame of it as 32 bytes at least.
#[inline(always)]
fn returned(ctx: &TcContext, detour: Detour) -> i32 {
    match try_return(ctx, detour) {
        Ok((Step::Redirect, _)) => TC_ACT_REDIRECT,
        Ok((step, direction)) => {
            note::of_fault(ctx, direction, step == Step::Lose);
            TC_ACT_SHOT
        }
        Err(Trouble::NotIp) => {
            incident(INCIDENT_UNTAGGED);
            note::of_incident(ctx);
            TC_ACT_SHOT
        }
        Err(Trouble::Incident(which)) => {
            incident(which);
            note::of_incident(ctx);
            aya_log_ebpf::debug!(
                ctx,
                "dropped a frame on one of our own devices: incident {}",
                which
            );
            TC_ACT_SHOT
        }
    }
}

/// The context as the helpers want it.
fn raw(ctx: &TcContext) -> *mut aya_ebpf::bindings::__sk_buff {
    ctx.as_ptr().cast()
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// `bpf_l4_csum_replace` and friends are for programs under the GPL; ours are dual-licensed.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
