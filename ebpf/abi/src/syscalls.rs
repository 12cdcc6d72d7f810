//! What the syscall observer measures.

use crate::{assert_layout, pod};

/// Processes (by name) that are told apart.
pub const MAX_PROCESSES: u32 = 64;
/// Bytes of a process name, NUL-padded, as the kernel's `comm`.
pub const COMM_LENGTH: usize = 16;
/// Buckets of a latency histogram; bucket `i` counts durations below `1 << (i + LATENCY_SHIFT)` ns, the last one all others.
pub const LATENCY_BUCKETS: usize = 24;
/// Log2 of the first bucket's bound in ns: 1.024 us.
pub const LATENCY_SHIFT: u32 = 10;

/// Key of a (process name, syscall) pair.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SyscallKey {
    /// Index of the process name, as the daemon numbered it.
    pub process: u32,
    /// The syscall's number on this architecture.
    pub syscall: u32,
}
assert_layout!(SyscallKey, size = 8, align = 4);

/// Latencies of a (process name, syscall) pair.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallLatency {
    pub calls: u64,
    pub total_ns: u64,
    pub buckets: [u64; LATENCY_BUCKETS],
}
assert_layout!(SyscallLatency, size = 16 + 8 * LATENCY_BUCKETS, align = 8);

/// Key of an error count.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrnoKey {
    pub process: u32,
    pub syscall: u32,
    /// Positive.
    pub errno: u32,
}
assert_layout!(ErrnoKey, size = 12, align = 4);

/// A call that was slow or failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyscallEvent {
    /// `CLOCK_BOOTTIME` at its end, ns.
    pub time: u64,
    pub duration_ns: u64,
    /// In the daemon's pid namespace.
    pub pid: u32,
    pub tid: u32,
    pub process: u32,
    pub syscall: u32,
    /// What the syscall returned.
    pub result: i64,
    pub comm: [u8; COMM_LENGTH],
}
assert_layout!(SyscallEvent, size = 56, align = 8);

/// Words of a bitmap over syscall numbers; numbers beyond it are in no such set.
pub const SYSCALL_BITMAP_WORDS: usize = 8;
/// Words of a bitmap over errno values; values beyond it are in no such set.
pub const ERRNO_BITMAP_WORDS: usize = 4;
/// Words of the bitmap that answers for most process names that they aren't traced.
pub const COMM_FILTER_WORDS: usize = 16;

/// The first and the last of the codes by which the kernel tells itself to restart or to interrupt a syscall
/// (`ERESTARTSYS` to `ERESTART_RESTARTBLOCK`, without the sign). User space sees a restart or `EINTR` instead of them.
pub const ERESTART_FIRST: u32 = 512;
pub const ERESTART_LAST: u32 = 516;
pub const EINTR: u32 = 4;
/// The largest errno that a syscall's result can hold.
pub const MAX_ERRNO: u32 = 4095;

/// Index into the per-CPU array of what the syscall programs could not record: events, for want of room in the ring.
pub const SYSCALL_LOSS_EVENT: u32 = 0;
/// Calls that were not measured at all, for want of room for their start.
pub const SYSCALL_LOSS_IN_FLIGHT: u32 = 1;
/// Calls that are in no histogram, for want of room for their pair.
pub const SYSCALL_LOSS_LATENCY: u32 = 2;
/// Failures that are in no count, for want of room for their key.
pub const SYSCALL_LOSS_ERRNO: u32 = 3;
pub const SYSCALL_LOSS_COUNT: u32 = 4;

/// Names of the losses, by index.
pub const SYSCALL_LOSS_NAMES: [&str; SYSCALL_LOSS_COUNT as usize] =
    ["event", "in_flight", "latency", "errno"];

/// The bit of a process name, as two words in native byte order, in a bitmap of [`COMM_FILTER_WORDS`]. A name whose bit
/// is clear is not in the set; one whose bit is set may be.
#[inline(always)]
pub const fn comm_filter_bit(comm: [u64; 2]) -> u32 {
    let [first, last] = comm;
    // Fibonacci hashing: the product's highest bits depend on every bit of the name.
    let product = (first ^ last.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product >> (u64::BITS - COMM_FILTER_BITS)) as u32
}
const COMM_FILTER_BITS: u32 = (COMM_FILTER_WORDS as u32 * u64::BITS).ilog2();
const _: () = assert!(1 << COMM_FILTER_BITS == COMM_FILTER_WORDS * u64::BITS as usize);

/// The bucket of a duration.
#[inline(always)]
pub const fn latency_bucket(duration_ns: u64) -> usize {
    // The number of significant bits is the first power of two above the duration.
    let bits = u64::BITS - duration_ns.leading_zeros();
    let bucket = bits.saturating_sub(LATENCY_SHIFT) as usize;
    if bucket < LATENCY_BUCKETS {
        bucket
    } else {
        LATENCY_BUCKETS - 1
    }
}
const _: () = assert!(latency_bucket(0) == 0 && latency_bucket(1023) == 0 && latency_bucket(1024) == 1);
const _: () = assert!(latency_bucket(u64::MAX) == LATENCY_BUCKETS - 1);

pod!(SyscallKey, SyscallLatency, ErrnoKey, SyscallEvent);
