//! The guest's whole system: busybox, the programs that its jobs run, what they are linked with, the jobs, the modules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::apt::output;
use super::archive::Archive;
use super::kernel::{Family, Kernel};
use crate::process;

/// The guest's process 1.
const INIT: &str = include_str!("guest.sh");

/// What the fixtures of the tests call; the benches are made of the same ones.
const PROGRAMS: [&str; 7] = ["bash", "bpftool", "busybox", "ip", "nft", "ping", "tc"];

/// What faults and fixtures need of the kernel; modules aren't loaded on demand in the guest. What a kernel doesn't have,
/// or has built in, is passed over. The sum comes before those that ask for it by what it computes, not by its name.
const MODULES: [&str; 26] = [
    "crc32c_generic",
    "virtio_rng",
    "ipv6",
    "veth",
    "bridge",
    "tun",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "nf_tables",
    "nf_tables_netdev",
    "nft_counter",
    "nft_ct",
    "nft_limit",
    "nft_reject",
    "nft_reject_inet",
    "nft_chain_nat",
    "nft_nat",
    "nft_numgen",
    "ip_vs",
    "ip_vs_rr",
    "sch_tbf",
    "sch_netem",
    "sch_fq",
    "dummy",
    "unix_diag",
];

/// Folders that are links to their namesakes in `/usr`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// A command that a guest runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// One word.
    pub(super) name: String,
    /// After which it is ended.
    pub(super) limit: Duration,
    /// Words with spaces between them.
    pub(super) command: String,
}

impl Job {
    /// As the guest reads it.
    fn line(&self) -> String {
        format!("{} {} {}\n", self.name, self.limit.as_secs(), self.command)
    }
}

/// What all kernels have in common.
pub(super) struct Files {
    programs: Vec<(String, Vec<u8>)>,
}

impl Files {
    /// Our own programs, each with where it is to stand (without a slash before it), and those of this machine that the
    /// jobs call beyond what the fixtures do.
    ///
    /// # Errors
    ///
    /// A program isn't installed or can't be read.
    pub(super) fn gather(own: &[(String, PathBuf)], tools: &[&str]) -> Result<Self> {
        let mut programs = Vec::new();
        let mut libraries = BTreeSet::new();
        for (path, program) in own {
            libraries.extend(linked(program)?);
            programs.push((path.clone(), stripped(program)?));
        }
        for name in PROGRAMS.iter().chain(tools) {
            let program = process::find_program(name).with_context(|| format!("{name} isn't installed"))?;
            libraries.extend(linked(&program)?);
            programs.push((format!("usr/bin/{name}"), read(&program)?));
        }
        for library in libraries {
            programs.push((in_usr(&library), read(&library)?));
        }
        Ok(Self { programs })
    }

    /// The archive for one kernel.
    ///
    /// # Errors
    ///
    /// A module can't be read.
    pub(super) fn archive(&self, kernel: &Kernel, family: &Family, jobs: &[Job]) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        let mut folders = BTreeSet::new();
        for folder in ["dev", "modules", "proc", "sabot", "sys", "usr/sbin"] {
            add_folders(&mut archive, &mut folders, folder);
        }
        for name in MERGED {
            archive.link(name, &format!("usr/{name}"));
        }
        archive.character_device("dev/console", 5, 1);
        for (path, content) in &self.programs {
            if let Some((folder, _)) = path.rsplit_once('/') {
                add_folders(&mut archive, &mut folders, folder);
            }
            archive.file(path, 0o755, content);
        }
        for (number, module) in kernel.modules(&MODULES)?.iter().enumerate() {
            let path = format!("modules/{number:02}-{}.ko", module.name);
            archive.file(&path, 0o644, &module.bytes);
        }
        let settings = format!(
            "export SABOT_MAY_LACK={} SABOT_TEST_SLOWNESS={}\n",
            family.may_lack.join(","),
            super::SLOWNESS
        );
        archive.file("settings", 0o644, settings.as_bytes());
        let lines: String = jobs.iter().map(Job::line).collect();
        archive.file("jobs", 0o644, lines.as_bytes());
        archive.file("init", 0o755, INIT.as_bytes());
        Ok(archive.finish())
    }
}

/// A folder and those that it is in, unless they are there already.
fn add_folders(archive: &mut Archive, made: &mut BTreeSet<String>, folder: &str) {
    let mut path = String::new();
    for part in folder.split('/') {
        path = if path.is_empty() {
            part.to_owned()
        } else {
            format!("{path}/{part}")
        };
        if made.insert(path.clone()) {
            archive.directory(&path);
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} can't be read", path.display()))
}

/// Without what debuggers want, which is most of an unoptimised program.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("stripped");
    output(Command::new("strip").arg("-o").args([&copy, program]))?;
    read(&copy)
}

/// The libraries that a program needs, its loader among them; none if it is linked statically.
fn linked(program: &Path) -> Result<Vec<PathBuf>> {
    let listing = Command::new("ldd").arg(program).output();
    let listing = listing.context("ldd can't be started")?;
    let text = String::from_utf8_lossy(&listing.stdout).into_owned();
    Ok(text.lines().filter_map(library).collect())
}

/// The path in a line like `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`.
fn library(line: &str) -> Option<PathBuf> {
    let path = line.split_whitespace().find(|word| word.starts_with('/'))?;
    Some(PathBuf::from(path))
}

/// Where a library stands in the archive, in which `/lib` is a link to `/usr/lib`.
fn in_usr(library: &Path) -> String {
    let path = library.display().to_string();
    let path = path.trim_start_matches('/');
    if path.starts_with("usr/") {
        path.to_owned()
    } else {
        format!("usr/{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_told_how_long_a_job_may_take() {
        let job = Job {
            name: "bench".to_owned(),
            limit: Duration::from_secs(90),
            command: "/sabot/xtask bench".to_owned(),
        };
        assert_eq!(job.line(), "bench 90 /sabot/xtask bench\n");
    }

    #[test]
    fn libraries_and_the_loader_are_found_and_what_the_kernel_brings_is_not() {
        let lines = [
            "\tlinux-vdso.so.1 (0x00007ffc)",
            "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)",
            "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)",
            "\tnot a dynamic executable",
        ];
        let found: Vec<PathBuf> = lines.iter().filter_map(|line| library(line)).collect();
        let places: Vec<String> = found.iter().map(|path| in_usr(path)).collect();
        assert_eq!(
            places,
            [
                "usr/lib/x86_64-linux-gnu/libc.so.6",
                "usr/lib64/ld-linux-x86-64.so.2"
            ]
        );
    }
}
