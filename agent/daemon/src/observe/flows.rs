//! The busiest of the live connections of TCP and of the flows of UDP, on demand.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sabot_abi::{FlowCounts, FlowKey, PEER_CLASS_NAMES, TcpSocket};

use super::identity::{Identity, Owners};
use crate::kernel::tcp::address;

/// As many as an answer holds.
pub const MAX_FLOWS: usize = 1000;

/// What flows are sorted by; the greatest comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowOrder {
    /// Both ways.
    #[default]
    Bytes,
    /// Both ways.
    Packets,
    Retransmits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowQuery {
    /// Only its flows.
    pub owner: Option<Identity>,
    pub order: FlowOrder,
    /// At most this many.
    pub limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// The flows that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowList {
    pub flows: Vec<Flow>,
    /// What is not among them, for people; empty: nothing isn't.
    pub missing: Vec<String>,
}

/// A live connection of TCP, with what it has done since it began, as it was when the last segment arrived; or a flow of UDP,
/// with what it did while somebody looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub owner: Arc<Identity>,
    pub protocol: Protocol,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub local_port: u16,
    pub remote_port: u16,
    /// `pod`, `service`, `node`, `private`, `public` or `loopback`.
    pub peer: &'static str,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub packets_sent: u64,
    pub packets_received: u64,
    /// UDP has none.
    pub retransmits: u32,
    /// Smoothed; `None` before there was one, and for UDP.
    pub rtt: Option<Duration>,
}

/// What the kernel knows of a flow.
#[derive(Clone, Copy, Debug)]
pub enum Counted {
    Tcp(TcpSocket),
    Udp(FlowKey, FlowCounts),
}

impl Counted {
    fn owner(&self) -> u32 {
        match self {
            Self::Tcp(socket) => socket.owner,
            Self::Udp(key, _) => key.owner,
        }
    }

    /// What makes it busy. Equal ones stay in one order from call to call.
    fn rank(&self, order: FlowOrder) -> impl Ord + use<> {
        let (bytes, packets, retransmits, ends) = match self {
            Self::Tcp(socket) => (
                socket.bytes_acked.saturating_add(socket.bytes_received),
                u64::from(socket.segments_sent) + u64::from(socket.segments_received),
                socket.retransmits,
                (socket.local_port, socket.remote_port, socket.remote),
            ),
            Self::Udp(key, counts) => (
                counts.bytes_sent.saturating_add(counts.bytes_received),
                counts.packets_sent + counts.packets_received,
                0,
                (key.local_port, key.remote_port, key.remote),
            ),
        };
        let greatness = match order {
            FlowOrder::Bytes => bytes,
            FlowOrder::Packets => packets,
            FlowOrder::Retransmits => retransmits.into(),
        };
        (Reverse(greatness), self.owner(), ends)
    }
}

/// The flows that the query asks for. Those of owners that are gone are left out. `class` says what class of peers, `PEER_*`, an
/// address is of.
pub fn top(
    counted: impl IntoIterator<Item = Counted>,
    owners: &Owners,
    query: &FlowQuery,
    class: impl Fn([u8; 16]) -> u32,
) -> Vec<Flow> {
    let wanted = |identity: &Identity| query.owner.as_ref().is_none_or(|owner| owner == identity);
    let mut flows: Vec<_> = counted
        .into_iter()
        .filter_map(|counted| {
            let identity = &owners.get(counted.owner())?.identity;
            wanted(identity).then(|| (counted, Arc::clone(identity)))
        })
        .collect();
    flows.sort_by_cached_key(|(counted, _)| counted.rank(query.order));
    flows.truncate(query.limit);
    flows
        .into_iter()
        .map(|(counted, owner)| match counted {
            Counted::Tcp(socket) => tcp_flow(&socket, owner),
            Counted::Udp(key, counts) => udp_flow(&key, &counts, class(key.remote), owner),
        })
        .collect()
}

fn tcp_flow(socket: &TcpSocket, owner: Arc<Identity>) -> Flow {
    Flow {
        owner,
        protocol: Protocol::Tcp,
        local: address(socket.local),
        remote: address(socket.remote),
        local_port: socket.local_port,
        remote_port: socket.remote_port,
        peer: class_name(socket.peer),
        bytes_sent: socket.bytes_acked,
        bytes_received: socket.bytes_received,
        packets_sent: socket.segments_sent.into(),
        packets_received: socket.segments_received.into(),
        retransmits: socket.retransmits,
        rtt: (socket.srtt != 0).then(|| Duration::from_micros(socket.srtt.into())),
    }
}

