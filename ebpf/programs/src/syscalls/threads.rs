//! The threads whose calls are measured, and the calls that they are in.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use sabot_abi::SyscallThread;

use crate::losses::Loss;
use crate::processes::{self, Comm};
use crate::settings;

/// By thread, as the kernel's initial pid namespace numbers it: tgid in the upper half, tid in the lower one. Room
/// for the threads of a full node: some 250 shims with a dozen threads each, and as much again. An entry stays from the
/// thread's first call until its end or an exec, since to add and to remove one costs more than the rest of a call.
#[map]
static THREADS: HashMap<u64, SyscallThread> = HashMap::with_max_entries(16_384, 0);

/// A call that has ended.
#[derive(Clone, Copy)]
pub struct Call {
    pub start: u64,
    pub process: u32,
    pub syscall: u32,
    pub pid: u32,
    pub tid: u32,
}

/// Notes that the current thread's call begins, if the thread is watched.
///
/// # Errors
///
/// [`Loss::InFlight`] when the table is full.
#[inline(always)]
pub fn begin(comm: &Comm, syscall: u32, now: impl FnOnce() -> u64) -> Result<(), Loss> {
    let id = bpf_get_current_pid_tgid();
    let generation = settings::generation();
    // SAFETY: only this thread writes its entry, it is here, and nobody else removes it.
    let known = unsafe { THREADS.get_ptr_mut(id).map(|thread| &mut *thread) };
    if let Some(thread) = known {
        if thread.by_name != 0 && thread.generation == generation && thread.comm == comm.words() {
            thread.syscall = syscall;
            thread.start = now();
            return Ok(());
        }
        // Where the thread isn't watched any more, it stays so.
        thread.start = 0;
    }
    let Some(process) = processes::watched(comm) else {
        return Ok(());
    };
    let thread = SyscallThread {
        start: now(),
        comm: comm.words(),
        process: process.number,
        syscall,
        pid: process.ids.pid,
        tid: process.ids.tid,
        generation,
        by_name: u32::from(process.by_name),
    };
    THREADS.insert(id, thread, 0).map_err(|_| Loss::InFlight)
}

/// The current thread's call, which has now ended. `None` for one that isn't measured, or not any more.
#[inline(always)]
pub fn end(comm: &Comm) -> Option<Call> {
    // SAFETY: as above.
    let thread = unsafe { &mut *THREADS.get_ptr_mut(bpf_get_current_pid_tgid())? };
    if thread.start == 0 {
        return None;
    }
    let call = Call::of(thread);
    thread.start = 0;
    is_current(thread, comm).then_some(call)
}

/// The same for the thread that becomes another program; `old_tid` is its id before that, in the initial pid namespace.
#[inline(always)]
pub fn end_before_exec(old_tid: i32) -> Option<Call> {
    let group = bpf_get_current_pid_tgid() & !u64::from(u32::MAX);
    let id = group | u64::from(old_tid as u32);
    // SAFETY: as above; the thread is this one.
    let thread = unsafe { THREADS.get(id) }.copied()?;
    // It was there a moment ago, so that it can't fail.
    let _ = THREADS.remove(id);
    // Its name is gone, so that it can't be looked for in new settings.
    (thread.start != 0 && thread.generation == settings::generation()).then(|| Call::of(&thread))
}

#[inline(always)]
pub fn forget() {
    // Most threads have no entry; nothing is lost then.
    let _ = THREADS.remove(bpf_get_current_pid_tgid());
}

/// Whether the call's counters are still wanted: the daemon may have changed the settings while it lasted.
#[inline(always)]
fn is_current(thread: &SyscallThread, comm: &Comm) -> bool {
    if thread.generation == settings::generation() {
        return true;
    }
    let number = processes::watched(comm).map(|process| process.number);
    number == Some(thread.process) && settings::measured().contains(thread.syscall)
}

impl Call {
    #[inline(always)]
    fn of(thread: &SyscallThread) -> Self {
        Self {
            start: thread.start,
            process: thread.process,
            syscall: thread.syscall,
            pid: thread.pid,
            tid: thread.tid,
        }
    }
}
