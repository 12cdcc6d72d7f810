//! The system call itself, for what is written instruction by instruction or looked at from outside.

use std::ffi::c_long;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Runs a command; returns what the kernel answers, which is not below zero.
///
/// # Safety
///
/// What the attribute points at is valid for what the command reads and writes there.
///
/// # Errors
///
/// The kernel refuses it.
pub(crate) unsafe fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<c_long> {
    let attr: *mut bpf_attr = attr;
    // SAFETY: the attribute is initialised and its size is its own; for what it points at the caller vouches.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as c_long, attr, size_of::<bpf_attr>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// [`call`] with a command that makes or opens something, and its descriptor.
///
/// # Safety
///
/// As there; and the command answers with a descriptor.
///
/// # Errors
///
/// As there.
pub(crate) unsafe fn open(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: as the caller promises.
    let descriptor = unsafe { call(command, attr) }?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}
