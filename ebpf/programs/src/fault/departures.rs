//! Constant delays without user space: a packet is told when it may depart, and `sch_fq` in the daemon's private netns holds it
//! until then.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_skb_set_tstamp};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuHashMap};
use aya_ebpf::programs::TcContext;
use sabot_abi::{
    Counters, DELAY_BOUNDS, DELAY_BUCKETS, Delays, HOLDING_ALL, HOLDING_LOST_AFTER, HOLDING_OVERHEAD,
    HOLDINGS, Holding, INCIDENT_HELPER_FAILED, LEAD_MOST, MAX_SLOTS, Role, Rule, Tag,
};

use crate::atomic;
use crate::counters::{add, incident};
use crate::detour::{self, Detour};
use crate::pipeline::Journey;
use crate::raw;
use crate::rules;

/// What the queue holds of each target, and of all.
#[map]
static HOLDING: Array<Holding> = Array::with_max_entries(HOLDINGS, 0);
/// By slot. The daemon creates an entry before the first packet of its slot can depart.
#[map]
static DELAYS: PerCpuHashMap<u32, Delays> = PerCpuHashMap::with_max_entries(MAX_SLOTS, BPF_F_NO_PREALLOC);

/// Whether the kernel has what all this takes; set by the daemon. Where it hasn't, the verifier never sees the helpers that
/// such a kernel doesn't know.
#[unsafe(no_mangle)]
static HAS_DEPARTURES: Global<u32> = Global::new(0);
/// Bytes that the queue may hold of all targets together; set by the daemon.
#[unsafe(no_mangle)]
static HELD_BYTES_TOTAL: Global<u64> = Global::new(0);

/// Kinds of `tstamp` in `struct __sk_buff`: none, and a departure by `CLOCK_MONOTONIC`.
const BPF_SKB_TSTAMP_UNSPEC: u32 = 0;
const BPF_SKB_TSTAMP_DELIVERY_MONO: u32 = 1;

pub enum Handed {
    /// It is tagged and on its way, once the program returns `TC_ACT_REDIRECT`.
    Over,
    /// The queue holds as much as it may.
    Full,
    /// This packet can't be held here; nothing has been done to it.
    Unfit,
    /// It can't be held, and it isn't sure that it is as it was.
    Failed,
}

/// Hands a packet to the queue, so that it is back when its slot's latency is over or the slot's deadline has come. What has the
/// same departure keeps its order, and so does what leaves at a bound of the rule's: by this clock alone, since the difference
/// of two that are read one after the other is never the same.
#[inline(always)]
pub fn hand_over(
    ctx: &TcContext,
    journey: &Journey<'_>,
    slot: u32,
    rule: &Rule,
    counters: &mut Counters,
) -> Handed {
    if HAS_DEPARTURES.load() == 0
        || rule.latency == 0
        || !detour::is_open(ctx, journey.target, Detour::Departures, journey.now)
    {
        return Handed::Unfit;
    }
    let now = monotonic();
    let (own, all) = (holding(journey.target_id), holding(HOLDING_ALL));
    let (Some(own), Some(all)) = (own, all) else {
        return Handed::Unfit;
    };
    let due = now + rule.latency - Holding::lead_within(lead(own), rule.latency);
    let departure = behind(counters.last_departure, due.max(rule.not_before)).min(rule.not_after);
    let weight = weight(ctx);
    if !has_room(own, weight, journey.target.departures_bytes as u64, now)
        || !has_room(all, weight, HELD_BYTES_TOTAL.load(), now)
    {
        return Handed::Full;
    }
    // Only IP packets without VLAN headers can have a departure.
    // SAFETY: the context is valid while the program runs; the other arguments are integers.
    if unsafe { bpf_skb_set_tstamp(raw(ctx), departure, BPF_SKB_TSTAMP_DELIVERY_MONO) } != 0 {
        return Handed::Unfit;
    }
    let tag = Tag {
        slot,
        direction: journey.direction,
        role: Role::Plain,
    };
    if let Err(which) = detour::take(ctx, journey.target, Detour::Departures, tag, journey.now) {
        incident(which);
        forget_departure(ctx);
        return Handed::Failed;
    }
    enter(own, weight, departure);
    enter(all, weight, departure);
    add(&mut counters.departing, &journey.packet.wire);
    counters.last_departure = counters.last_departure.max(departure);
    Handed::Over
}

/// When a packet that comes back was to depart; `None` for one without a departure.
#[inline(always)]
pub fn departure(ctx: &TcContext) -> Option<u64> {
    let skb = raw(ctx);
    // A program that reads the kind is shown the departure; to others it would be 0 here.
    // SAFETY: the context is valid while the program runs; a volatile read keeps the field's own width, as the verifier
    // wants it.
    let (kind, departure) = unsafe { ((&raw const (*skb).tstamp_type).read_volatile(), (*skb).tstamp) };
    (kind as u32 == BPF_SKB_TSTAMP_DELIVERY_MONO).then_some(departure)
}

