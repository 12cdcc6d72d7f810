//! What a daemon and its maps take: memory and time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use sabot_testkit::Daemon;

/// In bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// Of all maps that the daemon has descriptors of, as the kernel reckons them.
    pub(super) maps: u64,
    /// Resident, of the process.
    pub(super) process: u64,
}

impl Memory {
    /// # Errors
    ///
    /// The daemon is no more.
    pub(super) fn of(daemon: &Daemon) -> Result<Self> {
        let process = format!("/proc/{}", daemon.pid());
        let mut maps = BTreeMap::new();
        for entry in fs::read_dir(format!("{process}/fdinfo")).context("the daemon has ended")? {
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            if let (Some(id), Some(bytes)) = (number(&text, "map_id:"), number(&text, "memlock:")) {
                maps.insert(id, bytes);
            }
        }
        let status = fs::read_to_string(format!("{process}/status")).context("the daemon has ended")?;
        let resident = number(&status, "VmRSS:").context("its status doesn't say how much it takes")?;
        Ok(Self {
            maps: maps.into_values().sum(),
            process: 1024 * resident,
        })
    }
}

/// The ids that stand behind a name (`link_id:`) in what a process's descriptors tell of themselves.
///
/// # Errors
///
/// It is no more.
pub(super) fn held(pid: u32, name: &str) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("the process is gone")? {
        // A descriptor that was closed meanwhile isn't held.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        ids.extend(number(&text, name).and_then(|id| u32::try_from(id).ok()));
    }
    Ok(ids)
}

/// What a process has spent on processors since its start.
///
/// # Errors
///
/// It is no more.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    let fields = stat.rsplit_once(')').context("an unknown format")?.1;
    let mut ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let mut next = || ticks.next().context("too few fields")?.context("no number");
    // USER_HZ is 100 on every architecture that Linux still has.
    Ok(Duration::from_millis((next()? + next()?) * 10))
}

/// The number behind a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_behind_their_names() {
        let text = "map_type:\t1\nmemlock:\t8390656\nmap_id:\t39\nVmRSS:\t   1234 kB\n";
        assert_eq!(number(text, "memlock:"), Some(8_390_656));
        assert_eq!(number(text, "VmRSS:"), Some(1234));
        assert_eq!(number(text, "prog_id:"), None);
    }
}
