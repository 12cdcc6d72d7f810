//! Frames by their parts, so that a test knows where everything stands without parsing.

use std::net::IpAddr;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;
const PSH_ACK: u8 = 0x18;

/// What stands between the IP header and the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp {
        source: u16,
        destination: u16,
        /// 32-bit words of options, 10 at most.
        options: u8,
    },
    Udp {
        source: u16,
        destination: u16,
        /// Without one the field is 0.
        checksum: bool,
    },
    Sctp {
        source: u16,
        destination: u16,
    },
    Icmp {
        kind: u8,
    },
    Icmpv6 {
        kind: u8,
    },
    /// A protocol without a header that anybody here knows.
    Other(u8),
}

/// Where a fragment stands in its datagram; the offset is in units of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub offset: u16,
    pub more: bool,
}

/// An IPv6 extension header; `words` is what it holds beyond its least length, in its own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    HopByHop { words: u8 },
    Routing { words: u8 },
    DestinationOptions { words: u8 },
    Authentication { words: u8 },
    Fragment(Fragment),
}

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// EtherTypes of VLAN tags, from the outside in.
    pub vlans: Vec<u16>,
    /// Both addresses are of one family.
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The DiffServ code point.
    pub dscp: u8,
    /// 32-bit words of IPv4 options, 10 at most.
    pub options: u8,
    /// IPv4 only.
    pub fragment: Option<Fragment>,
    /// IPv6 only.
    pub extensions: Vec<Extension>,
    pub transport: Transport,
    /// Where it is TCP.
    pub flags: u8,
    pub sequence: u32,
    /// Where it is ICMP or ICMPv6.
    pub code: u8,
    pub payload: Vec<u8>,
    /// Link padding behind the IP packet.
    pub padding: usize,
}

impl Transport {
    pub(crate) fn protocol(self) -> u8 {
        match self {
            Self::Tcp { .. } => TCP,
            Self::Udp { .. } => UDP,
            Self::Sctp { .. } => SCTP,
            Self::Icmp { .. } => ICMP,
            Self::Icmpv6 { .. } => ICMPV6,
            Self::Other(protocol) => protocol,
        }
    }

    pub(crate) fn header_length(self) -> usize {
        match self {
            Self::Tcp { options, .. } => 20 + 4 * usize::from(options),
            Self::Udp { .. } | Self::Icmp { .. } | Self::Icmpv6 { .. } => 8,
            Self::Sctp { .. } => 12,
            Self::Other(_) => 0,
        }
    }

    /// Where in the header the checksum stands.
    fn checksum_in_header(self) -> Option<usize> {
        match self {
            Self::Tcp { .. } => Some(16),
            Self::Udp { checksum: true, .. } => Some(6),
            Self::Icmp { .. } | Self::Icmpv6 { .. } => Some(2),
            Self::Udp { checksum: false, .. } | Self::Sctp { .. } | Self::Other(_) => None,
        }
    }

    fn header(self, payload: usize) -> Vec<u8> {
        let mut header = vec![0; self.header_length()];
        match self {
            Self::Tcp {
                source,
                destination,
                options,
            } => {
                header[..2].copy_from_slice(&source.to_be_bytes());
                header[2..4].copy_from_slice(&destination.to_be_bytes());
                header[12] = (5 + options) << 4;
                // No-operation options.
                header[20..].fill(1);
            }
            Self::Udp {
                source, destination, ..
            } => {
                header[..2].copy_from_slice(&source.to_be_bytes());
                header[2..4].copy_from_slice(&destination.to_be_bytes());
                header[4..6].copy_from_slice(&((8 + payload) as u16).to_be_bytes());
            }
            Self::Sctp { source, destination } => {
                header[..2].copy_from_slice(&source.to_be_bytes());
                header[2..4].copy_from_slice(&destination.to_be_bytes());
            }
            Self::Icmp { kind } | Self::Icmpv6 { kind } => header[0] = kind,
            Self::Other(_) => {}
        }
        header
    }
}

