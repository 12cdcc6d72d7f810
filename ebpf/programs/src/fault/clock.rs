//! The kernel's clock of deadlines.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;

/// `CLOCK_BOOTTIME` in ns: unlike the monotonic clock it goes on in suspend, and a deadline with it.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}
