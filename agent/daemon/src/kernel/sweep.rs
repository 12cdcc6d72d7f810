//! Removing what an earlier daemon left behind.
//!
//! Links, TAPs and veths go with the process that made them. Only clsact filters survive a kill; they are inert behind the
//! emptied gate, and recognised by their priority and handle, which also says whose they were: a daemon that still runs
//! keeps its own. A daemon's reaper sweeps them as soon as the daemon has ended, the next daemon at its start.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;

use super::devices::{Side, filter_owner};
use super::hook;
use super::netns;
use super::nsfs::NetnsFile;
use super::rtnl::{Rtnl, RtnlError};

/// How the names of the devices that a daemon makes begin.
const OWN_DEVICES: &str = "sabot-";
/// Where container runtimes and `ip netns` keep namespaces by name.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// Sweeps what no daemon owns that runs from every network namespace that a process of ours can see. Says how many filters
/// were removed; what can't be swept is logged.
pub fn sweep() -> usize {
    sweep_all(&|pid| !is_daemon(pid))
}

/// The same for what the daemon with this pid made, whether it runs or not. For its reaper, which has no log.
pub(super) fn sweep_of(pid: u32) -> usize {
    sweep_all(&|owner| owner == pid)
}

fn sweep_all(is_swept: &(impl Fn(u32) -> bool + Sync)) -> usize {
    namespaces()
        .into_values()
        .map(|path| sweep_namespace(&path, is_swept))
        .sum()
}

fn sweep_namespace(path: &Path, is_swept: &(impl Fn(u32) -> bool + Sync)) -> usize {
    // A namespace may go at any time; then there is nothing left in it.
    let Ok(file) = NetnsFile::open(path) else { return 0 };
    let swept = netns::run_in(file.as_fd(), || sweep_here(is_swept)).map_err(|error| error.to_string());
    match swept.and_then(|result| result.map_err(|error| error.to_string())) {
        Ok(removed) => {
            if removed > 0 {
                tracing::info!(netns = %path.display(), removed, "removed filters of an earlier daemon");
            }
            removed
        }
        Err(error) => {
            tracing::warn!(netns = %path.display(), error, "cannot sweep");
            0
        }
    }
}

fn sweep_here(is_swept: impl Fn(u32) -> bool) -> Result<usize, RtnlError> {
    let mut rtnl = Rtnl::open()?;
    let mut removed = 0;
    // Filters on our own devices go with them, and so with their daemon: one that is still there has a daemon that lives.
    let ours = |name: &str| name.starts_with(OWN_DEVICES);
    for link in rtnl.links()?.into_iter().filter(|link| !ours(&link.name)) {
        for side in [Side::Ingress, Side::Egress] {
            for (priority, handle) in rtnl.filters(link.ifindex, side)? {
                if let Some(pid) = filter_owner(priority, handle).filter(|pid| is_swept(*pid)) {
                    hook::detach_clsact(link.ifindex, side, pid)?;
                    removed += 1;
                }
            }
        }
    }
    Ok(removed)
}

/// Whether this pid is a daemon that runs, and owns its filters. Its own pid can't be: what bears it is from a daemon of
/// before, since this one sweeps before it attaches anything.
fn is_daemon(pid: u32) -> bool {
    pid != process::id()
        && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == "sabotd")
}

/// One path for each namespace, by its inode number.
fn namespaces() -> BTreeMap<u64, PathBuf> {
    let processes = entries(Path::new("/proc"))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit())
        })
        .map(|path| path.join("ns/net"));
    let named = NAMED.iter().flat_map(|dir| entries(Path::new(dir)));
    processes
        .chain(named)
        .filter_map(|path| Some((fs::metadata(&path).ok()?.ino(), path)))
        .collect()
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}