impl Extension {
    fn protocol(self) -> u8 {
        match self {
            Self::HopByHop { .. } => HOP_BY_HOP,
            Self::Routing { .. } => ROUTING,
            Self::DestinationOptions { .. } => DESTINATION_OPTIONS,
            Self::Authentication { .. } => AUTHENTICATION,
            Self::Fragment(_) => FRAGMENT,
        }
    }

    fn length(self) -> usize {
        match self {
            Self::HopByHop { words } | Self::Routing { words } | Self::DestinationOptions { words } => {
                8 + 8 * usize::from(words)
            }
            // Three fixed words and the integrity check value.
            Self::Authentication { words } => 12 + 4 * usize::from(words),
            Self::Fragment(_) => 8,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        let mut bytes = vec![0; self.length()];
        bytes[0] = next;
        match self {
            Self::HopByHop { words } | Self::Routing { words } | Self::DestinationOptions { words } => {
                bytes[1] = words;
            }
            // RFC 4302: in 32-bit words, minus two.
            Self::Authentication { words } => bytes[1] = 1 + words,
            Self::Fragment(Fragment { offset, more }) => {
                bytes[2..4].copy_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
            }
        }
        bytes
    }
}

impl Frame {
    /// A packet with 32 bytes of payload and nothing special.
    pub(crate) fn new(source: &str, destination: &str, transport: Transport) -> Self {
        Self {
            vlans: Vec::new(),
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
            dscp: 0,
            options: 0,
            fragment: None,
            extensions: Vec::new(),
            transport,
            flags: PSH_ACK,
            sequence: 0,
            code: 0,
            payload: (0..32).collect(),
            padding: 0,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut body = self.body();
        if let Some(at) = self.transport.checksum_in_header().filter(|_| self.is_whole()) {
            let sum = match self.checksum_of(&body) {
                // 0 would mean that there is none.
                0 if matches!(self.transport, Transport::Udp { .. }) => 0xffff,
                sum => sum,
            };
            body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let mut frame = self.link();
        frame.extend(self.network(body.len()));
        frame.extend(body);
        frame.extend(vec![0xee; self.padding]);
        frame
    }

    /// Where the transport header begins, or for a later fragment its data.
    pub(crate) fn transport_at(&self) -> usize {
        let extensions: usize = self.extensions.iter().map(|extension| extension.length()).sum();
        let network = if self.source.is_ipv4() {
            20 + 4 * usize::from(self.options)
        } else {
            40 + extensions
        };
        self.network_at() + network
    }

    pub(crate) fn network_at(&self) -> usize {
        14 + 4 * self.vlans.len()
    }

    /// Bytes of the IP packet.
    pub(crate) fn ip_length(&self) -> usize {
        self.end() - self.network_at()
    }

    pub(crate) fn payload_at(&self) -> usize {
        let header = if self.is_later_fragment() {
            0
        } else {
            self.transport.header_length()
        };
        self.transport_at() + header
    }

    /// Where the checksum stands, if there is one.
    pub(crate) fn checksum_at(&self) -> Option<usize> {
        let in_header = self.transport.checksum_in_header()?;
        Some(self.transport_at() + in_header)
    }

    /// Where the IP packet ends and link padding begins.
    pub(crate) fn end(&self) -> usize {
        self.payload_at() + self.payload.len()
    }

    pub(crate) fn is_later_fragment(&self) -> bool {
        self.fragments().any(|fragment| fragment.offset > 0)
    }

    /// It isn't a part of a larger datagram.
    pub(crate) fn is_whole(&self) -> bool {
        self.fragments()
            .all(|fragment| fragment.offset == 0 && !fragment.more)
    }

    /// Whether a frame that was made of these parts has a valid checksum now, or none where none was.
    pub(crate) fn has_valid_checksum(&self, frame: &[u8]) -> bool {
        let body = &frame[self.transport_at()..self.end()];
        match self.transport.checksum_in_header() {
            // The sum over everything, the checksum among it, complements to 0.
            Some(_) => self.checksum_of(body) == 0,
            None => match self.transport {
                Transport::Udp { .. } => body[6..8] == [0, 0],
                _ => true,
            },
        }
    }

    fn fragments(&self) -> impl Iterator<Item = Fragment> + '_ {
        let extensions = self.extensions.iter().filter_map(|extension| match extension {
            Extension::Fragment(fragment) => Some(*fragment),
            _ => None,
        });
        self.fragment.into_iter().chain(extensions)
    }

    fn body(&self) -> Vec<u8> {
        if self.is_later_fragment() {
            return self.payload.clone();
        }
        let mut body = self.transport.header(self.payload.len());
        match self.transport {
            Transport::Tcp { .. } => {
                body[4..8].copy_from_slice(&self.sequence.to_be_bytes());
                body[13] = self.flags;
            }
            Transport::Icmp { .. } | Transport::Icmpv6 { .. } => body[1] = self.code,
            _ => {}
        }
        body.extend(&self.payload);
        body
    }

    fn link(&self) -> Vec<u8> {
        let mut link = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for ethertype in &self.vlans {
            link.extend(ethertype.to_be_bytes());
            link.extend([0, 42]);
        }
        let ethertype: u16 = if self.source.is_ipv4() { 0x0800 } else { 0x86dd };
        link.extend(ethertype.to_be_bytes());
        link
    }

    fn network(&self, body: usize) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = 20 + 4 * usize::from(self.options);
                let mut header = vec![0; length];
                header[0] = 0x40 | (length / 4) as u8;
                header[1] = self.dscp << 2;
                header[2..4].copy_from_slice(&((length + body) as u16).to_be_bytes());
                if let Some(Fragment { offset, more }) = self.fragment {
                    header[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
                }
                header[8] = 64;
                header[9] = self.transport.protocol();
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&destination.octets());
                header[20..].fill(1);
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let extensions = self.extension_headers();
                let mut header = vec![0x60 | self.dscp >> 2, self.dscp << 6, 0, 0];
                header.extend(((extensions.len() + body) as u16).to_be_bytes());
                header.extend([self.next_header(0), 64]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(extensions);
                header
            }
            (source, destination) => panic!("{source} and {destination} are of two families"),
        }
    }

