//! What could not be recorded.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use sabot_abi::{TCP_LOSS_COUNT, TCP_LOSS_EVENT, TCP_LOSS_SIGHTING, TCP_LOSS_SOCKET, TCP_LOSS_UNRESOLVED};

use crate::atomic;

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(TCP_LOSS_COUNT, 0);

#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Loss {
    Event = TCP_LOSS_EVENT,
    Socket = TCP_LOSS_SOCKET,
    Unresolved = TCP_LOSS_UNRESOLVED,
    Sighting = TCP_LOSS_SIGHTING,
}

#[inline(always)]
pub fn count(loss: Loss) {
    if let Some(count) = LOSSES.get_ptr_mut(loss as u32) {
        // SAFETY: the pointer is to this CPU's value, which is never removed.
        atomic::add(unsafe { &mut *count }, 1);
    }
}
