//! Paced UDP datagrams that carry their number and a hash of themselves.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::bulk::mix;
use super::{Stop, TICK, grow_receive_buffer};
use crate::netns::NetnsRef;

/// The number three times, and the hash.
pub const MIN_PAYLOAD: usize = 3 * NUMBER + HASH;

const NUMBER: usize = 8;
const HASH: usize = 32;
/// Enough for every datagram of a test while the reader doesn't get the processor.
const RECEIVE_BUFFER: i32 = 256 << 20;

/// How much is sent and how fast.
#[derive(Clone, Copy, Debug)]
pub struct UdpLoad {
    pub datagrams: u64,
    /// Bytes of UDP payload in each, at least [`MIN_PAYLOAD`].
    pub payload: usize,
    pub per_second: u32,
}

impl UdpLoad {
    /// Sends all of it from inside a namespace; datagrams are numbered from 0.
    ///
    /// # Errors
    ///
    /// The payload is too small, or a datagram can't be sent.
    pub fn send(&self, netns: &NetnsRef, to: SocketAddr) -> Result<()> {
        let socket = sender(netns, to)?;
        self.send_with(&socket, |_, _| {})
    }

    /// The same, but `alter` may change a datagram after its hash was computed.
    ///
    /// # Errors
    ///
    /// As [`UdpLoad::send`].
    pub fn send_altered(
        &self,
        netns: &NetnsRef,
        to: SocketAddr,
        alter: impl FnMut(u64, &mut [u8]),
    ) -> Result<()> {
        let socket = sender(netns, to)?;
        self.send_with(&socket, alter)
    }

    fn send_with(&self, socket: &UdpSocket, mut alter: impl FnMut(u64, &mut [u8])) -> Result<()> {
        ensure!(
            self.payload >= MIN_PAYLOAD,
            "a payload of {} bytes is below the {MIN_PAYLOAD} that number and hash need",
            self.payload
        );
        let mut datagram = vec![0; self.payload];
        let started = Instant::now();
        for number in 0..self.datagrams {
            let due = started + Duration::from_secs(1) * u32::try_from(number)? / self.per_second;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            encode(number, &mut datagram);
            alter(number, &mut datagram);
            send_one(socket, &datagram).with_context(|| format!("datagram {number} can't be sent"))?;
        }
        Ok(())
    }
}

/// Receives datagrams of one or more loads, one after the other.
#[derive(Debug)]
pub struct UdpReceiver {
    address: SocketAddr,
    state: Arc<Mutex<Arrivals>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// What arrived of a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpReport {
    /// Numbers of datagrams whose hash is right.
    pub intact: BTreeSet<u64>,
    /// Numbers of datagrams that arrived with other bytes than were sent.
    pub altered: BTreeSet<u64>,
    /// Datagrams that arrived once more.
    pub duplicates: u64,
    /// Bytes of UDP payload of all that arrived.
    pub bytes: u64,
}

impl UdpReport {
    /// Datagrams that arrived, with duplicates.
    pub fn arrived(&self) -> u64 {
        (self.intact.len() + self.altered.len()) as u64 + self.duplicates
    }

    /// The numbers below `sent` that never arrived.
    pub fn missing(&self, sent: u64) -> Vec<u64> {
        (0..sent)
            .filter(|number| !self.intact.contains(number) && !self.altered.contains(number))
            .collect()
    }
}

#[derive(Debug, Default)]
struct Arrivals {
    report: UdpReport,
    last: Option<Instant>,
}

