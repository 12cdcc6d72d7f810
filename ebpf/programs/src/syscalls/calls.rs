//! A syscall from its beginning to its end, and what is counted of it.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuHashMap;
use sabot_abi::{
    EINTR, ERESTART_FIRST, ERESTART_LAST, ErrnoKey, LATENCY_BUCKETS, MAX_ERRNO, SYSCALL_BITMAP_WORDS,
    SyscallKey, SyscallLatency, latency_bucket,
};

use crate::bitmap::Bitmap;
use crate::in_flight::{self, Call};
use crate::losses::{self, Loss};
use crate::{events, processes};

/// The daemon sets the size. Both maps are there once for each CPU, so they are kept small, and are not allocated on
/// demand, which old kernels can't do safely in a tracepoint.
#[map]
static LATENCIES: PerCpuHashMap<SyscallKey, SyscallLatency> = PerCpuHashMap::with_max_entries(1024, 0);
#[map]
static ERRNOS: PerCpuHashMap<ErrnoKey, u64> = PerCpuHashMap::with_max_entries(4096, 0);

/// Syscalls that don't return, or whose result isn't one.
#[unsafe(no_mangle)]
static UNTRACED: Bitmap<SYSCALL_BITMAP_WORDS> = Bitmap::EMPTY;

const NO_LATENCY: SyscallLatency = SyscallLatency {
    calls: 0,
    total_ns: 0,
    buckets: [0; LATENCY_BUCKETS],
};

#[inline(always)]
pub fn try_enter(id: i64) -> Result<(), Loss> {
    let Some(comm) = processes::maybe_watched() else {
        return Ok(());
    };
    // A tracer may have replaced the number by -1, which skips the call.
    let Ok(syscall) = u32::try_from(id) else {
        return Ok(());
    };
    if UNTRACED.contains(syscall) {
        return Ok(());
    }
    let Some(process) = processes::watched(&comm) else {
        return Ok(());
    };
    let Some(ids) = processes::current_ids() else {
        return Ok(());
    };
    in_flight::begin(&Call {
        start: now(),
        process,
        syscall,
        ids,
    })
}

#[inline(always)]
pub fn try_exit(result: i64) -> Result<(), Loss> {
    let Some(comm) = processes::maybe_watched() else {
        return Ok(());
    };
    let Some(call) = in_flight::end() else {
        return Ok(());
    };
    let end = now();
    let duration = end.saturating_sub(call.start);
    // Each record stands for itself: the failure to write one must not cost the others.
    if let Err(loss) = count_latency(&call, duration) {
        losses::count(loss);
    }
    let errno = errno(result);
    if let Some(errno) = errno
        && let Err(loss) = count_errno(&call, errno)
    {
        losses::count(loss);
    }
    if events::wanted(call.syscall, duration, errno) {
        events::emit(&call, comm, end, duration, result)
    } else {
        Ok(())
    }
}

/// The error that a result stands for. The kernel's own restart codes count as `EINTR`: a signal interrupted the call,
/// and whether user space sees that or the kernel starts it anew is decided later.
#[inline(always)]
fn errno(result: i64) -> Option<u32> {
    let errno = u32::try_from(result.checked_neg()?).ok()?;
    match errno {
        0 => None,
        ERESTART_FIRST..=ERESTART_LAST => Some(EINTR),
        1..=MAX_ERRNO => Some(errno),
        _ => None,
    }
}

#[inline(always)]
fn count_latency(call: &Call, duration: u64) -> Result<(), Loss> {
    let key = SyscallKey {
        process: call.process,
        syscall: call.syscall,
    };
    let latency = match LATENCIES.get_ptr_mut(key) {
        Some(latency) => latency,
        None => {
            // Another CPU may have been first; its entry is as good.
            let _ = LATENCIES.insert(key, NO_LATENCY, BPF_NOEXIST.into());
            LATENCIES.get_ptr_mut(key).ok_or(Loss::Latency)?
        }
    };
    // SAFETY: the pointer is to this CPU's value, entries are never removed, and programs on tracepoints aren't preempted.
    let latency = unsafe { &mut *latency };
    latency.calls += 1;
    latency.total_ns += duration;
    if let Some(bucket) = latency.buckets.get_mut(latency_bucket(duration)) {
        *bucket += 1;
    }
    Ok(())
}

#[inline(always)]
fn count_errno(call: &Call, errno: u32) -> Result<(), Loss> {
    let key = ErrnoKey {
        process: call.process,
        syscall: call.syscall,
        errno,
    };
    let count = match ERRNOS.get_ptr_mut(key) {
        Some(count) => count,
        None => {
            let _ = ERRNOS.insert(key, 0, BPF_NOEXIST.into());
            ERRNOS.get_ptr_mut(key).ok_or(Loss::Errno)?
        }
    };
    // SAFETY: as above.
    unsafe { *count += 1 };
    Ok(())
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}
