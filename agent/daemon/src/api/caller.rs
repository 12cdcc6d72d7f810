//! Connections, and who is at their other end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::UCred;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::roles::Role;

/// Who calls; every request carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process of this machine, over the unix socket.
    Process {
        uid: u32,
        /// `None` where the kernel doesn't say; a process of another pid namespace has none here.
        pid: Option<i32>,
    },
    /// The holder of a certificate, over TCP.
    Certificate {
        /// The name that gives it its role, or else its first one.
        name: String,
        role: Option<Role>,
        address: SocketAddr,
    },
}

impl Caller {
    /// A process that was let on the socket may do everything.
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Process { .. } => Some(Role::Operator),
            Self::Certificate { role, .. } => *role,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid, pid } => {
                write!(f, "uid {uid}")?;
                pid.map_or(Ok(()), |pid| write!(f, ", process {pid}"))
            }
            Self::Certificate { name, address, .. } => write!(f, "`{name}` from {address}"),
        }
    }
}

/// One client's connection.
pub(super) struct Connection {
    stream: Stream,
    caller: Caller,
}

enum Stream {
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    pub(super) fn unix(stream: UnixStream) -> Self {
        let credentials = stream.peer_cred();
        let caller = Caller::Process {
            // Nobody's, where it can't be told.
            uid: credentials.as_ref().map_or(u32::MAX, UCred::uid),
            pid: credentials.ok().and_then(|c| c.pid()).filter(|pid| *pid != 0),
        };
        Self {
            stream: Stream::Unix(stream),
            caller,
        }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, caller: Caller) -> Self {
        Self {
            stream: Stream::Tls(Box::new(stream)),
            caller,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