impl UdpReceiver {
    /// Receives inside the namespace on a free port of `ip`.
    ///
    /// # Errors
    ///
    /// The address can't be bound, or the buffer can't be grown, which takes root.
    pub fn start(netns: &NetnsRef, ip: IpAddr) -> Result<Self> {
        let socket = netns
            .run(|| UdpSocket::bind((ip, 0)))
            .with_context(|| format!("can't bind a UDP socket to {ip}"))?;
        grow_receive_buffer(&socket, RECEIVE_BUFFER).context("the receive buffer can't be grown")?;
        socket.set_read_timeout(Some(TICK))?;
        let address = socket.local_addr()?;
        let (state, stop) = (Arc::new(Mutex::new(Arrivals::default())), Stop::default());
        let (shared, stopped) = (Arc::clone(&state), stop.clone());
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while !stopped.is_set() {
                if let Ok(length) = socket.recv(&mut buffer) {
                    record(&mut lock(&shared), &buffer[..length]);
                }
            }
        });
        Ok(Self {
            address,
            state,
            stop,
            thread: Some(thread),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until `datagrams` have arrived, or until none has for `quiet`; takes the report and begins a new one.
    pub fn finish(&self, datagrams: u64, quiet: Duration) -> UdpReport {
        let mut since = Instant::now();
        loop {
            let mut state = lock(&self.state);
            if let Some(last) = state.last {
                since = since.max(last);
            }
            if state.report.arrived() >= datagrams || since.elapsed() >= quiet {
                return std::mem::take(&mut *state).report;
            }
            drop(state);
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for UdpReceiver {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<Arrivals>) -> std::sync::MutexGuard<'_, Arrivals> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn sender(netns: &NetnsRef, to: SocketAddr) -> Result<UdpSocket> {
    netns.run(|| {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).context("no UDP socket")?;
        socket.connect(to).with_context(|| format!("no route to {to}"))?;
        Ok(socket)
    })
}

/// A full queue is waited for, so that what wasn't sent is never mistaken for what was lost. A refusal by the other end
/// (ICMP) concerns an earlier datagram; this one is sent again.
fn send_one(socket: &UdpSocket, datagram: &[u8]) -> std::io::Result<()> {
    loop {
        match socket.send(datagram) {
            Ok(_) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                thread::sleep(Duration::from_micros(100));
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            // What a firewall or a classifier on the way out says of a datagram that it dropped: it was sent.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn encode(number: u64, datagram: &mut [u8]) {
    let body = datagram.len() - HASH;
    for (index, word) in datagram[..body].chunks_mut(NUMBER).enumerate() {
        let value = if index < 3 {
            number
        } else {
            mix(number ^ mix(index as u64))
        };
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
    }
    let hash = Sha256::digest(&datagram[..body]);
    datagram[body..].copy_from_slice(&hash);
}

fn record(arrivals: &mut Arrivals, datagram: &[u8]) {
    arrivals.last = Some(Instant::now());
    let report = &mut arrivals.report;
    report.bytes += datagram.len() as u64;
    let (number, intact) = decode(datagram);
    if report.intact.contains(&number) || report.altered.contains(&number) {
        report.duplicates += 1;
    } else if intact {
        report.intact.insert(number);
    } else {
        report.altered.insert(number);
    }
}

/// The number, of which two of three copies suffice, and whether the hash is right.
fn decode(datagram: &[u8]) -> (u64, bool) {
    let Some(body) = datagram
        .len()
        .checked_sub(HASH)
        .filter(|&body| body >= 3 * NUMBER)
    else {
        return (u64::MAX, false);
    };
    let copy = |index: usize| {
        let mut word = [0; NUMBER];
        word.copy_from_slice(&datagram[index * NUMBER..][..NUMBER]);
        u64::from_le_bytes(word)
    };
    let number = if copy(0) == copy(1) { copy(0) } else { copy(2) };
    let hash = Sha256::digest(&datagram[..body]);
    (number, hash[..] == datagram[body..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_altered_byte_is_seen_and_the_number_survives_it() {
        for at in 0..100 {
            let mut datagram = vec![0; 100];
            encode(0x0123_4567_89ab_cdef, &mut datagram);
            assert_eq!(decode(&datagram), (0x0123_4567_89ab_cdef, true));
            datagram[at] ^= 0x40;
            assert_eq!(decode(&datagram), (0x0123_4567_89ab_cdef, false), "byte {at}");
        }
    }
}
