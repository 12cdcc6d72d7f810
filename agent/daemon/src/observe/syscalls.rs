//! The syscalls of the kubelet and the container runtime: latencies and failures in numbers, slow and failed calls as
//! events.
//!
//! A thread is watched by its name, which it has from its process unless it was given another one, or by its cgroup, a
//! container's among them. A child between fork and exec still has its parent's name; an `execve` that succeeds is the call of who made it.

pub(crate) mod details;
mod flags;
mod following;
mod totals;
mod watching;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sabot_abi::{
    COMM_LENGTH, EINTR, ERESTART_FIRST, ERESTART_LAST, Histogram, MAX_ERRNO, SYSCALL_LOSS_COUNT,
    SYSCALL_LOSS_EVENT,
};
use sabot_core::Violation;
use sabot_core::model::BootTime;

pub use self::details::Detail;
use self::following::Traced;
pub use self::totals::{CallTotals, waits};
use self::watching::places::Found;
pub use self::watching::places::{CGROUP, CONTAINER, is_cgroup, is_container};
pub use self::watching::{DEFAULT_CONTAINERS, DEFAULT_PROCESSES, Tracing};
use self::watching::{Numbers, check};
use super::clock;
use super::event::{Event, EventHub, EventKind, STREAM_SYSCALLS, SyscallEvent};
use super::identity::containers::{Container, Containers};
use super::names::{errno_name, syscall_name};
use super::ring::{OwnedTask, StreamLoss, publish_from};
use crate::kernel::btf::BtfError;
use crate::kernel::syscalls::{SyscallProgramConfig, SyscallProgramError, SyscallPrograms, Watch};

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
    /// What is traced at first.
    pub tracing: Tracing,
    /// From this duration on a call is an event; `None`: only failed calls are.
    pub slow_threshold: Option<Duration>,
    /// The size of the ring of events in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
}

impl Default for SyscallsConfig {
    fn default() -> Self {
        Self {
            tracing: Tracing::of_processes(DEFAULT_PROCESSES),
            slow_threshold: Some(Duration::from_millis(100)),
            ring_bytes: 512 * 1024,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SyscallsError {
    #[error("{}", said(.0))]
    Invalid(Vec<Violation>),
    #[error("a ring of {bytes} bytes: a power of two from {page} on is allowed")]
    RingSize { bytes: u32, page: usize },
    #[error(transparent)]
    Programs(#[from] SyscallProgramError),
    #[error("the ring of syscall events can't be polled: {0}")]
    Ring(#[source] io::Error),
}

fn said(violations: &[Violation]) -> String {
    let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
    all.join("; ")
}

/// Calls of one (process name, syscall) pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    pub durations: Histogram,
}

impl CallStats {
    pub fn calls(&self) -> u64 {
        self.durations.count()
    }

    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.durations.sum)
    }

    /// The duration that this share of the calls stays below, to a quarter of its power of two; `None` without calls. Of
    /// durations that the last bucket holds it is the bucket's lower bound.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.calls() as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.durations.buckets.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        let last = sabot_abi::HISTOGRAM_BUCKETS - 2;
        Some(Duration::from_nanos(sabot_abi::log_linear_bound(
            bucket.min(last),
        )))
    }
}

/// A process name or a cgroup's path, and a syscall's name.
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

/// The programs in the kernel and the tasks around them; all end when this is dropped.
pub struct SyscallObserver {
    traced: Arc<Traced>,
    loss: Arc<StreamLoss>,
    task: OwnedTask,
    _follower: OwnedTask,
}

/// Begins to observe; events go to `hub`. Must be called within a tokio runtime.
///
/// # Errors
///
/// When the configuration is not usable, or this kernel or this process's privileges don't allow it.
pub fn start(
    config: &SyscallsConfig,
    containers: Containers,
    hub: EventHub,
) -> Result<SyscallObserver, SyscallsError> {
    let wanted = check(&config.tracing).map_err(SyscallsError::Invalid)?;
    let numbers = Numbers::default().assign(&config.tracing, wanted);
    let (programs, ring) = SyscallPrograms::attach(&translate(config, numbers.watch(Found::default()))?)?;
    let programs = Arc::new(programs);
    let loss = Arc::new(StreamLoss::new(
        STREAM_SYSCALLS,
        lost_events(Arc::clone(&programs)),
    ));
    let traced = Arc::new(Traced::new(numbers, programs, containers.clone()));
    traced.follow()?;
    let streaming = Arc::downgrade(&traced);
    hub.on_demand(move |wanted| {
        streaming
            .upgrade()
            .map(|traced| traced.set_streamed(wanted))
            .is_some()
    });
    let labels = Arc::clone(&traced);
    let task = publish_from(
        ring,
        hub,
        Arc::clone(&loss),
        move |event: sabot_abi::SyscallEvent| {
            let label = labels.read(|numbers| numbers.label(event.process));
            let container = containers.of_cgroup(event.cgroup, event.pid);
            Some(decode(&label, container, &event))
        },
    )
    .map_err(SyscallsError::Ring)?;
    Ok(SyscallObserver {
        _follower: following::start(Arc::clone(&traced)),
        traced,
        loss,
        task,
    })
}

impl SyscallObserver {
    /// Reads the kernel's counters now: some thousand system calls.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn snapshot(&self) -> Result<SyscallSnapshot, SyscallProgramError> {
        let mut snapshot = SyscallSnapshot {
            in_flight: self.traced.programs().in_flight()?,
            losses: self.traced.programs().losses()?,
            ..SyscallSnapshot::default()
        };
        let latencies = self.traced.programs().latencies()?;
        let errnos = self.traced.programs().errnos()?;
        // What is being replaced meanwhile is left out.
        let label = |number| self.traced.label(number);
        for (key, latency) in latencies {
            if let Some(process) = label(key.process) {
                let key = (process, syscall_name(key.syscall));
                snapshot.calls.entry(key).or_default().durations.add(&latency);
            }
        }
        for (key, count) in errnos {
            if let Some(process) = label(key.process) {
                let call = (process, syscall_name(key.syscall));
                *snapshot.errors.entry((call, errno_name(key.errno))).or_default() += count;
            }
        }
        Ok(snapshot)
    }

