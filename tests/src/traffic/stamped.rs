//! Numbered datagrams with the times at which they were sent and arrived: one-way delays on one clock.
//!
//! The sender writes the time into the datagram just before it sends it, and the kernel stamps the datagram when the
//! receiver's stack gets it, so that a reader who waits for the processor doesn't count as delay.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

use super::{Stop, TICK, grow_receive_buffer};
use crate::netns::NetnsRef;

const NUMBER: usize = 8;
const STAMP: usize = 8;
const RECEIVE_BUFFER: i32 = 256 << 20;

/// What is sent, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct StampedLoad {
    pub datagrams: u64,
    /// Bytes of UDP payload in each, at least 16.
    pub payload: usize,
    pub per_second: u32,
}

/// One datagram that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// From 0 on, in the order of sending.
    pub number: u64,
    pub delay: Duration,
    /// By the kernel's clock of the day.
    pub time: Duration,
}

impl StampedLoad {
    /// Sends all of it from one namespace to `ip` in the other; what arrived, in the order of arrival. Waits until all has
    /// arrived, or nothing has for `quiet`.
    ///
    /// # Errors
    ///
    /// Sockets are refused, or the payload is too small.
    pub fn run(&self, from: &NetnsRef, to: &NetnsRef, ip: IpAddr, quiet: Duration) -> Result<Vec<Arrival>> {
        self.transfer(from, to, ip, quiet, self.datagrams)
    }

    /// The same, but waits until nothing has arrived for `quiet` in any case: there may be more than was sent.
    ///
    /// # Errors
    ///
    /// As [`StampedLoad::run`].
    pub fn run_to_rest(
        &self,
        from: &NetnsRef,
        to: &NetnsRef,
        ip: IpAddr,
        quiet: Duration,
    ) -> Result<Vec<Arrival>> {
        self.transfer(from, to, ip, quiet, u64::MAX)
    }

    fn transfer(
        &self,
        from: &NetnsRef,
        to: &NetnsRef,
        ip: IpAddr,
        quiet: Duration,
        enough: u64,
    ) -> Result<Vec<Arrival>> {
        ensure!(self.payload >= NUMBER + STAMP, "no room for number and time");
        let receiver = to
            .run(|| UdpSocket::bind((ip, 0)))
            .with_context(|| format!("can't bind a UDP socket to {ip}"))?;
        grow_receive_buffer(&receiver, RECEIVE_BUFFER).context("the receive buffer can't be grown")?;
        setsockopt(&receiver, ReceiveTimestampns, &true).context("no receive timestamps")?;
        receiver.set_read_timeout(Some(TICK))?;
        let address = receiver.local_addr()?;
        let (stop, arrivals) = (Stop::default(), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let reader = scope.spawn(|| receive_all(&receiver, self.payload, &stop, &arrivals));
            let sent = from.run(|| self.send(address));
            if sent.is_ok() {
                await_rest(&arrivals, quiet, enough);
            }
            stop.set();
            let read = reader
                .join()
                .map_err(|_| anyhow::anyhow!("the reader panicked"))?;
            sent.and(read)
        })?;
        Ok(arrivals.into_inner().unwrap_or_default())
    }

    fn send(&self, to: SocketAddr) -> Result<()> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).context("no UDP socket")?;
        socket.connect(to).with_context(|| format!("no route to {to}"))?;
        let mut datagram = vec![0; self.payload];
        let started = Instant::now();
        for number in 0..self.datagrams {
            let due = Duration::from_secs(1) * u32::try_from(number)? / self.per_second;
            thread::sleep(due.saturating_sub(started.elapsed()));
            datagram[..NUMBER].copy_from_slice(&number.to_be_bytes());
            datagram[NUMBER..NUMBER + STAMP].copy_from_slice(&wall_clock()?.to_be_bytes());
            // A full queue is waited for; the time that is in the datagram then is too early, so it is written anew.
            while let Err(error) = socket.send(&datagram) {
                ensure!(
                    error.raw_os_error() == Some(libc::ENOBUFS),
                    "datagram {number}: {error}"
                );
                thread::sleep(Duration::from_micros(100));
                datagram[NUMBER..NUMBER + STAMP].copy_from_slice(&wall_clock()?.to_be_bytes());
            }
        }
        Ok(())
    }
}

fn await_rest(arrivals: &Mutex<Vec<Arrival>>, quiet: Duration, enough: u64) {
    let count = || arrivals.lock().map_or(0, |all| all.len());
    let (mut last, mut since) = (count(), Instant::now());
    while (last as u64) < enough && since.elapsed() < quiet {
        thread::sleep(Duration::from_millis(2));
        let now = count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

fn receive_all(
    socket: &UdpSocket,
    payload: usize,
    stop: &Stop,
    arrivals: &Mutex<Vec<Arrival>>,
) -> Result<()> {
    let mut buffer = vec![0; payload];
    let mut control = cmsg_space!(TimeSpec);
    while !stop.is_set() {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message = match recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        ) {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(error).context("the receiver can't read"),
        };
        let stamp = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::ScmTimestampns(time) => Some(nanos(time)),
            _ => None,
        });
        let arrived = stamp.context("a datagram came without a time")?;
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|index| buffer[at + index]));
        let arrival = Arrival {
            number: word(0),
            delay: Duration::from_nanos(arrived.saturating_sub(word(NUMBER))),
            time: Duration::from_nanos(arrived),
        };
        if let Ok(mut all) = arrivals.lock() {
            all.push(arrival);
        }
    }
    Ok(())
}

/// The clock of the kernel's receive timestamps, ns.
fn wall_clock() -> Result<u64> {
    Ok(nanos(clock_gettime(ClockId::CLOCK_REALTIME)?))
}

fn nanos(time: TimeSpec) -> u64 {
    Duration::from(time).as_nanos() as u64
}
