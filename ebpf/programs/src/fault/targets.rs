//! Who the target of a packet is, and which slots are in force on it.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TcContext;
use sabot_abi::{MAX_TARGETS, TARGET_FREE, Target};

/// By target id: which of its two bodies is valid.
#[map]
static TARGET_STATE: Array<u32> = Array::with_max_entries(MAX_TARGETS, 0);
#[map]
static TARGETS: Array<Target> = Array::with_max_entries(2 * MAX_TARGETS, 0);

/// The id that the entry program wrote.
#[inline(always)]
pub fn id_of(ctx: &TcContext) -> u32 {
    ctx.cb()[0]
}

#[inline(always)]
pub fn get(id: u32) -> Option<&'static Target> {
    let state = *TARGET_STATE.get(id)?;
    if state == TARGET_FREE {
        return None;
    }
    TARGETS.get(state - 1)
}
