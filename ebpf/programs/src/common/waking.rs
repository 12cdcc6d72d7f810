//! When the daemon is woken to read a ring.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE};
use aya_ebpf::maps::RingBuf;

/// With what an entry is submitted.
///
/// The daemon looks at its rings now and then by itself, and is woken when a quarter of one waits for it: a wake-up costs
/// more than all the rest of an event. It is woken by the first entries above that bound only; those that come while it is
/// at it would wake it for nothing.
#[inline(always)]
pub fn flags(ring: &RingBuf) -> u64 {
    let size = ring.query(BPF_RB_RING_SIZE as u64);
    let waiting = ring.query(BPF_RB_AVAIL_DATA as u64);
    let bound = size / 4;
    let flags = if waiting >= bound && waiting < bound + size / 16 {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    flags as u64
}
