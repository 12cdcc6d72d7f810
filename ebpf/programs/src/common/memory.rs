//! Reads of the kernel's memory. An address that can't be read is no error of ours: it may be stale by now, or something
//! else may stand where a pointer was expected.

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// A value of the kernel's, `None` where there is nothing to read.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks every address that it reads from, and all `T` here are integers and arrays of them.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as u64) as *const T) }.ok()
}

/// A pointer of the kernel's, `None` for null.
#[inline(always)]
pub fn read_pointer(base: u64, offset: u32) -> Option<u64> {
    read::<u64>(base, offset).filter(|&pointer| pointer != 0)
}

/// One of the members of a table of offsets that the daemon fills before it loads the program.
macro_rules! offset {
    ($table:ident . $member:ident) => {{
        // SAFETY: the table is the program's read-only data. The read is volatile since the loader replaces the value that
        // the compiler sees.
        unsafe { core::ptr::read_volatile(&raw const $table.$member) }
    }};
}
pub(crate) use offset;
