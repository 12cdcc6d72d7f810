//! The hierarchy of cgroups of version 2, which machines that still use version 1 have beside it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

/// The first process that we see: of the node, or of the container that a node is.
const FIRST: &str = "/proc/1/cgroup";
const OUTER: &str = "/proc/1/ns/cgroup";
const MOUNTS: &str = "/proc/self/mountinfo";
const KIND: &str = "cgroup2";

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("{MOUNTS} can't be read: {0}")]
    Mounts(#[source] io::Error),
    #[error("cgroups of version 2 are mounted nowhere")]
    NotMounted,
    #[error("{}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{FIRST} can't be read: {0}")]
    First(#[source] io::Error),
    #[error("{} can't be entered: {source}", path.display())]
    Enter { path: PathBuf, source: Errno },
}

/// Sees cgroups as the node does. A container has a cgroup namespace of its own on machines with version 2, in which the
/// paths in `/proc/PID/cgroup` begin at the container's group, and lead nowhere below the node's root.
///
/// For the calling thread and those that it starts afterwards.
///
/// # Errors
///
/// When that is needed and isn't allowed; everything stays as it is.
pub fn enter_outer() -> Result<(), CgroupError> {
    let first = fs::read_to_string(FIRST).map_err(CgroupError::First)?;
    if is_outside(&first) {
        enter(Path::new(OUTER))
    } else {
        Ok(())
    }
}

/// Whether the text of a process's `/proc/PID/cgroup` leads out of what our namespace has.
fn is_outside(cgroups: &str) -> bool {
    cgroups.lines().any(|line| line.starts_with("0::/.."))
}

fn enter(namespace: &Path) -> Result<(), CgroupError> {
    let file = File::open(namespace).map_err(|source| CgroupError::Open {
        path: namespace.to_owned(),
        source,
    })?;
    setns(file, CloneFlags::CLONE_NEWCGROUP).map_err(|source| CgroupError::Enter {
        path: namespace.to_owned(),
        source,
    })
}

/// The topmost group that can be seen from here: the whole machine, or what a node in a container is made of.
///
/// # Errors
///
/// When there is none.
pub(super) fn root() -> Result<File, CgroupError> {
    let mounts = fs::read_to_string(MOUNTS).map_err(CgroupError::Mounts)?;
    let path = mount_point(&mounts).ok_or(CgroupError::NotMounted)?;
    File::open(path).map_err(|source| CgroupError::Open {
        path: path.to_owned(),
        source,
    })
}

/// Of the first mount of that kind: `ID PARENT DEVICE ROOT POINT OPTIONS.. - KIND SOURCE OPTIONS`.
fn mount_point(mounts: &str) -> Option<&Path> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        (kind.split(' ').next() == Some(KIND)).then_some(())?;
        place.split(' ').nth(4).map(Path::new)
    })
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sched::unshare;

    use super::*;

    #[test]
    fn a_containers_view_is_told_from_the_nodes() {
        assert!(is_outside("0::/../../init.scope\n"));
        assert!(is_outside("1:name=systemd:/\n0::/../pod7/x\n"));
        assert!(!is_outside("0::/init.scope\n"));
        assert!(!is_outside("0::/\n"));
    }

    /// Needs root.
    #[test]
    fn another_namespace_is_entered() {
        let own = || fs::read_link("/proc/thread-self/ns/cgroup").expect("/proc is mounted");
        let [before, inside, after] = thread::spawn(move || {
            let before = own();
            unshare(CloneFlags::CLONE_NEWCGROUP).expect("this test needs root for a cgroup namespace");
            let inside = own();
            // That of the process's first thread.
            enter(Path::new("/proc/self/ns/cgroup")).expect("root may");
            [before, inside, own()]
        })
        .join()
        .expect("the thread ends");
        assert_ne!(inside, before);
        assert_eq!(after, before);
    }

    #[test]
    fn the_mount_point_is_found_on_both_kinds_of_machines() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(hybrid), Some(Path::new("/sys/fs/cgroup/unified")));
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw\n";
        assert_eq!(mount_point(unified), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(mount_point("23 1 0:5 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
