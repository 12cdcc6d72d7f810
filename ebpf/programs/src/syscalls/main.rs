//! Latencies and failures of the syscalls that watched processes make.
//!
//! `sys_enter` notes when a thread of a watched process went into the kernel, `sys_exit` measures how long it was there.
//! A process is watched by its name, in the daemon's own pid namespace only: where several nodes share a kernel, each
//! node's daemon sees its own node's kubelet. Or it is watched by a cgroup that it is in or below.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod bitmap;
mod calls;
mod details;
mod events;
mod files;
mod losses;
mod processes;
mod settings;
mod threads;

#[path = "../common/waking.rs"]
mod waking;

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;

/// A traced syscall begins: `(struct pt_regs *regs, long id)`.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(context: RawTracePointContext) -> i32 {
    finish(calls::try_enter(context.arg::<i64>(1)))
}

/// A syscall ends: `(struct pt_regs *regs, long ret)`.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(context: RawTracePointContext) -> i32 {
    finish(calls::try_exit(context.arg::<u64>(0), context.arg::<i64>(1)))
}

/// A thread became another program: `(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`. Its `execve`
/// goes on to end under another name, and under another tid where it wasn't the group's leader: it is counted here, as
/// the call of the program that made it.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(context: RawTracePointContext) -> i32 {
    finish(calls::try_exec(context.arg::<i32>(1), context.arg::<u64>(2)))
}

/// A thread is gone, and perhaps a call with it whose end nobody saw, since the thread was renamed meanwhile:
/// `(struct task_struct *p)`.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(_context: RawTracePointContext) -> i32 {
    threads::forget();
    0
}

/// Observation never changes what it observes: whatever went wrong is counted, and the syscall goes on.
fn finish(result: Result<(), losses::Loss>) -> i32 {
    if let Err(loss) = result {
        losses::count(loss);
    }
    0
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
