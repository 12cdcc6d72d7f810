//! What the syscall observer measures.

use crate::{assert_layout, pod};

/// Processes (by name) that are told apart.
pub const MAX_PROCESSES: u32 = 64;
/// Cgroups that can be watched at once.
pub const MAX_WATCHED_CGROUPS: u32 = 16;
/// Bytes of a process name, NUL-padded, as the kernel's `comm`.
pub const COMM_LENGTH: usize = 16;

/// Whose calls are measured, and which: what the daemon may change while the programs run.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallSettings {
    /// The bits of the watched names, by [`comm_filter_bit`].
    pub comm_filter: [u64; COMM_FILTER_WORDS],
    /// The numbers of the syscalls that are measured; one beyond the bitmap isn't.
    pub measured: [u64; SYSCALL_BITMAP_WORDS],
    /// The daemon's numbers for the watched cgroups, which stand in the array of cgroups at the same indices; 0: none.
    pub cgroups: [u32; MAX_WATCHED_CGROUPS as usize],
    /// One more than the last index with a number.
    pub cgroup_count: u32,
    /// Grows with each change, when everything else is written.
    pub generation: u32,
    /// 1: somebody reads every event; 0: of failures of one kind, one in [`FAILURE_INTERVAL`] is enough.
    pub streamed: u32,
    pub reserved: u32,
}
assert_layout!(
    SyscallSettings,
    size = 8 * (COMM_FILTER_WORDS + SYSCALL_BITMAP_WORDS) + 4 * MAX_WATCHED_CGROUPS as usize + 16,
    align = 8
);

impl SyscallSettings {
    /// Nothing is measured.
    pub const NONE: Self = Self {
        comm_filter: [0; COMM_FILTER_WORDS],
        measured: [0; SYSCALL_BITMAP_WORDS],
        cgroups: [0; MAX_WATCHED_CGROUPS as usize],
        cgroup_count: 0,
        generation: 0,
        streamed: 0,
        reserved: 0,
    };
}

/// While nobody reads every event, so long after an event of a failure the same process's next one of the same syscall and
/// error is none, ns.
pub const FAILURE_INTERVAL: u64 = 1_000_000_000;

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

/// A thread whose calls are measured, and the call that it is in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyscallThread {
    /// When the call began, `CLOCK_BOOTTIME` in ns; 0: the thread is in none.
    pub start: u64,
    /// The name that the thread had then, in native byte order.
    pub comm: [u64; COMM_LENGTH / 8],
    pub process: u32,
    pub syscall: u32,
    /// As the event has them.
    pub pid: u32,
    pub tid: u32,
    /// The settings' generation in which the thread was found to be watched.
    pub generation: u32,
    /// 1: by its name, which is all that has to be looked at in this generation; 0: by its cgroup, which may change.
    pub by_name: u32,
}
assert_layout!(SyscallThread, size = 48, align = 8);

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

/// Failures of one kind.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    pub count: u64,
    /// The end of the last one that was sent as an event, `CLOCK_BOOTTIME` in ns; 0: none was. Of two at once either.
    pub last_event: u64,
}
assert_layout!(Failures, size = 16, align = 8);

/// A call that was slow or failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallEvent {
    /// `CLOCK_BOOTTIME` at its end, ns.
    pub time: u64,
    pub duration_ns: u64,
    /// In the daemon's pid namespace; 0 where that doesn't know the process.
    pub pid: u32,
    pub tid: u32,
    pub process: u32,
    pub syscall: u32,
    /// The id of the thread's cgroup (v2).
    pub cgroup: u64,
    /// What the syscall returned.
    pub result: i64,
    /// The thread's own name.
    pub comm: [u8; COMM_LENGTH],
    /// As they are in the registers; zero where the call became another program.
    pub arguments: [u64; SYSCALL_ARGUMENTS],
    pub file: SyscallFile,
    /// How much of each text is written, a string's NUL included; 0: it could not be read, or there is none.
    pub text_lengths: [u32; 2],
    /// What [`SyscallDetail`] says of the call.
    pub texts: [[u8; SYSCALL_TEXT_LENGTH]; 2],
}
assert_layout!(
    SyscallEvent,
    size = 64 + 8 * SYSCALL_ARGUMENTS + 48 + 8 + 2 * SYSCALL_TEXT_LENGTH,
    align = 8
);

