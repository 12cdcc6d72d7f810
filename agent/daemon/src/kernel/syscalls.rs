//! Loads the `syscalls` object, tells it whose calls to measure, and reads its maps.

mod layout;
mod watch;

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::programs::{ProgramError, RawTracePoint};
use aya::{Ebpf, EbpfLoader};
use nix::sys::stat::{major, minor};
use sabot_abi::{
    COMM_LENGTH, ERRNO_BITMAP_WORDS, ErrnoKey, Failures, Histogram, MAX_PROCESSES, MAX_WATCHED_CGROUPS,
    SYSCALL_BITMAP_WORDS, SYSCALL_LOSS_COUNT, SyscallDetail, SyscallKey, SyscallThread,
};

pub use self::watch::Watch;
use self::watch::{WatchMaps, bitmap, missing_is_fine, wait_for_programs};
use super::btf::BtfError;
use super::object::{Named, ObjectError};
use super::verified;

const SYSCALLS: Named = Named("syscalls");

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/syscalls"));

/// The programs' tracepoints. The ends of calls come before their beginning, so that no call is left open.
const PROGRAMS: [&str; 4] = [
    "sched_process_exit",
    "sched_process_exec",
    "sys_exit",
    "sys_enter",
];

const PID_NAMESPACE: &str = "/proc/self/ns/pid";

/// The first pid namespace's inode, which the kernel has fixed.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Room for latencies of (name, syscall) pairs, on all CPUs together: some three megabytes. A Go program makes some 80
/// different syscalls, a short-lived plugin 40.
const LATENCIES: u32 = 4096;
/// Room for (name, syscall, error) triples.
const ERRNOS: u32 = 8192;

/// A process name as the kernel has it: at most 15 bytes, NUL-padded.
pub type Comm = [u8; COMM_LENGTH];

