//! The syscalls of the kubelet and the container runtime: latencies and failures in numbers, slow and failed calls as
//! events.
//!
//! A thread is watched by its name, which it has from its process unless it was given another one. A child between fork
//! and exec still has its parent's. An `execve` that succeeds isn't measured: it ends as another program.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sabot_abi::{
    COMM_LENGTH, EINTR, ERESTART_FIRST, ERESTART_LAST, LATENCY_BUCKETS, MAX_ERRNO, MAX_PROCESSES,
    SYSCALL_LOSS_COUNT, SYSCALL_LOSS_EVENT, SyscallLatency,
};
use sabot_core::model::BootTime;

use super::clock;
use super::event::{Event, EventHub, EventKind, STREAM_SYSCALLS, SyscallEvent};
use super::names::{errno_name, syscall_name, syscall_number};
use super::ring::{OwnedTask, StreamLoss, publish_from};
use crate::kernel::syscalls::{Comm, SyscallProgramConfig, SyscallProgramError, SyscallPrograms};

/// Watched unless the configuration says otherwise. `containerd-shim` is also what the kernel keeps of
/// `containerd-shim-runc-v2`.
pub const DEFAULT_PROCESSES: [&str; 5] = ["kubelet", "containerd", "containerd-shim", "crio", "dockerd"];

/// They never return, or return a register's old value instead of a result.
const UNTRACED: [&str; 3] = ["exit", "exit_group", "rt_sigreturn"];

/// They wait by design: for an event, a lock, a child, a moment. Their latencies are measured, but are never "slow".
const SLOW_EXEMPT: [&str; 27] = [
    "accept",
    "accept4",
    "clock_nanosleep",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "futex",
    "futex_wait",
    "futex_waitv",
    "io_getevents",
    "io_pgetevents",
    "io_uring_enter",
    "mq_timedreceive",
    "msgrcv",
    "nanosleep",
    "pause",
    "poll",
    "ppoll",
    "pselect6",
    "restart_syscall",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "select",
    "semop",
    "semtimedop",
    "wait4",
    "waitid",
];

/// Errors of a program's normal course: a non-blocking socket that isn't ready or still connects, a signal, a timeout.
/// They are counted like all others, but make no event.
const QUIET_ERRNOS: [i32; 4] = [libc::EAGAIN, libc::EINTR, libc::EINPROGRESS, libc::ETIMEDOUT];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallsConfig {
    /// Names of processes to watch; what is beyond 15 bytes doesn't count, for the kernel keeps no more.
    pub processes: Vec<String>,
    /// From this duration on a call is an event; `None`: only failed calls are.
    pub slow_threshold: Option<Duration>,
    /// The size of the ring of events in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
}