pub const SYSCALL_ARGUMENTS: usize = 6;
/// Bytes of a text in an event; a path that is longer is cut.
pub const SYSCALL_TEXT_LENGTH: usize = 224;

/// What a descriptor stands for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyscallFile {
    /// The inode's mode; 0: not known.
    pub mode: u32,
    /// A socket's type, as `SOCK_STREAM`; 0: no socket, or not known.
    pub socket_type: u16,
    /// A socket's address family, as `AF_INET`; 0: no socket, or not known.
    pub family: u16,
    pub local_port: u16,
    pub peer_port: u16,
    /// Whose path the second text holds: [`SYSCALL_UNIX_OWN`] or [`SYSCALL_UNIX_PEER`]; 0: no Unix socket's.
    pub unix: u32,
    /// In network order; IPv4 takes the first four bytes.
    pub local: [u8; 16],
    pub peer: [u8; 16],
}
assert_layout!(SyscallFile, size = 48, align = 4);

/// The Unix socket's own address.
pub const SYSCALL_UNIX_OWN: u32 = 1;
/// The address of the socket at the other end.
pub const SYSCALL_UNIX_PEER: u32 = 2;

/// What is read of a call that becomes an event: places of arguments, one more than their index, so that 0 means none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyscallDetail {
    /// A descriptor. It takes the second text for the file's name, or for the path of a Unix socket.
    pub file: u8,
    /// Strings, into the text of the same index.
    pub texts: [u8; 2],
    /// Memory, into the first text: a socket's address, with its length in the next argument, or, where
    /// [`SYSCALL_DETAIL_CLONE`] is set, the flags of `clone3`.
    pub memory: u8,
}
assert_layout!(SyscallDetail, size = 4, align = 1);

/// In [`SyscallDetail::memory`]: only the first eight bytes, whatever the next argument says.
pub const SYSCALL_DETAIL_CLONE: u8 = 0x80;
/// Syscalls that can have a detail.
pub const SYSCALL_DETAILS: usize = SYSCALL_BITMAP_WORDS * 64;

/// Where the kernel that is running has what the programs follow from a descriptor; bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileOffsets {
    /// Which groups below are known: [`FILE_OFFSETS_FILE`] and so on.
    pub known: u32,
    pub task_files: u32,
    pub files_fdt: u32,
    pub fdt_max_fds: u32,
    pub fdt_fd: u32,
    pub file_inode: u32,
    pub inode_mode: u32,
    pub file_dentry: u32,
    pub dentry_name: u32,
    pub file_private: u32,
    pub socket_type: u32,
    pub socket_sock: u32,
    pub sock_family: u32,
    pub sock_local_port: u32,
    pub sock_peer_port: u32,
    pub sock_local: u32,
    pub sock_peer: u32,
    pub sock_local6: u32,
    pub sock_peer6: u32,
    pub unix_address: u32,
    pub unix_peer: u32,
    pub unix_length: u32,
    pub unix_name: u32,
    pub binprm_filename: u32,
}
assert_layout!(FileOffsets, size = 96, align = 4);

/// From a descriptor to its file's type.
pub const FILE_OFFSETS_FILE: u32 = 1;
/// From a file to the last part of its path.
pub const FILE_OFFSETS_NAME: u32 = 2;
/// From a file to its socket's addresses.
pub const FILE_OFFSETS_SOCKET: u32 = 4;
/// From a socket to the paths of a Unix socket and its peer.
pub const FILE_OFFSETS_UNIX: u32 = 8;
/// From what a program is made of to its path.
pub const FILE_OFFSETS_PROGRAM: u32 = 16;

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

pod!(
    SyscallSettings,
    SyscallKey,
    SyscallThread,
    ErrnoKey,
    Failures,
    SyscallEvent,
    SyscallFile,
    SyscallDetail,
    FileOffsets
);