    /// Whose calls are traced now, and which.
    pub fn tracing(&self) -> Tracing {
        self.traced.read(|numbers| numbers.tracing().clone())
    }

    /// Replaces what is traced. Who stays keeps his counters; who goes leaves none. Waits for the kernel for some
    /// milliseconds.
    ///
    /// # Errors
    ///
    /// When it isn't usable or the kernel refuses; nothing has changed then.
    pub fn set_tracing(&self, tracing: &Tracing) -> Result<(), SyscallsError> {
        let wanted = check(tracing).map_err(SyscallsError::Invalid)?;
        Ok(self.traced.replace(tracing, wanted)?)
    }

    /// Cgroups that are to be traced now, and aren't for want of room.
    pub fn left_out(&self) -> usize {
        self.traced.left_out()
    }

    /// What events lack on this kernel.
    pub fn missing_details(&self) -> &[BtfError] {
        self.traced.programs().missing()
    }

    /// Stops observing, or goes on; what was counted stays. Waits for the kernel for some milliseconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_attached(&self, wanted: bool) -> Result<(), SyscallProgramError> {
        self.traced.programs().set_attached(wanted)
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

fn translate(config: &SyscallsConfig, watch: Watch) -> Result<SyscallProgramConfig, SyscallsError> {
    let page = page_size();
    if !config.ring_bytes.is_power_of_two() || (config.ring_bytes as usize) < page {
        return Err(SyscallsError::RingSize {
            bytes: config.ring_bytes,
            page,
        });
    }
    Ok(SyscallProgramConfig {
        watch,
        // A threshold of zero means every call, and the programs' zero means none.
        slow_threshold_ns: config.slow_threshold.map_or(0, |threshold| {
            u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX).max(1)
        }),
        slow_exempt: details::numbers(&SLOW_EXEMPT),
        quiet_errnos: QUIET_ERRNOS.map(i32::unsigned_abs).to_vec(),
        details: details::table(),
        ring_bytes: config.ring_bytes,
    })
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

fn decode(label: &str, container: Option<Arc<Container>>, event: &sabot_abi::SyscallEvent) -> Event {
    Event {
        time: clock::system_time(BootTime(event.time)),
        container,
        kind: EventKind::Syscall(SyscallEvent {
            process: label.to_owned(),
            comm: comm(&event.comm),
            pid: event.pid,
            tid: event.tid,
            syscall: syscall_name(event.syscall),
            duration: Duration::from_nanos(event.duration_ns),
            result: event.result,
            errno: errno(event.result).map(errno_name),
            detail: details::decode(event),
        }),
    }
}

fn comm(bytes: &[u8; COMM_LENGTH]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(COMM_LENGTH);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
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
mod tests;