/// What the programs are told before they are loaded.
#[derive(Clone, Debug)]
pub struct SyscallProgramConfig {
    /// What is watched at first.
    pub watch: Watch,
    /// From this duration on a call is slow, ns; 0: none is.
    pub slow_threshold_ns: u64,
    /// Numbers of syscalls that are never slow.
    pub slow_exempt: Vec<u32>,
    /// Errors that are counted but make no event.
    pub quiet_errnos: Vec<u32>,
    /// What events say of a syscall, by its number.
    pub details: Vec<(u32, SyscallDetail)>,
    /// The size of the ring of events: a power of two, at least a page.
    pub ring_bytes: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum SyscallProgramError {
    #[error("{0} process names are to be watched; the programs tell at most {MAX_PROCESSES} apart")]
    TooManyProcesses(usize),
    #[error("{0} cgroups are to be watched; the programs tell at most {MAX_WATCHED_CGROUPS} apart")]
    TooManyCgroups(usize),
    #[error("{PID_NAMESPACE} can't be read: {0}")]
    PidNamespace(#[source] io::Error),
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// The programs, attached unless told otherwise, until this is dropped.
pub struct SyscallPrograms {
    watch: Mutex<WatchMaps>,
    counters: Mutex<Counters>,
    losses: PerCpuArray<MapData, u64>,
    attached: Mutex<Attached>,
    missing: Vec<BtfError>,
}

struct Counters {
    latencies: HashMap<MapData, SyscallKey, Histogram>,
    errnos: HashMap<MapData, ErrnoKey, Failures>,
}

/// What attaching and detaching change.
struct Attached {
    threads: HashMap<MapData, u64, SyscallThread>,
    object: Ebpf,
    links: Vec<(&'static str, RawTracePointLinkId)>,
}

impl SyscallPrograms {
    /// Loads and attaches the programs; returns them and the ring of [`sabot_abi::SyscallEvent`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses the object (no privilege, no raw tracepoints) or a map or program is not as expected.
    pub fn attach(config: &SyscallProgramConfig) -> Result<(Self, RingBuf<MapData>), SyscallProgramError> {
        config.watch.check()?;
        let (mut object, missing) = load(config)?;
        let mut watch = WatchMaps::new(&mut object)?;
        watch.replace(&config.watch)?;
        let events = SYSCALLS.take(&mut object, "EVENTS")?;
        let programs = Self {
            watch: Mutex::new(watch),
            counters: Mutex::new(Counters {
                latencies: SYSCALLS.take(&mut object, "LATENCIES")?,
                errnos: SYSCALLS.take(&mut object, "ERRNOS")?,
            }),
            losses: SYSCALLS.take(&mut object, "LOSSES")?,
            attached: Mutex::new(Attached {
                threads: SYSCALLS.take(&mut object, "THREADS")?,
                object: load_all(object)?,
                links: Vec::new(),
            }),
            missing,
        };
        programs.set_attached(true)?;
        Ok((programs, events))
    }

    /// What this kernel doesn't tell of its files and sockets, so that events lack it.
    pub fn missing(&self) -> &[BtfError] {
        &self.missing
    }

    /// Replaces what is watched. What is no longer watched leaves no counter behind. Waits for the kernel for some
    /// milliseconds.
    ///
    /// # Errors
    ///
    /// When there is too much of it or the kernel refuses; what was watched before is watched then.
    pub fn set_watch(&self, watch: &Watch) -> Result<(), SyscallProgramError> {
        watch.check()?;
        let mut maps = lock(&self.watch);
        maps.replace(watch)?;
        // From here on every program sees the new settings, and counts nothing for what went.
        wait_for_programs();
        lock(&self.counters).retain(|number, syscall| watch.measures(number, syscall))
    }

    /// Whether every event is read by somebody; otherwise few failures of a kind become one. In force at once.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; nothing has changed then.
    pub fn set_streamed(&self, streamed: bool) -> Result<(), SyscallProgramError> {
        lock(&self.watch).set_streamed(streamed)
    }

    /// Takes the programs off their tracepoints, or puts them back; what they have counted stays. Waits for the kernel for
    /// some milliseconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; some of the programs may have changed their state then.
    pub fn set_attached(&self, wanted: bool) -> Result<(), SyscallProgramError> {
        let mut attached = lock(&self.attached);
        if wanted {
            attached.attach()
        } else {
            attached.detach()
        }
    }

    /// Latencies so far.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn latencies(&self) -> Result<Vec<(SyscallKey, Histogram)>, SyscallProgramError> {
        lock(&self.counters)
            .latencies
            .iter()
            .collect::<Result<_, _>>()
            .map_err(|source| SyscallProgramError::map("LATENCIES", source))
    }

    /// Failures so far.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn errnos(&self) -> Result<Vec<(ErrnoKey, u64)>, SyscallProgramError> {
        lock(&self.counters)
            .errnos
            .iter()
            .map(|entry| entry.map(|(key, failures)| (key, failures.count)))
            .collect::<Result<_, _>>()
            .map_err(|source| SyscallProgramError::map("ERRNOS", source))
    }

    /// Calls that have begun and not ended.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn in_flight(&self) -> Result<usize, SyscallProgramError> {
        let watch = lock(&self.watch).current().clone();
        lock(&self.attached)
            .threads
            .iter()
            .try_fold(0, |count, entry| {
                entry.map(|(_, thread)| {
                    let is_in_call = thread.start != 0 && watch.measures(thread.process, thread.syscall);
                    count + usize::from(is_in_call)
                })
            })
            .map_err(|source| SyscallProgramError::map("THREADS", source))
    }

    /// What could not be recorded so far, by [`sabot_abi::SYSCALL_LOSS_NAMES`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn losses(&self) -> Result<[u64; SYSCALL_LOSS_COUNT as usize], SyscallProgramError> {
        let mut losses = [0; SYSCALL_LOSS_COUNT as usize];
        for (index, loss) in (0u32..).zip(&mut losses) {
            *loss = self
                .losses
                .get(&index, 0)
                .map_err(|source| SyscallProgramError::map("LOSSES", source))?
                .iter()
                .sum();
        }
        Ok(losses)
    }
}

impl SyscallProgramError {
    fn map(map: &'static str, source: MapError) -> Self {
        SYSCALLS.map(map)(source).into()
    }

