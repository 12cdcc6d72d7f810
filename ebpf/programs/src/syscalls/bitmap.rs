//! Sets of small numbers that the daemon writes into the object before it is loaded.

use core::ptr;

/// Bit `i % 64` of word `i / 64` says whether `i` is in the set. There is a power of two of words.
#[repr(transparent)]
pub struct Bitmap<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Bitmap<WORDS> {
    pub const EMPTY: Self = {
        assert!(WORDS.is_power_of_two());
        Self([0; WORDS])
    };

    #[inline(always)]
    pub fn contains(&self, index: u32) -> bool {
        // The word is read before the index is checked, at a place that a mask bounds: the verifier sees a mask, while it
        // loses a comparison when the compiler goes on with a copy of the register that was compared.
        let place = (index / u64::BITS) as usize & (WORDS - 1);
        // SAFETY: the mask keeps the place within the words. The read is volatile since the loader replaces the value that
        // the compiler sees.
        let word = unsafe { ptr::read_volatile(self.0.as_ptr().add(place)) };
        index < WORDS as u32 * u64::BITS && word >> (index % u64::BITS) & 1 != 0
    }
}
