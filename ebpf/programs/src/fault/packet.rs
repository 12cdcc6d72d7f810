//! What a packet is: addresses, protocol, ports, where its payload stands, and what it weighs on the wire.

use core::mem::offset_of;

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::TcContext;
use sabot_abi::{TARGET_MAC_HEADER, Tally};

use crate::headers::{Headers, NETWORK};
use crate::raw;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_VLAN_SERVICE: u16 = 0x88a8;
const MAC_HEADER: usize = 14;
const MAX_VLAN_HEADERS: usize = 2;
/// As many as RFC 8200 lists, each once, and destination options twice.
const MAX_EXTENSION_HEADERS: usize = 8;

const LEAST_TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;
const SCTP_HEADER: u32 = 12;
const ICMP_HEADER: u32 = 8;

pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_ACK: u8 = 0x10;

pub const ICMP: u32 = 1;
pub const TCP: u32 = 6;
pub const UDP: u32 = 17;
pub const ICMPV6: u32 = 58;
pub const SCTP: u32 = 132;
const HOP_BY_HOP: u32 = 0;
const ROUTING: u32 = 43;
const FRAGMENT: u32 = 44;
const AUTHENTICATION: u32 = 51;
const DESTINATION_OPTIONS: u32 = 60;
/// Router solicitation to redirect.
const NEIGHBOUR_DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;

pub enum ParseError {
    /// No fault names it: ARP and the like, and neighbour discovery.
    NotIp,
    Malformed,
}

/// The packet that this CPU looks at now; it is too large for a program's stack.
#[map]
static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);

#[repr(C, align(8))]
pub struct Packet {
    /// IPv4 addresses are IPv4-mapped.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub protocol: u32,
    /// Host byte order; 0 where there is none.
    pub source_port: u16,
    pub destination_port: u16,
    pub tcp_sequence: u32,
    /// The ports are known: not in a later fragment, not in a protocol without ports.
    pub has_ports: bool,
    /// 0 in everything but TCP.
    pub tcp_flags: u8,
    /// Of ICMP and ICMPv6, where it is known: the type (high byte) and the code.
    pub icmp: Option<u16>,
    /// The DiffServ code point.
    pub dscp: u8,
    /// Part of a datagram that is not whole.
    pub fragment: bool,
    /// A later fragment has no transport header.
    later_fragment: bool,
    /// The kernel holds several wire packets in it.
    pub super_packet: bool,
    /// From the start of the frame.
    network: u32,
    /// From the start of the frame.
    pub transport: u32,
    /// From the start of the frame; equal to `end` where there is no payload.
    pub payload: u32,
    /// Where the IP packet ends; link padding may follow.
    pub end: u32,
    /// Bytes of the IP packet; of a super-packet's, each wire packet but the last one.
    pub ip_length: u32,
    /// Of the last wire packet.
    pub last_ip_length: u32,
    pub wire: Tally,
    headers: Headers,
}

const _: () = assert!(
    offset_of!(Packet, source).is_multiple_of(8)
        && offset_of!(Packet, destination).is_multiple_of(8)
        && align_of::<Packet>() >= 8
);

