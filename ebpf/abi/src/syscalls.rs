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

pod!(SyscallKey, SyscallLatency, ErrnoKey, SyscallEvent);
