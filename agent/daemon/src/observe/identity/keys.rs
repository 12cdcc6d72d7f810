//! What the kernel knows an owner by.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sabot_abi::OwnerKey;

use crate::kernel::netns;
use crate::kernel::nsfs::NetnsFile;

/// Cookies of network namespaces, read once for each sandbox, since a sandbox keeps its namespace for life.
#[derive(Default)]
pub(super) struct Cookies(HashMap<String, u64>);

impl Cookies {
    /// `None` when the namespace isn't there, or can't be entered.
    pub(super) fn of_sandbox(&mut self, sandbox: &str, path: &Path) -> Option<u64> {
        if let Some(&cookie) = self.0.get(sandbox) {
            return Some(cookie);
        }
        let cookie = self.of_path(path)?;
        self.0.insert(sandbox.to_owned(), cookie);
        Some(cookie)
    }

    /// Read each time: the kernel gives the inode of a namespace that is gone to the next one.
    pub(super) fn of_path(&self, path: &Path) -> Option<u64> {
        let read = || -> Result<u64, Box<dyn std::error::Error>> {
            let namespace = NetnsFile::open(path)?;
            Ok(netns::cookie(namespace.as_fd())?)
        };
        read()
            .inspect_err(|error| {
                tracing::debug!(path = %path.display(), %error, "a network namespace has no cookie for us");
            })
            .ok()
    }

    pub(super) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|sandbox, _| is_there(sandbox));
    }
}

/// The cgroups of a pod on the node's own network: its sandbox's, with all those of its containers beside it. None where
/// processes are not in the unified hierarchy.
pub(super) fn cgroup_keys(cookie: u64, process: u32) -> Vec<OwnerKey> {
    let Some(root) = unified_root() else {
        return Vec::new();
    };
    let Ok(text) = fs::read_to_string(format!("/proc/{process}/cgroup")) else {
        return Vec::new();
    };
    let Some(own) = own_group(&text) else {
        return Vec::new();
    };
    // A sandbox directly below the root has no pod's group around it.
    let group = own
        .parent()
        .filter(|parent| *parent != Path::new(""))
        .unwrap_or(own);
    let mut ids = BTreeSet::new();
    collect(&root.join(group), &mut ids);
    ids.into_iter()
        .map(|cgroup| OwnerKey { cookie, cgroup })
        .collect()
}

/// The path below the unified hierarchy's root from the text of `/proc/PID/cgroup`; `None` for the root itself.
fn own_group(text: &str) -> Option<&Path> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!path.is_empty()).then(|| Path::new(path))
}

/// A cgroup's id is the inode of its directory.
fn collect(group: &Path, ids: &mut BTreeSet<u64>) {
    let Ok(metadata) = fs::metadata(group) else {
        return;
    };
    ids.insert(metadata.ino());
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), ids);
        }
    }
}

/// Where the unified hierarchy is mounted.
pub(super) fn unified_root() -> Option<&'static Path> {
    static ROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
    ROOT.get_or_init(|| {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (path, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })
    })
    .as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_the_one_without_controllers() {
        let hybrid = "12:pids:/kubepods/pod1/a\n1:name=systemd:/kubepods/pod1/a\n0::/kubepods/pod1/a\n";
        assert_eq!(own_group(hybrid), Some(Path::new("kubepods/pod1/a")));
        assert_eq!(own_group("12:pids:/kubepods/pod1/a\n0::/\n"), None);
        assert_eq!(own_group("12:pids:/a\n"), None);
    }

    #[test]
    fn a_process_at_the_root_has_no_cgroup_of_its_own_and_one_that_is_gone_neither() {
        assert!(cgroup_keys(1, u32::MAX).is_empty());
    }
}
