//! Network namespaces as files.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use sabot_core::model::NetnsId;

use super::nsid::{self, Inode, NsidError};

/// The daemon's own namespace, which is the node's. `self` is the process, so that it means the same from a thread that
/// is inside another namespace.
pub const OWN_NETNS: &str = "/proc/self/ns/net";

#[derive(Debug, thiserror::Error)]
pub enum NsfsError {
    #[error("cannot open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{} is not a network namespace: {found}", path.display())]
    NotNetns { path: PathBuf, found: String },
    #[error("{} gets no serial number: {source}", path.display())]
    Serial { path: PathBuf, source: NsidError },
}

/// A network namespace held open: it can't vanish while this lives.
#[derive(Debug)]
pub struct NetnsFile {
    file: File,
    path: PathBuf,
}

impl NetnsFile {
    /// Opens a path such as `/run/netns/x` or `/proc/PID/ns/net`, and makes sure that it is a network namespace.
    pub fn open(path: &Path) -> Result<Self, NsfsError> {
        let open = |source| NsfsError::Open {
            path: path.to_owned(),
            source,
        };
        // O_NONBLOCK: a path that turns out to be a FIFO must not block the caller.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(open)?;
        if let Some(found) = foreign_kind(&file).map_err(|errno| open(errno.into()))? {
            return Err(NsfsError::NotNetns {
                path: path.to_owned(),
                found,
            });
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Which one it is of all that this process ever asks about.
    pub fn id(&self) -> Result<NetnsId, NsfsError> {
        let metadata = self.file.metadata().map_err(|source| NsfsError::Open {
            path: self.path.clone(),
            source,
        })?;
        let inode = inode(&metadata);
        let serial = nsid::serial(self.as_fd(), inode).map_err(|source| NsfsError::Serial {
            path: self.path.clone(),
            source,
        })?;
        Ok(NetnsId {
            ino: inode.ino,
            serial,
        })
    }
}

impl AsFd for NetnsFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The namespace that a path means right now; `None` where there is nothing.
pub fn netns_id(path: &Path) -> Option<NetnsId> {
    let inode = inode(&fs::metadata(path).ok()?);
    match nsid::known(inode) {
        Some(serial) => Some(NetnsId {
            ino: inode.ino,
            serial,
        }),
        None => NetnsFile::open(path).ok()?.id().ok(),
    }
}

fn inode(metadata: &Metadata) -> Inode {
    let nanos = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
    Inode {
        dev: metadata.dev(),
        ino: metadata.ino(),
        changed: UNIX_EPOCH + Duration::new(metadata.ctime().unsigned_abs(), nanos),
    }
}

/// What the file is, if it isn't a network namespace.
fn foreign_kind(file: &File) -> Result<Option<String>, Errno> {
    if fstatfs(file)?.filesystem_type() != NSFS_MAGIC {
        return Ok(Some("it is not on nsfs".into()));
    }
    // `NS_GET_NSTYPE`, ioctl_ns(2).
    let request = nix::request_code_none!(0xb7, 0x3);
    // SAFETY: the request takes no argument and the descriptor is open; it answers with a CLONE_NEW* constant.
    let kind = Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), request) })?;
    Ok((kind != libc::CLONE_NEWNET)
        .then(|| format!("its type is {kind:#x}, CLONE_NEWNET is {:#x}", libc::CLONE_NEWNET)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_netns_is_one() {
        let own = NetnsFile::open(Path::new(OWN_NETNS)).unwrap();
        assert_eq!(own.id().ok(), netns_id(Path::new("/proc/thread-self/ns/net")));
    }

    #[test]
    fn anything_else_is_refused_with_what_it_is() {
        let error = NetnsFile::open(Path::new("/proc/self/ns/mnt"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("/proc/self/ns/mnt is not a network namespace: its type is 0x20000"),
            "{error}"
        );
        let error = NetnsFile::open(Path::new("/proc/self/status"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "/proc/self/status is not a network namespace: it is not on nsfs"
        );
        let error = NetnsFile::open(Path::new("/run/netns/does-not-exist"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_fifo_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(NetnsFile::open(&path), Err(NsfsError::NotNetns { .. })));
    }
}
