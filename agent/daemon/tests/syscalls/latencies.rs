//! Durations beside those of bpftrace, taken of the same calls.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sabot_abi::{SUB_BITS, log_linear_bucket};
use sabot_testkit::cri::{Containerd, PodSpec};
use sabot_testkit::traced::bpftrace;
use sabotd::observe::event::EventHub;
use sabotd::observe::names::syscall_number;
use sabotd::observe::syscalls::SyscallSnapshot;

use crate::rig::{observe, observe_into, on_thread_named, unique_name, wait_until};

/// Of each syscall.
const CALLS: u32 = 400;
/// Different durations that bpftrace can tell apart: more than there are calls.
const DURATIONS: u32 = 1 << 17;
const PODS: usize = 3;
/// Between the two readings of the clock the one tracer is inside the other's: of a call that is shorter that is more than a
/// bucket.
const SHORTEST: Duration = Duration::from_micros(8);

/// bpftrace, measuring each call of the threads of one name.
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
                @ns[args->id, nsecs - @start[tid]] = count();
                delete(@start[tid]);
            }}"#
        );
        let mut child = bpftrace()
            .args(["-f", "json", "-e", &script])
            // As it was called, and as it is called since 0.20.
            .env("BPFTRACE_MAP_KEYS_MAX", DURATIONS.to_string())
            .env("BPFTRACE_MAX_MAP_KEYS", DURATIONS.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`unshare` is there");
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
            assert!(
                enter && exit,
                "bpftrace ended early: is Debian's package `bpftrace` installed?"
            );
        });
        Self { child, output }
    }

    /// Ends it; returns what it recorded.
    fn end(mut self) -> Recorded {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        self.child.wait().unwrap();
        let calls = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|value| value["data"]["@ns"].as_object().cloned())
            .unwrap_or_else(|| panic!("bpftrace saw nothing: {text}"));
        Recorded(calls)
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many calls there were, by number of the syscall and duration.
struct Recorded(serde_json::Map<String, serde_json::Value>);

impl Recorded {
    /// The bucket of ours in which each call belongs, in order.
    fn buckets(&self, syscall: &str) -> Vec<usize> {
        let number = syscall_number(syscall).unwrap().to_string();
        let mut buckets = Vec::new();
        for (key, count) in &self.0 {
            let (of, ns) = key.split_once(',').expect("a number and a duration");
            if of == number {
                let bucket = log_linear_bucket(ns.trim().parse().expect("a duration in ns"));
                let count = count.as_u64().expect("a count") as usize;
                buckets.extend(std::iter::repeat_n(bucket, count));
            }
        }
        buckets.sort_unstable();
        buckets
    }
}

/// The bucket of each call, in order.
fn ours(snapshot: &SyscallSnapshot, name: &str, syscall: &'static str) -> Vec<usize> {
    let stats = &snapshot.calls[&(Arc::from(name), syscall)];
    let buckets = stats.durations.buckets.iter().enumerate();
    buckets
        .flat_map(|(bucket, &count)| std::iter::repeat_n(bucket, count as usize))
        .collect()
}

/// From 20 us to 4 ms, each power of two as often as the others.
fn spread() -> impl Iterator<Item = Duration> {
    const SHORTEST: Duration = Duration::from_micros(20);
    const RANGE: f64 = 200.0;
    // Multiples of the golden ratio fill the unit interval evenly, and neighbours differ much.
    let places = (0..CALLS).map(|call| (f64::from(call) * 0.618_034).fract());
    places.map(|place| SHORTEST.mul_f64(RANGE.powf(place)))
}

fn sleep_read_and_sync(file: &File) {
    // Without it the kernel adds 50 us to each sleep.
    nix::sys::prctl::set_timerslack(1).unwrap();
    for duration in spread() {
        std::thread::sleep(duration);
    }
    let (reader, writer) = nix::unistd::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            nix::sys::prctl::set_name(c"writer").unwrap();
            nix::sys::prctl::set_timerslack(1).unwrap();
            for duration in spread() {
                std::thread::sleep(duration);
                nix::unistd::write(&writer, b"x").unwrap();
            }
        });
        for _ in 0..CALLS {
            assert_eq!(nix::unistd::read(&reader, &mut [0]), Ok(1));
        }
    });
    let mut file = file;
    for call in 0..CALLS {
        // From one page to 64, so that there is more or less to be written.
        file.write_all(&vec![0; 4096 << (call % 7)]).unwrap();
        nix::unistd::fsync(file).unwrap();
    }
}

