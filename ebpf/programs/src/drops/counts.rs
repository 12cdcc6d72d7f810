//! Drops in numbers, and what could not be recorded of them.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, PerCpuHashMap};
use sabot_abi::{
    DROP_LOSS_COUNT, DROP_LOSS_COUNT_TABLE, DROP_LOSS_EVENT, DROP_LOSS_SUPPRESSED, DropKey, Tally,
};

/// Entries are made where a reason is first met and removed by the daemon when their owner has gone. The daemon sets the
/// size. They are allocated beforehand, since a packet may be dropped anywhere in the kernel.
#[map]
static DROPS: PerCpuHashMap<DropKey, Tally> = PerCpuHashMap::with_max_entries(4096, 0);

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(DROP_LOSS_COUNT, 0);

#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Loss {
    Event = DROP_LOSS_EVENT,
    Table = DROP_LOSS_COUNT_TABLE,
    Suppressed = DROP_LOSS_SUPPRESSED,
}

#[inline(always)]
pub fn lose(loss: Loss) {
    if let Some(count) = LOSSES.get_ptr_mut(loss as u32) {
        // SAFETY: the entry is this CPU's own.
        unsafe { *count += 1 };
    }
}

/// # Errors
///
/// [`Loss::Table`] when there is no room for the key.
#[inline(always)]
pub fn add(key: &DropKey, more: &Tally) -> Result<(), Loss> {
    let tally = match DROPS.get_ptr_mut(key) {
        Some(tally) => tally,
        None => {
            // Another CPU may have been first; its entry is as good.
            let _ = DROPS.insert(key, Tally { packets: 0, bytes: 0 }, BPF_NOEXIST.into());
            DROPS.get_ptr_mut(key).ok_or(Loss::Table)?
        }
    };
    // SAFETY: the value is this CPU's own, and the kernel doesn't run the program inside itself.
    let tally = unsafe { &mut *tally };
    tally.packets += more.packets;
    tally.bytes += more.bytes;
    Ok(())
}
