//! What stands in a network namespace: its links, default routes and addresses, read over rtnetlink.
//!
//! Only the fixed headers and the attributes that are needed are decoded: a full decode would be slower, and would fail on
//! what a newer kernel has to say about devices that don't matter here.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{
    DecodeError, ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST,
    NLMSG_ALIGNTO, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::address::{AddressHeader, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkHeader, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily as SocketFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// Larger than what the kernel puts into one datagram of a dump.
const BUFFER: usize = 64 * 1024;
/// How often a dump that a change of the tables interrupted is begun again.
const ATTEMPTS: u32 = 8;

const LINK_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;
const ADDRESS_HEADER: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum RtnlError {
    #[error("cannot open a netlink socket: {0}")]
    Socket(#[source] Errno),
    #[error("netlink, asked about {what}: {source}")]
    Exchange { what: &'static str, source: io::Error },
    #[error("the kernel's answer about {what} is malformed: {source}")]
    Malformed { what: &'static str, source: DecodeError },
    #[error("{what} changed {ATTEMPTS} times while they were being read")]
    Unsteady { what: &'static str },
}

/// A device as rtnetlink describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub ifindex: u32,
    /// Its frames begin with an Ethernet header.
    pub mac_header: bool,
    pub up: bool,
    pub loopback: bool,
}

/// An address, and the index of the device that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub ifindex: u32,
    pub address: IpAddr,
}

/// A netlink socket; it stays in the namespace of the thread that opened it.
pub struct Rtnl {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Rtnl {
    pub fn open() -> Result<Self, RtnlError> {
        let socket = socket(
            SocketFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .map_err(RtnlError::Socket)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// All devices.
    pub fn links(&mut self) -> Result<Vec<Link>, RtnlError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        self.dump("links", &request, |payload| parse_link(payload).map(Some))
    }

    /// The device of this name; `None` where there is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, RtnlError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let what = "a link";
        match self.exchange(what, &RouteNetlinkMessage::GetLink(message), 0, |payload| {
            parse_link(payload).map(Some)
        }) {
            Ok(Answer { mut items, .. }) => Ok(items.pop()),
            Err(RtnlError::Exchange { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Indexes of the devices that default routes of the main table lead to, in either family.
    pub fn default_route_links(&mut self) -> Result<BTreeSet<u32>, RtnlError> {
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let found = self.dump("routes", &request, |payload| {
            parse_default_route(payload).map(Some)
        })?;
        Ok(found.into_iter().flatten().collect())
    }

    /// All addresses of all devices.
    pub fn addresses(&mut self) -> Result<Vec<Address>, RtnlError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump("addresses", &request, parse_address)
    }

    /// Sends a request that changes something, and waits for the kernel's acknowledgement.
    pub(super) fn change(
        &mut self,
        what: &'static str,
        request: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), RtnlError> {
        self.exchange(what, request, NLM_F_ACK | flags, |_| Ok(None::<()>))
            .map(drop)
    }

    /// A dump that no change interrupted.
    pub(super) fn dump<T>(
        &mut self,
        what: &'static str,
        request: &RouteNetlinkMessage,
        parse: impl Fn(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Vec<T>, RtnlError> {
        for _ in 0..ATTEMPTS {
            let answer = self.exchange(what, request, NLM_F_DUMP, &parse)?;
            if !answer.interrupted {
                return Ok(answer.items);
            }
        }
        Err(RtnlError::Unsteady { what })
    }

    pub(super) fn exchange<T>(
        &mut self,
        what: &'static str,
        request: &RouteNetlinkMessage,
        flags: u16,
        parse: impl Fn(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Answer<T>, RtnlError> {
        let failed = |errno: Errno| RtnlError::Exchange {
            what,
            source: errno.into(),
        };
        self.sequence += 1;
        let bytes = encode(request, flags, self.sequence);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(failed)?;
        let mut answer = Answer {
            items: Vec::new(),
            interrupted: false,
        };
        loop {
            // MSG_TRUNC reports the datagram's true length, so that a truncated one can't pass for a whole one.
            let length =
                recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC).map_err(failed)?;
            let datagram = self.buffer.get(..length).ok_or_else(|| failed(Errno::EMSGSIZE))?;
            if answer.take(what, datagram, self.sequence, &parse)? == Progress::Complete {
                return Ok(answer);
            }
        }
    }
}

pub(super) struct Answer<T> {
    pub(super) items: Vec<T>,
    interrupted: bool,
}

#[derive(PartialEq, Eq)]
enum Progress {
    More,
    Complete,
}

impl<T> Answer<T> {
    fn take(
        &mut self,
        what: &'static str,
        mut datagram: &[u8],
        sequence: u32,
        parse: impl Fn(&[u8]) -> Result<Option<T>, DecodeError>,
    ) -> Result<Progress, RtnlError> {
        let malformed = |source| RtnlError::Malformed { what, source };
        let mut progress = Progress::More;
        while !datagram.is_empty() {
            let message = NetlinkBuffer::new_checked(datagram).map_err(malformed)?;
            let length = message.length() as usize;
            if message.sequence_number() == sequence {
                self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                let kind = i32::from(message.message_type());
                if kind == libc::NLMSG_ERROR || kind == libc::NLMSG_DONE {
                    // Both begin with a negative error number, or 0.
                    let error = ErrorBuffer::new_checked(message.payload()).map_err(malformed)?;
                    return match error.code() {
                        Some(code) => Err(RtnlError::Exchange {
                            what,
                            source: io::Error::from_raw_os_error(code.get().wrapping_neg()),
                        }),
                        None => Ok(Progress::Complete),
                    };
                }
                self.items.extend(parse(message.payload()).map_err(malformed)?);
                if message.flags() & NLM_F_MULTIPART == 0 {
                    progress = Progress::Complete;
                }
            }
            let aligned = length.next_multiple_of(usize::from(NLMSG_ALIGNTO));
            datagram = datagram.get(aligned..).unwrap_or_default();
        }
        Ok(progress)
    }
}

fn encode(request: &RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request.clone()));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn parse_link(payload: &[u8]) -> Result<Link, DecodeError> {
    let header = LinkHeader::parse(payload)?;
    let mut name = String::new();
    for attribute in attributes(payload, LINK_HEADER) {
        let attribute = attribute?;
        if attribute.kind() == libc::IFLA_IFNAME {
            let value = attribute.value();
            name = String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned();
            break;
        }
    }
    Ok(Link {
        name,
        ifindex: header.index,
        mac_header: header.link_layer_type == LinkLayerType::Ether,
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
    })
}

/// The devices of the route, if it is a default one that forwards.
fn parse_default_route(payload: &[u8]) -> Result<Vec<u32>, DecodeError> {
    let header = RouteHeader::parse(payload)?;
    if !matches!(header.address_family, AddressFamily::Inet | AddressFamily::Inet6)
        || header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return Ok(Vec::new());
    }
    let mut devices = Vec::new();
    for attribute in attributes(payload, ROUTE_HEADER) {
        let attribute = attribute?;
        match attribute.kind() {
            libc::RTA_OIF => devices.extend(read_u32(attribute.value())),
            libc::RTA_MULTIPATH => devices.extend(next_hop_devices(attribute.value())),
            _ => {}
        }
    }
    Ok(devices)
}

/// A list of `struct rtnexthop`: length (2 bytes), flags, hops, ifindex (4 bytes), attributes.
fn next_hop_devices(mut hops: &[u8]) -> Vec<u32> {
    let mut devices = Vec::new();
    while let Some((length, rest)) = hops.split_first_chunk::<2>() {
        devices.extend(rest.get(2..).and_then(read_u32));
        // A length below the header's own would never end.
        let length = usize::from(u16::from_ne_bytes(*length)).max(8);
        hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    devices
}

fn parse_address(payload: &[u8]) -> Result<Option<Address>, DecodeError> {
    let header = AddressHeader::parse(payload)?;
    let (mut local, mut address) = (None, None);
    for attribute in attributes(payload, ADDRESS_HEADER) {
        let attribute = attribute?;
        match attribute.kind() {
            // On a point-to-point device IFA_ADDRESS is the far end.
            libc::IFA_LOCAL => local = read_address(attribute.value()),
            libc::IFA_ADDRESS => address = read_address(attribute.value()),
            _ => {}
        }
    }
    Ok(local.or(address).map(|address| Address {
        ifindex: header.index,
        address,
    }))
}

fn attributes(payload: &[u8], header: usize) -> NlasIterator<&[u8]> {
    NlasIterator::new(payload.get(header..).unwrap_or_default())
}

fn read_u32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn read_address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into()),
        16 => value.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into()),
        _ => None,
    }
}
