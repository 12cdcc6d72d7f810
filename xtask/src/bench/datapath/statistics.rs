//! The kernel's own statistics of a daemon's programs.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use aya::sys::{Stats, enable_stats};
use sabot_testkit::Daemon;
use serde_json::Value;

/// While it lives, the kernel takes the time of every run of every BPF program; the sysctl stays as it is.
pub(super) struct Statistics {
    programs: BTreeSet<u64>,
    _enabled: OwnedFd,
}

/// Runs so far.
#[derive(Clone, Copy, Debug, Default)]
struct Runs {
    nanoseconds: u64,
    count: u64,
}

impl Statistics {
    /// Of the programs that the daemon has descriptors of now, of their own or by a link.
    ///
    /// # Errors
    ///
    /// The kernel doesn't offer them (before Linux 5.8), or the daemon is no more.
    pub(super) fn of(daemon: &Daemon) -> Result<Self> {
        let folder = format!("/proc/{}/fdinfo", daemon.pid());
        let mut programs = BTreeSet::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("{folder} can't be read"))? {
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            let ids = text.lines().filter_map(|line| line.strip_prefix("prog_id:"));
            programs.extend(ids.filter_map(|id| id.trim().parse::<u64>().ok()));
        }
        let enabled = enable_stats(Stats::RunTime).context("the kernel gives no statistics of programs")?;
        Ok(Self {
            programs,
            _enabled: enabled,
        })
    }

    /// Nanoseconds for each run of a classifier while something is done, which must have run at least `least` times.
    /// A program that another one called by a tail call is part of that one's run.
    ///
    /// # Errors
    ///
    /// It ran less often, or bpftool can't be asked.
    pub(super) fn per_run(&self, least: usize, act: impl FnOnce() -> Result<()>) -> Result<f64> {
        let before = self.runs()?;
        act()?;
        let after = self.runs()?;
        let count = after.count - before.count;
        ensure!(
            count >= least as u64,
            "the classifiers ran {count} times for {least} packets"
        );
        Ok((after.nanoseconds - before.nanoseconds) as f64 / count as f64)
    }

    fn runs(&self) -> Result<Runs> {
        let output = Command::new("bpftool")
            .args(["-j", "prog", "show"])
            .output()
            .context("bpftool can't be started")?;
        let listing: Value =
            serde_json::from_slice(&output.stdout).context("`bpftool -j prog` printed no JSON")?;
        let mut runs = Runs::default();
        for program in listing.as_array().into_iter().flatten() {
            let is_ours = program["id"]
                .as_u64()
                .is_some_and(|id| self.programs.contains(&id));
            if is_ours && program["type"] == "sched_cls" {
                runs.nanoseconds += program["run_time_ns"].as_u64().unwrap_or(0);
                runs.count += program["run_cnt"].as_u64().unwrap_or(0);
            }
        }
        Ok(runs)
    }
}