fn udp_flow(key: &FlowKey, counts: &FlowCounts, class: u32, owner: Arc<Identity>) -> Flow {
    Flow {
        owner,
        protocol: Protocol::Udp,
        local: address(key.local),
        remote: address(key.remote),
        local_port: key.local_port,
        remote_port: key.remote_port,
        peer: class_name(class),
        bytes_sent: counts.bytes_sent,
        bytes_received: counts.bytes_received,
        packets_sent: counts.packets_sent,
        packets_received: counts.packets_received,
        retransmits: 0,
        rtt: None,
    }
}

fn class_name(class: u32) -> &'static str {
    PEER_CLASS_NAMES.get(class as usize).copied().unwrap_or("public")
}

#[cfg(test)]
mod tests {
    use sabot_abi::PEER_NODE;

    use super::*;
    use crate::kernel::tcp::octets;
    use crate::observe::identity::Owner;

    fn pod(name: &str) -> Identity {
        Identity::Pod {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    fn owners() -> Owners {
        Owners::new([(1, pod("web")), (2, pod("db"))].map(|(number, identity)| Owner {
            number,
            identity: Arc::new(identity),
            keys: Vec::new(),
            paths: Vec::new(),
        }))
    }

    fn socket(owner: u32, port: u16, bytes: u64, segments: u32, retransmits: u32) -> Counted {
        Counted::Tcp(TcpSocket {
            owner,
            local_port: port,
            remote: octets(IpAddr::from([192, 0, 2, 7])),
            bytes_acked: bytes,
            bytes_received: 1,
            segments_sent: segments,
            retransmits,
            ..TcpSocket::default()
        })
    }

    fn datagrams(owner: u32, port: u16, bytes: u64, packets: u64) -> Counted {
        let key = FlowKey {
            owner,
            local_port: port,
            remote: octets(IpAddr::from([192, 0, 2, 8])),
            ..FlowKey::default()
        };
        let counts = FlowCounts {
            bytes_received: bytes,
            packets_received: packets,
            ..FlowCounts::default()
        };
        Counted::Udp(key, counts)
    }

    fn ports(order: FlowOrder, owner: Option<Identity>, limit: usize) -> Vec<u16> {
        let sockets = vec![
            socket(1, 10, 500, 9, 0),
            socket(2, 20, 700, 2, 4),
            socket(1, 30, 100, 30, 7),
            socket(3, 40, 9000, 90, 90),
            datagrams(2, 50, 600, 20),
        ];
        let query = FlowQuery { owner, order, limit };
        top(sockets, &owners(), &query, |_| PEER_NODE)
            .iter()
            .map(|flow| flow.local_port)
            .collect()
    }

    #[test]
    fn the_greatest_come_first_and_those_of_nobody_are_left_out() {
        assert_eq!(ports(FlowOrder::Bytes, None, 9), [20, 50, 10, 30]);
        assert_eq!(ports(FlowOrder::Packets, None, 9), [30, 50, 10, 20]);
        assert_eq!(ports(FlowOrder::Retransmits, None, 2), [30, 20]);
    }

    #[test]
    fn one_owners_are_picked_before_they_are_counted() {
        assert_eq!(ports(FlowOrder::Bytes, Some(pod("web")), 1), [10]);
        assert_eq!(ports(FlowOrder::Bytes, Some(pod("gone")), 5), [0; 0]);
    }

    #[test]
    fn mapped_addresses_are_shown_as_what_they_are() {
        let query = FlowQuery {
            owner: None,
            order: FlowOrder::Bytes,
            limit: 1,
        };
        let flows = top([socket(1, 10, 5, 1, 0)], &owners(), &query, |_| PEER_NODE);
        assert_eq!(flows[0].remote, IpAddr::from([192, 0, 2, 7]));
        assert_eq!((flows[0].bytes_sent, flows[0].rtt), (5, None));
    }

    #[test]
    fn a_flow_says_its_protocol_and_its_peer() {
        let query = FlowQuery {
            owner: None,
            order: FlowOrder::Bytes,
            limit: 2,
        };
        let both = [socket(1, 10, 5, 1, 0), datagrams(2, 20, 9, 3)];
        let flows = top(both, &owners(), &query, |address| {
            assert_eq!(address, octets(IpAddr::from([192, 0, 2, 8])));
            PEER_NODE
        });
        let told: Vec<_> = flows
            .iter()
            .map(|flow| (flow.protocol.name(), flow.peer))
            .collect();
        assert_eq!(told, [("UDP", "node"), ("TCP", "pod")]);
        assert_eq!((flows[0].packets_received, flows[0].retransmits), (3, 0));
    }
}
