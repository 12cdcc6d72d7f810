//! Ground truth, counted where it happens.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, PerCpuHashMap};
use sabot_abi::{CounterKey, Counters, INCIDENT_COUNT, INCIDENT_NO_COUNTERS, Tally};

/// The daemon creates an entry before the slot comes into force on the target.
#[map]
static COUNTERS: PerCpuHashMap<CounterKey, Counters> =
    PerCpuHashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);
#[map]
static INCIDENTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(INCIDENT_COUNT, 0);

/// The counters of a slot on a target in a direction, on this CPU.
///
/// Programs run with bottom halves off, so nothing else on this CPU touches them meanwhile.
#[inline(always)]
pub fn of(slot: u32, target: u32, direction: u32) -> Option<&'static mut Counters> {
    let entry = COUNTERS.get_ptr_mut(CounterKey {
        slot,
        target,
        direction,
    })?;
    // SAFETY: the entry is this CPU's own and outlives the program's run (the kernel frees it after a grace period).
    Some(unsafe { &mut *entry })
}

#[inline(always)]
pub fn add(tally: &mut Tally, more: &Tally) {
    tally.packets += more.packets;
    tally.bytes += more.bytes;
}

/// Counts what a slot matched at this moment.
#[inline(always)]
pub fn add_matched(counters: &mut Counters, more: &Tally, now: u64) {
    add(&mut counters.matched, more);
    if counters.first_match == 0 {
        counters.first_match = now;
    }
}

/// Adds the packet to some of a slot's tallies.
#[inline(always)]
pub fn count(slot: u32, target: u32, direction: u32, to: impl FnOnce(&mut Counters)) {
    match of(slot, target, direction) {
        Some(counters) => to(counters),
        None => incident(INCIDENT_NO_COUNTERS),
    }
}

pub fn incident(which: u32) {
    if let Some(count) = INCIDENTS.get_ptr_mut(which) {
        // SAFETY: the entry is this CPU's own.
        unsafe { *count += 1 };
    }
}
