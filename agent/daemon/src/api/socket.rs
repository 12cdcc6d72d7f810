//! The daemon's unix socket: one daemon, reachable by root alone.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::UnixListener;

const BACKLOG: i32 = 128;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another sabotd is running on this node: {0}")]
    AlreadyRunning(String),
    #[error("creating the socket's directory {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("locking {}: {source}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("{} exists and is not a socket; choose another path or remove it", .0.display())]
    NotASocket(PathBuf),
    #[error("removing the stale socket {}: {source}", path.display())]
    Stale { path: PathBuf, source: io::Error },
    #[error("listening on {}: {source}", path.display())]
    Listen { path: PathBuf, source: io::Error },
}

/// Removes the socket and gives up the claim to its path when it goes.
#[derive(Debug)]
pub struct SocketGuard {
    path: PathBuf,
    /// Device and inode: a socket that somebody else put there meanwhile stays.
    identity: (u64, u64),
    lock: Lock,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity) {
            remove_logged(&self.path);
        }
        // While it is still locked, so that nobody holds a lock on a file that has no name.
        remove_logged(&self.lock.path);
    }
}

fn remove_logged(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a file of the socket could not be removed");
    }
}

/// A listener on `path` with mode 0600, and the guard that removes it.
///
/// The claim is a lock on `PATH.lock`: of daemons that start at the same moment exactly one gets it, and a dead one
/// loses it. A socket that nobody answers on is replaced. Missing directories are made, the last one with mode 0755.
///
/// Must be called within a tokio runtime.
pub fn bind_socket(path: &Path) -> Result<(UnixListener, SocketGuard), BindError> {
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        make_directory(directory).map_err(|source| BindError::Directory {
            path: directory.to_owned(),
            source,
        })?;
    }
    let lock = Lock::take(path)?;
    clear_stale(path)?;
    let listen_error = |source| BindError::Listen {
        path: path.to_owned(),
        source,
    };
    let listener = listen_private(path).map_err(listen_error)?;
    let metadata = fs::symlink_metadata(path).map_err(listen_error)?;
    let guard = SocketGuard {
        path: path.to_owned(),
        identity: (metadata.dev(), metadata.ino()),
        lock,
    };
    Ok((listener, guard))
}

fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    // The umask may have taken bits away.
    fs::set_permissions(directory, Permissions::from_mode(0o755))
}

fn clear_stale(path: &Path) -> Result<(), BindError> {
    let stale = |source| BindError::Stale {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(BindError::NotASocket(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(stale(source)),
    }
    // Whoever answers here didn't take our lock, but it is there.
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::AlreadyRunning(format!(
            "something answers on {}",
            path.display()
        ))),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(stale),
        Err(source) => Err(stale(source)),
    }
}

/// Linux gives a bound socket's file the mode of the unbound socket, so that setting it before leaves no moment at
/// which others could connect; unlike a change of the umask it is invisible to other threads.
fn listen_private(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    UnixListener::from_std(fd.into())
}

#[derive(Debug)]
struct Lock {
    path: PathBuf,
    /// Released when it is closed.
    _file: Flock<File>,
}

impl Lock {
    fn take(socket: &Path) -> Result<Self, BindError> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        let failed = |source| BindError::Lock {
            path: path.clone(),
            source,
        };
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((file, Errno::EWOULDBLOCK)) => {
                    return Err(BindError::AlreadyRunning(holder(file, socket)));
                }
                Err((_, errno)) => return Err(failed(errno.into())),
            };
            let ours = file.metadata().map_err(failed)?;
            // A daemon that ends removes the file: then what we locked has no name any more.
            if fs::symlink_metadata(&path).is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino())) {
                file.set_len(0).map_err(failed)?;
                file.rewind().map_err(failed)?;
                writeln!(file, "{}", std::process::id()).map_err(failed)?;
                return Ok(Self { path, _file: file });
            }
        }
    }
}

/// Who holds the lock, for people; it may not have written its pid yet.
fn holder(mut file: File, socket: &Path) -> String {
    let mut text = String::new();
    let pid = file
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse::<u32>().ok());
    match pid {
        Some(pid) => format!("process {pid} serves {}", socket.display()),
        None => format!("a process serves {}", socket.display()),
    }
}
