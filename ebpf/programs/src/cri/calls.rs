//! The system call by which data went through a socket, and where it has its data.

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_ktime_get_boot_ns, bpf_task_pt_regs};
use sabot_abi::{CRI_ANSWER, CRI_CLOSED};

use crate::chunks::{self, Data, Transfer};
use crate::losses::Lost;
use crate::sockets;

// Offsets in the kernel's `struct pt_regs`: the call's number, its second and its third argument.
#[unsafe(no_mangle)]
static REGS_NUMBER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static REGS_SECOND: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static REGS_THIRD: Global<u32> = Global::new(0);

// Numbers of calls.
#[unsafe(no_mangle)]
static NUMBER_READ: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NUMBER_WRITE: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NUMBER_READV: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NUMBER_WRITEV: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NUMBER_RECVFROM: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NUMBER_SENDTO: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NUMBER_RECVMSG: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static NUMBER_SENDMSG: Global<u32> = Global::new(0);

/// `result` is how much went through, or an error; `kind` is one of `CRI_*`.
///
/// # Errors
///
/// When it can't be recorded.
#[inline(always)]
pub fn try_transfer(sock: u64, result: i32, kind: u32) -> Result<(), Lost> {
    /// The runtime has closed the connection before it read everything.
    const ECONNRESET: i32 = 104;
    let is_end = kind == CRI_ANSWER && (result == 0 || result == -ECONNRESET);
    if result <= 0 && !is_end {
        return Ok(());
    }
    let Some(connection) = sockets::connection(sock) else {
        return Ok(());
    };
    let transfer = Transfer {
        time: now(),
        connection,
        kind: if is_end { CRI_CLOSED } else { kind },
        total: if is_end { 0 } else { result as u32 },
    };
    let data = if is_end { None } else { data() };
    chunks::record(&transfer, data.unwrap_or(Data::Unknown))
}

/// `None` for a call whose arguments aren't known, as those of io_uring.
#[inline(always)]
fn data() -> Option<Data> {
    // SAFETY: both helpers only look up what belongs to the current task.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf().cast()) } as u64;
    let number = sockets::read::<u32>(registers, &REGS_NUMBER)?;
    let second = sockets::read::<u64>(registers, &REGS_SECOND)?;
    let is =
        |number: u32, one: &Global<u32>, other: &Global<u32>| number == one.load() || number == other.load();
    if is(number, &NUMBER_READ, &NUMBER_WRITE) || is(number, &NUMBER_RECVFROM, &NUMBER_SENDTO) {
        Some(Data::Buffer(second))
    } else if is(number, &NUMBER_READV, &NUMBER_WRITEV) {
        let count = sockets::read::<u64>(registers, &REGS_THIRD)?;
        Some(Data::Vector(second, count))
    } else if is(number, &NUMBER_RECVMSG, &NUMBER_SENDMSG) {
        /// Bytes of a `struct msghdr` before its vector and its length.
        const VECTOR: u64 = 16;
        // SAFETY: the helper checks the address.
        let [vector, count] = unsafe { bpf_probe_read_user((second + VECTOR) as *const [u64; 2]) }.ok()?;
        Some(Data::Vector(vector, count))
    } else {
        None
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}
