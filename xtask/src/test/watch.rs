//! The output of a suite that may hang: a run that waited for it would end without saying where.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// No test takes as long between two lines, on a slow machine either.
pub(super) const SILENCE: Duration = Duration::from_secs(10 * 60);

/// The lines of an output as they come.
pub(super) fn lines(output: impl Read + Send + 'static) -> Receiver<io::Result<String>> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map(|line| String::from_utf8_lossy(&line).into_owned());
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Ends a suite that hangs, and what it has started; returns where its threads were.
pub(super) fn end(suite: &mut Child) -> String {
    let process = suite.id();
    let (threads, started) = (threads(process), descendants(process));
    // Its guards won't run, whatever it is asked to do: a thread of it hangs. What it has started can still clean up.
    let _ = suite.kill();
    let _ = suite.wait();
    for process in started {
        let _ = kill(Pid::from_raw(process as i32), Signal::SIGTERM);
    }
    threads
}

/// Name, state and, for root, the kernel's stack of each thread, a line each.
fn threads(process: u32) -> String {
    let mut text = String::new();
    for thread in numbers(&format!("/proc/{process}/task")) {
        let of = |file: &str| fs::read_to_string(format!("/proc/{process}/task/{thread}/{file}"));
        let (stat, stack) = (of("stat").unwrap_or_default(), of("stack").unwrap_or_default());
        // As in `12 (a name) S 1 …`, where the name may have anything in it.
        let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
        let (name, rest) = name.unwrap_or(("gone", ""));
        let state = rest.split_whitespace().next().unwrap_or("-");
        let calls = stack.lines().filter_map(|line| line.split_whitespace().last());
        let calls: Vec<&str> = calls.collect();
        let _ = write!(text, "\n    {thread} {name} {state} {}", calls.join(" < "));
    }
    text
}

fn descendants(process: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for thread in numbers(&format!("/proc/{process}/task")) {
        let children = fs::read_to_string(format!("/proc/{process}/task/{thread}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            if let Ok(child) = child.parse() {
                found.push(child);
                found.extend(descendants(child));
            }
        }
    }
    found
}

/// What of a folder has a number for a name.
fn numbers(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
