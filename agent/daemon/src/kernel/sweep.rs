//! Removing what an earlier daemon left behind.
//!
//! Links, TAPs and veths go with the process that made them. Only clsact filters survive a kill; they are inert behind the
//! emptied gate, and recognised by their priority and handle.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use sabot_core::model::NetnsId;

use super::devices::{FILTER_HANDLE, FILTER_PRIORITY, Side};
use super::hook;
use super::netns;
use super::nsfs::{NetnsFile, netns_id};
use super::rtnl::{Rtnl, RtnlError};

/// Where container runtimes and `ip netns` keep namespaces by name.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// Sweeps every network namespace that a process of ours can see. Says how many filters were removed; what can't be swept
/// is logged.
pub fn sweep() -> usize {
    namespaces()
        .into_values()
        .map(|path| sweep_namespace(&path))
        .sum()
}

fn sweep_namespace(path: &Path) -> usize {
    // A namespace may go at any time; then there is nothing left in it.
    let Ok(file) = NetnsFile::open(path) else { return 0 };
    match netns::run_in(file.as_fd(), sweep_here) {
        Ok(Ok(removed)) => {
            if removed > 0 {
                tracing::info!(netns = %path.display(), removed, "removed filters of an earlier daemon");
            }
            removed
        }
        Ok(Err(error)) => {
            tracing::warn!(netns = %path.display(), %error, "cannot sweep");
            0
        }
        Err(error) => {
            tracing::warn!(netns = %path.display(), %error, "cannot sweep");
            0
        }
    }
}

fn sweep_here() -> Result<usize, RtnlError> {
    let mut rtnl = Rtnl::open()?;
    let mut removed = 0;
    for link in rtnl.links()? {
        for side in [Side::Ingress, Side::Egress] {
            if rtnl
                .filters(link.ifindex, side)?
                .contains(&(FILTER_PRIORITY, FILTER_HANDLE))
            {
                hook::detach_clsact(link.ifindex, side)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// One path for each namespace.
fn namespaces() -> BTreeMap<NetnsId, PathBuf> {
    let processes = entries(Path::new("/proc"))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit())
        })
        .map(|path| path.join("ns/net"));
    let named = NAMED.iter().flat_map(|dir| entries(Path::new(dir)));
    processes
        .chain(named)
        .filter_map(|path| Some((netns_id(&path)?, path)))
        .collect()
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}
