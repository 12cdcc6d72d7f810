//! A syscall from its beginning to its end, and what is counted of it.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use sabot_abi::{
    EINTR, ERESTART_FIRST, ERESTART_LAST, ErrnoKey, Failures, HISTOGRAM_BUCKETS, Histogram, MAX_ERRNO,
    SyscallKey, log_linear_bucket,
};

use crate::events::{Ended, Failure, Source};
use crate::losses::{self, Loss};
use crate::processes::Comm;
use crate::threads::Call;
use crate::{events, processes, settings, threads};

/// One for all CPUs: a histogram is large, and a node may have many CPUs. Two CPUs seldom count in one bucket at once.
/// Not allocated on demand, which old kernels can't do safely in a tracepoint. The daemon sets the sizes, and removes the
/// entries of names that are no longer watched once nobody can hold one.
#[map]
static LATENCIES: HashMap<SyscallKey, Histogram> = HashMap::with_max_entries(1024, 0);
#[map]
static ERRNOS: HashMap<ErrnoKey, Failures> = HashMap::with_max_entries(4096, 0);

static NO_LATENCY: Histogram = Histogram::EMPTY;
const NO_FAILURES: Failures = Failures {
    count: 0,
    last_event: 0,
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
    if !settings::measured().contains(syscall) {
        return Ok(());
    }
    threads::begin(&comm, syscall, now)
}

/// `registers` is the address of the thread's own, which still hold the arguments.
#[inline(always)]
pub fn try_exit(registers: u64, result: i64) -> Result<(), Loss> {
    let Some(comm) = processes::maybe_watched() else {
        return Ok(());
    };
    let Some(call) = threads::end(&comm) else {
        return Ok(());
    };
    record(&call, comm, result, Source::Registers(registers))
}

/// `program` is the address of the `struct linux_binprm`.
#[inline(always)]
pub fn try_exec(old_tid: i32, program: u64) -> Result<(), Loss> {
    let Some(call) = threads::end_before_exec(old_tid) else {
        return Ok(());
    };
    let Some(comm) = Comm::current() else {
        return Ok(());
    };
    // The registers are the new program's.
    record(&call, comm, 0, Source::Program(program))
}

#[inline(always)]
fn record(call: &Call, comm: Comm, result: i64, source: Source) -> Result<(), Loss> {
    let end = now();
    let duration = end.saturating_sub(call.start);
    // Each record stands for itself: the failure to write one must not cost the others.
    if let Err(loss) = count_latency(call, duration) {
        losses::count(loss);
    }
    let failure = errno(result).map(|errno| Failure {
        errno,
        alike: count_errno(call, errno)
            .inspect_err(|&loss| losses::count(loss))
            .ok(),
    });
    if events::wanted(call.syscall, duration, end, failure) {
        events::emit(&Ended {
            call,
            comm,
            end,
            duration,
            result,
            source,
        })
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
            // By reference: it is larger than the programs' stack.
            let nothing: &'static Histogram = &NO_LATENCY;
            let _ = LATENCIES.insert(key, nothing, BPF_NOEXIST.into());
            LATENCIES.get_ptr_mut(key).ok_or(Loss::Latency)?
        }
    };
    // The function promises it, which the verifier doesn't know.
    let bucket = log_linear_bucket(duration);
    if bucket < HISTOGRAM_BUCKETS {
        // SAFETY: the pointer is to a value of the map, the index is within it, and all writers add atomically.
        unsafe {
            add(&raw mut (*latency).sum, duration);
            add((&raw mut (*latency).buckets).cast::<u64>().add(bucket), 1);
        }
    }
    Ok(())
}

/// Returns the count of failures of this kind, in which this one is.
#[inline(always)]
fn count_errno(call: &Call, errno: u32) -> Result<*mut Failures, Loss> {
    let key = ErrnoKey {
        process: call.process,
        syscall: call.syscall,
        errno,
    };
    let failures = match ERRNOS.get_ptr_mut(key) {
        Some(failures) => failures,
        None => {
            let _ = ERRNOS.insert(key, NO_FAILURES, BPF_NOEXIST.into());
            ERRNOS.get_ptr_mut(key).ok_or(Loss::Errno)?
        }
    };
    // SAFETY: the pointer is to a value of the map, and all writers add atomically.
    unsafe { add(&raw mut (*failures).count, 1) };
    Ok(failures)
}

/// The form that hands no value back, which every kernel has.
///
/// # Safety
///
/// `total` points to an aligned `u64` that is only ever written atomically.
#[inline(always)]
unsafe fn add(total: *mut u64, value: u64) {
    // SAFETY: the word is valid, as the caller promises, and the instruction changes nothing else.
    unsafe {
        asm!(
            "lock *(u64 *)({total} + 0) += {value}",
            total = in(reg) total,
            value = in(reg) value,
            options(nostack),
        );
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}
