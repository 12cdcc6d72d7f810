//! What the classifier should do, said plainly: over a frame's parts and a rule's own words, without tables, keys or
//! bytes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use sabot_abi::{Counters, Tally};
use sabot_core::model::{Action, BootTime, Direction, Loss, LossModel, PortMatch, PortRange};
use sabotd::engine::handle::LedgerDirection;

use crate::frame::{Frame, Transport};

/// A fault as its rule has it, with its peers beside it.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub action: Action,
    pub direction: Direction,
    pub ports: Vec<PortMatch>,
    /// `None`: every other end. Otherwise networks, each of them taken in or left out.
    pub peers: Option<Vec<(IpNet, bool)>>,
    pub spare_node: bool,
    pub starts_at: BootTime,
    pub expires_at: BootTime,
}

/// What stands around a packet.
#[derive(Clone, Debug)]
pub(crate) struct Situation {
    pub direction: LedgerDirection,
    pub now: BootTime,
    pub node_addresses: BTreeSet<IpAddr>,
    pub has_line: bool,
    pub has_segmenter: bool,
    pub is_node_device: bool,
    pub mark: u32,
    /// Payload bytes of each wire packet; 0 for a packet that is one.
    pub gso_size: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passed,
    Dropped,
    Diverted,
}

/// What becomes of a packet: its fate, what each fault counts, and how often its payload was changed.
pub(crate) fn predict(
    faults: &[Fault],
    situation: &Situation,
    frame: &Frame,
) -> (Fate, Vec<Counters>, usize) {
    let mut counted = vec![Counters::default(); faults.len()];
    let mut changes = 0;
    if is_neighbour_discovery(frame) {
        return (Fate::Passed, counted, changes);
    }
    let wire = on_the_wire(frame, situation.gso_size);
    for (fault, counters) in faults.iter().zip(&mut counted) {
        if !names(fault, situation, frame) {
            continue;
        }
        counters.matched = wire;
        let detour_is_open = |exists: bool| exists && !(situation.is_node_device && situation.mark != 0);
        let is_whole = wire.packets == 1;
        match &fault.action {
            Action::Partition => {
                counters.dropped = wire;
                return (Fate::Dropped, counted, changes);
            }
            Action::Drop(loss) if share(loss) == 100.0 => {
                counters.dropped = wire;
                return (Fate::Dropped, counted, changes);
            }
            Action::Drop(loss) if share(loss) == 0.0 => counters.passed = wire,
            Action::Corrupt(corrupt) if corrupt.percent.value() == 0.0 => counters.passed = wire,
            Action::Corrupt(_) if is_whole && is_changeable(frame) => {
                counters.corrupted = wire;
                counters.passed = wire;
                changes += 1;
            }
            Action::Corrupt(_) if is_whole => counters.passed = wire,
            Action::Drop(_) | Action::Corrupt(_) => {
                if detour_is_open(situation.has_segmenter) {
                    counters.segmenting = wire;
                    return (Fate::Diverted, counted, changes);
                }
                counters.bypassed = wire;
            }
            Action::Delay(_) => {
                if detour_is_open(situation.has_line) {
                    counters.delayed = wire;
                    return (Fate::Diverted, counted, changes);
                }
                counters.bypassed = wire;
            }
            other => panic!("no case has {other:?}"),
        }
    }
    (Fate::Passed, counted, changes)
}

/// The percentage of the packets that are lost.
fn share(loss: &Loss) -> f64 {
    match loss.model {
        LossModel::Percent(percent) => percent.value(),
        _ => panic!("no case has {loss:?}"),
    }
}

fn names(fault: &Fault, situation: &Situation, frame: &Frame) -> bool {
    let (covered, other) = match situation.direction {
        LedgerDirection::Egress => (fault.direction != Direction::Ingress, frame.destination),
        LedgerDirection::Ingress => (fault.direction != Direction::Egress, frame.source),
    };
    covered
        && fault.starts_at <= situation.now
        && situation.now < fault.expires_at
        && names_port(fault, frame)
        && names_peer(fault, situation, other)
}

fn names_port(fault: &Fault, frame: &Frame) -> bool {
    let ports = match frame.transport {
        _ if frame.is_later_fragment() => None,
        Transport::Tcp {
            source, destination, ..
        }
        | Transport::Udp {
            source, destination, ..
        }
        | Transport::Sctp { source, destination } => Some([source, destination]),
        Transport::Icmp { .. } | Transport::Icmpv6 { .. } | Transport::Other(_) => None,
    };
    fault.ports.is_empty()
        || fault.ports.iter().any(|wanted| {
            let is_protocol = wanted
                .protocol
                .is_none_or(|protocol| protocol == frame.transport.protocol());
            let is_port = match wanted.what {
                PortRange::All => true,
                PortRange::Ports { first, last, .. } => {
                    ports.is_some_and(|ports| ports.iter().any(|port| (first..=last).contains(port)))
                }
                PortRange::Icmp { .. } => false,
            };
            is_protocol && is_port
        })
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

fn is_neighbour_discovery(frame: &Frame) -> bool {
    matches!(frame.transport, Transport::Icmpv6 { kind: 133..=137 }) && !frame.is_later_fragment()
}

fn is_changeable(frame: &Frame) -> bool {
    let can_be_mended = !matches!(frame.transport, Transport::Sctp { .. } | Transport::Other(_));
    can_be_mended && frame.is_whole() && !frame.payload.is_empty()
}

/// A super-packet's headers travel once with each segment.
fn on_the_wire(frame: &Frame, gso_size: u32) -> Tally {
    let carried = frame.payload.len() + frame.padding;
    let segment = gso_size as usize;
    if segment == 0 || carried <= segment {
        return Tally {
            packets: 1,
            bytes: (frame.payload_at() + carried) as u64,
        };
    }
    let packets = carried.div_ceil(segment);
    Tally {
        packets: packets as u64,
        bytes: (packets * frame.payload_at() + carried) as u64,
    }
}
