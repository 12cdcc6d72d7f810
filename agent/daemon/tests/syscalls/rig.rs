//! What the tests of the syscall observer have in common.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::gettid;
use sabotd::observe::event::{EventHub, EventKind, Subscription, SyscallEvent};
use sabotd::observe::identity::containers::Containers;
use sabotd::observe::names::syscall_number;
use sabotd::observe::syscalls::{SyscallObserver, SyscallSnapshot, SyscallsConfig, Tracing, start};
use tempfile::TempDir;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A name of a process that no other test and nothing else on the machine has. busybox knows itself by its beginning.
pub(crate) fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "busybox{:x}{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    assert!(name.len() <= 15, "{name} would be cut");
    name
}

pub(crate) fn observe(name: &str, slow_threshold: Option<Duration>) -> (SyscallObserver, Subscription) {
    let hub = EventHub::new(4096);
    let events = hub.subscribe();
    (observe_into(&hub, name, slow_threshold), events)
}

pub(crate) fn observe_into(hub: &EventHub, name: &str, slow_threshold: Option<Duration>) -> SyscallObserver {
    let config = SyscallsConfig {
        tracing: Tracing::of_processes([name]),
        slow_threshold,
        ..SyscallsConfig::default()
    };
    start(&config, Containers::default(), hub.clone()).expect("root is needed to trace syscalls")
}

/// Runs `body` on a thread with this name; returns its tid and what `body` returns.
pub(crate) fn on_thread_named<T: Send>(name: &str, body: impl FnOnce() -> T + Send) -> (u32, T) {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let name = CString::new(name).unwrap();
                nix::sys::prctl::set_name(&name).unwrap();
                let result = body();
                // What the thread does to end is not part of the test.
                nix::sys::prctl::set_name(c"finished").unwrap();
                (gettid().as_raw() as u32, result)
            })
            .join()
            .unwrap()
    })
}

pub(crate) fn open_missing(times: usize) {
    for _ in 0..times {
        // SAFETY: the path is a valid string.
        let result = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/no/such/file".as_ptr(), 0) };
        assert_eq!(result, -1);
    }
}

pub(crate) fn errors(snapshot: &SyscallSnapshot, syscalls: &[&str], errno: &str) -> u64 {
    snapshot
        .errors
        .iter()
        .filter(|(((_, syscall), found), _)| syscalls.contains(syscall) && *found == errno)
        .map(|(_, count)| count)
        .sum()
}

pub(crate) fn calls(snapshot: &SyscallSnapshot, syscall: &str) -> u64 {
    snapshot
        .calls
        .iter()
        .filter(|((_, found), _)| *found == syscall)
        .map(|(_, stats)| stats.calls())
        .sum()
}

/// Receives until `enough` says so.
pub(crate) async fn receive(
    events: &mut Subscription,
    mut enough: impl FnMut(&[SyscallEvent]) -> bool,
) -> Vec<SyscallEvent> {
    let mut received = Vec::new();
    while !enough(&received) {
        let event = tokio::time::timeout(PATIENCE, events.recv())
            .await
            .unwrap_or_else(|_| panic!("only these events came: {received:#?}"))
            .unwrap();
        match &event.kind {
            EventKind::Syscall(call) => received.push(call.clone()),
            other => panic!("{other:?} is no syscall"),
        }
    }
    received
}

/// A copy of busybox under a name of its own.
pub(crate) struct Program {
    _folder: TempDir,
    pub(crate) path: PathBuf,
}

impl Program {
    pub(crate) fn named(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::copy("/bin/busybox", &path)
            .expect("busybox is needed: install Debian's package `busybox-static`");
        Self {
            _folder: folder,
            path,
        }
    }

    pub(crate) fn command(&self) -> Command {
        Command::new(&self.path)
    }
}

/// Ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the thread is inside `syscall` now.
pub(crate) fn is_in(task: &Path, syscall: &str) -> bool {
    let number = syscall_number(syscall).unwrap().to_string();
    fs::read_to_string(task.join("syscall")).is_ok_and(|text| text.split(' ').next() == Some(number.as_str()))
}

/// The value of an event's detail.
pub(crate) fn detail<'a>(call: &'a SyscallEvent, name: &str) -> Option<&'a str> {
    let found = call.detail.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value.as_str())
}
