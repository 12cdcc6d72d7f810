//! The syscall programs on the running kernel. They need root.

mod baselines;
mod details;
mod latencies;
mod rig;
mod streaming;
mod tracing;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::unistd::gettid;
use sabot_abi::{SYSCALL_LOSS_EVENT, SyscallEvent as RawEvent};
use sabotd::engine::handle::{Handle, RuntimeState, Snapshot};
use sabotd::kernel::syscalls::{SyscallProgramConfig, SyscallPrograms, Watch};
use sabotd::metrics::{Format, Metrics, ReconcileDuration, Sources};
use sabotd::observe::event::SyscallEvent;
use sabotd::observe::names::syscall_number;
use sabotd::observe::observers::Observers;
use sabotd::targets::kube::KubeStatus;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{mpsc, watch};

use rig::{
    Program, Running, calls, errors, is_in, observe, on_thread_named, open_missing, receive, unique_name,
    wait_until,
};

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_errors_are_counted_exactly() {
    let name = unique_name();
    let (observer, mut events) = observe(&name, None);
    let (tid, ()) = on_thread_named(&name, || {
        open_missing(7);
        for _ in 0..3 {
            // SAFETY: no descriptor is closed.
            unsafe { libc::syscall(libc::SYS_close, -1) };
        }
        for _ in 0..100 {
            // SAFETY: the call takes nothing.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
    });

    let snapshot = observer.snapshot().unwrap();
    assert_eq!(errors(&snapshot, &["openat"], "ENOENT"), 7);
    assert_eq!(errors(&snapshot, &["close"], "EBADF"), 3);
    assert_eq!(calls(&snapshot, "openat"), 7);
    assert_eq!(calls(&snapshot, "getppid"), 100);
    for stats in snapshot.calls.values() {
        assert_eq!(stats.durations.count(), stats.calls());
        assert!(stats.total() > Duration::ZERO);
    }
    assert_eq!(snapshot.losses, [0; 4]);

    let received = receive(&mut events, |received| received.len() == 10).await;
    for (index, call) in received.iter().enumerate() {
        let expected = if index < 7 {
            ("openat", "ENOENT", -2)
        } else {
            ("close", "EBADF", -9)
        };
        assert_eq!((call.syscall, call.errno.unwrap(), call.result), expected);
        assert_eq!((call.pid, call.tid), (std::process::id(), tid));
        assert_eq!(call.process, name);
    }
    assert!(matches!(events.try_recv(), Err(TryRecvError::Empty)));
    assert_eq!(observer.lost_events(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_traced_is_scraped() {
    let name = unique_name();
    let (observer, _events) = observe(&name, None);
    on_thread_named(&name, || open_missing(3));

    let (commands, _) = mpsc::channel(1);
    let (_sender, snapshots) = watch::channel(Arc::new(Snapshot {
        generation: 0,
        faults: BTreeMap::new(),
        world: Arc::default(),
        runtime: RuntimeState::Connecting,
    }));
    let sources = Sources {
        engine: Handle::new(commands, snapshots),
        observers: Arc::new(Observers {
            syscalls: Some(observer),
            ..Observers::default()
        }),
        delays: None,
        subscribers_lost: Box::new(|| 0),
        features: Arc::default(),
        reconcile: ReconcileDuration::default(),
        costs: None,
        kubernetes: KubeStatus::absent("none is wanted".into()),
        exemplars: None,
    };
    let text = Metrics::new("sabot", sources).render(Format::Text).await.unwrap();
    for line in [
        format!(r#"sabot_syscall_errors_total{{process="{name}",syscall="openat",errno="ENOENT"}} 3"#),
        format!(r#"sabot_syscall_duration_seconds_count{{process="{name}",syscall="openat"}} 3"#),
        format!(r#"sabot_syscall_duration_seconds_bucket{{le="+Inf",process="{name}",syscall="openat"}} 3"#),
        r#"sabot_syscall_unrecorded_total{table="in_flight"} 0"#.to_owned(),
        r#"sabot_events_lost_total{stream="syscalls"} 0"#.to_owned(),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "`{line}` is not in:\n{text}"
        );
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("promtool is needed: install Debian's package `prometheus`");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(promtool.wait().unwrap().success(), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_normal_course_are_counted_without_an_event() {
    let name = unique_name();
    let (observer, mut events) = observe(&name, None);
    on_thread_named(&name, || {
        let (reader, _writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        assert_eq!(
            nix::unistd::read(&reader, &mut [0]),
            Err(nix::errno::Errno::EAGAIN)
        );
        open_missing(1);
    });
    let received = receive(&mut events, |received| !received.is_empty()).await;
    assert_eq!(received[0].errno, Some("ENOENT"));
    assert_eq!(errors(&observer.snapshot().unwrap(), &["read"], "EAGAIN"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_call_is_an_event_unless_it_waits_by_design() {
    const SLOW: Duration = Duration::from_millis(50);
    let name = unique_name();
    let (observer, mut events) = observe(&name, Some(SLOW));
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let tid = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("the reader's read", || {
                let task = format!("/proc/self/task/{}", tid.load(Ordering::Relaxed));
                is_in(Path::new(&task), "read")
            });
            std::thread::sleep(2 * SLOW);
            nix::unistd::write(&writer, b"x").unwrap();
        });
        on_thread_named(&name, || {
            tid.store(gettid().as_raw() as u32, Ordering::Relaxed);
            nix::unistd::read(&reader, &mut [0]).unwrap();
            std::thread::sleep(2 * SLOW);
            open_missing(1);
        });
    });

    let received = receive(&mut events, |received| {
        received.iter().any(|call| call.syscall == "openat")
    })
    .await;
    let read = received
        .iter()
        .find(|call| call.syscall == "read")
        .unwrap_or_else(|| panic!("no slow read in {received:#?}"));
    assert!(read.duration >= 2 * SLOW, "{:?}", read.duration);
    assert_eq!((read.errno, read.result), (None, 1));
    assert!(received.iter().all(|call| call.syscall != "clock_nanosleep"));

    let snapshot = observer.snapshot().unwrap();
    let slept = &snapshot.calls[&(Arc::from(name.as_str()), "clock_nanosleep")];
    assert_eq!(slept.calls(), 1);
    assert!(slept.total() >= 2 * SLOW);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_known_by_its_programs_name() {
    let name = unique_name();
    let (observer, mut events) = observe(&name, None);
    let program = Program::named(&name);
    let mut child = program
        .command()
        .args(["cat", "/no/1", "/no/2", "/no/3", "/no/4", "/no/5"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    assert!(!child.wait().unwrap().success());

    let missing = |call: &SyscallEvent| call.errno == Some("ENOENT") && call.syscall.starts_with("open");
    let received = receive(&mut events, |received| {
        received.iter().filter(|call| missing(call)).count() == 5
    })
    .await;
    assert!(
        received
            .iter()
            .all(|call| call.pid == pid && call.process == name)
    );
    let snapshot = observer.snapshot().unwrap();
    assert_eq!(errors(&snapshot, &["open", "openat"], "ENOENT"), 5);
    assert_eq!(snapshot.in_flight, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_name_in_another_pid_namespace_is_not_counted() {
    let name = unique_name();
    let (observer, mut events) = observe(&name, None);
    let program = Program::named(&name);
    let status = Command::new("unshare")
        .args(["--pid", "--fork"])
        .arg(&program.path)
        .args(["cat", "/no/1", "/no/2"])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(
        status.code(),
        Some(1),
        "cat ran and failed in the other namespace"
    );
    let snapshot = observer.snapshot().unwrap();
    assert!(
        snapshot.calls.is_empty() && snapshot.errors.is_empty(),
        "{snapshot:?}"
    );
    assert!(matches!(events.try_recv(), Err(TryRecvError::Empty)));

    // The same program is seen where the daemon is.
    let status = program
        .command()
        .args(["cat", "/no/1"])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(
        errors(&observer.snapshot().unwrap(), &["open", "openat"], "ENOENT"),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_end_nobody_sees_is_forgotten() {
    let name = unique_name();
    let (observer, _events) = observe(&name, None);
    let program = Program::named(&name);
    let in_flight = || observer.snapshot().unwrap().in_flight;

    let mut blocked = Running(
        program
            .command()
            .arg("cat")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let task = PathBuf::from(format!("/proc/{0}/task/{0}", blocked.0.id()));
    wait_until("cat's read", || is_in(&task, "read"));
    assert_eq!(in_flight(), 1);
    blocked.0.kill().unwrap();
    blocked.0.wait().unwrap();
    assert_eq!(in_flight(), 0);

    // Its execve ends as another program.
    let status = program
        .command()
        .args(["sh", "-c", "exec /bin/true"])
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(in_flight(), 0);

    // Here it isn't the leader that becomes another program, but it takes over the leader's tid.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(&name)
        .args(["--ignored", "--exact", "exec_from_another_thread"]);
    command.env("SABOT_TEST_NAME", &name);
    assert!(command.status().unwrap().success());
    assert_eq!(in_flight(), 0);

    // The thread goes into its last prctl under one name and comes out of it under another.
    on_thread_named(&name, || ());
    wait_until("the renamed thread's end", || in_flight() == 0);
    assert!(
        calls(&observer.snapshot().unwrap(), "getppid") > 0,
        "the thread was traced"
    );
}

#[test]
#[ignore = "a part of another test, which runs it as a process of its own"]
fn exec_from_another_thread() {
    let name = std::env::var("SABOT_TEST_NAME").expect("the other test says what to be called");
    let (_, error) = on_thread_named(&name, || {
        // SAFETY: the call takes nothing.
        unsafe { libc::syscall(libc::SYS_getppid) };
        Command::new("/bin/true").exec()
    });
    panic!("/bin/true can't be executed: {error}");
}

#[test]
fn events_beyond_the_ring_are_counted_one_by_one() {
    const CALLS: usize = 300;
    let name = unique_name();
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    let config = SyscallProgramConfig {
        watch: Watch {
            processes: BTreeMap::from([(comm, 1)]),
            syscalls: BTreeSet::from([syscall_number("openat").unwrap()]),
            ..Watch::default()
        },
        slow_threshold_ns: 0,
        slow_exempt: Vec::new(),
        quiet_errnos: Vec::new(),
        details: Vec::new(),
        ring_bytes: 4096,
    };
    let (programs, mut ring) = SyscallPrograms::attach(&config).expect("root is needed to trace syscalls");
    programs.set_streamed(true).unwrap();
    on_thread_named(&name, || open_missing(CALLS));

    let mut read = 0;
    while let Some(event) = ring.next() {
        assert_eq!(event.len(), size_of::<RawEvent>());
        read += 1;
    }
    let lost = programs.losses().unwrap()[SYSCALL_LOSS_EVENT as usize];
    assert!(read > 0 && lost > 0, "{read} read, {lost} lost");
    assert_eq!(read + lost, CALLS as u64);
    // Only the events are gone.
    let errors: u64 = programs.errnos().unwrap().iter().map(|(_, count)| count).sum();
    assert_eq!(errors, CALLS as u64);
}
