//! What could not be recorded.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use sabot_abi::{
    SYSCALL_LOSS_COUNT, SYSCALL_LOSS_ERRNO, SYSCALL_LOSS_EVENT, SYSCALL_LOSS_IN_FLIGHT, SYSCALL_LOSS_LATENCY,
};

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(SYSCALL_LOSS_COUNT, 0);

#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Loss {
    Event = SYSCALL_LOSS_EVENT,
    InFlight = SYSCALL_LOSS_IN_FLIGHT,
    Latency = SYSCALL_LOSS_LATENCY,
    Errno = SYSCALL_LOSS_ERRNO,
}

#[inline(always)]
pub fn count(loss: Loss) {
    if let Some(count) = LOSSES.get_ptr_mut(loss as u32) {
        // SAFETY: the pointer is to this CPU's value, and programs on tracepoints aren't preempted.
        unsafe { *count += 1 };
    }
}
