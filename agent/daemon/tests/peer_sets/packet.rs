//! Small packets between the target and another end.

use std::net::{IpAddr, Ipv6Addr};

use sabotd::engine::handle::LedgerDirection;

/// Protocols and ports of the packets; the last port is in no set.
pub(crate) const PROTOCOLS: [u8; 3] = [TCP, UDP, SCTP];
pub(crate) const PORTS: [u16; 3] = [9, 80, 1];
pub(crate) const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// A small packet between the target, whose own port is 1, and another end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) other: IpAddr,
    pub(crate) protocol: u8,
    /// The other end's, where the protocol has ports.
    pub(crate) port: u16,
    /// A later part of an IPv4 datagram, without the transport's header.
    pub(crate) fragment: bool,
}

impl Packet {
    pub(crate) fn to(other: IpAddr) -> Self {
        Self {
            other,
            protocol: UDP,
            port: 9,
            fragment: false,
        }
    }

    pub(crate) fn frame(&self, direction: LedgerDirection) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        let ends = |own: Vec<u8>, other: Vec<u8>| match direction {
            LedgerDirection::Egress => [own, other].concat(),
            LedgerDirection::Ingress => [other, own].concat(),
        };
        let transport = self.transport(direction);
        let length = transport.len() as u8;
        match self.other {
            IpAddr::V4(other) => {
                let fragment = u8::from(self.fragment);
                frame.extend([8, 0, 0x45, 0, 0, 20 + length, 0, 0, 0, fragment, 64]);
                frame.extend([self.protocol, 0, 0]);
                frame.extend(ends(vec![172, 16, 0, 7], other.octets().into()));
            }
            IpAddr::V6(other) => {
                let own = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 7);
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, length, self.protocol, 64]);
                frame.extend(ends(own.octets().into(), other.octets().into()));
            }
        }
        frame.extend(transport);
        frame
    }

    fn transport(&self, direction: LedgerDirection) -> Vec<u8> {
        if self.protocol == ICMP {
            return vec![8, 0, 0, 0, 0, 1, 0, 1];
        }
        let (own, other) = (1_u16.to_be_bytes(), self.port.to_be_bytes());
        let mut bytes = match direction {
            LedgerDirection::Egress => [own, other].concat(),
            LedgerDirection::Ingress => [other, own].concat(),
        };
        match self.protocol {
            TCP => bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]),
            UDP => bytes.extend([0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
            _ => bytes.extend([0; 8]),
        }
        bytes
    }
}

/// Every kind of packet between the target and that end that a set can tell from another.
pub(crate) fn packets(other: IpAddr) -> Vec<Packet> {
    let mut all = vec![Packet {
        protocol: ICMP,
        ..Packet::to(other)
    }];
    for protocol in PROTOCOLS {
        all.extend(PORTS.map(|port| Packet {
            other,
            protocol,
            port,
            fragment: false,
        }));
        if other.is_ipv4() {
            all.push(Packet {
                other,
                protocol,
                port: PORTS[0],
                fragment: true,
            });
        }
    }
    all
}
