//! Syscalls that have begun and not ended.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;

use crate::losses::Loss;
use crate::processes::Ids;

/// By thread, as the kernel's initial pid namespace numbers it: tgid in the upper half, tid in the lower one. Room
/// for the threads of a full node: some 250 shims with a dozen threads each, and as much again. Every entry is removed by the call's end, by the thread's end or by an exec, so none is ever left behind.
#[map]
static IN_FLIGHT: HashMap<u64, Call> = HashMap::with_max_entries(16_384, 0);

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// `CLOCK_BOOTTIME`, ns.
    pub start: u64,
    pub process: u32,
    pub syscall: u32,
    pub ids: Ids,
}

/// # Errors
///
/// [`Loss::InFlight`] when the table is full.
#[inline(always)]
pub fn begin(call: &Call) -> Result<(), Loss> {
    IN_FLIGHT
        .insert(bpf_get_current_pid_tgid(), call, 0)
        .map_err(|_| Loss::InFlight)
}

/// The current thread's call, which has now ended. `None` for one that isn't traced.
#[inline(always)]
pub fn end() -> Option<Call> {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread writes or removes its own entry, and it is here.
    let call = unsafe { IN_FLIGHT.get(thread) }.copied()?;
    // It was there a moment ago, so that it can't fail.
    let _ = IN_FLIGHT.remove(thread);
    Some(call)
}

#[inline(always)]
pub fn forget() {
    // Most threads have no call in flight; nothing is lost then.
    let _ = IN_FLIGHT.remove(bpf_get_current_pid_tgid());
}

/// `old_tid` is the thread's id before the exec, in the initial pid namespace.
#[inline(always)]
pub fn forget_before_exec(old_tid: i32) {
    let group = bpf_get_current_pid_tgid() & !u64::from(u32::MAX);
    let _ = IN_FLIGHT.remove(group | u64::from(old_tid as u32));
}
