//! Random faults, packets, and what stands around them.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sabot_core::loss::GilbertElliott;
use sabot_core::model::{
    Action, BootTime, Corrupt, CorruptKind, Direction, Duplicate, Handshake, Loss, LossModel, PacketFilter,
    Percent, PortMatch, PortRange, PortSide, Pulse, QueueBound, Ramp, RateLimit, RejectCode, Reorder,
    ResetTo,
};
use sabot_core::plan::PeerPort;
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::boot_time;

use crate::frame::{ACK, Extension, Fragment, Frame, RST, SYN, Transport};
use crate::model::{Fault, Situation};
use crate::rig::{Egress, Ingress, jittering, share};

const HOUR: Duration = Duration::from_secs(3600);
/// Few, so that rules and packets often meet.
const V4: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1"];
const V6: [&str; 4] = ["fd00::1", "fd00::2", "fd00:0:0:1::1", "2001:db8::1"];
const NETWORKS: [&str; 18] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/15",
    "10.0.0.0/24",
    "10.0.0.0/31",
    "10.0.0.1/32",
    "10.0.1.1/32",
    "192.0.2.0/24",
    "192.0.2.1/32",
    "::/0",
    "::/1",
    "fd00::/8",
    "fd00::/32",
    "fd00::/64",
    "fd00::/126",
    "fd00::1/128",
    "2001:db8::/32",
    "2001:db8::1/128",
];
const PORTS: [u16; 5] = [1, 53, 443, 8080, 65_535];
const PROTOCOLS: [u8; 5] = [1, 6, 17, 58, 132];

#[derive(Clone, Debug)]
pub(super) struct Case {
    /// In the order in which they act.
    pub(super) faults: Vec<Fault>,
    pub(super) situation: Situation,
    pub(super) packets: Vec<(LedgerDirection, Frame)>,
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let direction = select(&[Egress, Ingress][..]);
    let packets = prop::collection::vec((direction, frame()), 1..25);
    (prop::collection::vec(fault(), 1..7), situation(), packets).prop_map(
        |(mut faults, situation, packets)| {
            faults.sort_by_key(|fault| fault.action.rank());
            Case {
                faults,
                situation,
                packets,
            }
        },
    )
}

fn port() -> impl Strategy<Value = u16> {
    select(&PORTS[..])
}

fn port_match() -> impl Strategy<Value = PortMatch> {
    let side = || select(&[PortSide::Either, PortSide::Source, PortSide::Destination][..]);
    let range = (port(), port(), side()).prop_map(|(a, b, side)| crate::rig::range(a.min(b), a.max(b), side));
    let one = (port(), side()).prop_map(|(port, side)| crate::rig::range(port, port, side));
    let numbers = prop_oneof![one, range];
    let kind = select(&[0_u8, 3, 8, 128][..]);
    let icmp = (kind, prop::option::of(0..3_u8)).prop_map(|(kind, code)| PortRange::Icmp { kind, code });
    prop_oneof![
        4 => (prop::option::weighted(0.7, select(&[6_u8, 17, 132][..])), numbers)
            .prop_map(|(protocol, what)| PortMatch { protocol, what }),
        1 => (select(&[1_u8, 58][..]), icmp)
            .prop_map(|(protocol, what)| PortMatch { protocol: Some(protocol), what }),
        2 => select(&PROTOCOLS[..])
            .prop_map(|protocol| PortMatch { protocol: Some(protocol), what: PortRange::All }),
    ]
}

fn packet_filter() -> impl Strategy<Value = PacketFilter> {
    let lengths = prop_oneof![
        3 => Just((0, PacketFilter::MAX_LENGTH)),
        1 => (select(&[0_u32, 60, 100, 104, 576, 600][..]), select(&[104_u32, 576, 600, 1000, 65_575][..]))
            .prop_map(|(a, b)| (a.min(b), a.max(b))),
    ];
    let dscp = prop_oneof![3 => Just(u64::MAX), 1 => Just(1), 1 => Just(1 << 46 | 1 << 63)];
    (dscp, lengths).prop_map(|(dscp, (least_length, greatest_length))| PacketFilter {
        dscp,
        least_length,
        greatest_length,
    })
}

/// Networks in any order, each once, taken in or left out.
fn peers() -> impl Strategy<Value = Option<Vec<(IpNet, bool)>>> {
    let networks: Vec<IpNet> = NETWORKS
        .iter()
        .map(|text| text.parse().expect("a network"))
        .collect();
    let some = subsequence(networks, 0..8).prop_shuffle();
    let entries = some.prop_flat_map(|networks| {
        let kinds = prop::collection::vec(prop::bool::weighted(0.7), networks.len());
        kinds.prop_map(move |kinds| networks.iter().copied().zip(kinds).collect())
    });
    prop::option::weighted(0.5, entries)
}

/// A port of an end that packets have, or a whole protocol.
fn peer_port() -> impl Strategy<Value = (IpAddr, PeerPort)> {
    let ends = V4.iter().chain(&V6).map(|text| text.parse().expect("an address"));
    let only = (select(&[6_u8, 17, 132][..]), prop::option::weighted(0.7, port()));
    let only = only.prop_map(|(protocol, port)| PeerPort { protocol, port });
    (select(ends.collect::<Vec<IpAddr>>()), only)
}

