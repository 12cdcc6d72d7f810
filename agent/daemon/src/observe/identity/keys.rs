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

/// Cookies of network namespaces. To read one takes a thread inside the namespace, so that each is read once.
#[derive(Default)]
pub(super) struct Cookies {
    /// A sandbox keeps its namespace for life.
    sandboxes: HashMap<String, u64>,
    paths: HashMap<PathBuf, (Inode, u64)>,
}

/// What tells a namespace's file from all that ever were there. The kernel gives the inode's number of a namespace that is
/// gone to the next one, but not the time at which the inode was made.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
    changed: (i64, i64),
}

impl Inode {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            number: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Cookies {
    /// `None` when the namespace isn't there, or can't be entered.
    pub(super) fn of_sandbox(&mut self, sandbox: &str, path: &Path) -> Option<u64> {
        if let Some(&cookie) = self.sandboxes.get(sandbox) {
            return Some(cookie);
        }
        let cookie = read(path)?;
        self.sandboxes.insert(sandbox.to_owned(), cookie);
        Some(cookie)
    }

    /// Of the namespace that is there now.
    pub(super) fn of_path(&mut self, path: &Path) -> Option<u64> {
        let inode = Inode::of(path);
        if let (Some(inode), Some((known, cookie))) = (inode, self.paths.get(path))
            && inode == *known
        {
            return Some(*cookie);
        }
        let cookie = read(path)?;
        // Should another namespace have taken the place meanwhile, the next look finds another inode.
        if let Some(inode) = inode {
            self.paths.insert(path.to_owned(), (inode, cookie));
        }
        Some(cookie)
    }

    pub(super) fn keep(&mut self, is_there: impl Fn(&str) -> bool, is_named: impl Fn(&Path) -> bool) {
        self.sandboxes.retain(|sandbox, _| is_there(sandbox));
        self.paths.retain(|path, _| is_named(path));
    }
}

fn read(path: &Path) -> Option<u64> {
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
pub fn unified_root() -> Option<&'static Path> {
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
