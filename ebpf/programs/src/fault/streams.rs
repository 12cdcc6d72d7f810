//! How far each slot has come with its decisions: words that all CPUs share.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use sabot_abi::{CounterKey, INCIDENT_NO_COUNTERS, STREAM_STEP, Stream};

use crate::counters::incident;
use crate::words::Turn;

/// The daemon creates an entry together with the counters.
#[map]
static STREAMS: HashMap<CounterKey, Stream> = HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);

/// The stream of a slot on a target in a direction.
#[derive(Clone, Copy)]
pub struct StreamRef {
    stream: *mut Stream,
    turn: Turn,
}

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
    entry.and_then(|stream| Turn::of(stream).map(|turn| StreamRef { stream, turn }))
}

impl StreamRef {
    #[inline(always)]
    pub fn id(self) -> u64 {
        // SAFETY: the entry outlives the program's run (the kernel frees it after a grace period); nobody writes its id.
        unsafe { (*self.stream).id }
    }

    /// Takes the number of the next packet that is decided.
    #[inline(always)]
    pub fn next(self) -> u64 {
        // SAFETY: as above; the field is an aligned word.
        unsafe { self.fetch_add(&raw mut (*self.stream).word, STREAM_STEP) / STREAM_STEP }
    }

    #[inline(always)]
    pub fn word(self) -> u64 {
        // SAFETY: as above; other CPUs change the word only as a whole.
        unsafe { (&raw const (*self.stream).word).read_volatile() }
    }

    /// Replaces the word unless it has become another than `before` meanwhile.
    #[inline(always)]
    pub fn replace(self, before: u64, after: u64) -> bool {
        // SAFETY: as above.
        unsafe {
            let word = &raw mut (*self.stream).word;
            self.turn.compare_and_swap(word, before, after) == before
        }
    }

    /// Adds to a word that is this stream's in one step; returns what it was.
    ///
    /// # Safety
    /// The word is valid, aligned, and changed by nobody but through this stream.
    #[inline(always)]
    pub unsafe fn fetch_add(self, word: *mut u64, more: u64) -> u64 {
        // SAFETY: as the caller promises.
        unsafe { self.turn.fetch_add(word, more) }
    }
}
