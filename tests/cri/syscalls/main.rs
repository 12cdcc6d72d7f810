//! The syscalls of a whole container runtime, counted beside strace, which saw each of them.

mod log;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use sabot_proto::sabot::v1::{GetSnapshotRequest, GetTracingRequest};
use sabot_testkit::cri::{Containerd, PodSpec};
use sabot_testkit::daemon::Client;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Daemon, DaemonOptions};

use log::{Counts, Log, Made};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
const PODS: usize = 2;
/// These never return a result.
const UNMEASURED: [&str; 3] = ["exit", "exit_group", "rt_sigreturn"];

/// The names of traced processes, as the kernel keeps them.
fn traced(client: &Client) -> Vec<String> {
    let answer = client.wait(client.observe().get_tracing(GetTracingRequest {}));
    let tracing = answer.expect("syscalls are traced").into_inner().tracing;
    let names = tracing.expect("something is").processes.into_iter();
    names.map(|name| name.chars().take(15).collect()).collect()
}

/// What the daemon counted.
fn counted(client: &Client) -> Counts {
    let answer = client.wait(client.observe().get_snapshot(GetSnapshotRequest {}));
    let snapshot = answer.expect("there is a snapshot").into_inner();
    let audit = snapshot.audit.expect("there is an audit");
    let kept_out = audit.missing.iter().filter(|what| what.contains("syscalls"));
    assert_eq!(kept_out.count(), 0, "{audit:?}");
    let made = snapshot.syscalls.into_iter().map(|summary| {
        let made = Made {
            ended: summary.calls,
            failed: summary.errors.iter().map(|errno| errno.count).sum(),
            open: 0,
        };
        ((summary.process, summary.syscall), made)
    });
    made.collect()
}

fn tracer_of(pid: u32) -> Pid {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    let tracer = tracer.and_then(|text| text.trim().parse().ok());
    Pid::from_raw(tracer.filter(|&pid| pid > 0).expect("it is traced"))
}

/// The namespace's first process has the others' orphans, the tracer among them.
fn wait_for_end(orphan: Pid) {
    let ended = wait_until(PATIENCE, LOOK, || {
        waitpid(orphan, Some(WaitPidFlag::WNOHANG)).map_or(true, |status| status.pid() == Some(orphan))
    });
    assert!(ended, "strace waits for processes that don't end");
}

/// The runtime from before its first call to after its last one, with pods that begin and end meanwhile. Returns its number.
fn live(prefix: &Path) -> u32 {
    let mut strace: Vec<OsString> = [
        "strace",
        "-D",
        "-ff",
        "-y",
        "-s",
        "64",
        "--decode-pids=pidns",
        "-o",
    ]
    .map(OsString::from)
    .to_vec();
    strace.push(prefix.into());
    let containerd =
        Containerd::start_under(&env::temp_dir(), &strace).expect("containerd starts under strace");
    let first = containerd.pid();
    let tracer = tracer_of(first);
    for number in 0..PODS {
        let spec = PodSpec::idle("team-a", &format!("web-{number}"));
        let pod = containerd.run_pod(&spec).expect("the pod runs");
        containerd.stop_pod(&pod).expect("the pod ends");
    }
    drop(containerd);
    wait_for_end(tracer);
    first
}

/// strace is there before the runtime's first call and until after the last call of the last process that came of it, and the
/// daemon is there before and after that. So all that both see is the same, with two exceptions. A thread that ends within a
/// call, since another one ends the process or kills it, leaves a call without a result: strace notes its beginning, and the
/// daemon counts it if the kernel still comes to the call's end (it does for a thread that waits, and doesn't for one that it
/// kills where strace stopped it). Such calls are a bound on what may differ. And what happens inside containers is strace's
/// alone, for the daemon traces names in its own pid namespace only.
///
/// It runs in a pid namespace of its own, where no other runtime of this machine is.
#[test]
fn counts_of_a_whole_runtime_are_those_of_strace() {
    let this = env::current_exe().expect("it has a path");
    let status = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(this)
        .args([
            "--ignored",
            "--exact",
            "in_a_pid_namespace_of_its_own",
            "--nocapture",
        ])
        .status()
        .expect("unshare is needed: install Debian's package `util-linux`");
    assert!(status.success(), "{status}");
}

#[test]
#[ignore = "a part of another test, which runs it in a pid namespace of its own"]
fn in_a_pid_namespace_of_its_own() {
    assert_eq!(std::process::id(), 1, "the other test runs it");
    let options = DaemonOptions::built().expect("the daemon is built");
    let daemon = Daemon::start(options).expect("the daemon starts (root is needed)");
    let client = daemon.client().expect("the daemon answers");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = folder.path().join("log");
    let first = live(&prefix);

    let names = traced(&client);
    let mut strace = Log::read(&prefix).counts(first, &names);
    strace.retain(|(_, syscall), _| !UNMEASURED.contains(&syscall.as_str()));
    let ours = counted(&client);
    assert_same(&ours, &strace);
    for name in [
        "containerd",
        "containerd-shim",
        "runc",
        "bridge",
        "host-local",
        "loopback",
    ] {
        let calls: u64 = of(&ours, name).map(|made| made.ended).sum();
        assert!(calls > 50, "{name} made {calls} calls");
    }
}

fn of<'a>(counts: &'a Counts, name: &str) -> impl Iterator<Item = &'a Made> {
    let of = counts.iter().filter(move |((process, _), _)| process == name);
    of.map(|(_, made)| made)
}

fn assert_same(ours: &Counts, strace: &Counts) {
    let mut different = Vec::new();
    let (mut exact, mut calls) = (0, 0);
    let keys = ours.keys().chain(strace.keys());
    for key in keys.collect::<std::collections::BTreeSet<_>>() {
        let ours = ours.get(key).copied().unwrap_or_default();
        let theirs = strace.get(key).copied().unwrap_or_default();
        let is_same = (theirs.ended..=theirs.ended + theirs.open).contains(&ours.ended)
            && (theirs.failed..=theirs.failed + theirs.open).contains(&ours.failed);
        if !is_same {
            different.push(format!("{key:?}: {ours:?} by us, {theirs:?} by strace"));
        }
        if theirs.open == 0 {
            exact += 1;
        }
        calls += ours.ended;
    }
    eprintln!("{calls} calls, {exact} pairs exact of {}", ours.len());
    assert!(different.is_empty(), "{different:#?}");
    assert!(exact > 200, "only {exact} pairs could be compared exactly");
}
