//! Slow and failed calls, one by one.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use sabot_abi::{ERRNO_BITMAP_WORDS, SYSCALL_BITMAP_WORDS, SyscallEvent};

use crate::bitmap::Bitmap;
use crate::in_flight::Call;
use crate::losses::Loss;
use crate::processes::Comm;

/// The daemon sets the size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// From this duration on a call is slow, ns; 0: none is.
#[unsafe(no_mangle)]
static SLOW_THRESHOLD: Global<u64> = Global::new(0);

/// Syscalls that wait by design; they are never slow.
#[unsafe(no_mangle)]
static SLOW_EXEMPT: Bitmap<SYSCALL_BITMAP_WORDS> = Bitmap::EMPTY;

/// Errors that belong to a program's normal course (`EAGAIN` of a non-blocking socket): counted, and no event.
#[unsafe(no_mangle)]
static QUIET_ERRNO: Bitmap<ERRNO_BITMAP_WORDS> = Bitmap::EMPTY;

#[inline(always)]
pub fn wanted(syscall: u32, duration: u64, errno: Option<u32>) -> bool {
    let threshold = SLOW_THRESHOLD.load();
    let slow = threshold != 0 && duration >= threshold && !SLOW_EXEMPT.contains(syscall);
    slow || errno.is_some_and(|errno| !QUIET_ERRNO.contains(errno))
}

/// # Errors
///
/// [`Loss::Event`] when the ring is full.
#[inline(always)]
pub fn emit(call: &Call, comm: Comm, end: u64, duration: u64, result: i64) -> Result<(), Loss> {
    let mut entry = EVENTS.reserve::<SyscallEvent>(0).ok_or(Loss::Event)?;
    entry.write(SyscallEvent {
        time: end,
        duration_ns: duration,
        pid: call.ids.pid,
        tid: call.ids.tid,
        process: call.process,
        syscall: call.syscall,
        result,
        comm: comm.bytes(),
    });
    entry.submit(0);
    Ok(())
}
