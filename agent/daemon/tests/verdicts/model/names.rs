//! Which packets a fault names.

use std::net::IpAddr;

use sabot_abi::Tally;
use sabot_core::model::{BootTime, Direction, PacketFilter, PortMatch, PortRange, PortSide};
use sabotd::engine::handle::LedgerDirection;

use super::{Fault, Situation};
use crate::chances::Factor;
use crate::frame::{Frame, Transport};

/// The fault names the packet, whatever its length.
pub(super) fn names(fault: &Fault, situation: &Situation, frame: &Frame) -> bool {
    let (covered, other) = match situation.direction {
        LedgerDirection::Egress => (fault.direction != Direction::Ingress, frame.destination),
        LedgerDirection::Ingress => (fault.direction != Direction::Egress, frame.source),
    };
    let is_code_point = fault.packets.dscp & 1 << frame.dscp != 0;
    let is_port = fault.ports.is_empty() || fault.ports.iter().any(|wanted| names_port(wanted, frame));
    covered
        && is_in_force(fault, situation.now)
        && is_code_point
        && is_port
        && (names_peer(fault, situation, other) || names_peer_port(fault, situation, frame, other))
}

fn is_in_force(fault: &Fault, now: BootTime) -> bool {
    let has_begun = fault.starts_at <= now && now < fault.expires_at;
    has_begun
        && fault.pulse.is_none_or(|pulse| {
            let since = u128::from(now.0 - fault.starts_at.0);
            let (on, off) = (pulse.on.as_nanos(), pulse.off.as_nanos());
            since - since / (on + off) * (on + off) < on
        })
}

/// How much of the action's value there is now.
pub(super) fn factor(fault: &Fault, now: BootTime) -> Factor {
    let Some(ramp) = fault.ramp else {
        return Factor::WHOLE;
    };
    let [from, to] = [ramp.from, ramp.to].map(|part| (part * 65_536.0).round() as u64);
    let elapsed = u128::from(now.0 - fault.starts_at.0);
    if elapsed >= ramp.over.as_nanos() {
        return Factor(to);
    }
    // Both times in units of 1,024 ns.
    let part = |whole: u64| (u128::from(whole) * (elapsed / 1024) / (ramp.over.as_nanos() / 1024)) as u64;
    Factor(if from <= to {
        from + part(to - from)
    } else {
        from - part(from - to)
    })
}

fn names_port(wanted: &PortMatch, frame: &Frame) -> bool {
    let is_first = !frame.is_later_fragment();
    let is_protocol = wanted
        .protocol
        .is_none_or(|protocol| protocol == frame.transport.protocol());
    let is_number = match (&wanted.what, frame.transport) {
        (PortRange::All, transport) => wanted.protocol.is_some() || has_ports(transport),
        (
            PortRange::Ports { first, last, side },
            Transport::Tcp {
                source, destination, ..
            }
            | Transport::Udp {
                source, destination, ..
            }
            | Transport::Sctp { source, destination },
        ) => {
            let is_in = |port| (*first..=*last).contains(&port);
            let sides = match side {
                PortSide::Source => is_in(source),
                PortSide::Destination => is_in(destination),
                PortSide::Either => is_in(source) || is_in(destination),
            };
            is_first && sides
        }
        (PortRange::Icmp { kind, code }, Transport::Icmp { kind: its } | Transport::Icmpv6 { kind: its }) => {
            is_first && *kind == its && code.is_none_or(|code| code == frame.code)
        }
        _ => false,
    };
    is_protocol && is_number
}

fn has_ports(transport: Transport) -> bool {
    matches!(
        transport,
        Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Sctp { .. }
    )
}

fn names_peer(fault: &Fault, situation: &Situation, other: IpAddr) -> bool {
    let spares = fault.spare_node && situation.node_addresses.contains(&other);
    let Some(peers) = &fault.peers else {
        return !spares;
    };
    // Of several entries for the same network the last one counts.
    let around = peers.iter().filter(|(net, _)| net.contains(&other));
    let Some((net, included)) = around.max_by_key(|(net, _)| net.prefix_len()) else {
        return false;
    };
    let names_this_one = net.prefix_len() == net.max_prefix_len();
    *included && (names_this_one || !spares)
}

/// An address is named exactly, so that the node's own aren't spared.
fn names_peer_port(fault: &Fault, situation: &Situation, frame: &Frame, other: IpAddr) -> bool {
    let ports = match frame.transport {
        Transport::Tcp {
            source, destination, ..
        }
        | Transport::Udp {
            source, destination, ..
        }
        | Transport::Sctp { source, destination }
            if !frame.is_later_fragment() =>
        {
            Some((source, destination))
        }
        _ => None,
    };
    let its_port = ports.map(|(source, destination)| match situation.direction {
        LedgerDirection::Egress => destination,
        LedgerDirection::Ingress => source,
    });
    fault.peers.is_some()
        && fault.peer_ports.iter().any(|(address, only)| {
            *address == other
                && only.protocol == frame.transport.protocol()
                && (only.port.is_none() || only.port == its_port)
        })
}

pub(super) fn is_neighbour_discovery(frame: &Frame) -> bool {
    matches!(frame.transport, Transport::Icmpv6 { kind: 133..=137 }) && !frame.is_later_fragment()
}

/// The wire packets that a packet is: with each its IP packet's length and the bytes of its frame.
pub(super) fn wire_packets(frame: &Frame, gso_size: u32) -> Vec<(usize, usize)> {
    let segment = gso_size as usize;
    if segment == 0 || frame.payload.len() <= segment {
        return vec![(frame.ip_length(), frame.end() + frame.padding)];
    }
    // A super-packet's headers travel once with each segment.
    let headers = frame.payload_at();
    let segments = frame.payload.chunks(segment);
    let with_headers = segments.map(|segment| {
        let length = headers + segment.len();
        (length - frame.network_at(), length)
    });
    with_headers.collect()
}

/// Those of some wire packets that have one of the filter's lengths.
pub(super) fn named_lengths(filter: &PacketFilter, wire: &[(usize, usize)]) -> Tally {
    let range = filter.least_length as usize..=filter.greatest_length as usize;
    weigh(wire.iter().filter(|(length, _)| range.contains(length)))
}

pub(super) fn weigh<'a>(wire: impl Iterator<Item = &'a (usize, usize)>) -> Tally {
    let mut sum = Tally::default();
    for (_, bytes) in wire {
        sum.packets += 1;
        sum.bytes += *bytes as u64;
    }
    sum
}
