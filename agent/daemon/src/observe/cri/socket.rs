//! Notices that another socket stands where the runtime's is, as after its restart: clients come to it at once.

use std::ffi::OsString;
use std::future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Tells when a file of the socket's name comes into the socket's folder. Whoever uses it looks from time to time as well: the
/// folder may go and come, too.
pub(super) struct SocketWatch {
    source: Option<AsyncFd<Source>>,
    /// The socket's.
    name: Option<OsString>,
}

struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl SocketWatch {
    /// Must be called within a tokio runtime. Where files can't be watched it tells nothing.
    pub(super) fn new() -> Self {
        let source = open()
            .inspect_err(|error| tracing::warn!(%error, "a restarted runtime is noticed some 0.2 s late"))
            .ok();
        Self { source, name: None }
    }

    /// Watches for this socket, in its folder as that is now.
    pub(super) fn watch(&mut self, socket: &Path) {
        let (Some(source), Some(folder)) = (&self.source, socket.parent()) else {
            return;
        };
        self.name = socket.file_name().map(OsString::from);
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        // A folder that is watched already isn't watched twice. One that isn't there is found by the next look.
        let _ = source.get_ref().0.add_watch(folder, flags);
    }

    /// Returns when such a file has come since the last time, or may have. Without the kernel's word it never does.
    pub(super) async fn changed(&mut self) {
        let Some(source) = &self.source else {
            return future::pending().await;
        };
        loop {
            let Ok(mut ready) = source.readable().await else {
                return future::pending().await;
            };
            let events = ready.try_io(|source| source.get_ref().0.read_events().map_err(io::Error::from));
            let is_ours = |event: &InotifyEvent| {
                event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
                    || event.name.is_some() && event.name == self.name
            };
            match events {
                Ok(Ok(events)) if events.iter().any(is_ours) => return,
                // There were others, or none.
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(_)) => return future::pending().await,
            }
        }
    }
}

fn open() -> io::Result<AsyncFd<Source>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // SAFETY: the source owns its descriptor, always gives the same one, and is owned by the `AsyncFd` from here on.
    let registered = unsafe { AsyncFd::register_with_interest(Source(inotify), Interest::READABLE) };
    registered.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    /// For what isn't to come.
    const MOMENT: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn a_socket_that_comes_is_told_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("runtime.sock");
        let mut watch = SocketWatch::new();
        watch.watch(&path);
        let first = UnixListener::bind(&path).expect("it is bound");
        timeout(PATIENCE, watch.changed()).await.expect("it is told");
        // Looked at again, as every so often.
        watch.watch(&path);
        fs::write(folder.path().join("runtime.sock.ttrpc"), "").expect("it is written");
        drop(first);
        fs::remove_file(&path).expect("it is removed");
        assert!(timeout(MOMENT, watch.changed()).await.is_err());
        let _second = UnixListener::bind(&path).expect("it is bound");
        timeout(PATIENCE, watch.changed()).await.expect("it is told");
        let other = folder.path().join("other.sock");
        let _other = UnixListener::bind(&other).expect("it is bound");
        fs::rename(&other, &path).expect("it is moved");
        timeout(PATIENCE, watch.changed()).await.expect("it is told");
        assert!(timeout(MOMENT, watch.changed()).await.is_err());
    }

    #[tokio::test]
    async fn a_folder_that_comes_again_is_watched_from_the_next_look_on() {
        let above = tempfile::tempdir().expect("a temporary folder");
        let path = above.path().join("run/runtime.sock");
        let folder = path.parent().expect("it has one");
        let mut watch = SocketWatch::new();
        watch.watch(&path);
        assert!(timeout(MOMENT, watch.changed()).await.is_err());
        for _ in 0..2 {
            fs::create_dir(folder).expect("it is made");
            watch.watch(&path);
            let _socket = UnixListener::bind(&path).expect("it is bound");
            timeout(PATIENCE, watch.changed()).await.expect("it is told");
            fs::remove_dir_all(folder).expect("it is removed");
        }
    }
}
