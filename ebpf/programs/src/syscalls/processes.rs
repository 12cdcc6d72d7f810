//! Whose syscalls are traced.

use core::mem::{MaybeUninit, size_of, transmute};

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_pidns_info;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_get_ns_current_pid_tgid};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{CgroupArray, HashMap};
use sabot_abi::{COMM_LENGTH, MAX_PROCESSES, MAX_WATCHED_CGROUPS, comm_filter_bit};

use crate::settings;

/// A process's name to the daemon's number for it.
#[map]
static PROCESSES: HashMap<Comm, u32> = HashMap::with_max_entries(MAX_PROCESSES, 0);

/// The watched cgroups; an index without a number has none, or one that is about to be replaced.
#[map]
static CGROUPS: CgroupArray = CgroupArray::with_max_entries(MAX_WATCHED_CGROUPS, 0);

/// The pid namespace of the daemon: the kernel's device number of its nsfs file, and its inode.
#[unsafe(no_mangle)]
static PID_NS_DEV: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static PID_NS_INO: Global<u64> = Global::new(0);
/// 1: it is the kernel's first one, which knows every process.
#[unsafe(no_mangle)]
static PID_NS_INITIAL: Global<u32> = Global::new(0);

/// A thread's name. The programs handle it as words: as bytes it would be loaded one by one.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Comm([u64; COMM_LENGTH / 8]);

impl Comm {
    #[inline(always)]
    pub fn current() -> Option<Self> {
        // Kernels such as 6.1 write nothing behind the name's end, and what was there would be part of the name.
        let mut comm = Self([0; COMM_LENGTH / 8]);
        // SAFETY: the helper writes no more bytes than it is told.
        let result = unsafe { bpf_get_current_comm((&raw mut comm).cast(), COMM_LENGTH as u32) };
        (result == 0).then_some(comm)
    }

    #[inline(always)]
    pub fn words(self) -> [u64; COMM_LENGTH / 8] {
        self.0
    }

    #[inline(always)]
    pub fn bytes(self) -> [u8; COMM_LENGTH] {
        // SAFETY: both are plain bytes of the same size.
        unsafe { transmute(self.0) }
    }
}

/// Who makes a call.
#[derive(Clone, Copy)]
pub struct Process {
    /// The daemon's number for the name or the cgroup.
    pub number: u32,
    pub ids: Ids,
    /// Or else by its cgroup.
    pub by_name: bool,
}

/// Pid and tid in the daemon's pid namespace; zero where that doesn't know the process.
#[derive(Clone, Copy)]
pub struct Ids {
    pub pid: u32,
    pub tid: u32,
}

/// The current thread's name, unless it surely isn't a watched process's.
///
/// This is all that the syscalls of every other process on the node pay, twice a call, so it looks up no map as long as no
/// cgroup is watched; `cargo xtask bench observe` measures it.
#[inline(always)]
pub fn maybe_watched() -> Option<Comm> {
    let comm = Comm::current()?;
    if settings::comm_filter().contains(comm_filter_bit(comm.0)) {
        return Some(comm);
    }
    if settings::cgroup_count() != 0 && cgroup().is_some() {
        return Some(comm);
    }
    None
}

/// The current process, if it is watched. A name counts before a cgroup, and only in the daemon's pid namespace; a
/// cgroup counts in all of them, since it is one node's alone.
#[inline(always)]
pub fn watched(comm: &Comm) -> Option<Process> {
    // SAFETY: the value is a number, which may be replaced at any time but not be torn.
    if let Some(&number) = unsafe { PROCESSES.get(comm) }
        && let Some(ids) = namespace_ids()
    {
        return Some(Process {
            number,
            ids,
            by_name: true,
        });
    }
    if settings::cgroup_count() == 0 {
        return None;
    }
    let number = cgroup()?;
    let ids = namespace_ids().unwrap_or_else(initial_ids);
    Some(Process {
        number,
        ids,
        by_name: false,
    })
}

/// The daemon's number for the first watched cgroup that the current thread is in or below.
#[inline(always)]
fn cgroup() -> Option<u32> {
    for index in 0..MAX_WATCHED_CGROUPS {
        if index >= settings::cgroup_count() {
            break;
        }
        let number = settings::cgroup_number(index);
        if number != 0 && CGROUPS.current_task_under_cgroup(index) == Ok(true) {
            return Some(number);
        }
    }
    None
}

/// `None` for a thread of another pid namespace.
#[inline(always)]
fn namespace_ids() -> Option<Ids> {
    let mut info = MaybeUninit::<bpf_pidns_info>::uninit();
    // SAFETY: the helper fills in the whole struct, whose size it is told, whether it succeeds or not.
    let (result, info) = unsafe {
        let result = bpf_get_ns_current_pid_tgid(
            PID_NS_DEV.load(),
            PID_NS_INO.load(),
            info.as_mut_ptr(),
            size_of::<bpf_pidns_info>() as u32,
        );
        (result, info.assume_init())
    };
    // The kernel calls a thread a pid and a process a thread group.
    (result == 0).then_some(Ids {
        pid: info.tgid,
        tid: info.pid,
    })
}

/// Of a thread of another pid namespace.
#[inline(always)]
fn initial_ids() -> Ids {
    if PID_NS_INITIAL.load() == 0 {
        return Ids { pid: 0, tid: 0 };
    }
    let ids = bpf_get_current_pid_tgid();
    Ids {
        pid: (ids >> 32) as u32,
        tid: ids as u32,
    }
}
