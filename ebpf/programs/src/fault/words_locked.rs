//! Words that CPUs share, changed under a lock.

use aya_ebpf::bindings::bpf_spin_lock;
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::generated::{bpf_spin_lock as lock, bpf_spin_unlock as unlock};
use aya_ebpf::macros::btf_map;
use sabot_abi::Stream;

/// Streams that share a lock wait for each other, for some instructions; what they do stays the same.
const LOCKS: usize = 1 << 8;

/// The kernel finds the lock by its type.
#[repr(C)]
pub struct Lock {
    lock: bpf_spin_lock,
}

#[btf_map]
static STREAM_LOCKS: Array<Lock, LOCKS> = Array::new();

/// What it takes to change the words of one stream.
#[derive(Clone, Copy)]
pub struct Turn(*mut bpf_spin_lock);

impl Turn {
    #[inline(always)]
    pub fn of(stream: *const Stream) -> Option<Self> {
        // SAFETY: the entry outlives the program's run, and nobody writes its id.
        let id = unsafe { (*stream).id };
        // Such a map has all its entries: there is always a lock.
        let lock = STREAM_LOCKS.get_ptr_mut(id as u32 % LOCKS as u32)?;
        // SAFETY: the pointer is to an entry of the map, which stays.
        Some(Self(unsafe { &raw mut (*lock).lock }))
    }

    /// Adds to a word while nobody else changes it; returns what it was.
    ///
    /// # Safety
    /// The word is valid, aligned, and changed by nobody but through turns of the same stream.
    #[inline(always)]
    pub unsafe fn fetch_add(self, word: *mut u64, more: u64) -> u64 {
        // SAFETY: the lock is the map's own, and is opened again; the word is as the caller promises.
        unsafe {
            lock(self.0);
            let value = word.read_volatile();
            word.write_volatile(value.wrapping_add(more));
            unlock(self.0);
            value
        }
    }

    /// Writes `new` when the word is `expected`; returns what it was.
    ///
    /// # Safety
    /// As for [`Turn::fetch_add`].
    #[inline(always)]
    pub unsafe fn compare_and_swap(self, word: *mut u64, expected: u64, new: u64) -> u64 {
        // SAFETY: as in `fetch_add`.
        unsafe {
            lock(self.0);
            let value = word.read_volatile();
            if value == expected {
                word.write_volatile(new);
            }
            unlock(self.0);
            value
        }
    }
}
