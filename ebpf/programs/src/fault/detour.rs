//! Sending a packet away and letting it on when it comes back: the delay line's TAP, the segmenter, the departure queue.

use aya_ebpf::bindings::BPF_F_INGRESS;
use aya_ebpf::helpers::{bpf_redirect, bpf_skb_vlan_pop, bpf_skb_vlan_push};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TcContext;
use sabot_abi::{
    DIRECTION_EGRESS, INCIDENT_HELPER_FAILED, INCIDENT_UNTAGGED, MAX_COPIES, Stamp, TAG_ETHERTYPE,
    TARGET_NODE_DEVICE, Tag, Target,
};

use crate::counters::incident;
use crate::raw;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Detour {
    Line,
    Segmenter,
    Departures,
}

/// No device has this index.
const NO_DEVICE: u32 = 0;

/// When the delay line was last alive, `CLOCK_BOOTTIME` in ns.
#[map]
static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// Drawn by the daemon at start: what an ingress packet that came back carries on its way into the target's device.
#[unsafe(no_mangle)]
static RETURN_MARK: u32 = 0;
/// How old the heartbeat may be, in ns; set by the daemon.
#[unsafe(no_mangle)]
static HEARTBEAT_BOUND: u64 = 0;

/// The way is open: the device is there, its keeper is alive, and nothing that the packet carries would be lost.
#[inline(always)]
pub fn is_open(ctx: &TcContext, target: &Target, detour: Detour, now: u64) -> bool {
    // On the node's own devices a mark is somebody's identity or route, and it would not survive the way.
    // SAFETY: the context is valid while the program runs.
    if target.flags & TARGET_NODE_DEVICE != 0 && unsafe { (*raw(ctx)).mark } != 0 {
        return false;
    }
    match detour {
        Detour::Line => target.line_ifindex != 0 && line_is_alive(now),
        Detour::Segmenter => target.segmenter_ifindex != 0,
        Detour::Departures => target.departures_ifindex != 0,
    }
}

#[inline(always)]
fn line_is_alive(now: u64) -> bool {
    // SAFETY: the static is the program's read-only data, which the daemon fills before it loads the program.
    let bound = unsafe { core::ptr::read_volatile(&HEARTBEAT_BOUND) };
    HEARTBEAT
        .get(0)
        .is_some_and(|beat| now < beat.saturating_add(bound))
}

/// Tags the packet and sends it away, once the program returns `TC_ACT_REDIRECT`. `now` is `CLOCK_BOOTTIME` in ns.
#[inline(always)]
pub fn take(ctx: &TcContext, target: &Target, detour: Detour, tag: Tag, now: u64) -> Result<(), u32> {
    push_tags(ctx, tag.tci(), stamp(detour, now))?;
    redirect(ifindex(target, detour), 0);
    Ok(())
}

/// What stands behind the tag: nothing, but on the way to the delay line.
#[inline(always)]
fn stamp(detour: Detour, now: u64) -> Stamp {
    match detour {
        Detour::Line => Stamp::at(now),
        Detour::Segmenter | Detour::Departures => Stamp::NONE,
    }
}

/// The packet is tagged and can't be made what it was before: it can't go on.
pub struct Stuck;

/// Sends so many tagged clones of the packet away, now; returns how many. What a full device drops of them counts as sent:
/// the device counts it.
#[inline(always)]
pub fn send_clones(
    ctx: &TcContext,
    target: &Target,
    detour: Detour,
    tag: Tag,
    now: u64,
    copies: u32,
) -> Result<u32, Stuck> {
    let tcis = (tag.tci() as u32) << u16::BITS | stamp(detour, now).tci() as u32;
    match clone_to(ctx, ifindex(target, detour), tcis, copies) {
        STUCK => Err(Stuck),
        made => Ok(made),
    }
}

const STUCK: u32 = u32::MAX;

/// `tcis` are the tag's bits above the stamp's.
#[inline(never)]
fn clone_to(ctx: &TcContext, ifindex: u32, tcis: u32, copies: u32) -> u32 {
    let stamp = Stamp::from_tci(tcis as u16);
    if push_tags(ctx, (tcis >> u16::BITS) as u16, stamp).is_err() {
        incident(INCIDENT_HELPER_FAILED);
        return 0;
    }
    let mut made = 0;
    let mut tried = 0;
    while tried < MAX_COPIES && tried < copies {
        match ctx.clone_redirect(ifindex, 0) {
            Err(error) if error < 0 => incident(INCIDENT_HELPER_FAILED),
            _ => made += 1,
        }
        tried += 1;
    }
    if pop_tag(ctx).is_err() || stamp != Stamp::NONE && pop_tag(ctx).is_err() {
        incident(INCIDENT_HELPER_FAILED);
        return STUCK;
    }
    made
}

