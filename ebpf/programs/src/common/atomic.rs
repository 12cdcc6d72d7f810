//! Counting where others may count at the same time.

use core::arch::asm;

/// Adds to a counter in one step.
///
/// Also where counters are each CPU's own, two programs may work on one at once: a segment that is handled on behalf of a
/// process is handled with interrupts on, and one of these may bring the next segment.
#[inline(always)]
pub fn add(counter: &mut u64, more: u64) {
    let word: *mut u64 = counter;
    // SAFETY: the word is valid and aligned, for it comes from a reference; nobody changes it but by this instruction.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) += {more}",
            word = in(reg) word,
            more = in(reg) more,
            options(nostack),
        );
    }
}
