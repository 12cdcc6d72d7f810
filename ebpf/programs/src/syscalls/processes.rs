//! Whose syscalls are traced.

use core::mem::{MaybeUninit, size_of, transmute};

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_pidns_info;
use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_get_ns_current_pid_tgid};
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use sabot_abi::{COMM_FILTER_WORDS, COMM_LENGTH, MAX_PROCESSES, comm_filter_bit};

use crate::bitmap::Bitmap;

/// A process's name to the daemon's number for it.
#[map]
static PROCESSES: HashMap<Comm, u32> = HashMap::with_max_entries(MAX_PROCESSES, 0);

/// The bits of the names in `PROCESSES`.
#[unsafe(no_mangle)]
static COMM_FILTER: Bitmap<COMM_FILTER_WORDS> = Bitmap::EMPTY;

/// The pid namespace of the daemon: the kernel's device number of its nsfs file, and its inode.
#[unsafe(no_mangle)]
static PID_NS_DEV: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static PID_NS_INO: Global<u64> = Global::new(0);

/// A thread's name. The programs handle it as words: as bytes it would be loaded one by one.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Comm([u64; COMM_LENGTH / size_of::<u64>()]);

impl Comm {
    #[inline(always)]
    fn current() -> Option<Self> {
        let mut comm = MaybeUninit::<Self>::uninit();
        // SAFETY: the helper fills in all the bytes, whose number it is told, or fails.
        unsafe {
            let result = bpf_get_current_comm(comm.as_mut_ptr().cast(), COMM_LENGTH as u32);
            (result == 0).then(|| comm.assume_init())
        }
    }

    #[inline(always)]
    pub fn bytes(self) -> [u8; COMM_LENGTH] {
        // SAFETY: both are plain bytes of the same size.
        unsafe { transmute(self.0) }
    }
}

/// Pid and tid in the daemon's pid namespace.
#[derive(Clone, Copy)]
pub struct Ids {
    pub pid: u32,
    pub tid: u32,
}

/// The current thread's name, unless it surely isn't a watched process's.
///
/// This is all that the syscalls of every other process on the node pay, twice a call, so it looks up no map. Measured on
/// kernel 6.18: a `getppid` of 165 ns takes 390 ns, of which the two programs take 105 ns and being traced at all the rest.
/// Looking the name up in the map at once would take 50 ns more; a watched process's call pays some 750 ns.
#[inline(always)]
pub fn maybe_watched() -> Option<Comm> {
    let comm = Comm::current()?;
    COMM_FILTER.contains(comm_filter_bit(comm.0)).then_some(comm)
}

/// The daemon's number for the process name, if it is watched.
#[inline(always)]
pub fn watched(comm: &Comm) -> Option<u32> {
    // SAFETY: entries are written once, before the programs are attached, and never removed.
    unsafe { PROCESSES.get(comm) }.copied()
}

/// `None` for a thread of another pid namespace.
#[inline(always)]
pub fn current_ids() -> Option<Ids> {
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