    /// The protocol of the extension header at an index, or of the transport behind the last one.
    fn next_header(&self, index: usize) -> u8 {
        self.extensions
            .get(index)
            .map_or(self.transport.protocol(), |extension| extension.protocol())
    }

    fn extension_headers(&self) -> Vec<u8> {
        let headers = self.extensions.iter().enumerate();
        headers
            .flat_map(|(index, extension)| extension.bytes(self.next_header(index + 1)))
            .collect()
    }

    /// The Internet checksum of a transport header and its payload, with the pseudo-header where the protocol has one.
    fn checksum_of(&self, body: &[u8]) -> u16 {
        let mut data = Vec::new();
        if !matches!(self.transport, Transport::Icmp { .. }) {
            match (self.source, self.destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    data.extend(source.octets());
                    data.extend(destination.octets());
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    data.extend(source.octets());
                    data.extend(destination.octets());
                }
                (source, destination) => panic!("{source} and {destination} are of two families"),
            }
            // IPv4's and IPv6's pseudo-headers have the same sum.
            data.extend((body.len() as u32).to_be_bytes());
            data.extend([0, self.transport.protocol()]);
        }
        data.extend(body);
        checksum(&data)
    }
}

/// RFC 1071; a last odd byte is padded with 0.
fn checksum(data: &[u8]) -> u16 {
    let words = data
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(crate) fn tcp(source: u16, destination: u16) -> Transport {
    Transport::Tcp {
        source,
        destination,
        options: 0,
    }
}

pub(crate) fn udp(source: u16, destination: u16) -> Transport {
    Transport::Udp {
        source,
        destination,
        checksum: true,
    }
}

pub(crate) fn sctp(source: u16, destination: u16) -> Transport {
    Transport::Sctp { source, destination }
}