impl Packet {
    /// Parses into this CPU's own packet.
    ///
    /// Programs run with bottom halves off and end before a redirect takes effect, so nothing else on this CPU uses the
    /// packet meanwhile.
    #[inline(always)]
    pub fn parse(ctx: &TcContext, target_flags: u32) -> Result<&'static Self, ParseError> {
        let scratch = PACKET.get_ptr_mut(0).ok_or(ParseError::Malformed)?;
        // SAFETY: the pointer is this CPU's own entry, valid while the program runs, and no other reference to it lives.
        let packet = unsafe { &mut *scratch };
        packet.reset(ctx);
        packet.headers.begin(ctx, target_flags & TARGET_MAC_HEADER != 0)?;
        let (ethertype, offset, word) = packet.link(ctx, target_flags)?;
        match ethertype {
            ETHERTYPE_IPV4 => packet.parse_ipv4(ctx, offset, word)?,
            ETHERTYPE_IPV6 => packet.parse_ipv6(ctx, offset, word)?,
            _ => return Err(ParseError::NotIp),
        }
        if !packet.later_fragment {
            packet.parse_transport(ctx)?;
        }
        packet.weigh(ctx);
        Ok(packet)
    }

    /// The packet that was parsed last on this CPU.
    #[inline(always)]
    pub fn current() -> Option<&'static Self> {
        // SAFETY: as in `parse`, whose caller's reference is as shared as this one.
        PACKET.get_ptr(0).map(|packet| unsafe { &*packet })
    }

    #[inline(always)]
    fn reset(&mut self, ctx: &TcContext) {
        self.source_port = 0;
        self.destination_port = 0;
        self.has_ports = false;
        self.tcp_flags = 0;
        self.icmp = None;
        self.fragment = false;
        self.later_fragment = false;
        self.super_packet = false;
        self.wire = Tally {
            packets: 1,
            bytes: ctx.len() as u64,
        };
    }

    #[inline(always)]
    fn parse_ipv4(&mut self, ctx: &TcContext, offset: usize, word: usize) -> Result<(), ParseError> {
        let [start, identification, middle, source, destination] = self.headers.words(word, offset as u32)?;
        let [version, traffic_class, length @ ..] = start.to_ne_bytes();
        let [_, _, fragment_field @ ..] = identification.to_ne_bytes();
        let [_, protocol, _, _] = middle.to_ne_bytes();
        let header_length = (version & 0x0f) as usize * 4;
        if version >> 4 != 4 || header_length < 20 {
            return Err(ParseError::Malformed);
        }
        self.set_addresses(mapped(source), mapped(destination));
        self.protocol = protocol as u32;
        self.dscp = traffic_class >> 2;
        self.transport = (offset + header_length) as u32;
        self.ends_at(ctx, offset, u16::from_be_bytes(length) as usize);
        let fragment_field = u16::from_be_bytes(fragment_field);
        self.later_fragment = fragment_field & 0x1fff != 0;
        self.fragment = fragment_field & 0x3fff != 0;
        Ok(())
    }

    #[inline(always)]
    fn parse_ipv6(&mut self, ctx: &TcContext, offset: usize, word: usize) -> Result<(), ParseError> {
        let [start, length, a, b, c, d, e, f, g, h] = self.headers.words(word, offset as u32)?;
        let [version, flow_label, ..] = start.to_ne_bytes();
        let [length @ .., protocol, _] = length.to_ne_bytes();
        if version >> 4 != 6 {
            return Err(ParseError::Malformed);
        }
        self.set_addresses([half(a, b), half(c, d)], [half(e, f), half(g, h)]);
        self.protocol = protocol as u32;
        self.dscp = (version << 4 | flow_label >> 4) >> 2;
        self.transport = (offset + 40) as u32;
        // A jumbogram, or a super-packet beyond 64 KiB, says 0.
        let length = u16::from_be_bytes(length) as usize;
        self.ends_at(ctx, offset, if length == 0 { 0 } else { 40 + length });
        self.skip_extension_headers(ctx)
    }

    /// Halves in the order of their bytes; as bytes they would be cleared and copied one by one.
    #[inline(always)]
    fn set_addresses(&mut self, source: [u64; 2], destination: [u64; 2]) {
        // SAFETY: both are as long, and aligned as the packet is.
        unsafe {
            (&raw mut self.source).cast::<[u64; 2]>().write(source);
            (&raw mut self.destination).cast::<[u64; 2]>().write(destination);
        }
    }

    #[inline(always)]
    fn skip_extension_headers(&mut self, ctx: &TcContext) -> Result<(), ParseError> {
        for _ in 0..MAX_EXTENSION_HEADERS {
            if !matches!(
                self.protocol,
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION | FRAGMENT
            ) {
                return Ok(());
            }
            let header: [u8; 4] = self.headers.bytes(ctx, self.transport)?;
            self.transport += match self.protocol {
                AUTHENTICATION => (header[1] as u32 + 2) * 4,
                FRAGMENT => {
                    let field = u16::from_be_bytes([header[2], header[3]]);
                    self.later_fragment = field & 0xfff8 != 0;
                    // An atomic fragment (offset 0, none to follow) is a whole datagram.
                    self.fragment = field & 0xfff9 != 0;
                    8
                }
                _ => (header[1] as u32 + 1) * 8,
            };
            self.protocol = header[0] as u32;
            if self.later_fragment {
                return Ok(());
            }
        }
        Err(ParseError::Malformed)
    }

    /// Where the IP packet ends: without link padding, and for a super-packet, whose length may not fit its field, with
    /// the frame. Until the transport header is known there is no payload.
    #[inline(always)]
    fn ends_at(&mut self, ctx: &TcContext, offset: usize, total: usize) {
        let frame = ctx.len();
        let end = (offset + total) as u32;
        self.end = if total == 0 || end > frame { frame } else { end };
        self.payload = self.end;
        self.network = offset as u32;
        self.ip_length = self.end.wrapping_sub(offset as u32);
        self.last_ip_length = self.ip_length;
    }

    /// Ports and their like, and the start of the payload. A transport header that is cut short leaves a packet without
    /// ports and payload.
    #[inline(always)]
    fn parse_transport(&mut self, ctx: &TcContext) -> Result<(), ParseError> {
        let at = self.transport;
        let header = match self.protocol {
            TCP => match self.headers.bytes::<14>(ctx, at) {
                Ok(start) => {
                    self.set_ports(start[0], start[1], start[2], start[3]);
                    self.tcp_sequence = u32::from_be_bytes([start[4], start[5], start[6], start[7]]);
                    self.tcp_flags = start[13];
                    (start[12] >> 4) as u32 * 4
                }
                Err(_) => return Ok(()),
            },
            UDP | SCTP => {
                if self.protocol == UDP {
                    self.ends_with_datagram(ctx);
                }
                let Ok([a, b, c, d]) = self.headers.bytes::<4>(ctx, at) else {
                    return Ok(());
                };
                self.set_ports(a, b, c, d);
                if self.protocol == UDP {
                    UDP_HEADER
                } else {
                    SCTP_HEADER
                }
            }
            ICMP | ICMPV6 => {
                let Ok([kind, code]) = self.headers.bytes::<2>(ctx, at) else {
                    return Ok(());
                };
                if self.protocol == ICMPV6 && NEIGHBOUR_DISCOVERY.contains(&kind) {
                    return Err(ParseError::NotIp);
                }
                self.icmp = Some(u16::from_be_bytes([kind, code]));
                ICMP_HEADER
            }
            _ => return Ok(()),
        };
        if (self.protocol != TCP || header >= LEAST_TCP_HEADER) && self.transport + header <= self.end {
            self.payload = self.transport + header;
        }
        Ok(())
    }

    /// The ports as all packets of a connection have them: a later fragment has none, so that no fragment has.
    #[inline(always)]
    pub fn stable_ports(&self) -> (u16, u16) {
        if self.fragment {
            (0, 0)
        } else {
            (self.source_port, self.destination_port)
        }
    }

    #[inline(always)]
    fn set_ports(&mut self, a: u8, b: u8, c: u8, d: u8) {
        self.source_port = u16::from_be_bytes([a, b]);
        self.destination_port = u16::from_be_bytes([c, d]);
        self.has_ports = true;
    }

    /// A datagram may end before its IP packet does; its checksum ends there too. The length of a super-packet, which may
    /// say 0, is the IP packet's.
    #[inline(always)]
    fn ends_with_datagram(&mut self, ctx: &TcContext) {
        let Ok(length) = self.headers.bytes::<2>(ctx, self.transport + 4) else {
            return;
        };
        let length = u16::from_be_bytes(length) as u32;
        if length >= UDP_HEADER && self.transport + length < self.end {
            self.end = self.transport + length;
            self.payload = self.end;
        }
    }

    /// Wire packets and bytes (L2 without FCS). `gso_segs` and `wire_len` can't be trusted here: the first is 0 for what
    /// came back through a TAP, the second leaves out headers on ingress.
    #[inline(always)]
    fn weigh(&mut self, ctx: &TcContext) {
        // SAFETY: the context is valid while the program runs; the verifier turns this into a read of the skb.
        let segment = unsafe { (*raw(ctx)).gso_size } as u64;
        if segment == 0 {
            return;
        }
        let headers = self.payload as u64;
        let payload = (ctx.len() as u64).saturating_sub(headers);
        let packets = payload.div_ceil(segment);
        if packets > 1 {
            self.super_packet = true;
            let ip_headers = headers.wrapping_sub(self.network as u64);
            self.ip_length = (ip_headers + segment) as u32;
            self.last_ip_length = (ip_headers + payload - (packets - 1) * segment) as u32;
            self.wire = Tally {
                packets,
                bytes: payload + packets * headers,
            };
        }
    }

    /// The EtherType, and where in the frame and in the words of the headers the network header stands.
    #[inline(always)]
    fn link(&mut self, ctx: &TcContext, target_flags: u32) -> Result<(u16, usize, usize), ParseError> {
        if target_flags & TARGET_MAC_HEADER == 0 {
            // SAFETY: as in `weigh`.
            let protocol = unsafe { (*raw(ctx)).protocol };
            return Ok((u16::from_be(protocol as u16), 0, NETWORK));
        }
        let (mut offset, mut word) = (MAC_HEADER, NETWORK);
        for _ in 0..=MAX_VLAN_HEADERS {
            // The last two bytes of the header before.
            let ethertype = u16::from_be_bytes(self.headers.bytes(ctx, offset as u32 - 2)?);
            if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_VLAN_SERVICE {
                return Ok((ethertype, offset, word));
            }
            offset += 4;
            word += 1;
        }
        Err(ParseError::NotIp)
    }
}

#[inline(always)]
fn mapped(v4: u32) -> [u64; 2] {
    [0, half(0xffff_u32.to_be(), v4)]
}

/// Of words in the order of their bytes.
#[inline(always)]
fn half(a: u32, b: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (a.to_ne_bytes(), b.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}
