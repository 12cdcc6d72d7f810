//! The packet that is answered, and the headers of the answer.

use std::net::{Ipv4Addr, Ipv6Addr};

use sabot_abi::{DIRECTION_EGRESS, DIRECTION_INGRESS, Role, Stamp, TAG_ETHERTYPE, Tag};

use super::End;
use crate::delayline::frame::{self, OURS_LENGTH, TAG_OFFSET};

const MAC_LENGTH: usize = 6;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;

/// An IP packet from one host to another in a tagged frame.
pub(super) struct Packet<'a> {
    frame: &'a [u8],
    addresses: Addresses,
    /// Where the IP header begins.
    start: usize,
    pub(super) protocol: u8,
    /// The transport header and what follows, up to the packet's end; the frame may be padded.
    pub(super) transport: &'a [u8],
    /// The whole packet.
    pub(super) network: &'a [u8],
}

/// The sender's and the receiver's.
#[derive(Clone, Copy)]
pub(super) enum Addresses {
    V4([Ipv4Addr; 2]),
    V6([Ipv6Addr; 2]),
}

impl<'a> Packet<'a> {
    /// `None` for what must not be answered: no IP, cut off, a later fragment, from or to more than one host or none.
    pub(super) fn parse(frame: &'a [u8]) -> Option<Self> {
        let macs = frame.get(..2 * MAC_LENGTH)?;
        if is_group(macs[0]) || is_group(macs[MAC_LENGTH]) {
            return None;
        }
        let network = frame::network(frame)?;
        if network.later_fragment {
            return None;
        }
        let bytes = &frame[network.start..];
        let (addresses, length) = if network.ipv6 { ipv6(bytes)? } else { ipv4(bytes)? };
        let end = (network.start + length).min(frame.len());
        Some(Self {
            frame,
            addresses,
            start: network.start,
            protocol: network.protocol,
            transport: frame.get(network.transport..end)?,
            network: &frame[network.start..end],
        })
    }

    pub(super) fn is_ipv6(&self) -> bool {
        matches!(self.addresses, Addresses::V6(_))
    }

    /// Appends the Ethernet header, our tag and the packet's own tags of an answer to this end.
    pub(super) fn write_ethernet(&self, to: End, out: &mut Vec<u8>) {
        let (destination, source) = self.frame[..2 * MAC_LENGTH].split_at(MAC_LENGTH);
        let macs = match to {
            End::Sender => [source, destination],
            End::Receiver => [destination, source],
        };
        let tag = Tag::from_tci(u16::from_be_bytes([
            self.frame[TAG_OFFSET + 2],
            self.frame[TAG_OFFSET + 3],
        ]));
        let direction = match (to, tag.direction) {
            (End::Receiver, direction) => direction,
            (End::Sender, DIRECTION_EGRESS) => DIRECTION_INGRESS,
            (End::Sender, _) => DIRECTION_EGRESS,
        };
        let tag = Tag {
            direction,
            role: Role::Reply,
            ..tag
        };
        out.extend_from_slice(macs[0]);
        out.extend_from_slice(macs[1]);
        out.extend_from_slice(&TAG_ETHERTYPE.to_be_bytes());
        out.extend_from_slice(&tag.tci().to_be_bytes());
        out.extend_from_slice(&TAG_ETHERTYPE.to_be_bytes());
        out.extend_from_slice(&Stamp::NONE.tci().to_be_bytes());
        out.extend_from_slice(&self.frame[TAG_OFFSET + OURS_LENGTH..self.start]);
    }

    /// Appends the IP header of an answer to this end, with `length` bytes behind it. Returns the sum over the pseudo-header
    /// of a transport's checksum.
    pub(super) fn write_network(
        &self,
        to: End,
        protocol: u8,
        class: u8,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Sum {
        let start = out.len();
        let length = length as u16;
        let mut sum = Sum::default();
        match self.addresses.to(to) {
            Addresses::V4([source, destination]) => {
                out.extend_from_slice(&[0x45, class]);
                out.extend_from_slice(&(length + IPV4_HEADER as u16).to_be_bytes());
                out.extend_from_slice(&[0, 0]);
                out.extend_from_slice(&DONT_FRAGMENT.to_be_bytes());
                out.extend_from_slice(&[TTL, protocol, 0, 0]);
                out.extend_from_slice(&source.octets());
                out.extend_from_slice(&destination.octets());
                let mut header = Sum::default();
                header.add(&out[start..]);
                out[start + 10..start + 12].copy_from_slice(&header.checksum());
            }
            Addresses::V6([source, destination]) => {
                let word = 6 << 28 | u32::from(class) << 20;
                out.extend_from_slice(&word.to_be_bytes());
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(&[protocol, TTL]);
                out.extend_from_slice(&source.octets());
                out.extend_from_slice(&destination.octets());
            }
        }
        let addresses = if self.is_ipv6() { 32 } else { 8 };
        sum.add(&out[out.len() - addresses..]);
        sum.add(&length.to_be_bytes());
        sum.add(&[0, protocol]);
        sum
    }
}

impl Addresses {
    /// Those of an answer: its sender is the end that doesn't get it.
    fn to(self, end: End) -> Self {
        match (self, end) {
            (Self::V4([sender, receiver]), End::Sender) => Self::V4([receiver, sender]),
            (Self::V6([sender, receiver]), End::Sender) => Self::V6([receiver, sender]),
            (_, End::Receiver) => self,
        }
    }
}

/// Addresses of an IPv4 packet, and its length as it tells it.
fn ipv4(bytes: &[u8]) -> Option<(Addresses, usize)> {
    let header = bytes.get(..IPV4_HEADER)?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // Super-packets beyond 64 KiB can't tell their length.
    let length = if length == 0 { bytes.len() } else { length };
    if header[0] >> 4 != 4 || header_length < IPV4_HEADER || length < header_length {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    let (source, destination) = (address(12), address(16));
    let hosts = is_host_v4(source) && !source.is_loopback() && is_host_v4(destination);
    hosts.then_some((Addresses::V4([source, destination]), length))
}

fn is_host_v4(address: Ipv4Addr) -> bool {
    // Up to 223 there are hosts; then come groups, and what is reserved with the broadcast address.
    address.octets()[0] != 0 && address.octets()[0] < 224
}

/// Addresses of an IPv6 packet, and its length as it tells it.
fn ipv6(bytes: &[u8]) -> Option<(Addresses, usize)> {
    let header = bytes.get(..IPV6_HEADER)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let length = if payload == 0 {
        bytes.len()
    } else {
        IPV6_HEADER + payload
    };
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().ok()?;
        Some(Ipv6Addr::from(octets))
    };
    let (source, destination) = (address(8)?, address(24)?);
    let hosts = is_host_v6(source) && !source.is_loopback() && is_host_v6(destination);
    hosts.then_some((Addresses::V6([source, destination]), length))
}

fn is_host_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast()
}

/// The first byte of a MAC address that stands for many.
fn is_group(byte: u8) -> bool {
    byte & 1 != 0
}

/// A sum of 16-bit words as of RFC 1071. Each part but the last has an even length.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum(u32);

impl Sum {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            self.0 += u32::from(word);
        }
    }

    /// The bytes that make the sum right.
    pub(super) fn checksum(self) -> [u8; 2] {
        let folded = (self.0 & 0xffff) + (self.0 >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        (!(folded as u16)).to_be_bytes()
    }
}
