//! Figures beside those of strace and bpftrace, taken of the same calls.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sabotd::observe::names::syscall_number;
use sabotd::observe::syscalls::{SyscallSnapshot, Tracing};

use crate::rig::{Program, observe, on_thread_named, unique_name, wait_until};

/// Calls and errors by syscall.
type Counts = BTreeMap<String, (u64, u64)>;

fn ours(snapshot: &SyscallSnapshot) -> Counts {
    let mut counts = Counts::new();
    for ((_, syscall), stats) in &snapshot.calls {
        counts.entry((*syscall).to_owned()).or_default().0 += stats.calls();
    }
    for (((_, syscall), _), count) in &snapshot.errors {
        counts.entry((*syscall).to_owned()).or_default().1 += count;
    }
    counts
}

/// Of a summary with the columns calls, errors, name.
fn of_strace(summary: &str) -> Counts {
    summary
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let calls = fields.first()?.parse().ok()?;
            let (errors, name) = match fields[1..] {
                [errors, name] => (errors.parse().ok()?, name),
                [name] => (0, name),
                _ => return None,
            };
            (name != "total").then(|| (name.to_owned(), (calls, errors)))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_those_of_strace_with_short_lived_children() {
    let (parent, child) = (unique_name(), unique_name());
    let (observer, _events) = observe(&parent, None);
    observer
        .set_tracing(&Tracing::of_processes([&parent, &child]))
        .unwrap();
    let (shell, tool) = (Program::named(&parent), Program::named(&child));
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("summary");
    // Children that succeed, fail, and can't even be executed, and work of the shell itself.
    let script = format!(
        "for i in 1 2 3 4 5 6 7 8; do {tool} cat /etc/hostname /no/$i; {tool} true; /no/such/program; test -e /no; done",
        tool = tool.path.display()
    );
    let status = Command::new("strace")
        .args(["-f", "-c", "--summary-columns=calls,errors,name", "-o"])
        .arg(&summary)
        .arg(&shell.path)
        .args(["sh", "-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("strace is needed: install Debian's package `strace`");
    assert_eq!(status.code(), Some(1));

    let mut expected = of_strace(&fs::read_to_string(&summary).unwrap());
    // The first call is strace's own child's: it becomes the shell by it. And the end of a signal handler has no result.
    expected.get_mut("execve").expect("programs were executed").0 -= 1;
    expected.remove("rt_sigreturn");
    assert!(
        expected.values().map(|(calls, _)| calls).sum::<u64>() > 200,
        "{expected:?}"
    );
    assert_eq!(
        expected["execve"].0,
        8 * 2 + expected["execve"].1,
        "all programs were executed"
    );
    let snapshot = observer.snapshot().unwrap();
    assert_eq!(ours(&snapshot), expected);
    assert_eq!(snapshot.losses, [0; 4]);
    // Each name has its own.
    let of = |name: &str, syscall: Option<&str>| {
        let calls = snapshot.calls.iter();
        calls
            .filter(|((process, found), _)| {
                **process == *name && syscall.is_none_or(|syscall| *found == syscall)
            })
            .map(|(_, stats)| stats.calls())
            .sum::<u64>()
    };
    assert_eq!(of(&parent, Some("execve")), expected["execve"].0);
    assert_eq!(of(&child, Some("execve")), 0);
    assert!(of(&child, None) > 50 && of(&parent, None) > 50, "{snapshot:?}");
}

/// bpftrace, measuring the calls of the threads of one name.
struct Bpftrace {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Bpftrace {
    /// Returns when both ends of calls are seen.
    fn measure(comm: &str) -> Self {
        let marker = unique_name();
        let script = format!(
            r#"tracepoint:raw_syscalls:sys_enter /comm == "{marker}"/ {{ printf("enter\n"); }}
            tracepoint:raw_syscalls:sys_exit /comm == "{marker}"/ {{ printf("exit\n"); }}
            tracepoint:raw_syscalls:sys_enter /comm == "{comm}"/ {{ @start[tid] = nsecs; }}
            tracepoint:raw_syscalls:sys_exit /comm == "{comm}" && @start[tid]/ {{
                @ns[args->id] = hist(nsecs - @start[tid]);
                delete(@start[tid]);
            }}"#
        );
        let mut child = Command::new("bpftrace")
            .args(["-f", "json", "-e", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("bpftrace is needed: install Debian's package `bpftrace`");
        let seen = AtomicBool::new(false);
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::scope(|scope| {
            let calls = scope.spawn(|| {
                on_thread_named(&marker, || {
                    wait_until("bpftrace's first output", || {
                        // SAFETY: the call takes nothing.
                        unsafe { libc::syscall(libc::SYS_getppid) };
                        seen.load(Ordering::Relaxed)
                    });
                });
            });
            let (mut enter, mut exit) = (false, false);
            let mut line = String::new();
            while !(enter && exit) && output.read_line(&mut line).is_ok_and(|read| read > 0) {
                enter |= line.contains("enter");
                exit |= line.contains("exit");
                line.clear();
            }
            seen.store(true, Ordering::Relaxed);
            calls.join().expect("the marker's thread ends");
            assert!(enter && exit, "bpftrace ended early");
        });
        Self { child, output }
    }

    /// Ends it; the bucket of each call of this syscall, in order: the power of two, from 1 us on.
    fn end(mut self, syscall: &str) -> Vec<u32> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        self.child.wait().unwrap();
        let number = syscall_number(syscall).unwrap().to_string();
        let buckets = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|value| value["data"]["@ns"][&number].as_array().cloned())
            .unwrap_or_else(|| panic!("bpftrace saw no {syscall}: {text}"));
        let mut calls = Vec::new();
        for bucket in buckets {
            let lowest = bucket["min"].as_u64().unwrap_or(0).max(1);
            let count = bucket["count"].as_u64().unwrap() as usize;
            calls.extend(std::iter::repeat_n(power(lowest), count));
        }
        calls
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that is below 1.024 us is one, as in our histogram.
fn power(ns: u64) -> u32 {
    ns.ilog2().saturating_sub(9)
}

#[tokio::test(flavor = "multi_thread")]
async fn latencies_are_those_of_bpftrace_within_a_bucket() {
    /// Some calls are interrupted between one program and the other.
    const AGREEING: f64 = 0.98;
    let name = unique_name();
    let (observer, _events) = observe(&name, None);
    let bpftrace = Bpftrace::measure(&name);
    let sleeps = [50, 100, 300, 700, 1500, 3000].map(Duration::from_micros);
    on_thread_named(&name, || {
        for _ in 0..50 {
            for sleep in sleeps {
                std::thread::sleep(sleep);
            }
        }
    });
    let theirs = bpftrace.end("clock_nanosleep");
    let snapshot = observer.snapshot().unwrap();
    let stats = &snapshot.calls[&(Arc::from(name.as_str()), "clock_nanosleep")];
    let ours: Vec<u32> = stats
        .durations
        .buckets
        .iter()
        .enumerate()
        .flat_map(|(bucket, &count)| {
            let lowest = bucket.checked_sub(1).map_or(1, sabot_abi::log_linear_bound);
            std::iter::repeat_n(power(lowest), count as usize)
        })
        .collect();
    assert_eq!(ours.len(), theirs.len(), "each saw every call");
    assert_eq!(ours.len(), 50 * sleeps.len());
    let agreeing = ours
        .iter()
        .zip(&theirs)
        .filter(|(one, other)| one.abs_diff(**other) <= 1)
        .count();
    let share = agreeing as f64 / ours.len() as f64;
    assert!(share >= AGREEING, "{share}: {ours:?} and {theirs:?}");
    // They tell six durations apart, within a bucket of what they can be at least.
    let least: Vec<u32> = sleeps
        .iter()
        .map(|sleep| power(sleep.as_nanos() as u64))
        .collect();
    for (index, least) in least.into_iter().enumerate() {
        let shortest = ours[index * 50];
        assert!(shortest >= least, "{ours:?}");
    }
}
