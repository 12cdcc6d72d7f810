//! What is traced changes while it is.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use sabotd::observe::event::EventHub;
use sabotd::observe::identity::containers::{self, Containers};
use sabotd::observe::syscalls::{SyscallObserver, SyscallsConfig, SyscallsError, Tracing, start};
use sabotd::targets::{RuntimeContainer, RuntimeContainers};
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::watch;

use crate::rig::{
    Program, calls, errors, observe, on_thread_named, open_missing, receive, unique_name, wait_until,
};

/// A cgroup of our own below the v2 root; it goes with the test.
struct Cgroup {
    path: String,
    directory: PathBuf,
}

impl Cgroup {
    fn new() -> Self {
        let cgroup = Self::absent(&format!("sabot-test-{}", unique_name()));
        cgroup.make();
        cgroup
    }

    /// One that is yet to be made.
    fn absent(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields[2] == "cgroup2")
            .map(|fields| PathBuf::from(fields[1]))
            .expect("cgroup v2 is mounted");
        Self {
            path: format!("/{name}"),
            directory: root.join(name),
        }
    }

    fn make(&self) {
        fs::create_dir_all(self.directory.join("inner")).unwrap();
    }

    fn remove(&self) {
        // Who ended in it may still be leaving it.
        for directory in [self.directory.join("inner"), self.directory.clone()] {
            wait_until("the end of a cgroup", || fs::remove_dir(&directory).is_ok());
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
        cgroups: vec!["no/such/path".to_owned()],
        ..Tracing::default()
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

/// What is counted under a label of opens of files that aren't there.
fn missing_of(observer: &SyscallObserver, label: &str) -> u64 {
    let snapshot = observer.snapshot().unwrap();
    let count = |syscall| snapshot.errors.get(&((Arc::from(label), syscall), "ENOENT"));
    count("open").or(count("openat")).copied().unwrap_or_default()
}

/// Runs a program in a cgroup until it is counted.
fn wait_counted(observer: &SyscallObserver, label: &str, cgroup: &Cgroup, cat: &str) {
    let before = missing_of(observer, label);
    wait_until("a call in the cgroup", || {
        cgroup.run(cat);
        missing_of(observer, label) > before
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cgroup_is_traced_whenever_it_is_there() {
    let cgroup = Cgroup::absent(&format!("sabot-test-{}", unique_name()));
    let name = unique_name();
    let program = Program::named(&unique_name());
    let cat = format!("{} cat /no/1", program.path.display());
    let config = SyscallsConfig {
        tracing: Tracing {
            cgroups: vec![cgroup.path.clone()],
            ..Tracing::of_processes([&name])
        },
        ..SyscallsConfig::default()
    };
    let hub = EventHub::new(4096);
    let observer = start(&config, Containers::default(), hub).expect("one that isn't there is waited for");
    // It keeps nothing else from being traced.
    on_thread_named(&name, || open_missing(2));
    assert_eq!(calls(&observer.snapshot().unwrap(), "openat"), 2);
    cgroup.make();
    wait_counted(&observer, &cgroup.path, &cgroup, &cat);
    // Another one in its place is followed too, under the same name, and nothing of the first one is lost.
    let before = missing_of(&observer, &cgroup.path);
    cgroup.remove();
    cgroup.make();
    wait_counted(&observer, &cgroup.path, &cgroup, &cat);
    assert!(missing_of(&observer, &cgroup.path) > before);
    assert_eq!(observer.snapshot().unwrap().losses, [0; 4]);
}

/// As a runtime lists it.
fn listed(id: &str, name: &str, sandbox: &str) -> Arc<RuntimeContainers> {
    let container = RuntimeContainer {
        name: name.to_owned(),
        sandbox: sandbox.to_owned(),
    };
    Arc::new([(id.to_owned(), container)].into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_traced_by_its_name_in_whatever_cgroup_it_is() {
    const LABEL: &str = "kube-system/etcd";
    let program = Program::named(&unique_name());
    let cat = format!("{} cat /no/1", program.path.display());
    let id = |digit: &str| format!("{:0>64}", format!("{:x}{digit}", std::process::id()));
    let [first, second, other] = ["a", "b", "c"].map(|digit| {
        let cgroup = Cgroup::absent(&id(digit));
        cgroup.make();
        cgroup
    });
    let pods = |sandbox: &str| {
        let namespace = sandbox.strip_suffix("-sandbox")?;
        Some((namespace.to_owned(), "pod".to_owned()))
    };
    let (runtime, containers) = watch::channel(listed(&id("a"), "etcd", "kube-system-sandbox"));
    let containers = containers::start(containers, Box::new(pods), || {});
    let config = SyscallsConfig {
        tracing: Tracing {
            containers: vec![LABEL.to_owned()],
            // A name counts in the daemon's pid namespace only.
            ..Tracing::of_processes([program.path.file_name().unwrap().to_str().unwrap()])
        },
        ..SyscallsConfig::default()
    };
    let observer = start(&config, containers, EventHub::new(4096)).expect("root is needed to trace syscalls");
    wait_counted(&observer, LABEL, &first, &cat);
    // The one that comes after it, as after a crash.
    runtime.send_replace(listed(&id("b"), "etcd", "kube-system-sandbox"));
    wait_counted(&observer, LABEL, &second, &cat);
    // One of the same name in another namespace's pod is none.
    runtime.send_replace(listed(&id("c"), "etcd", "shop-sandbox"));
    second.remove();
    let before = missing_of(&observer, LABEL);
    for _ in 0..3 {
        other.run(&cat);
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    assert_eq!(missing_of(&observer, LABEL), before);
    assert_eq!(labels(&observer), [LABEL]);
}
