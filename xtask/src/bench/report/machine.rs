//! Where it was measured, and with which versions of what.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The peers and the tools that measure, with the flag that makes each tell its version.
const TOOLS: [(&str, &str); 8] = [
    ("bpftool", "version"),
    ("bpftrace", "--version"),
    ("containerd", "--version"),
    ("iperf3", "--version"),
    ("ipset", "--version"),
    ("iptables", "--version"),
    ("strace", "--version"),
    ("tc", "-V"),
];

/// The machine as a report names it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) kernel: String,
    pub(super) architecture: String,
    pub(super) cpu: String,
    pub(super) cpus: usize,
    pub(super) memory_mib: u64,
}

impl Machine {
    /// # Errors
    ///
    /// `/proc` can't be read.
    pub(super) fn this() -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel has no release")?;
        let cpus = fs::read_to_string("/proc/cpuinfo").context("/proc has no cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo").context("/proc has no meminfo")?;
        Ok(Self {
            kernel: kernel.trim().to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            // Not every architecture has a name for its processor there.
            cpu: field(&cpus, "model name").unwrap_or("unnamed").to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kibibytes(&memory, "MemTotal").context("meminfo has no total")? / 1024,
        })
    }
}

impl Machine {
    /// As a report says where something was measured.
    pub(super) fn place(&self) -> String {
        format!("on Linux {}, {} CPUs ({})", self.kernel, self.cpus, self.cpu)
    }
}

/// What is installed of the tools, and ours by its binary.
pub(super) fn versions(sabotd: Option<&Path>) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    for (name, flag) in TOOLS {
        versions.insert(
            name.to_owned(),
            version(Command::new(name).arg(flag)).unwrap_or_else(|| "absent".to_owned()),
        );
    }
    let ours = sabotd.and_then(|path| version(Command::new(path).arg("--version")));
    versions.extend(ours.map(|ours| ("sabotd".to_owned(), ours)));
    versions
}

/// The first line that a command prints; `None`: it isn't there, or fails.
fn version(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next()?.trim().to_owned())
}

/// Runnable tasks over the last minute.
///
/// # Errors
///
/// `/proc` can't be read.
pub(super) fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("the machine has no load average")?;
    let first = text.split(' ').next().unwrap_or_default();
    first
        .parse()
        .with_context(|| format!("`{first}` is no load average"))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = values.filter(|(key, _)| key.trim() == name);
    values.next().map(|(_, value)| value.trim())
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_names() {
        let text = "processor\t: 0\nmodel name\t: A: fast one\nMemTotalX: 1 kB\nMemTotal:  2048 kB\n";
        assert_eq!(field(text, "model name"), Some("A: fast one"));
        assert_eq!(kibibytes(text, "MemTotal"), Some(2048));
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn what_fails_has_no_version() {
        assert_eq!(version(&mut Command::new("false")), None);
        assert_eq!(
            version(Command::new("echo").arg("v1\nmore")),
            Some("v1".to_owned())
        );
        assert_eq!(version(&mut Command::new("/nonexistent")), None);
    }
}