fn fault() -> impl Strategy<Value = Fault> {
    let direction = select(
        &[
            Direction::Both,
            Direction::Both,
            Direction::Egress,
            Direction::Ingress,
        ][..],
    );
    let ports = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(port_match(), 1..4)];
    let peers = (peers(), prop::collection::vec(peer_port(), 0..4));
    let filter = (direction, ports, packet_filter(), peers, any::<bool>());
    (action(), filter, pulse(), ramp(), times(), any::<u64>()).prop_map(
        |(action, (direction, ports, packets, peers, spare_node), pulse, ramp, times, seed)| {
            let (peers, peer_ports) = peers;
            let (starts_at, expires_at) = times;
            let ramp = ramp.filter(|_| has_a_share(&action));
            Fault {
                action,
                direction,
                ports,
                packets,
                peers,
                peer_ports,
                spare_node,
                pulse,
                ramp,
                seed,
                starts_at,
                expires_at,
            }
        },
    )
}

/// In force now, or not; never about to change.
fn times() -> impl Strategy<Value = (BootTime, BootTime)> {
    let after = |hours| boot_time().after(hours * HOUR);
    prop_oneof![
        12 => Just((BootTime(0), after(2))),
        1 => Just((after(1), after(2))),
        1 => Just((BootTime(0), BootTime(1))),
    ]
}

/// So long that they seldom change during a case.
fn pulse() -> impl Strategy<Value = Option<Pulse>> {
    let times = [
        Duration::from_millis(1),
        Duration::from_secs(3),
        HOUR,
        9_000 * HOUR,
    ];
    let pulse = (select(times.to_vec()), select(times.to_vec()))
        .prop_filter("they change during a case", |(on, off)| *on + *off >= HOUR)
        .prop_map(|(on, off)| Pulse { on, off });
    prop::option::weighted(0.3, pulse)
}

fn ramp() -> impl Strategy<Value = Option<Ramp>> {
    let over = select(vec![Duration::from_millis(1), 10 * HOUR, 1000 * HOUR]);
    let part = || select(&[0.0, 0.25, 0.5, 1.0][..]);
    let ramp = (over, part(), part()).prop_map(|(over, from, to)| Ramp { over, from, to });
    prop::option::weighted(0.3, ramp)
}

/// What a ramp can be of.
fn has_a_share(action: &Action) -> bool {
    match action {
        Action::Drop(loss) => matches!(loss.model, LossModel::Percent(_) | LossModel::Flows(_)),
        Action::Corrupt(_) | Action::Duplicate(_) | Action::Reorder(_) => true,
        _ => false,
    }
}

fn percent() -> impl Strategy<Value = Percent> {
    select(&[0.0, 1.0, 30.0, 50.0, 99.0, 100.0][..]).prop_map(share)
}

fn action() -> impl Strategy<Value = Action> {
    let latency = || select(vec![Duration::ZERO, Duration::from_millis(10)]);
    let corruption = (
        percent(),
        any::<bool>(),
        1..=8_u8,
        0..60_u32,
        prop::option::of(1..60_u32),
    )
        .prop_map(|(percent, is_wire, bits, from, length)| {
            Action::Corrupt(Corrupt {
                percent,
                kind: if is_wire {
                    CorruptKind::Wire
                } else {
                    CorruptKind::Payload
                },
                bits,
                offset: (from, length.map_or(u32::MAX, |length| from + length)),
            })
        });
    let duplication = (percent(), 1..=10_u8, latency()).prop_map(|(percent, copies, delay)| {
        Action::Duplicate(Duplicate {
            percent,
            copies,
            delay,
        })
    });
    let reordering = (percent(), prop::option::of(1..5_u32), latency())
        .prop_map(|(percent, gap, delay)| Action::Reorder(Reorder { percent, gap, delay }));
    let limit = select(&[100_u32, 700, 3028, 1 << 20][..]).prop_map(|burst| {
        Action::RateLimit(RateLimit {
            rate: 1_000_000,
            burst,
            queue: QueueBound::Bytes(1),
        })
    });
    prop_oneof![
        1 => Just(Action::Partition),
        1 => Just(Action::Reject(RejectCode::PortUnreachable)),
        1 => Just(Action::Reset(ResetTo::Both)),
        8 => loss().prop_map(Action::Drop),
        4 => corruption,
        3 => duplication,
        1 => limit,
        1 => latency().prop_map(jittering),
        2 => reordering,
    ]
}

