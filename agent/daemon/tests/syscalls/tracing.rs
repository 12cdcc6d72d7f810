//! What is traced changes while it is.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use sabotd::observe::event::EventHub;
use sabotd::observe::identity::containers::Containers;
use sabotd::observe::syscalls::{SyscallObserver, SyscallsConfig, SyscallsError, Tracing, start};
use tokio::sync::broadcast::error::TryRecvError;

use crate::rig::{Program, calls, errors, observe, on_thread_named, open_missing, receive, unique_name};

/// A cgroup of our own below the v2 root; it goes with the test.
struct Cgroup {
    path: String,
    directory: PathBuf,
}

impl Cgroup {
    fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields[2] == "cgroup2")
            .map(|fields| PathBuf::from(fields[1]))
            .expect("cgroup v2 is mounted");
        let name = format!("sabot-test-{}", unique_name());
        let directory = root.join(&name);
        fs::create_dir_all(directory.join("inner")).unwrap();
        Self {
            path: format!("/{name}"),
            directory,
        }
    }

    /// Runs a shell command in the cgroup below it, in a pid namespace of its own.
    fn run(&self, command: &str) {
        let procs = self.directory.join("inner/cgroup.procs");
        let script = format!(
            "echo $$ > {} && exec unshare --pid --fork {command}",
            procs.display()
        );
        let status = Command::new("sh")
            .args(["-c", &script])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(1), "{script}");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.directory.join("inner"));
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Without repetitions.
fn labels(observer: &SyscallObserver) -> Vec<String> {
    let snapshot = observer.snapshot().unwrap();
    let mut labels: Vec<_> = snapshot
        .calls
        .keys()
        .map(|(label, _)| label.to_string())
        .collect();
    labels.dedup();
    labels
}

#[tokio::test(flavor = "multi_thread")]
async fn names_come_and_go_while_others_stay() {
    let (first, second, third) = (unique_name(), unique_name(), unique_name());
    let (observer, _events) = observe(&first, None);
    let both = Tracing::of_processes([&first, &second]);
    observer.set_tracing(&both).unwrap();
    assert_eq!(observer.tracing(), both);
    on_thread_named(&first, || open_missing(3));
    on_thread_named(&second, || open_missing(5));
    on_thread_named(&third, || open_missing(7));
    assert_eq!(calls(&observer.snapshot().unwrap(), "openat"), 8);

    // The first one's counters go with it, the second one's stay and grow.
    observer
        .set_tracing(&Tracing::of_processes([&second, &third]))
        .unwrap();
    assert_eq!(labels(&observer), [second.as_str()]);
    on_thread_named(&first, || open_missing(1));
    on_thread_named(&second, || open_missing(1));
    on_thread_named(&third, || open_missing(2));
    let snapshot = observer.snapshot().unwrap();
    let of = |name: &str| snapshot.errors[&((Arc::from(name), "openat"), "ENOENT")];
    assert_eq!((of(&second), of(&third)), (6, 2));
    assert_eq!(errors(&snapshot, &["openat"], "ENOENT"), 8);

    observer.set_tracing(&Tracing::default()).unwrap();
    on_thread_named(&second, || open_missing(1));
    let snapshot = observer.snapshot().unwrap();
    assert!(
        snapshot.calls.is_empty() && snapshot.errors.is_empty(),
        "{snapshot:?}"
    );
    // What comes back begins anew.
    observer.set_tracing(&Tracing::of_processes([&second])).unwrap();
    on_thread_named(&second, || open_missing(4));
    assert_eq!(calls(&observer.snapshot().unwrap(), "openat"), 4);
    assert_eq!(observer.snapshot().unwrap().losses, [0; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_given_syscalls_are_measured() {
    let name = unique_name();
    let (observer, mut events) = observe(&name, None);
    let close = || {
        // SAFETY: no descriptor is closed.
        unsafe { libc::syscall(libc::SYS_close, -1) };
    };
    let only = Tracing {
        syscalls: vec!["openat".to_owned()],
        ..Tracing::of_processes([&name])
    };
    observer.set_tracing(&only).unwrap();
    on_thread_named(&name, || {
        close();
        open_missing(2);
    });
    let snapshot = observer.snapshot().unwrap();
    assert_eq!(snapshot.calls.len(), 1, "{snapshot:?}");
    assert_eq!(calls(&snapshot, "openat"), 2);
    receive(&mut events, |received| received.len() == 2).await;
    assert!(matches!(events.try_recv(), Err(TryRecvError::Empty)));

    let other = Tracing {
        syscalls: vec!["close".to_owned()],
        ..Tracing::of_processes([&name])
    };
    observer.set_tracing(&other).unwrap();
    assert!(observer.snapshot().unwrap().calls.is_empty());
    on_thread_named(&name, close);
    assert_eq!(errors(&observer.snapshot().unwrap(), &["close"], "EBADF"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_changes_nothing() {
    let name = unique_name();
    let (observer, _events) = observe(&name, None);
    on_thread_named(&name, || open_missing(1));
    let before = observer.tracing();
    let wrong = Tracing {
        processes: vec![unique_name(), "a/b".to_owned()],
        syscalls: vec!["nothing".to_owned()],
        cgroups: vec!["/no/such/cgroup".to_owned()],
    };
    let Err(SyscallsError::Invalid(violations)) = observer.set_tracing(&wrong) else {
        panic!("it is invalid");
    };
    assert_eq!(violations.len(), 3, "{violations:?}");
    assert_eq!(observer.tracing(), before);
    on_thread_named(&name, || open_missing(1));
    assert_eq!(calls(&observer.snapshot().unwrap(), "openat"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cgroup_is_traced_with_all_that_is_below_it() {
    let cgroup = Cgroup::new();
    let program = Program::named(&unique_name());
    let hub = EventHub::new(4096);
    let mut events = hub.subscribe();
    let config = SyscallsConfig {
        tracing: Tracing {
            cgroups: vec![cgroup.path.clone()],
            ..Tracing::default()
        },
        slow_threshold: None,
        ..SyscallsConfig::default()
    };
    let observer = start(&config, Containers::default(), hub).expect("root is needed to trace syscalls");
    let cat = format!("{} cat /no/1 /no/2", program.path.display());
    cgroup.run(&cat);
    let missing = |observer: &SyscallObserver| {
        let snapshot = observer.snapshot().unwrap();
        let count = |syscall| {
            snapshot
                .errors
                .get(&((Arc::from(cgroup.path.as_str()), syscall), "ENOENT"))
        };
        count("open").or(count("openat")).copied()
    };
    let received = receive(&mut events, |received| {
        received
            .iter()
            .any(|call| call.detail.iter().any(|(_, value)| value == "/no/2"))
    })
    .await;
    let call = received.last().unwrap();
    assert_eq!(call.process, cgroup.path);
    assert_eq!(call.comm, program.path.file_name().unwrap().to_str().unwrap());
    assert_eq!(labels(&observer), [cgroup.path.as_str()]);
    let before = missing(&observer).expect("the opens were counted");

    // The same program elsewhere isn't.
    let status = program
        .command()
        .args(["cat", "/no/3"])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(missing(&observer), Some(before));

    // One that goes lets go of the kernel's cgroup, and leaves nothing.
    let other = Cgroup::new();
    let next = Tracing {
        cgroups: vec![other.path.clone()],
        ..Tracing::default()
    };
    observer.set_tracing(&next).unwrap();
    assert!(labels(&observer).is_empty());
    cgroup.run(&cat);
    assert!(labels(&observer).is_empty());
    other.run(&cat);
    assert_eq!(labels(&observer), [other.path.as_str()]);
}
