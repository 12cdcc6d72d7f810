//! Queries in numbers, and what could not be recorded of them.

use core::arch::asm;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, PerCpuHashMap};
use sabot_abi::{
    MAX_OWNERS, QUERY_LOSS_COUNT, QUERY_LOSS_EVENT, QUERY_LOSS_OPEN, QUERY_LOSS_UNREAD, QueryCounts,
};

/// By owner. The daemon makes an entry for each owner that lives, and removes it when the owner has gone.
#[map]
static QUERY_COUNTS: PerCpuHashMap<u32, QueryCounts> =
    PerCpuHashMap::with_max_entries(MAX_OWNERS, BPF_F_NO_PREALLOC);

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(QUERY_LOSS_COUNT, 0);

#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Loss {
    Event = QUERY_LOSS_EVENT,
    Open = QUERY_LOSS_OPEN,
    Unread = QUERY_LOSS_UNREAD,
}

#[inline(always)]
pub fn lose(loss: Loss) {
    if let Some(count) = LOSSES.get_ptr_mut(loss as u32) {
        // SAFETY: the entry is there as long as the program.
        increase(unsafe { &mut *count }, 1);
    }
}

/// `None` when the owner goes at this moment: its counts go with it.
#[inline(always)]
pub fn of(owner: u32) -> Option<&'static mut QueryCounts> {
    let counts = QUERY_COUNTS.get_ptr_mut(owner)?;
    // SAFETY: the value is this CPU's own and outlives the program's run.
    Some(unsafe { &mut *counts })
}

/// Adds to a count that another run of the program, which interrupts this one, may be adding to.
#[inline(always)]
pub fn increase(count: &mut u64, more: u64) {
    // SAFETY: the instruction adds to eight aligned bytes, and changes nothing else. The target has it, but not the
    // compare-and-swap without which the compiler offers no atomic addition.
    unsafe {
        asm!(
            "lock *(u64 *)({count} + 0) += {more}",
            count = in(reg) count,
            more = in(reg) more,
        );
    }
}