fn percentile(calls: &[usize], percent: usize) -> usize {
    calls[calls.len() * percent / 100]
}

/// Looks at each percentile that takes no less than `shortest`; returns how many those are. Ours may lie anywhere between theirs
/// of `slip` percent fewer and more.
fn assert_alike(syscall: &str, ours: &[usize], theirs: &[usize], shortest: Duration, slip: usize) -> usize {
    let shortest = log_linear_bucket(shortest.as_nanos() as u64);
    let compared = (5..=95).filter(|&percent| percentile(theirs, percent) >= shortest);
    let compared: Vec<usize> = compared.collect();
    for &percent in &compared {
        let one = percentile(ours, percent);
        let [low, high] = [percent - slip, percent + slip].map(|place| percentile(theirs, place));
        assert!(
            (low.saturating_sub(1)..=high + 1).contains(&one),
            "{syscall}: {percent} % are below bucket {one}, and {low} to {high} by bpftrace: {ours:?} and {theirs:?}"
        );
    }
    compared.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn latencies_are_those_of_bpftrace_within_a_bucket_of_ours() {
    let name = unique_name();
    let (observer, _events) = observe(&name, None);
    let bpftrace = Bpftrace::measure(&name);
    let file = tempfile::tempfile().unwrap();
    on_thread_named(&name, || sleep_read_and_sync(&file));
    let recorded = bpftrace.end();
    let snapshot = observer.snapshot().unwrap();
    for syscall in ["clock_nanosleep", "read", "fsync"] {
        let (ours, theirs) = (ours(&snapshot, &name, syscall), recorded.buckets(syscall));
        assert_eq!(ours.len(), theirs.len(), "each saw every {syscall}");
        assert!(ours.len() >= CALLS as usize, "{} of {syscall}", ours.len());
        assert_eq!(assert_alike(syscall, &ours, &theirs, Duration::ZERO, 0), 91);
        // What there is to agree on: four powers of two and more, but for the disk's own pace.
        let width = percentile(&ours, 95) - percentile(&ours, 5);
        assert!(
            syscall == "fsync" || width >= 4 << SUB_BITS,
            "{syscall} is spread over {width} buckets"
        );
    }
}

/// A containerd under this name, from its start to its end, with pods that begin and end meanwhile.
fn run_pods(name: &str) {
    // A process has the name of the file that it came from.
    const RENAME: &str = r#"ln -s "$(command -v "$1")" "$0" && shift && exec "$0" "$@""#;
    let folder = tempfile::tempdir().unwrap();
    let mut prefix = ["sh", "-c", RENAME].map(OsString::from).to_vec();
    prefix.push(folder.path().join(name).into());
    let containerd = Containerd::start_under(&std::env::temp_dir(), &prefix).unwrap();
    for number in 0..PODS {
        let spec = PodSpec::idle("team-a", &format!("web-{number}"));
        let pod = containerd.run_pod(&spec).unwrap();
        containerd.stop_pod(&pod).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn latencies_of_a_container_runtime_are_those_of_bpftrace() {
    /// Fewer calls of a syscall have no percentiles.
    const ENOUGH: usize = 200;
    /// Of a hundred calls one may have been held up between the two tracers, which shifts those behind it by a place.
    const SLIP: usize = 1;
    let name = unique_name();
    // Nobody reads the events: telling of a call that failed takes a microsecond of what bpftrace measures.
    let observer = observe_into(&EventHub::new(16), &name, None);
    let bpftrace = Bpftrace::measure(&name);
    std::thread::scope(|scope| scope.spawn(|| run_pods(&name)).join()).expect("pods run");
    let recorded = bpftrace.end();
    let snapshot = observer.snapshot().unwrap();
    let (mut syscalls, mut percentiles) = (0, 0);
    for (process, syscall) in snapshot.calls.keys() {
        let ours = ours(&snapshot, process, syscall);
        let theirs = recorded.buckets(syscall);
        if ours.len() < ENOUGH {
            continue;
        }
        assert_eq!(ours.len(), theirs.len(), "each saw every {syscall}");
        let compared = assert_alike(syscall, &ours, &theirs, SHORTEST, SLIP);
        eprintln!("{syscall}: {} calls, {compared} percentiles", ours.len());
        syscalls += usize::from(compared > 0);
        percentiles += compared;
    }
    assert!(
        syscalls >= 3 && percentiles >= 100,
        "{syscalls} syscalls, {percentiles} percentiles"
    );
}
