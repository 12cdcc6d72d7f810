//! The hierarchy of cgroups of version 2, which machines that still use version 1 have beside it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

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
    use super::*;

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
