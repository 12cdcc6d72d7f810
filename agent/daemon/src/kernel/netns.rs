//! Work inside another network namespace.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("cannot start a thread for a network namespace: {0}")]
    Thread(#[source] io::Error),
    #[error("cannot enter the network namespace: {0}")]
    Enter(#[source] Errno),
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
