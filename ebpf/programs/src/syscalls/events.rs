//! Slow and failed calls, one by one.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use sabot_abi::{
    ERRNO_BITMAP_WORDS, FAILURE_INTERVAL, Failures, SYSCALL_ARGUMENTS, SYSCALL_BITMAP_WORDS, SyscallEvent,
    SyscallFile,
};

use crate::bitmap::Bitmap;
use crate::details;
use crate::files;
use crate::losses::Loss;
use crate::processes::Comm;
use crate::settings;
use crate::threads::Call;
use crate::waking;

/// The daemon sets the size.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(512 * 1024, 0);

/// From this duration on a call is slow, ns; 0: none is.
#[unsafe(no_mangle)]
static SLOW_THRESHOLD: Global<u64> = Global::new(0);

/// Syscalls that wait by design; they are never slow.
#[unsafe(no_mangle)]
static SLOW_EXEMPT: Bitmap<SYSCALL_BITMAP_WORDS> = Bitmap::EMPTY;

/// Errors that belong to a program's normal course (`EAGAIN` of a non-blocking socket): counted, and no event.
#[unsafe(no_mangle)]
static QUIET_ERRNO: Bitmap<ERRNO_BITMAP_WORDS> = Bitmap::EMPTY;

/// A call that has ended.
pub struct Ended<'a> {
    pub call: &'a Call,
    pub comm: Comm,
    pub end: u64,
    pub duration: u64,
    pub result: i64,
    pub source: Source,
}

/// Where the kernel has what an event says of a call.
#[derive(Clone, Copy)]
pub enum Source {
    /// The address of the thread's registers, which still hold the arguments.
    Registers(u64),
    /// The address of what the thread's new program is made of.
    Program(u64),
}

/// What a call ended with that failed.
pub struct Failure {
    pub errno: u32,
    /// All of its kind; `None` when there is no room to count them.
    pub alike: Option<*mut Failures>,
}

/// A slow call always is; a failed one while somebody reads every event, or as the first of its kind for a while.
#[inline(always)]
pub fn wanted(syscall: u32, duration: u64, end: u64, failure: Option<Failure>) -> bool {
    let threshold = SLOW_THRESHOLD.load();
    let slow = threshold != 0 && duration >= threshold && !SLOW_EXEMPT.contains(syscall);
    slow || failure.is_some_and(|failure| {
        !QUIET_ERRNO.contains(failure.errno) && (settings::is_streamed() || is_first(&failure, end))
    })
}

#[inline(always)]
fn is_first(failure: &Failure, end: u64) -> bool {
    let Some(alike) = failure.alike else {
        return false;
    };
    // SAFETY: the pointer is to a value of the map, and the word is only ever read and written as a whole.
    unsafe {
        let last = &raw mut (*alike).last_event;
        let before = last.read_volatile();
        let is_first = before == 0 || end >= before.saturating_add(FAILURE_INTERVAL);
        if is_first {
            last.write_volatile(end);
        }
        is_first
    }
}

/// # Errors
///
/// [`Loss::Event`] when the ring is full.
#[inline(always)]
pub fn emit(ended: &Ended<'_>) -> Result<(), Loss> {
    let mut entry = EVENTS.reserve::<SyscallEvent>(0).ok_or(Loss::Event)?;
    // The event is larger than the programs' stack, so that it is written where it is to be.
    let event = entry.as_mut_ptr();
    // SAFETY: the pointer is to an event in the ring, which nobody else sees before it is submitted. The texts beyond their
    // lengths stay as the ring had them.
    unsafe {
        (&raw mut (*event).time).write(ended.end);
        (&raw mut (*event).duration_ns).write(ended.duration);
        (&raw mut (*event).pid).write(ended.call.pid);
        (&raw mut (*event).tid).write(ended.call.tid);
        (&raw mut (*event).process).write(ended.call.process);
        (&raw mut (*event).syscall).write(ended.call.syscall);
        (&raw mut (*event).cgroup).write(bpf_get_current_cgroup_id());
        (&raw mut (*event).result).write(ended.result);
        (&raw mut (*event).comm).write(ended.comm.bytes());
        (&raw mut (*event).arguments).write([0; SYSCALL_ARGUMENTS]);
        (&raw mut (*event).file).write(SyscallFile::default());
        (&raw mut (*event).text_lengths).write([0; 2]);
        match ended.source {
            Source::Registers(registers) => details::read(&mut *event, registers, ended.call.syscall),
            Source::Program(program) => files::program(&mut *event, program),
        }
    }
    entry.submit(waking::flags(&EVENTS));
    Ok(())
}
