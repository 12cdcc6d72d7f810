//! The counters of each owner. The daemon makes and removes the entries.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuHashMap};
use sabot_abi::{Histogram, MAX_OWNERS, TcpFirsts, TcpStats, log_linear_bucket};

use crate::atomic;

#[map]
static STATS: PerCpuHashMap<u32, TcpStats> = PerCpuHashMap::with_max_entries(MAX_OWNERS, BPF_F_NO_PREALLOC);
#[map]
static FIRSTS: HashMap<u32, TcpFirsts> = HashMap::with_max_entries(MAX_OWNERS, BPF_F_NO_PREALLOC);

/// The owner's counters on this CPU; `None` when the owner is gone.
#[inline(always)]
pub fn of(owner: u32) -> Option<&'static mut TcpStats> {
    // SAFETY: the entry is this CPU's own, is changed by atomic additions only, and outlives the program's run, for the
    // kernel frees it after a grace period.
    STATS.get_ptr_mut(owner).map(|stats| unsafe { &mut *stats })
}

#[inline(always)]
pub fn record(histogram: &mut Histogram, ns: u64) {
    if let Some(bucket) = histogram.buckets.get_mut(log_linear_bucket(ns)) {
        atomic::add(bucket, 1);
        atomic::add(&mut histogram.sum, ns);
    }
}

/// Notes the time unless it happened before.
#[inline(always)]
pub fn first(owner: u32, time: u64, which: impl FnOnce(&mut TcpFirsts) -> &mut u64) {
    if let Some(firsts) = FIRSTS.get_ptr_mut(owner) {
        // SAFETY: as above, but for all CPUs; of two that are first at once either may be kept.
        let first = which(unsafe { &mut *firsts });
        if *first == 0 {
            *first = time;
        }
    }
}

/// `CLOCK_BOOTTIME`, ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}
