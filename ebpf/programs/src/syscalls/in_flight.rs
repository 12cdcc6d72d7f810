//! Syscalls that have begun and not ended.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use sabot_abi::SyscallInFlight;

use crate::losses::Loss;

/// By thread, as the kernel's initial pid namespace numbers it: tgid in the upper half, tid in the lower one. Room
/// for the threads of a full node: some 250 shims with a dozen threads each, and as much again. Every entry is removed by
/// the call's end, by the thread's end or by an exec, so none is ever left behind.
#[map]
static IN_FLIGHT: HashMap<u64, SyscallInFlight> = HashMap::with_max_entries(16_384, 0);

/// # Errors
///
/// [`Loss::InFlight`] when the table is full.
#[inline(always)]
pub fn begin(call: &SyscallInFlight) -> Result<(), Loss> {
    IN_FLIGHT
        .insert(bpf_get_current_pid_tgid(), call, 0)
        .map_err(|_| Loss::InFlight)
}

/// The current thread's call, which has now ended. `None` for one that isn't measured.
#[inline(always)]
pub fn end() -> Option<SyscallInFlight> {
    take(bpf_get_current_pid_tgid())
}

/// The same for the thread that becomes another program; `old_tid` is its id before that, in the initial pid namespace.
#[inline(always)]
pub fn end_before_exec(old_tid: i32) -> Option<SyscallInFlight> {
    let group = bpf_get_current_pid_tgid() & !u64::from(u32::MAX);
    take(group | u64::from(old_tid as u32))
}

#[inline(always)]
fn take(thread: u64) -> Option<SyscallInFlight> {
    // SAFETY: only this thread writes its own entry, and it is here; the daemon removes it whole.
    let call = unsafe { IN_FLIGHT.get(thread) }.copied()?;
    // Where the daemon has removed it meanwhile, the call's process is no longer watched.
    IN_FLIGHT.remove(thread).ok()?;
    Some(call)
}

#[inline(always)]
pub fn forget() {
    // Most threads have no call in flight; nothing is lost then.
    let _ = IN_FLIGHT.remove(bpf_get_current_pid_tgid());
}
