//! Peers by the thousand, and the addresses that packets are sent to.

use std::net::{Ipv4Addr, SocketAddrV4};

use sabot_proto::sabot::v1::Peer;

use crate::bench::spec;

/// Everything sent here stays in the lab: the node's bridge drops it.
pub(super) const RANGE: &str = "10.128.0.0/9";

const FIRST: u32 = u32::from_be_bytes([10, 128, 0, 0]);
const PORT: u16 = 9;

/// What the peers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Addresses, each of them exact.
    Exact,
    /// Networks of 16 addresses.
    Prefix,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Exact, Self::Prefix];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Exact => "addresses",
            Self::Prefix => "prefixes",
        }
    }

    fn size(self) -> u32 {
        match self {
            Self::Exact => 1,
            Self::Prefix => 16,
        }
    }

    fn length(self) -> u32 {
        32 - self.size().trailing_zeros()
    }
}

/// Every other address or network of a range: packets to the others in between share the longest possible prefix with a
/// peer, which is the worst case of a search by prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peers {
    pub(super) kind: Kind,
    pub(super) count: u32,
}

/// Where packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// All to one address.
    One,
    /// To as many as there are peers, in no order.
    Spread,
}

impl Peers {
    fn network(self, index: u32) -> u32 {
        FIRST + 2 * index * self.kind.size()
    }

    /// As a fault names them.
    pub(super) fn peers(self) -> Vec<Peer> {
        let peer = |index| {
            let address = Ipv4Addr::from(self.network(index));
            match self.kind {
                Kind::Exact => spec::address(address.into()),
                Kind::Prefix => spec::network(format!("{address}/{}", self.kind.length())),
            }
        };
        (0..self.count).map(peer).collect()
    }

    /// As `ipset restore` reads them.
    pub(super) fn set(self, name: &str) -> String {
        let kind = match self.kind {
            Kind::Exact => "hash:ip",
            Kind::Prefix => "hash:net",
        };
        let mut lines = format!("create {name} {kind} maxelem {}\n", self.count.max(1024));
        for index in 0..self.count {
            let address = Ipv4Addr::from(self.network(index));
            lines.push_str(&match self.kind {
                Kind::Exact => format!("add {name} {address}\n"),
                Kind::Prefix => format!("add {name} {address}/{}\n", self.kind.length()),
            });
        }
        lines
    }

    /// As `iptables-restore` reads a rule for each of them.
    pub(super) fn rules(self) -> String {
        let mut lines = "*filter\n".to_owned();
        for index in 0..self.count {
            let address = Ipv4Addr::from(self.network(index));
            lines.push_str(&format!(
                "-A OUTPUT -d {address}/{} -j ACCEPT\n",
                self.kind.length()
            ));
        }
        lines.push_str("COMMIT\n");
        lines
    }

    /// At least `least` destinations, all of them peers or none.
    pub(super) fn destinations(self, aim: Aim, matched: bool, least: usize) -> Vec<SocketAddrV4> {
        let size = self.kind.size();
        let within = size / 3;
        let beside = if matched { 0 } else { size };
        let address = |index: u32| {
            let address = Ipv4Addr::from(self.network(index) + beside + within);
            SocketAddrV4::new(address, PORT)
        };
        match aim {
            Aim::One => vec![address(self.count / 2); least],
            Aim::Spread => {
                let mut all: Vec<_> = (0..self.count).map(address).collect();
                shuffle(&mut all);
                let times = least.div_ceil(all.len());
                all.repeat(times)
            }
        }
    }
}

/// Fisher and Yates's, the same each time: every run sends in the same order.
fn shuffle<T>(values: &mut [T]) {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for end in (1..values.len()).rev() {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let place = (state % (end as u64 + 1)) as usize;
        values.swap(end, place);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn matched_and_unmatched_destinations_are_apart_and_stay_in_the_range() {
        for kind in Kind::ALL {
            let peers = Peers { kind, count: 65_536 };
            let matched: BTreeSet<_> = peers.destinations(Aim::Spread, true, 1).into_iter().collect();
            let unmatched: BTreeSet<_> = peers.destinations(Aim::Spread, false, 1).into_iter().collect();
            assert_eq!((matched.len(), unmatched.len()), (65_536, 65_536));
            assert!(matched.is_disjoint(&unmatched));
            let inside = |to: &SocketAddrV4| to.ip().octets()[0] == 10 && to.ip().octets()[1] >= 128;
            assert!(matched.iter().chain(&unmatched).all(inside));
        }
        let few = Peers {
            kind: Kind::Prefix,
            count: 2,
        };
        assert_eq!(
            few.set("s"),
            "create s hash:net maxelem 1024\nadd s 10.128.0.0/28\nadd s 10.128.0.32/28\n"
        );
        assert_eq!(
            few.rules(),
            "*filter\n-A OUTPUT -d 10.128.0.0/28 -j ACCEPT\n-A OUTPUT -d 10.128.0.32/28 -j ACCEPT\nCOMMIT\n"
        );
        let to = few.destinations(Aim::One, true, 3);
        assert_eq!(to, [SocketAddrV4::new(Ipv4Addr::new(10, 128, 0, 37), PORT); 3]);
    }
}
