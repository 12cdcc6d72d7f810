//! What could not be recorded.

use core::arch::asm;

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;

/// One count for all CPUs, for each chunk carries it: whoever reads them sees where some are missing.
#[map]
static LOSSES: Array<u64> = Array::with_max_entries(1, 0);

/// A chunk, or all of a call's chunks.
pub struct Lost;

#[inline(always)]
pub fn count() {
    if let Some(count) = LOSSES.get_ptr_mut(0) {
        // SAFETY: the pointer is to the map's value, an aligned word, which is changed nowhere else. The compiler knows no
        // atomic operations for this target.
        unsafe { asm!("lock *(u64 *)({count} + 0) += {one}", count = in(reg) count, one = in(reg) 1_u64) };
    }
}

#[inline(always)]
pub fn so_far() -> u64 {
    LOSSES.get(0).copied().unwrap_or(0)
}
