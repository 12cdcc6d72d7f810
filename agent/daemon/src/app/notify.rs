//! What the service manager is told: sd_notify's protocol, one datagram to the socket in `NOTIFY_SOCKET`.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The daemon serves.
pub(super) const READY: &str = "READY=1";
/// The daemon is ending.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Tells the service manager, where there is one; a failure is logged, since nothing of ours depends on it.
pub(super) fn notify(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(?socket, state, %error, "the service manager could not be told");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_arrives_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("sabot-notify-{}", std::process::id());
        let receivers = [
            (
                path.as_os_str().to_owned(),
                UnixDatagram::bind(&path).expect("bound"),
            ),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name"))
                    .expect("bound"),
            ),
        ];
        for (socket, receiver) in receivers {
            send(&socket, READY).expect("sent");
            let mut buffer = [0; 32];
            let length = receiver.recv(&mut buffer).expect("received");
            assert_eq!(&buffer[..length], READY.as_bytes());
        }
    }
}
