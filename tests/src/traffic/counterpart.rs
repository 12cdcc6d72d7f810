//! Somebody with whom pods do a little of everything that observers count.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use domain::base::iana::Rtype;

use super::names::query;
use super::{Echo, NameServer, echo_once};
use crate::netns::NetnsRef;

/// Where nobody answers: addresses of documentation.
const SILENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)), 53);
const KNOWN: &str = "known.test";

/// A TCP server and a name server in one namespace, until this is dropped.
#[derive(Debug)]
pub struct Counterpart {
    netns: NetnsRef,
    echo: Echo,
    names: NameServer,
}

impl Counterpart {
    /// Where a pod drops what is sent to it.
    pub const CLOSED_PORT: u16 = 9;

    /// # Errors
    ///
    /// The address can't be bound inside the namespace.
    pub fn start(netns: &NetnsRef, ip: IpAddr) -> Result<Self> {
        let names = NameServer::start(netns, ip)?;
        names.set(KNOWN, &[ip], 1);
        Ok(Self {
            netns: netns.clone(),
            echo: Echo::start(netns, ip)?,
            names,
        })
    }

    /// From inside a pod: a connection that ends, a name that is answered, another that never is, and a connection that is
    /// still open when this returns.
    ///
    /// # Errors
    ///
    /// It isn't answered within the time.
    pub fn meet(&self, pod: &NetnsRef, timeout: Duration) -> Result<TcpStream> {
        echo_once(pod, self.echo.address(), b"hello", timeout)?;
        self.names.lookup(pod, KNOWN, Rtype::A, timeout)?;
        let question = query("unknown.test", Rtype::A)?;
        pod.run(|| {
            let asker = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            asker.send_to(question.as_slice(), SILENT)
        })
        .context("a name can't be asked for")?;
        let connection = pod.run(|| TcpStream::connect_timeout(&self.echo.address(), timeout));
        connection.context("a second connection can't be made")
    }

    /// A pod drops a datagram for which it has no socket.
    ///
    /// # Errors
    ///
    /// It can't be sent.
    pub fn bother(&self, pod: IpAddr) -> Result<()> {
        let address = self.names.address();
        self.netns
            .run(|| {
                // A socket that isn't connected is told nothing of errors before.
                let sender = UdpSocket::bind((address.ip(), 0))?;
                sender.send_to(b"nobody", (pod, Self::CLOSED_PORT))
            })
            .with_context(|| format!("a datagram can't be sent to {pod}"))
            .map(drop)
    }
}
