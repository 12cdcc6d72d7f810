//! A capture that counts wire packets, also of super-packets, from what the kernel says about their segmentation.
//!
//! An `AF_PACKET` socket with `PACKET_VNET_HDR` is told the segment size of each super-packet. What it counts is computed
//! here from the headers, independently of Sabot's own programs.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::NetnsRef;
use crate::traffic::{Stop, cvt, grow_receive_buffer};
use crate::witness::{Count, Side};

const VNET_HEADER: usize = 10;
const MAC_HEADER: usize = 14;
/// Room for the headers; payloads aren't looked at.
const SNAPSHOT: usize = 256;
const RECEIVE_BUFFER: i32 = 256 << 20;

/// Which packets count. Every field that is given must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireFilter {
    /// Packets of this IP protocol.
    pub protocol: Option<u8>,
    pub source: Option<IpAddr>,
    pub destination: Option<IpAddr>,
    /// Source or destination port.
    pub port: Option<u16>,
}

/// Counts on one device until it is dropped. On the way in it stands before everything else in the namespace, on the way
/// out behind everything else.
#[derive(Debug)]
pub struct WireCapture {
    socket: Arc<OwnedFd>,
    shared: Arc<Shared>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    count: Mutex<Count>,
    /// Frames that the socket handed over, counting or not.
    seen: AtomicU64,
}

impl WireCapture {
    /// Listens on a device of the namespace.
    ///
    /// # Errors
    ///
    /// There is no such device, or the socket is refused.
    pub fn on(netns: &NetnsRef, device: &str, side: Side, filter: WireFilter) -> Result<Self> {
        let socket = netns
            .run(|| open(device))
            .with_context(|| format!("no capture on {device} in {}", netns.path().display()))?;
        grow_receive_buffer(&socket, RECEIVE_BUFFER).context("the receive buffer can't be grown")?;
        let socket = Arc::new(socket);
        let (shared, stop) = (Arc::new(Shared::default()), Stop::default());
        let (reading, counting, stopped) = (Arc::clone(&socket), Arc::clone(&shared), stop.clone());
        let thread = thread::spawn(move || read_all(&reading, side, filter, &counting, &stopped));
        Ok(Self {
            socket,
            shared,
            stop,
            thread: Some(thread),
        })
    }

    /// What passed until now, once nothing new has come for `quiet`.
    ///
    /// # Errors
    ///
    /// The capture itself lost frames, so that the count would be wrong.
    pub fn count_after(&self, quiet: Duration) -> Result<Count> {
        let mut seen = self.shared.seen.load(Ordering::Acquire);
        loop {
            thread::sleep(quiet);
            let now = self.shared.seen.load(Ordering::Acquire);
            if now == seen {
                break;
            }
            seen = now;
        }
        let lost = losses(&self.socket).context("the capture's statistics can't be read")?;
        ensure!(lost == 0, "the capture itself lost {lost} frames");
        Ok(*self.shared.count.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for WireCapture {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(device: &str) -> io::Result<OwnedFd> {
    let every = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the call takes no pointers; the descriptor that it returns is ours alone.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let index = nix::net::if_::if_nametoindex(device)?;
    let on: libc::c_int = 1;
    set_option(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, &on)?;
    // The reader looks every so often whether it is to end.
    let patience = libc::timeval {
        tv_sec: 0,
        tv_usec: 50_000,
    };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience)?;
    // SAFETY: all fields of `sockaddr_ll` are integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = every;
    address.sll_ifindex = index as libc::c_int;
    // SAFETY: the address is a `sockaddr_ll` whose size is given, and it outlives the call.
    cvt(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    })?;
    Ok(socket)
}

/// From `linux/if_packet.h`; libc doesn't name it.
const PACKET_VNET_HDR: libc::c_int = 15;

fn set_option<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value outlives the call, and its size is given.
    cvt(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
}

/// Frames that the socket had no room for since the last time this was asked.
fn losses(socket: &OwnedFd) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the buffer is a `tpacket_stats` of the length that is given, and both outlive the call.
    cvt(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    })?;
    Ok(statistics.tp_drops)
}

