//! A bulk TCP stream whose every byte is known, so that the receiver can say which ones were altered.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};

use super::echo::listen;
use crate::netns::NetnsRef;

const CHUNK: usize = 64 << 10;

/// What the source sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub bytes: u64,
    pub sha256: [u8; 32],
    /// From the connection until the sink has read everything.
    pub took: Duration,
}

/// What the sink received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub bytes: u64,
    pub sha256: [u8; 32],
    /// Offsets in the stream of the bytes that aren't what was sent.
    pub altered: Vec<u64>,
}

/// A sink that waits for one stream.
#[derive(Debug)]
pub struct Bulk {
    address: SocketAddr,
    thread: JoinHandle<Result<Received>>,
}

impl Bulk {
    /// Listens inside the namespace on a free port of `ip`; gives up when nothing arrives for `patience`.
    ///
    /// # Errors
    ///
    /// The address can't be bound.
    pub fn listen(netns: &NetnsRef, ip: IpAddr, patience: Duration) -> Result<Self> {
        let listener = listen(netns, ip)?;
        let address = listener.local_addr()?;
        let thread = thread::spawn(move || receive(&listener, patience));
        Ok(Self { address, thread })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends `bytes` from inside a namespace to the sink; returns once both ends have seen the end of the stream.
    ///
    /// # Errors
    ///
    /// The connection failed or stood still for the sink's patience.
    pub fn send_from(self, netns: &NetnsRef, bytes: u64, patience: Duration) -> Result<(Sent, Received)> {
        let started = Instant::now();
        let sha256 = netns.run(|| send(self.address, bytes, patience))?;
        // The sink reads as fast as it can and has a patience of its own; the last bytes may be in flight still.
        let received = self.thread.join().map_err(|_| anyhow!("the sink panicked"))??;
        let sent = Sent {
            bytes,
            sha256,
            took: started.elapsed(),
        };
        Ok((sent, received))
    }
}

/// Returns the hash of what was sent.
fn send(to: SocketAddr, bytes: u64, patience: Duration) -> Result<[u8; 32]> {
    let mut connection =
        TcpStream::connect_timeout(&to, patience).with_context(|| format!("no connection to {to}"))?;
    connection.set_write_timeout(Some(patience))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    while offset < bytes {
        let length = CHUNK.min((bytes - offset) as usize);
        fill(offset, &mut chunk[..length]);
        hash.update(&chunk[..length]);
        connection
            .write_all(&chunk[..length])
            .with_context(|| format!("the stream to {to} broke at byte {offset}"))?;
        offset += length as u64;
    }
    Ok(hash.finalize().into())
}

fn receive(listener: &TcpListener, patience: Duration) -> Result<Received> {
    let mut connection = accept(listener, patience)?;
    connection.set_nonblocking(false)?;
    connection.set_read_timeout(Some(patience))?;
    let mut received = Received {
        bytes: 0,
        sha256: [0; 32],
        altered: Vec::new(),
    };
    let mut hash = Sha256::new();
    let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let length = match connection.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("the stream broke at byte {}", received.bytes));
            }
        };
        hash.update(&chunk[..length]);
        fill(received.bytes, &mut expected[..length]);
        if chunk[..length] != expected[..length] {
            let differing = (0..length).filter(|&at| chunk[at] != expected[at]);
            received
                .altered
                .extend(differing.map(|at| received.bytes + at as u64));
        }
        received.bytes += length as u64;
    }
    received.sha256 = hash.finalize().into();
    Ok(received)
}

fn accept(listener: &TcpListener, patience: Duration) -> Result<TcpStream> {
    let end = Instant::now() + patience;
    loop {
        match listener.accept() {
            Ok((connection, _)) => return Ok(connection),
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => bail!("nobody connected: {error}"),
        }
    }
}

/// The stream's bytes from `offset` on; each eight of them are the mixed bits of their position, so that no two parts of
/// the stream look alike.
fn fill(offset: u64, buffer: &mut [u8]) {
    let mut at = 0;
    while at < buffer.len() {
        let position = offset + at as u64;
        let word = mix(position / 8).to_le_bytes();
        let from = (position % 8) as usize;
        let length = (8 - from).min(buffer.len() - at);
        buffer[at..at + length].copy_from_slice(&word[from..from + length]);
        at += length;
    }
}

/// The finalizer of SplitMix64.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_same_however_it_is_cut() {
        let mut whole = vec![0; 1000];
        fill(3, &mut whole);
        let mut parts = vec![0; 1000];
        let (mut at, mut length) = (0, 1);
        while at < parts.len() {
            let end = (at + length).min(parts.len());
            fill(3 + at as u64, &mut parts[at..end]);
            (at, length) = (end, length % 13 + 1);
        }
        assert_eq!(whole, parts);
    }
}
