//! Loads the `syscalls` object and reads its maps.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, RingBuf};
use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::programs::{ProgramError, RawTracePoint};
use aya::{Ebpf, EbpfError, EbpfLoader};
use nix::sys::stat::{major, minor};
use sabot_abi::{
    COMM_FILTER_WORDS, COMM_LENGTH, ERRNO_BITMAP_WORDS, ErrnoKey, LATENCY_BUCKETS, MAX_PROCESSES,
    SYSCALL_BITMAP_WORDS, SYSCALL_LOSS_COUNT, SyscallKey, SyscallLatency, comm_filter_bit,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/syscalls"));

/// The programs' tracepoints. The ends of calls come before their beginning, so that no call is left open.
const PROGRAMS: [&str; 4] = [
    "sched_process_exit",
    "sched_process_exec",
    "sys_exit",
    "sys_enter",
];

const PID_NAMESPACE: &str = "/proc/self/ns/pid";

/// Room for latencies, for each watched name. A Go program makes some 80 different syscalls.
const LATENCIES_PER_PROCESS: u32 = 128;

/// A process name as the kernel has it: at most 15 bytes, NUL-padded.
pub type Comm = [u8; COMM_LENGTH];

/// The size of a call in flight, whose content is the programs' own.
type Call = [u64; 3];

/// What the programs are told before they are loaded.
#[derive(Clone, Debug)]
pub struct SyscallProgramConfig {
    /// The watched names, at most [`MAX_PROCESSES`]. A name's index here is its number in keys and events.
    pub processes: Vec<Comm>,
    /// From this duration on a call is slow, ns; 0: none is.
    pub slow_threshold_ns: u64,
    /// Numbers of syscalls that aren't measured.
    pub untraced: Vec<u32>,
    /// Numbers of syscalls that are never slow.
    pub slow_exempt: Vec<u32>,
    /// Errors that are counted but make no event.
    pub quiet_errnos: Vec<u32>,
    /// The size of the ring of events: a power of two, at least a page.
    pub ring_bytes: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum SyscallProgramError {
    #[error("{0} process names are to be watched; the programs tell at most {MAX_PROCESSES} apart")]
    TooManyProcesses(usize),
    #[error("{PID_NAMESPACE} can't be read: {0}")]
    PidNamespace(#[source] io::Error),
    #[error("the syscalls object can't be loaded: {0}")]
    Load(#[source] Box<EbpfError>),
    #[error("the syscalls object has no map {0}")]
    NoMap(&'static str),
    #[error("map {map} of the syscalls object: {source}")]
    Map {
        map: &'static str,
        source: Box<MapError>,
    },
    #[error("the syscalls object has no program {0}")]
    NoProgram(&'static str),
    #[error("program {program} of the syscalls object: {source}")]
    Program {
        program: &'static str,
        source: Box<ProgramError>,
    },
}

/// The programs, attached unless told otherwise, until this is dropped.
pub struct SyscallPrograms {
    latencies: PerCpuHashMap<MapData, SyscallKey, SyscallLatency>,
    errnos: PerCpuHashMap<MapData, ErrnoKey, u64>,
    losses: PerCpuArray<MapData, u64>,
    attached: Mutex<Attached>,
}

/// What attaching and detaching change.
struct Attached {
    in_flight: HashMap<MapData, u64, Call>,
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
        if config.processes.len() > MAX_PROCESSES as usize {
            return Err(SyscallProgramError::TooManyProcesses(config.processes.len()));
        }
        let mut object = load(config)?;
        let mut processes: HashMap<MapData, Comm, u32> = take(&mut object, "PROCESSES")?;
        for (number, comm) in (0u32..).zip(&config.processes) {
            processes
                .insert(comm, number, 0)
                .map_err(|source| SyscallProgramError::map("PROCESSES", source))?;
        }
        let events = take(&mut object, "EVENTS")?;
        let programs = Self {
            latencies: take(&mut object, "LATENCIES")?,
            errnos: take(&mut object, "ERRNOS")?,
            losses: take(&mut object, "LOSSES")?,
            attached: Mutex::new(Attached {
                in_flight: take(&mut object, "IN_FLIGHT")?,
                object: load_all(object)?,
                links: Vec::new(),
            }),
        };
        programs.set_attached(true)?;
        Ok((programs, events))
    }

    /// Takes the programs off their tracepoints, or puts them back; what they have counted stays. Waits for the kernel for
    /// some milliseconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; some of the programs may have changed their state then.
    pub fn set_attached(&self, wanted: bool) -> Result<(), SyscallProgramError> {
        let mut attached = self.attached();
        if wanted {
            attached.attach()
        } else {
            attached.detach()
        }
    }

    fn attached(&self) -> MutexGuard<'_, Attached> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Latencies so far, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn latencies(&self) -> Result<Vec<(SyscallKey, SyscallLatency)>, SyscallProgramError> {
        self.latencies
            .iter()
            .map(|entry| entry.map(|(key, values)| (key, sum(values.iter()))))
            .collect::<Result<_, _>>()
            .map_err(|source| SyscallProgramError::map("LATENCIES", source))
    }

    /// Failures so far, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn errnos(&self) -> Result<Vec<(ErrnoKey, u64)>, SyscallProgramError> {
        self.errnos
            .iter()
            .map(|entry| entry.map(|(key, values)| (key, values.iter().sum())))
            .collect::<Result<_, _>>()
            .map_err(|source| SyscallProgramError::map("ERRNOS", source))
    }

    /// Calls that have begun and not ended.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn in_flight(&self) -> Result<usize, SyscallProgramError> {
        self.attached()
            .in_flight
            .keys()
            .try_fold(0, |count, key| key.map(|_| count + 1))
            .map_err(|source| SyscallProgramError::map("IN_FLIGHT", source))
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
        Self::Map {
            map,
            source: Box::new(source),
        }
    }

    fn program(program: &'static str, source: ProgramError) -> Self {
        Self::Program {
            program,
            source: Box::new(source),
        }
    }
}

fn load(config: &SyscallProgramConfig) -> Result<Ebpf, SyscallProgramError> {
    let (dev, ino) = pid_namespace().map_err(SyscallProgramError::PidNamespace)?;
    let filter: [u64; COMM_FILTER_WORDS] =
        bitmap(config.processes.iter().map(|comm| comm_filter_bit(words(comm))));
    let untraced: [u64; SYSCALL_BITMAP_WORDS] = bitmap(config.untraced.iter().copied());
    let exempt: [u64; SYSCALL_BITMAP_WORDS] = bitmap(config.slow_exempt.iter().copied());
    let quiet: [u64; ERRNO_BITMAP_WORDS] = bitmap(config.quiet_errnos.iter().copied());
    let latencies = LATENCIES_PER_PROCESS * config.processes.len().max(1) as u32;
    EbpfLoader::new()
        .override_global("PID_NS_DEV", &dev, true)
        .override_global("PID_NS_INO", &ino, true)
        .override_global("COMM_FILTER", &filter[..], true)
        .override_global("UNTRACED", &untraced[..], true)
        .override_global("SLOW_EXEMPT", &exempt[..], true)
        .override_global("QUIET_ERRNO", &quiet[..], true)
        .override_global("SLOW_THRESHOLD", &config.slow_threshold_ns, true)
        .map_max_entries("LATENCIES", latencies)
        .map_max_entries("EVENTS", config.ring_bytes)
        .load(OBJECT)
        .map_err(|source| SyscallProgramError::Load(Box::new(source)))
}

impl Attached {
    fn attach(&mut self) -> Result<(), SyscallProgramError> {
        if self.links.is_empty() {
            self.forget_calls()?;
        }
        for name in PROGRAMS {
            if self.links.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let link = program(&mut self.object, name)?
                .attach(name)
                .map_err(|source| SyscallProgramError::program(name, source))?;
            self.links.push((name, link));
        }
        Ok(())
    }

    fn detach(&mut self) -> Result<(), SyscallProgramError> {
        // The beginnings of calls go first, so that the ends of most are still seen.
        while let Some((name, link)) = self.links.pop() {
            program(&mut self.object, name)?
                .detach(link)
                .map_err(|source| SyscallProgramError::program(name, source))?;
        }
        Ok(())
    }

    /// Calls that began before the programs were detached would seem to have lasted ever since.
    fn forget_calls(&mut self) -> Result<(), SyscallProgramError> {
        let stale: Vec<u64> = self.in_flight.keys().filter_map(Result::ok).collect();
        for call in stale {
            match self.in_flight.remove(&call) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(SyscallProgramError::map("IN_FLIGHT", source)),
            }
        }
        Ok(())
    }
}

fn load_all(mut object: Ebpf) -> Result<Ebpf, SyscallProgramError> {
    for name in PROGRAMS {
        program(&mut object, name)?
            .load()
            .map_err(|source| SyscallProgramError::program(name, source))?;
    }
    Ok(object)
}

fn program<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut RawTracePoint, SyscallProgramError> {
    object
        .program_mut(name)
        .ok_or(SyscallProgramError::NoProgram(name))?
        .try_into()
        .map_err(|source| SyscallProgramError::program(name, source))
}

fn take<M: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<M, SyscallProgramError> {
    object
        .take_map(name)
        .ok_or(SyscallProgramError::NoMap(name))?
        .try_into()
        .map_err(|source| SyscallProgramError::map(name, source))
}

/// Device and inode of the daemon's pid namespace, the device as the kernel numbers it: `stat` splits the minor number
/// around the major one, so that the two forms agree only for minors below 256.
pub(super) fn pid_namespace() -> io::Result<(u64, u64)> {
    const MINOR_BITS: u32 = 20;
    let file = fs::metadata(PID_NAMESPACE)?;
    let dev = major(file.st_dev()) << MINOR_BITS | minor(file.st_dev());
    Ok((dev, file.st_ino()))
}

fn words(comm: &Comm) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *comm;
    [
        u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
    ]
}