fn read_all(socket: &OwnedFd, side: Side, filter: WireFilter, shared: &Shared, stop: &Stop) {
    let mut buffer = [0; SNAPSHOT];
    while !stop.is_set() {
        let Some((length, outgoing)) = receive(socket, &mut buffer) else {
            continue;
        };
        let wanted = outgoing == (side == Side::Egress);
        let held = length.min(buffer.len());
        if wanted && let Some(wire) = count_frame(&buffer[..held], length, filter) {
            let mut count = shared.count.lock().unwrap_or_else(PoisonError::into_inner);
            count.packets += wire.packets;
            count.bytes += wire.bytes;
        }
        shared.seen.fetch_add(1, Ordering::Release);
    }
}

/// The frame's whole length with its virtio header, and whether it leaves; `None` when nothing came.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<(usize, bool)> {
    // SAFETY: all fields of `sockaddr_ll` are integers, for which zero is a value.
    let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: buffer and address are of the sizes that are given, and outlive the call.
    let length = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_TRUNC,
            (&raw mut from).cast(),
            &raw mut size,
        )
    };
    let length = usize::try_from(length).ok()?;
    Some((length, from.sll_pkttype == libc::PACKET_OUTGOING))
}

/// The wire packets of one frame, given its first bytes and its whole length; `None` if it doesn't count.
fn count_frame(held: &[u8], length: usize, filter: WireFilter) -> Option<Count> {
    let (virtio, frame) = held.split_at_checked(VNET_HEADER)?;
    let length = length - VNET_HEADER;
    let headers = parse(frame, filter)?;
    let gso_type = virtio[1];
    let segment = u64::from(u16::from_ne_bytes([virtio[4], virtio[5]]));
    if gso_type == 0 || segment == 0 {
        return Some(Count {
            packets: 1,
            bytes: length as u64,
        });
    }
    let payload = (length - headers) as u64;
    let packets = payload.div_ceil(segment).max(1);
    Some(Count {
        packets,
        bytes: packets * headers as u64 + payload,
    })
}

/// The length of all headers of a frame that the filter matches.
fn parse(frame: &[u8], filter: WireFilter) -> Option<usize> {
    let ip = frame.get(MAC_HEADER..)?;
    let (source, destination, protocol, ip_length): (IpAddr, IpAddr, u8, usize) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let source: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = ip.get(16..20)?.try_into().ok()?;
            let length = usize::from(ip[0] & 0x0f) * 4;
            (source.into(), destination.into(), ip[9], length)
        }
        [0x86, 0xdd] => {
            let source: [u8; 16] = ip.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = ip.get(24..40)?.try_into().ok()?;
            // The fixtures' traffic has no extension headers.
            (source.into(), destination.into(), ip[6], 40)
        }
        _ => return (filter == WireFilter::default()).then_some(MAC_HEADER),
    };
    let transport = ip.get(ip_length..)?;
    let ports = match i32::from(protocol) {
        libc::IPPROTO_TCP | libc::IPPROTO_UDP => {
            let word = |at: usize| Some(u16::from_be_bytes([*transport.get(at)?, *transport.get(at + 1)?]));
            Some((word(0)?, word(2)?))
        }
        _ => None,
    };
    let matches = filter.protocol.is_none_or(|wanted| wanted == protocol)
        && filter.source.is_none_or(|wanted| wanted == source)
        && filter.destination.is_none_or(|wanted| wanted == destination)
        && filter
            .port
            .is_none_or(|wanted| ports.is_some_and(|(from, to)| from == wanted || to == wanted));
    let transport_length = match i32::from(protocol) {
        libc::IPPROTO_TCP => usize::from(transport.get(12)? >> 4) * 4,
        libc::IPPROTO_UDP => 8,
        _ => 0,
    };
    matches.then_some(MAC_HEADER + ip_length + transport_length)
}
