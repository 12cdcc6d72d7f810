//! `sabotd bridge`: the standard input and output as a connection to the daemon's socket.
//!
//! Whoever may run a command in the daemon's container reaches its API that way, with no port open and no other
//! credentials: the cluster's own rules decide.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

/// Bytes that are handed on at once.
const BUFFER: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    #[error("can't reach the daemon on {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("can't use the standard {stream}: {source}")]
    Stream { stream: &'static str, source: io::Error },
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
    #[error("the connection to the daemon is broken: {0}")]
    Copy(io::Error),
}

/// Copies both ways until the daemon ends the connection, which it does once it has seen the end of the input.
///
/// # Errors
/// Nobody answers on the socket, or the connection breaks. That nobody reads the output any more is an end like others.
pub fn run(socket: &Path) -> Result<(), BridgeError> {
    let connect = |source| BridgeError::Connect {
        path: socket.to_owned(),
        source,
    };
    let daemon = UnixStream::connect(socket).map_err(connect)?;
    let to_daemon = daemon.try_clone().map_err(connect)?;
    let input = unbuffered(&io::stdin(), "input")?;
    let output = unbuffered(&io::stdout(), "output")?;
    // It may wait for input that never comes; it ends with the process then.
    thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || {
            // Whatever ended the input, the daemon is to see an end: it answers what it has got, and ends too.
            let _ = copy(&input, &to_daemon);
            let _ = to_daemon.shutdown(Shutdown::Write);
        })
        .map_err(BridgeError::Thread)?;
    match copy(&daemon, &output) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(BridgeError::Copy(error)),
    }
}

/// A descriptor of its own: the standard library's streams hold bytes back until a line is complete.
fn unbuffered(stream: &impl AsFd, name: &'static str) -> Result<File, BridgeError> {
    let descriptor = stream.as_fd().try_clone_to_owned();
    let failed = |source| BridgeError::Stream { stream: name, source };
    descriptor.map(File::from).map_err(failed)
}

/// Hands on what has come as soon as it has. The standard library's copy splices between pipes and sockets, and may wait
/// for more than a caller who waits for an answer ever sends.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