/// A packet is back that was to depart then: it is held no longer, and goes on as though it had never been told a time.
#[inline(always)]
pub fn let_go(ctx: &TcContext, target_id: u32, slot: u32, departure: u64) {
    let weight = weight(ctx);
    if let Some(all) = holding(HOLDING_ALL) {
        leave(all, weight);
    }
    forget_departure(ctx);
    let way = monotonic().saturating_sub(departure);
    if let Some(own) = holding(target_id) {
        leave(own, weight);
        let lead = lead(own);
        fault_count_delay(slot, way, lead);
        // SAFETY: the entry outlives the program's run; of several CPUs' leads, which are alike, any will do.
        unsafe { (&raw mut (*own).lead).write_volatile(Holding::lead_after(lead, way)) };
    }
}

/// Counts the delay of a packet that was back so long after its departure, which was earlier by so much than it should be gone,
/// both in ns. A slot's latency and the lead are those of now: what an edit finds in the queue counts as the new one says, and so
/// does what waited for it to leave. Packets that the deadline let go early aren't counted.
///
/// A global function in the verifier's sense, as `fault_visit` is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fault_count_delay(slot: u32, way: u64, lead: u64) -> u32 {
    let Some(rule) = rules::get(slot) else { return 0 };
    if crate::clock::now() >= rule.expires_at {
        return 0;
    }
    let Some(delays) = DELAYS.get_ptr_mut(slot) else {
        return 0;
    };
    let lead = Holding::lead_within(lead, rule.latency);
    let delay = (rule.latency - lead).saturating_add(way);
    let mut bucket = 0;
    while bucket < DELAY_BUCKETS - 1 && DELAY_BOUNDS[bucket] < delay {
        bucket += 1;
    }
    // SAFETY: the entry is this CPU's own and outlives the program's run.
    unsafe {
        (*delays).sum += delay;
        (*delays).buckets[bucket] += 1;
    }
    0
}

#[inline(always)]
fn holding(index: u32) -> Option<*mut Holding> {
    HOLDING.get_ptr_mut(index)
}

#[inline(always)]
fn lead(holding: *mut Holding) -> u64 {
    // SAFETY: the entry outlives the program's run; other CPUs change the word only as a whole.
    unsafe { (&raw const (*holding).lead).read_volatile() }
}

/// A departure that is no earlier than the one before it on this CPU, where a grown lead alone would make it so: a flow keeps
/// its order.
#[inline(always)]
fn behind(before: u64, departure: u64) -> u64 {
    if departure < before && before - departure <= LEAD_MOST {
        before
    } else {
        departure
    }
}

/// What is lost on the way never leaves: once nothing more can come of what is counted, the count begins anew.
#[inline(always)]
fn has_room(holding: *mut Holding, weight: u64, bound: u64, now: u64) -> bool {
    // SAFETY: the entry outlives the program's run; other CPUs change its words only as a whole.
    let Holding {
        entered,
        left,
        last_departure,
        ..
    } = unsafe { holding.read_volatile() };
    let held = entered.saturating_sub(left);
    if held + weight <= bound {
        return true;
    }
    if now < last_departure + HOLDING_LOST_AFTER {
        return false;
    }
    // SAFETY: as above.
    unsafe { atomic::add(&mut (*holding).left, held) };
    weight <= bound
}

#[inline(always)]
fn enter(holding: *mut Holding, weight: u64, departure: u64) {
    // SAFETY: as above; of several CPUs' departures, which are close together, any will do.
    unsafe {
        atomic::add(&mut (*holding).entered, weight);
        (&raw mut (*holding).last_departure).write_volatile(departure);
    }
}

#[inline(always)]
fn leave(holding: *mut Holding, weight: u64) {
    // SAFETY: the entry outlives the program's run, and everybody changes it atomically.
    unsafe { atomic::add(&mut (*holding).left, weight) };
}

#[inline(always)]
fn weight(ctx: &TcContext) -> u64 {
    ctx.len() as u64 + HOLDING_OVERHEAD
}

#[inline(always)]
fn forget_departure(ctx: &TcContext) {
    // SAFETY: the context is valid while the program runs; the other arguments are integers.
    if unsafe { bpf_skb_set_tstamp(raw(ctx), 0, BPF_SKB_TSTAMP_UNSPEC) } != 0 {
        incident(INCIDENT_HELPER_FAILED);
    }
}

/// The clock of departures.
#[inline(always)]
fn monotonic() -> u64 {
    // SAFETY: the helper takes nothing and reads a clock.
    unsafe { bpf_ktime_get_ns() }
}