/// The tag, and behind it the stamp, if there is one. When that fails, the packet is as it was.
#[inline(always)]
fn push_tags(ctx: &TcContext, tci: u16, stamp: Stamp) -> Result<(), u32> {
    if stamp == Stamp::NONE {
        return push_tag(ctx, tci);
    }
    push_tag(ctx, stamp.tci())?;
    push_tag(ctx, tci).inspect_err(|_| {
        let _ = pop_tag(ctx);
    })
}

#[inline(always)]
fn push_tag(ctx: &TcContext, tci: u16) -> Result<(), u32> {
    // SAFETY: the context is valid while the program runs; the other arguments are integers.
    if unsafe { bpf_skb_vlan_push(raw(ctx), TAG_ETHERTYPE.to_be(), tci) } != 0 {
        return Err(INCIDENT_HELPER_FAILED);
    }
    Ok(())
}

#[inline(always)]
fn pop_tag(ctx: &TcContext) -> Result<(), u32> {
    // SAFETY: the context is valid while the program runs.
    if unsafe { bpf_skb_vlan_pop(raw(ctx)) } != 0 {
        return Err(INCIDENT_HELPER_FAILED);
    }
    Ok(())
}

#[inline(always)]
fn ifindex(target: &Target, detour: Detour) -> u32 {
    match detour {
        Detour::Line => target.line_ifindex,
        Detour::Segmenter => target.segmenter_ifindex,
        Detour::Departures => target.departures_ifindex,
    }
}

/// Takes our tag off, and behind it the stamp of what comes from the delay line; a frame without a tag isn't ours.
#[inline(always)]
pub fn take_tag(ctx: &TcContext, detour: Detour) -> Result<Tag, u32> {
    // SAFETY: the context is valid while the program runs.
    let (present, tci) = unsafe { ((*raw(ctx)).vlan_present, (*raw(ctx)).vlan_tci) };
    if present == 0 {
        return Err(INCIDENT_UNTAGGED);
    }
    pop_tag(ctx)?;
    if detour == Detour::Line {
        pop_tag(ctx)?;
    }
    Ok(Tag::from_tci(tci as u16))
}

/// Sends a packet that came back out of the target's device, or into it, once the program returns `TC_ACT_REDIRECT`.
#[inline(always)]
pub fn leave(ctx: &TcContext, ifindex: u32, direction: u32) {
    if direction == DIRECTION_EGRESS {
        redirect(ifindex, 0);
    } else {
        ctx.set_mark(return_mark());
        redirect(ifindex, BPF_F_INGRESS as u64);
    }
}

/// Drops the packet as a wire would, once the program returns `TC_ACT_REDIRECT`: without a word to the sender.
#[inline(always)]
pub fn into_nothing() {
    redirect(NO_DEVICE, 0);
}

/// With these flags the helper can't fail: it only records where the packet goes.
#[inline(always)]
fn redirect(ifindex: u32, flags: u64) {
    // SAFETY: the helper takes two integers.
    unsafe { bpf_redirect(ifindex, flags) };
}

/// Whether the packet at the target's device comes from one of our detours and has met every slot already.
///
/// On egress the device that it came in on says so, which a pod can't forge; on ingress the mark does, which no packet
/// from outside carries.
#[inline(always)]
pub fn has_been_away(ctx: &TcContext, target: &Target, direction: u32) -> bool {
    if direction == DIRECTION_EGRESS {
        // SAFETY: the context is valid while the program runs.
        let from = unsafe { (*raw(ctx)).ingress_ifindex };
        let ours = [
            target.line_ifindex,
            target.segmenter_ifindex,
            target.departures_ifindex,
        ];
        return from != 0 && (from == ours[0] || from == ours[1] || from == ours[2]);
    }
    // SAFETY: as above.
    let mark = unsafe { (*raw(ctx)).mark };
    if mark == 0 || mark != return_mark() {
        return false;
    }
    ctx.set_mark(0);
    true
}

#[inline(always)]
fn return_mark() -> u32 {
    // SAFETY: the static is the program's read-only data, which the daemon fills before it loads the program.
    unsafe { core::ptr::read_volatile(&RETURN_MARK) }
}
