//! Random faults meet random packets; the classifier does what the model says.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sabot_core::model::{BootTime, Direction, PacketFilter, PortMatch};
use sabot_core::plan::{PeerEntry, RuleBody, Slot};
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::boot_time;
use sabotd::kernel::trial::{Frame as Given, Verdict};

use crate::frame::{Extension, Fragment, Frame, Transport};
use crate::model::{Fate, Fault, Situation, predict};
use crate::rig::{Egress, Ingress, LINE_IFINDEX, Rig, SEGMENTER_IFINDEX, TARGET, corrupt, cut, delay, drop};

const CASES: u32 = 4_000;
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
struct Case {
    faults: Vec<Fault>,
    situation: Situation,
    packets: Vec<(LedgerDirection, Frame)>,
}

fn port() -> impl Strategy<Value = u16> {
    select(&PORTS[..])
}

fn port_match() -> impl Strategy<Value = PortMatch> {
    let one = |protocol, port: Option<u16>| PortMatch {
        protocol,
        what: crate::rig::range(port),
    };
    prop_oneof![
        3 => (select(&[6_u8, 17, 132][..]), port()).prop_map(move |(protocol, port)| one(Some(protocol), Some(port))),
        1 => port().prop_map(move |port| one(None, Some(port))),
        2 => select(&PROTOCOLS[..]).prop_map(move |protocol| one(Some(protocol), None)),
    ]
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
    prop::option::weighted(0.7, entries)
}

