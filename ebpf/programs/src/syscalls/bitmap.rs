//! Sets of small numbers that the daemon writes into the object before it is loaded.

use core::ptr;

/// Bit `i % 64` of word `i / 64` says whether `i` is in the set.
#[repr(transparent)]
pub struct Bitmap<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Bitmap<WORDS> {
    pub const EMPTY: Self = Self([0; WORDS]);

    #[inline(always)]
    pub fn contains(&self, index: u32) -> bool {
        let Some(word) = self.0.get((index / u64::BITS) as usize) else {
            return false;
        };
        // SAFETY: the reference is valid. The read is volatile since the loader replaces the value that the compiler sees.
        let word = unsafe { ptr::read_volatile(word) };
        word >> (index % u64::BITS) & 1 != 0
    }
}