/// Members beyond the bitmap are in no set, on both sides.
fn bitmap<const WORDS: usize>(members: impl Iterator<Item = u32>) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for member in members {
        if let Some(word) = words.get_mut((member / u64::BITS) as usize) {
            *word |= 1 << (member % u64::BITS);
        }
    }
    words
}

fn sum<'a>(cpus: impl Iterator<Item = &'a SyscallLatency>) -> SyscallLatency {
    let nothing = SyscallLatency {
        calls: 0,
        total_ns: 0,
        buckets: [0; LATENCY_BUCKETS],
    };
    cpus.fold(nothing, |mut sum, cpu| {
        sum.calls += cpu.calls;
        sum.total_ns += cpu.total_ns;
        for (total, count) in sum.buckets.iter_mut().zip(&cpu.buckets) {
            *total += count;
        }
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_holds_its_members_and_ignores_those_beyond_it() {
        assert_eq!(
            bitmap::<2>([0, 63, 64, 127, 128, 4095].into_iter()),
            [1 | 1 << 63, 1 | 1 << 63]
        );
    }

    #[test]
    fn latencies_are_summed_over_the_cpus() {
        let mut one = SyscallLatency {
            calls: 1,
            total_ns: 900,
            buckets: [0; LATENCY_BUCKETS],
        };
        one.buckets[0] = 1;
        let mut other = SyscallLatency {
            calls: 2,
            total_ns: 5000,
            buckets: [0; LATENCY_BUCKETS],
        };
        other.buckets[0] = 1;
        other.buckets[2] = 1;
        let total = sum([one, other].iter());
        assert_eq!((total.calls, total.total_ns), (3, 5900));
        assert_eq!(total.buckets[..3], [2, 0, 1]);
    }

    #[test]
    fn the_names_of_the_runtimes_have_bits_in_the_filter() {
        let comm = *b"containerd-shim\0";
        let filter: [u64; COMM_FILTER_WORDS] = bitmap([comm_filter_bit(words(&comm))].into_iter());
        assert_eq!(filter.iter().map(|word| word.count_ones()).sum::<u32>(), 1);
        let other = *b"containerd\0\0\0\0\0\0";
        assert_ne!(comm_filter_bit(words(&comm)), comm_filter_bit(words(&other)));
    }
}
