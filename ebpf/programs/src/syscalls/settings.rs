//! What the daemon may change while the programs run.

use core::cell::UnsafeCell;

use sabot_abi::{COMM_FILTER_WORDS, SYSCALL_BITMAP_WORDS, SyscallSettings};

use crate::bitmap::Bitmap;

/// In a section of its own, which is a map of its own that the daemon writes. Unlike an array's entry it needs no
/// look-up: every syscall of every process on the node comes by here.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.settings")]
static SETTINGS: Settings = Settings(UnsafeCell::new(SyscallSettings::NONE));

#[repr(transparent)]
struct Settings(UnsafeCell<SyscallSettings>);

// SAFETY: the programs only read it, word by word and volatile; each word is good for itself.
unsafe impl Sync for Settings {}

#[inline(always)]
pub fn comm_filter() -> &'static Bitmap<COMM_FILTER_WORDS> {
    // SAFETY: the pointer is to a static's field, of which `Bitmap` is a transparent view that reads it volatile.
    unsafe { &*(&raw const (*SETTINGS.0.get()).comm_filter).cast() }
}

#[inline(always)]
pub fn measured() -> &'static Bitmap<SYSCALL_BITMAP_WORDS> {
    // SAFETY: as above.
    unsafe { &*(&raw const (*SETTINGS.0.get()).measured).cast() }
}

#[inline(always)]
pub fn cgroup_count() -> u32 {
    // SAFETY: the pointer is to a static's field.
    unsafe { (&raw const (*SETTINGS.0.get()).cgroup_count).read_volatile() }
}

#[inline(always)]
pub fn generation() -> u32 {
    // SAFETY: the pointer is to a static's field.
    unsafe { (&raw const (*SETTINGS.0.get()).generation).read_volatile() }
}

/// Whether somebody reads every event.
#[inline(always)]
pub fn is_streamed() -> bool {
    // SAFETY: the pointer is to a static's field.
    unsafe { (&raw const (*SETTINGS.0.get()).streamed).read_volatile() != 0 }
}

/// The daemon's number for the cgroup at this index of the array of cgroups. The index is taken modulo its size.
#[inline(always)]
pub fn cgroup_number(index: u32) -> u32 {
    const MASK: usize = sabot_abi::MAX_WATCHED_CGROUPS as usize - 1;
    const { assert!(sabot_abi::MAX_WATCHED_CGROUPS.is_power_of_two()) };
    // SAFETY: the pointer is to a static's field, and the mask keeps the place within it.
    unsafe {
        let numbers = (&raw const (*SETTINGS.0.get()).cgroups).cast::<u32>();
        numbers.add(index as usize & MASK).read_volatile()
    }
}
