//! Words that CPUs share, changed and read in one step, as programs can from Linux 5.12 on.

use core::arch::asm;

use sabot_abi::Stream;

/// What it takes to change the words of one stream: nothing here.
#[derive(Clone, Copy)]
pub struct Turn;

impl Turn {
    #[inline(always)]
    pub fn of(_stream: *const Stream) -> Option<Self> {
        Some(Self)
    }

    /// Adds to a word in one step; returns what it was. Rust has no such operation for this target.
    ///
    /// # Safety
    /// The word is valid, aligned, and changed by nobody but through turns of the same stream.
    #[inline(always)]
    pub unsafe fn fetch_add(self, word: *mut u64, more: u64) -> u64 {
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
    /// As for [`Turn::fetch_add`].
    #[inline(always)]
    pub unsafe fn compare_and_swap(self, word: *mut u64, expected: u64, new: u64) -> u64 {
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
}