impl Default for SyscallsConfig {
    fn default() -> Self {
        Self {
            processes: DEFAULT_PROCESSES.map(str::to_owned).to_vec(),
            slow_threshold: Some(Duration::from_millis(100)),
            ring_bytes: 256 * 1024,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SyscallsError {
    #[error("`{0}` is not a process name: it must not be empty and not hold `/` or NUL")]
    Name(String),
    #[error("{0} process names are to be watched; at most {MAX_PROCESSES} can be told apart")]
    TooManyNames(usize),
    #[error("a ring of {bytes} bytes: a power of two from {page} on is allowed")]
    RingSize { bytes: u32, page: usize },
    #[error(transparent)]
    Programs(#[from] SyscallProgramError),
    #[error("the ring of syscall events can't be polled: {0}")]
    Ring(#[source] io::Error),
}

/// Calls of one (process name, syscall) pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    pub calls: u64,
    pub total: Duration,
    /// Not cumulative; the bounds are those of [`sabot_abi::latency_bucket`].
    pub buckets: [u64; LATENCY_BUCKETS],
}

/// A process name, a syscall's name.
pub type CallKey = (Arc<str>, &'static str);

/// Everything counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyscallSnapshot {
    pub calls: BTreeMap<CallKey, CallStats>,
    /// By the error's name, as `ENOENT`.
    pub errors: BTreeMap<(CallKey, &'static str), u64>,
    /// Calls that have begun and not ended; now, not since the start.
    pub in_flight: usize,
    /// What could not be recorded, by [`sabot_abi::SYSCALL_LOSS_NAMES`].
    pub losses: [u64; SYSCALL_LOSS_COUNT as usize],
}

/// The programs in the kernel and the task that reads their events; both end when this is dropped.
pub struct SyscallObserver {
    names: Names,
    programs: Arc<SyscallPrograms>,
    loss: Arc<StreamLoss>,
    task: OwnedTask,
}

/// Begins to observe; events go to `hub`. Must be called within a tokio runtime.
///
/// # Errors
///
/// When the configuration is not usable, or this kernel or this process's privileges don't allow it.
pub fn start(config: &SyscallsConfig, hub: EventHub) -> Result<SyscallObserver, SyscallsError> {
    let (names, programs) = translate(config)?;
    let (programs, ring) = SyscallPrograms::attach(&programs)?;
    let programs = Arc::new(programs);
    let loss = Arc::new(StreamLoss::new(
        STREAM_SYSCALLS,
        lost_events(Arc::clone(&programs)),
    ));
    let decoder = names.clone();
    let task = publish_from(ring, hub, Arc::clone(&loss), move |event| {
        decode(&decoder, &event)
    })
    .map_err(SyscallsError::Ring)?;
    Ok(SyscallObserver {
        names,
        programs,
        loss,
        task,
    })
}

impl SyscallObserver {
    /// Reads the kernel's counters now: some hundred system calls.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn snapshot(&self) -> Result<SyscallSnapshot, SyscallProgramError> {
        let mut snapshot = SyscallSnapshot {
            in_flight: self.programs.in_flight()?,
            losses: self.programs.losses()?,
            ..SyscallSnapshot::default()
        };
        for (key, latency) in self.programs.latencies()? {
            let key = (self.names.get(key.process), syscall_name(key.syscall));
            snapshot.calls.entry(key).or_default().add(&latency);
        }
        for (key, count) in self.programs.errnos()? {
            let call = (self.names.get(key.process), syscall_name(key.syscall));
            *snapshot.errors.entry((call, errno_name(key.errno))).or_default() += count;
        }
        Ok(snapshot)
    }

    /// Stops observing, or goes on; what was counted stays. Waits for the kernel for some milliseconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_attached(&self, wanted: bool) -> Result<(), SyscallProgramError> {
        self.programs.set_attached(wanted)
    }

    /// Events that never reached the hub.
    pub fn lost_events(&self) -> u64 {
        self.loss.total()
    }

    /// Whether events are still being read.
    pub fn is_running(&self) -> bool {
        self.task.is_running()
    }
}

impl CallStats {
    fn add(&mut self, latency: &SyscallLatency) {
        self.calls += latency.calls;
        self.total += Duration::from_nanos(latency.total_ns);
        for (total, count) in self.buckets.iter_mut().zip(&latency.buckets) {
            *total += count;
        }
    }
}

/// Process names by the kernel's number for them.
#[derive(Clone, Debug)]
struct Names(Arc<[Arc<str>]>);

impl Names {
    fn get(&self, number: u32) -> Arc<str> {
        self.0
            .get(number as usize)
            .cloned()
            .unwrap_or_else(|| Arc::from(super::names::UNKNOWN))
    }
}

fn translate(config: &SyscallsConfig) -> Result<(Names, SyscallProgramConfig), SyscallsError> {
    let page = page_size();
    if !config.ring_bytes.is_power_of_two() || (config.ring_bytes as usize) < page {
        return Err(SyscallsError::RingSize {
            bytes: config.ring_bytes,
            page,
        });
    }
    let mut comms: BTreeMap<Comm, Arc<str>> = BTreeMap::new();
    for name in &config.processes {
        let comm = comm(name).ok_or_else(|| SyscallsError::Name(name.clone()))?;
        // Two names that the kernel can't tell apart are one process; the shorter one names it honestly.
        let known = comms.entry(comm).or_insert_with(|| Arc::from(name.as_str()));
        if name.len() < known.len() {
            *known = Arc::from(name.as_str());
        }
    }
    if comms.len() > MAX_PROCESSES as usize {
        return Err(SyscallsError::TooManyNames(comms.len()));
    }
    let numbers = |names: &[&str]| names.iter().filter_map(|name| syscall_number(name)).collect();
    let programs = SyscallProgramConfig {
        processes: comms.keys().copied().collect(),
        // A threshold of zero means every call, and the programs' zero means none.
        slow_threshold_ns: config.slow_threshold.map_or(0, |threshold| {
            u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX).max(1)
        }),
        untraced: numbers(&UNTRACED),
        slow_exempt: numbers(&SLOW_EXEMPT),
        quiet_errnos: QUIET_ERRNOS.map(i32::unsigned_abs).to_vec(),
        ring_bytes: config.ring_bytes,
    };
    Ok((Names(comms.into_values().collect()), programs))
}

/// `None` for what can't be a process's name.
fn comm(name: &str) -> Option<Comm> {
    if name.is_empty() || name.contains(['/', '\0']) {
        return None;
    }
    let kept = name.len().min(COMM_LENGTH - 1);
    let mut comm = [0; COMM_LENGTH];
    comm[..kept].copy_from_slice(&name.as_bytes()[..kept]);
    Some(comm)
}

fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(4096)
}

/// The kernel's count; the last one known when it can't be read now, since the count never goes back.
fn lost_events(programs: Arc<SyscallPrograms>) -> impl Fn() -> u64 + Send + Sync {
    let last = AtomicU64::new(0);
    move || match programs.losses() {
        Ok(losses) => {
            let lost = losses[SYSCALL_LOSS_EVENT as usize];
            last.fetch_max(lost, Ordering::Relaxed).max(lost)
        }
        Err(error) => {
            tracing::warn!(%error, "the count of lost syscall events can't be read");
            last.load(Ordering::Relaxed)
        }
    }
}

fn decode(names: &Names, event: &sabot_abi::SyscallEvent) -> Option<Event> {
    Some(Event {
        time: clock::system_time(BootTime(event.time)),
        kind: EventKind::Syscall(SyscallEvent {
            process: names.get(event.process).to_string(),
            pid: event.pid,
            tid: event.tid,
            syscall: syscall_name(event.syscall),
            duration: Duration::from_nanos(event.duration_ns),
            result: event.result,
            errno: errno(event.result).map(errno_name),
        }),
    })
}

/// As the kernel programs count it: its own restart codes are `EINTR`.
fn errno(result: i64) -> Option<u32> {
    match u32::try_from(result.checked_neg()?).ok()? {
        0 => None,
        ERESTART_FIRST..=ERESTART_LAST => Some(EINTR),
        errno @ 1..=MAX_ERRNO => Some(errno),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(processes: &[&str]) -> SyscallsConfig {
        SyscallsConfig {
            processes: processes.iter().map(|&name| name.to_owned()).collect(),
            ..SyscallsConfig::default()
        }
    }

    #[test]
    fn names_that_the_kernel_cannot_tell_apart_are_one() {
        let (names, programs) = translate(&config(&[
            "containerd-shim-runc-v2",
            "kubelet",
            "containerd-shim",
        ]))
        .unwrap();
        assert_eq!(
            programs.processes,
            [*b"containerd-shim\0", *b"kubelet\0\0\0\0\0\0\0\0\0"]
        );
        assert_eq!(&*names.get(0), "containerd-shim");
        assert_eq!(&*names.get(1), "kubelet");
        assert_eq!(&*names.get(2), "unknown");
    }

    #[test]
    fn what_is_no_process_name_is_refused() {
        for name in ["", "/usr/bin/kubelet", "kube\0let"] {
            let error = translate(&config(&[name])).unwrap_err();
            assert!(matches!(error, SyscallsError::Name(given) if given == name));
        }
        let many: Vec<String> = (0..65).map(|i| format!("p{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(matches!(
            translate(&config(&many)),
            Err(SyscallsError::TooManyNames(65))
        ));
    }

    #[test]
    fn a_ring_is_a_power_of_two_from_a_page_on() {
        for ring_bytes in [0, 1024, 12_288] {
            let config = SyscallsConfig {
                ring_bytes,
                ..config(&["kubelet"])
            };
            assert!(
                matches!(translate(&config), Err(SyscallsError::RingSize { bytes, .. }) if bytes == ring_bytes)
            );
        }
    }

    #[test]
    fn thresholds_translate() {
        let threshold = |slow_threshold| {
            let config = SyscallsConfig {
                slow_threshold,
                ..config(&["kubelet"])
            };
            translate(&config).unwrap().1.slow_threshold_ns
        };
        assert_eq!(threshold(None), 0);
        assert_eq!(threshold(Some(Duration::ZERO)), 1);
        assert_eq!(threshold(Some(Duration::from_millis(20))), 20_000_000);
        assert_eq!(threshold(Some(Duration::MAX)), u64::MAX);
    }

    #[test]
    fn results_are_errors_in_the_kernels_range_only() {
        assert_eq!(errno(0), None);
        assert_eq!(errno(3), None);
        assert_eq!(errno(-2), Some(2));
        assert_eq!(errno(-4095), Some(4095));
        assert_eq!(errno(-4096), None);
        assert_eq!(errno(-512), Some(EINTR));
        assert_eq!(errno(-516), Some(EINTR));
        assert_eq!(errno(i64::MIN), None);
    }

    #[test]
    fn an_event_is_decoded() {
        let names = Names(Arc::from([Arc::from("kubelet")]));
        let event = sabot_abi::SyscallEvent {
            time: crate::kernel::boot_time().0,
            duration_ns: 1500,
            pid: 7,
            tid: 8,
            process: 0,
            syscall: syscall_number("openat").unwrap(),
            result: -2,
            comm: *b"kubelet\0\0\0\0\0\0\0\0\0",
        };
        let Some(Event {
            kind: EventKind::Syscall(decoded),
            ..
        }) = decode(&names, &event)
        else {
            panic!("a syscall event was given");
        };
        assert_eq!(
            decoded,
            SyscallEvent {
                process: "kubelet".into(),
                pid: 7,
                tid: 8,
                syscall: "openat",
                duration: Duration::from_nanos(1500),
                result: -2,
                errno: Some("ENOENT"),
            }
        );
    }
}
