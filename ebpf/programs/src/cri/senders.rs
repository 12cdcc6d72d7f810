//! Who sends.

use core::mem::{MaybeUninit, size_of};

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_pidns_info;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_ns_current_pid_tgid;

/// The pid namespace of the daemon: the kernel's device number of its nsfs file, and its inode; no inode where it is the
/// initial one, in which every process has a number.
#[unsafe(no_mangle)]
static PID_NS_DEV: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static PID_NS_INO: Global<u64> = Global::new(0);

/// The current process's id in the daemon's pid namespace; 0 outside of it.
#[inline(always)]
pub fn current_pid() -> u32 {
    let inode = PID_NS_INO.load();
    if inode == 0 {
        return (bpf_get_current_pid_tgid() >> u32::BITS) as u32;
    }
    let mut info = MaybeUninit::<bpf_pidns_info>::uninit();
    // SAFETY: the helper fills in the whole struct, whose size it is told, whether it succeeds or not.
    unsafe {
        let size = size_of::<bpf_pidns_info>() as u32;
        bpf_get_ns_current_pid_tgid(PID_NS_DEV.load(), inode, info.as_mut_ptr(), size);
        // Zeros where it failed.
        info.assume_init().tgid
    }
}