fn loss() -> impl Strategy<Value = Loss> {
    let probability = || select(&[0.0, 0.1, 0.5, 1.0][..]);
    let chain = (probability(), probability(), probability(), probability()).prop_map(
        |(p, r, loss_good, loss_bad)| {
            LossModel::GilbertElliott(GilbertElliott {
                p,
                r,
                loss_good,
                loss_bad,
            })
        },
    );
    let model = prop_oneof![
        2 => percent().prop_map(LossModel::Percent),
        2 => chain,
        1 => (1..5_u32).prop_map(LossModel::EveryNth),
        2 => (1..4_u32).prop_map(LossModel::FirstOfConnection),
        2 => percent().prop_map(LossModel::Flows),
    ];
    let only = select(&[None, None, None, Some(Handshake::Syn), Some(Handshake::Both)][..]);
    (model, only).prop_map(|(model, only)| Loss { model, only })
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        (port(), port(), 0..=10_u8).prop_map(|(source, destination, options)| Transport::Tcp {
            source,
            destination,
            options
        }),
        (port(), port(), prop::bool::weighted(0.8)).prop_map(|(source, destination, checksum)| {
            Transport::Udp {
                source,
                destination,
                checksum,
            }
        }),
        (port(), port()).prop_map(|(source, destination)| Transport::Sctp { source, destination }),
        select(&[0_u8, 3, 8, 135][..]).prop_map(|kind| Transport::Icmp { kind }),
        select(&[1_u8, 128, 132, 133, 135, 137, 138][..]).prop_map(|kind| Transport::Icmpv6 { kind }),
        select(&[2_u8, 47, 50, 89][..]).prop_map(Transport::Other),
    ]
}

fn fragment() -> impl Strategy<Value = Fragment> {
    (select(&[0_u16, 0, 1, 185, 8191][..]), any::<bool>())
        .prop_map(|(offset, more)| Fragment { offset, more })
}

fn extension() -> impl Strategy<Value = Extension> {
    let words = 0..4_u8;
    prop_oneof![
        words.clone().prop_map(|words| Extension::HopByHop { words }),
        words.clone().prop_map(|words| Extension::Routing { words }),
        words
            .clone()
            .prop_map(|words| Extension::DestinationOptions { words }),
        words.prop_map(|words| Extension::Authentication { words }),
    ]
}

/// At most one fragment header, and behind a later fragment's nothing that could be read as a header.
fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    let before = prop::collection::vec(extension(), 0..3);
    let after = prop::collection::vec(extension(), 0..3);
    let fragment = prop::option::weighted(0.3, fragment());
    (before, fragment, after).prop_map(|(mut chain, fragment, after)| {
        chain.extend(fragment.map(Extension::Fragment));
        if fragment.is_none_or(|fragment| fragment.offset == 0) {
            chain.extend(after);
        }
        chain
    })
}

fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
    let of = move |texts: &'static [&'static str]| {
        (select(texts), select(texts))
            .prop_map(move |(source, destination)| (parse(source), parse(destination)))
    };
    prop_oneof![of(&V4), of(&V6)]
}

/// The code point, and for TCP and ICMP what tells their packets apart.
fn marks() -> impl Strategy<Value = (u8, u8, u32, u8)> {
    let flags = select(&[ACK, ACK, ACK, SYN, SYN | ACK, RST, RST | ACK, 0xff][..]);
    (select(&[0_u8, 0, 46, 63, 10][..]), flags, 1..3_u32, 0..3_u8)
}

fn frame() -> impl Strategy<Value = Frame> {
    let vlans = prop_oneof![3 => Just(vec![]), 1 => Just(vec![0x8100]), 1 => Just(vec![0x88a8, 0x8100])];
    let payload = prop_oneof![
        1 => Just(0_usize),
        4 => 1..100_usize,
        2 => 100..2500_usize,
    ];
    let parts = (
        vlans,
        addresses(),
        0..=10_u8,
        prop::option::weighted(0.3, fragment()),
        extensions(),
        transport(),
        payload,
        (prop_oneof![3 => Just(0_usize), 1 => 1..20_usize], marks()),
    );
    parts.prop_map(
        |(
            vlans,
            (source, destination),
            options,
            fragment,
            extensions,
            transport,
            payload,
            (padding, marks),
        )| {
            let (dscp, flags, sequence, code) = marks;
            let is_v4 = source.is_ipv4();
            Frame {
                vlans,
                source,
                destination,
                dscp,
                options: if is_v4 { options } else { 0 },
                fragment: fragment.filter(|_| is_v4),
                extensions: if is_v4 { Vec::new() } else { extensions },
                transport,
                flags,
                sequence,
                code,
                payload: (0..payload).map(|at| at as u8).collect(),
                padding,
            }
        },
    )
}

fn situation() -> impl Strategy<Value = Situation> {
    let nodes: Vec<IpAddr> = [V4[0], V4[3], V6[0], V6[3]]
        .iter()
        .map(|text| text.parse().expect("an address"))
        .collect();
    let parts = (
        subsequence(nodes, 0..=4),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        select(&[0_u32, 0, 7][..]),
        select(&[0_u32, 0, 64, 536, 1448][..]),
    );
    parts.prop_map(
        |(nodes, has_line, has_segmenter, is_node_device, mark, gso_size)| Situation {
            direction: Egress,
            now: boot_time(),
            node_addresses: nodes.into_iter().collect(),
            has_line,
            has_segmenter,
            is_node_device,
            mark,
            gso_size,
        },
    )
}
