//! The busiest of the live connections, on demand.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sabot_abi::{PEER_CLASS_NAMES, TcpSocket};

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
    /// Only its connections.
    pub owner: Option<Identity>,
    pub order: FlowOrder,
    /// At most this many.
    pub limit: usize,
}

/// One live connection, with what it has done since it began, as it was when the last segment arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub owner: Arc<Identity>,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub local_port: u16,
    pub remote_port: u16,
    /// `pod`, `service`, `node`, `private`, `public` or `loopback`.
    pub peer: &'static str,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub packets_sent: u32,
    pub packets_received: u32,
    pub retransmits: u32,
    /// Smoothed; `None` before there was one.
    pub rtt: Option<Duration>,
}

/// The flows that the query asks for. Those of owners that are gone are left out.
pub fn top(sockets: Vec<TcpSocket>, owners: &Owners, query: &FlowQuery) -> Vec<Flow> {
    let wanted = |identity: &Identity| query.owner.as_ref().is_none_or(|owner| owner == identity);
    let mut flows: Vec<_> = sockets
        .into_iter()
        .filter_map(|socket| {
            let identity = &owners.get(socket.owner)?.identity;
            wanted(identity).then(|| (socket, Arc::clone(identity)))
        })
        .collect();
    let key = |socket: &TcpSocket| match query.order {
        FlowOrder::Bytes => socket.bytes_acked.saturating_add(socket.bytes_received),
        FlowOrder::Packets => u64::from(socket.segments_sent) + u64::from(socket.segments_received),
        FlowOrder::Retransmits => socket.retransmits.into(),
    };
    // Equal ones stay in one order from call to call.
    flows.sort_by_key(|(socket, _)| {
        let ends = (socket.local_port, socket.remote_port, socket.remote);
        (std::cmp::Reverse(key(socket)), socket.owner, ends)
    });
    flows.truncate(query.limit);
    flows
        .into_iter()
        .map(|(socket, owner)| flow(&socket, owner))
        .collect()
}

fn flow(socket: &TcpSocket, owner: Arc<Identity>) -> Flow {
    Flow {
        owner,
        local: address(socket.local),
        remote: address(socket.remote),
        local_port: socket.local_port,
        remote_port: socket.remote_port,
        peer: PEER_CLASS_NAMES
            .get(socket.peer as usize)
            .copied()
            .unwrap_or("public"),
        bytes_sent: socket.bytes_acked,
        bytes_received: socket.bytes_received,
        packets_sent: socket.segments_sent,
        packets_received: socket.segments_received,
        retransmits: socket.retransmits,
        rtt: (socket.srtt != 0).then(|| Duration::from_micros(socket.srtt.into())),
    }
}

#[cfg(test)]
mod tests {
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

    fn socket(owner: u32, port: u16, bytes: u64, segments: u32, retransmits: u32) -> TcpSocket {
        TcpSocket {
            owner,
            local_port: port,
            remote: octets(IpAddr::from([192, 0, 2, 7])),
            bytes_acked: bytes,
            bytes_received: 1,
            segments_sent: segments,
            retransmits,
            ..TcpSocket::default()
        }
    }

    fn ports(order: FlowOrder, owner: Option<Identity>, limit: usize) -> Vec<u16> {
        let sockets = vec![
            socket(1, 10, 500, 9, 0),
            socket(2, 20, 700, 2, 4),
            socket(1, 30, 100, 30, 7),
            socket(3, 40, 9000, 90, 90),
        ];
        let query = FlowQuery { owner, order, limit };
        top(sockets, &owners(), &query)
            .iter()
            .map(|flow| flow.local_port)
            .collect()
    }

    #[test]
    fn the_greatest_come_first_and_those_of_nobody_are_left_out() {
        assert_eq!(ports(FlowOrder::Bytes, None, 9), [20, 10, 30]);
        assert_eq!(ports(FlowOrder::Packets, None, 9), [30, 10, 20]);
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
        let flows = top(vec![socket(1, 10, 5, 1, 0)], &owners(), &query);
        assert_eq!(flows[0].remote, IpAddr::from([192, 0, 2, 7]));
        assert_eq!((flows[0].bytes_sent, flows[0].rtt), (5, None));
    }
}
