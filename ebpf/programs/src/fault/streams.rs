//! How far each slot has come with its decisions: words that all CPUs share and change without a lock.

use core::arch::asm;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use sabot_abi::{CounterKey, INCIDENT_NO_COUNTERS, STREAM_STEP, Stream};

use crate::counters::incident;

/// The daemon creates an entry together with the counters.
#[map]
static STREAMS: HashMap<CounterKey, Stream> = HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);

/// The stream of a slot on a target in a direction.
#[derive(Clone, Copy)]
pub struct StreamRef(*mut Stream);

/// Counts an incident when there is none.
#[inline(always)]
pub fn of(slot: u32, target: u32, direction: u32) -> Option<StreamRef> {
    let entry = STREAMS.get_ptr_mut(CounterKey {
        slot,
        target,
        direction,
    });
    if entry.is_none() {
        incident(INCIDENT_NO_COUNTERS);
    }
    entry.map(StreamRef)
}

impl StreamRef {
    #[inline(always)]
    pub fn id(self) -> u64 {
        // SAFETY: the entry outlives the program's run (the kernel frees it after a grace period); nobody writes its id.
        unsafe { (*self.0).id }
    }

    /// Takes the number of the next packet that is decided.
    #[inline(always)]
    pub fn next(self) -> u64 {
        // SAFETY: as above; the field is an aligned word.
        unsafe { fetch_add(&raw mut (*self.0).word, STREAM_STEP) / STREAM_STEP }
    }

    #[inline(always)]
    pub fn word(self) -> u64 {
        // SAFETY: as above; other CPUs change the word only as a whole.
        unsafe { (&raw const (*self.0).word).read_volatile() }
    }

    /// Replaces the word unless it has become another than `before` meanwhile.
    #[inline(always)]
    pub fn replace(self, before: u64, after: u64) -> bool {
        // SAFETY: as above.
        unsafe { compare_and_swap(&raw mut (*self.0).word, before, after) == before }
    }
}

/// Adds to a word in one step; returns what it was. Rust has no such operation for this target.
///
/// # Safety
/// The word is valid, aligned, and changed by nobody but atomically.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, more: u64) -> u64 {
    let mut value = more;
    // SAFETY: the instruction reads and writes the one word, as the caller allows.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            word = in(reg) word,
            value = inout(reg) value,
            options(nostack),
        );
    }
    value
}

/// Writes `new` when the word is `expected`; returns what it was.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
unsafe fn compare_and_swap(word: *mut u64, expected: u64, new: u64) -> u64 {
    let mut value = expected;
    // SAFETY: as in `fetch_add`. The instruction takes and returns its value in r0.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") value,
            options(nostack),
        );
    }
    value
}
