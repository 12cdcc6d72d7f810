//! Work inside another network namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("cannot start a thread for a network namespace: {0}")]
    Thread(#[source] io::Error),
    #[error("cannot enter the network namespace: {0}")]
    Enter(#[source] Errno),
    #[error("the network namespace doesn't tell its cookie: {0}")]
    Cookie(#[source] io::Error),
    #[error("the work inside the network namespace panicked")]
    Panicked,
}

/// Runs `work` on a thread of its own inside the namespace and waits for it. The thread ends afterwards, so that no
/// thread that other work runs on can be left in the wrong namespace.
pub fn run_in<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, || {
                setns(netns, CloneFlags::CLONE_NEWNET).map_err(NetnsError::Enter)?;
                Ok(work())
            })
            .map_err(NetnsError::Thread)?
            .join()
            .map_err(|_| NetnsError::Panicked)?
    })
}

/// Makes a network namespace that nothing names: it lives as long as the file, or something in it, does.
pub fn make_private() -> Result<File, NetnsError> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, || {
                unshare(CloneFlags::CLONE_NEWNET).map_err(NetnsError::Enter)?;
                File::open("/proc/thread-self/ns/net").map_err(NetnsError::Thread)
            })
            .map_err(NetnsError::Thread)?
            .join()
            .map_err(|_| NetnsError::Panicked)?
    })
}

/// The namespace's own sysfs, with its devices, which is mounted nowhere: that of the mount namespace shows another one's
/// devices, and may be read-only. The inner error: the kernel refuses it.
pub fn sysfs(netns: BorrowedFd<'_>) -> Result<io::Result<OwnedFd>, NetnsError> {
    run_in(netns, || {
        let context = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        Ok(fsmount(&context, flags, MountAttrFlags::empty())?)
    })
}

/// The number that the kernel gives a network namespace, and no other one until the machine restarts. From Linux 5.14 on.
pub fn cookie(netns: BorrowedFd<'_>) -> Result<u64, NetnsError> {
    run_in(netns, own_cookie)?
}

/// The same of the namespace that the calling thread is in.
pub fn own_cookie() -> Result<u64, NetnsError> {
    // A socket of this kind takes nothing in the namespace.
    let socket = UnixDatagram::unbound().map_err(NetnsError::Cookie)?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `length` bytes to the number, which has as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(NetnsError::Cookie(io::Error::last_os_error()))
    }
}