    fn program(program: &'static str, source: ProgramError) -> Self {
        SYSCALLS.program(program, source).into()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(config: &SyscallProgramConfig) -> Result<(Ebpf, Vec<BtfError>), SyscallProgramError> {
    let (dev, ino) = pid_namespace().map_err(SyscallProgramError::PidNamespace)?;
    let exempt: [u64; SYSCALL_BITMAP_WORDS] = bitmap(config.slow_exempt.iter().copied());
    let quiet: [u64; ERRNO_BITMAP_WORDS] = bitmap(config.quiet_errnos.iter().copied());
    let details = layout::details(&config.details);
    let (offsets, missing) = layout::file_offsets(PROGRAMS).map_err(ObjectError::from)?;
    let object = EbpfLoader::new()
        .override_global("PID_NS_DEV", &dev, true)
        .override_global("PID_NS_INO", &ino, true)
        .override_global("PID_NS_INITIAL", &u32::from(ino == INITIAL_PID_NAMESPACE), true)
        .override_global("SLOW_EXEMPT", &exempt[..], true)
        .override_global("QUIET_ERRNO", &quiet[..], true)
        .override_global("SLOW_THRESHOLD", &config.slow_threshold_ns, true)
        .override_global("ARGUMENT_OFFSETS", &layout::ARGUMENT_OFFSETS[..], true)
        .override_global("DETAILS", &details[..], true)
        .override_global("FILE_OFFSETS", &offsets, true)
        .map_max_entries("LATENCIES", LATENCIES)
        .map_max_entries("ERRNOS", ERRNOS)
        .map_max_entries("EVENTS", config.ring_bytes)
        .load(OBJECT)
        .map_err(|source| SYSCALLS.load(source))?;
    Ok((object, missing))
}

impl Counters {
    /// Removes the counters of pairs that `keep` doesn't want.
    fn retain(&mut self, keep: impl Fn(u32, u32) -> bool) -> Result<(), SyscallProgramError> {
        let gone: Vec<SyscallKey> = self.latencies.keys().filter_map(Result::ok).collect();
        for key in gone.iter().filter(|key| !keep(key.process, key.syscall)) {
            missing_is_fine(self.latencies.remove(key))
                .map_err(|source| SyscallProgramError::map("LATENCIES", source))?;
        }
        let gone: Vec<ErrnoKey> = self.errnos.keys().filter_map(Result::ok).collect();
        for key in gone.iter().filter(|key| !keep(key.process, key.syscall)) {
            missing_is_fine(self.errnos.remove(key))
                .map_err(|source| SyscallProgramError::map("ERRNOS", source))?;
        }
        Ok(())
    }
}

impl Attached {
    fn attach(&mut self) -> Result<(), SyscallProgramError> {
        if self.links.is_empty() {
            self.forget_threads()?;
        }
        for name in PROGRAMS {
            if self.links.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let link = SYSCALLS
                .get::<RawTracePoint>(&mut self.object, name)?
                .attach(name)
                .map_err(|source| SyscallProgramError::program(name, source))?;
            self.links.push((name, link));
        }
        Ok(())
    }

    fn detach(&mut self) -> Result<(), SyscallProgramError> {
        // The beginnings of calls go first, so that the ends of most are still seen.
        while let Some((name, link)) = self.links.pop() {
            SYSCALLS
                .get::<RawTracePoint>(&mut self.object, name)?
                .detach(link)
                .map_err(|source| SyscallProgramError::program(name, source))?;
        }
        Ok(())
    }

    /// Calls that began before the programs were detached would seem to have lasted ever since, and threads may have
    /// ended unseen.
    fn forget_threads(&mut self) -> Result<(), SyscallProgramError> {
        let threads: Vec<u64> = self.threads.keys().filter_map(Result::ok).collect();
        for thread in threads {
            missing_is_fine(self.threads.remove(&thread))
                .map_err(|source| SyscallProgramError::map("THREADS", source))?;
        }
        Ok(())
    }
}

fn load_all(mut object: Ebpf) -> Result<Ebpf, SyscallProgramError> {
    for name in PROGRAMS {
        let program: &mut RawTracePoint = SYSCALLS.get(&mut object, name)?;
        verified::load(name, program, RawTracePoint::load, RawTracePoint::info)
            .map_err(|source| SyscallProgramError::program(name, source))?;
    }
    Ok(object)
}

/// Device and inode of the daemon's pid namespace, the device as the kernel numbers it: `stat` splits the minor number
/// around the major one, so that the two forms agree only for minors below 256.
pub(super) fn pid_namespace() -> io::Result<(u64, u64)> {
    const MINOR_BITS: u32 = 20;
    let file = fs::metadata(PID_NAMESPACE)?;
    let dev = major(file.st_dev()) << MINOR_BITS | minor(file.st_dev());
    Ok((dev, file.st_ino()))
}