fn fault() -> impl Strategy<Value = Fault> {
    let actions = vec![
        crate::rig::partition().action,
        drop(0.0),
        drop(100.0),
        corrupt(0.0),
        corrupt(100.0),
        delay(),
    ];
    let hour = Duration::from_secs(3600);
    let times = prop_oneof![
        8 => Just((BootTime(0), boot_time().after(2 * hour))),
        1 => Just((boot_time().after(hour), boot_time().after(2 * hour))),
        1 => Just((BootTime(0), BootTime(1))),
    ];
    let direction = select(&[Direction::Both, Direction::Egress, Direction::Ingress][..]);
    let ports = prop_oneof![1 => Just(vec![]), 1 => prop::collection::vec(port_match(), 1..4)];
    let parts = (select(actions), direction, ports, peers(), any::<bool>(), times);
    parts.prop_map(
        |(action, direction, ports, peers, spare_node, (starts_at, expires_at))| Fault {
            action,
            direction,
            ports,
            peers,
            spare_node,
            starts_at,
            expires_at,
        },
    )
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
        prop_oneof![3 => Just(0_usize), 1 => 1..20_usize],
    );
    parts.prop_map(
        |(vlans, (source, destination), options, fragment, extensions, transport, payload, padding)| {
            let is_v4 = source.is_ipv4();
            Frame {
                vlans,
                source,
                destination,
                options: if is_v4 { options } else { 0 },
                fragment: fragment.filter(|_| is_v4),
                extensions: if is_v4 { Vec::new() } else { extensions },
                transport,
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

fn case() -> impl Strategy<Value = Case> {
    let direction = select(&[Egress, Ingress][..]);
    let packets = prop::collection::vec((direction, frame()), 1..12);
    (prop::collection::vec(fault(), 1..5), situation(), packets).prop_map(|(faults, situation, packets)| {
        Case {
            faults,
            situation,
            packets,
        }
    })
}

fn slot(index: usize) -> Slot {
    Slot(20 + 3 * index as u32)
}

fn put_into_force(rig: &mut Rig, case: &Case) {
    for (index, fault) in case.faults.iter().enumerate() {
        let rule = RuleBody {
            action: fault.action.clone(),
            direction: fault.direction,
            ports: fault.ports.clone(),
            packets: PacketFilter::ALL,
            peers: None,
            peers_exact: false,
            peers_prefix: false,
            spare_node: fault.spare_node,
            watches_dns: false,
            pulse: None,
            ramp: None,
            seed: 7,
            starts_at: fault.starts_at,
            expires_at: fault.expires_at,
            sample_every: 2,
        };
        match &fault.peers {
            Some(peers) => {
                let entry = |&(net, included): &(IpNet, bool)| PeerEntry {
                    net,
                    excepted: !included,
                };
                rig.put_on_peers(slot(index), rule, &peers.iter().map(entry).collect::<Vec<_>>());
            }
            None => rig.put(slot(index), &rule),
        }
    }
    let situation = &case.situation;
    rig.spare(&situation.node_addresses);
    rig.beat(boot_time());
    rig.equip(|target| {
        target.line_ifindex = if situation.has_line { LINE_IFINDEX } else { 0 };
        target.segmenter_ifindex = if situation.has_segmenter {
            SEGMENTER_IFINDEX
        } else {
            0
        };
        target.flags = sabot_abi::TARGET_MAC_HEADER;
        if situation.is_node_device {
            target.flags |= sabot_abi::TARGET_NODE_DEVICE;
        }
    });
    rig.list(&(0..case.faults.len()).map(slot).collect::<Vec<_>>());
}

/// The kernel makes super-packets of TCP segments and UDP datagrams, whole ones without link padding.
fn can_be_super(frame: &Frame) -> bool {
    let is_known = matches!(frame.transport, Transport::Tcp { .. } | Transport::Udp { .. });
    is_known && frame.is_whole() && frame.padding == 0
}

fn check(rig: &Rig, case: &Case) -> Result<(), TestCaseError> {
    for (direction, frame) in &case.packets {
        let situation = Situation {
            direction: *direction,
            gso_size: if can_be_super(frame) {
                case.situation.gso_size
            } else {
                0
            },
            ..case.situation.clone()
        };
        let (fate, counted, changes) = predict(&case.faults, &situation, frame);
        let counters = || {
            let slots = (0..case.faults.len()).map(slot);
            slots.map(|slot| rig.trial().counters(slot, TARGET, *direction))
        };
        let mut expected: Vec<_> = counters().collect();
        for (expected, counted) in expected.iter_mut().zip(&counted) {
            counted.add_to(expected);
        }
        let bytes = frame.bytes();
        let given = Given {
            bytes: &bytes,
            gso_size: situation.gso_size,
            mark: situation.mark,
            ingress_ifindex: 0,
        };
        let outcome = rig.run(*direction, &given);
        let verdict = match fate {
            Fate::Passed => Verdict::Pass,
            Fate::Dropped => cut(*direction),
            Fate::Diverted => Verdict::Redirect,
        };
        prop_assert_eq!(outcome.verdict, verdict, "{:?} {:?}", direction, frame);
        prop_assert_eq!(
            counters().collect::<Vec<_>>(),
            expected,
            "{:?} {:?}",
            direction,
            frame
        );
        let payload = frame.payload_at()..frame.end();
        let changed = payload.filter(|&at| outcome.bytes[at] != bytes[at]).count();
        if changes == 0 {
            prop_assert_eq!(outcome.bytes, bytes);
        } else {
            // A second change may fall on the same byte, and even undo the first.
            prop_assert!(changed <= changes && (changed > 0 || changes > 1));
            prop_assert!(frame.has_valid_checksum(&outcome.bytes), "{:?}", frame);
        }
    }
    Ok(())
}

#[test]
fn random_faults_do_to_random_packets_what_the_model_says() {
    let rig = RefCell::new(Rig::new());
    let before = rig.borrow().trial().incidents();
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    let result = runner.run(&case(), |case| {
        let mut rig = rig.borrow_mut();
        put_into_force(&mut rig, &case);
        let result = check(&rig, &case);
        rig.clear();
        result
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let mut after = rig.borrow().trial().incidents();
    // Nobody reads the events, so that their ring fills up.
    let lost = sabot_abi::INCIDENT_EVENT_LOST as usize;
    after[lost] = before[lost];
    assert_eq!(after, before, "{:?}", sabot_abi::INCIDENT_NAMES);
}
