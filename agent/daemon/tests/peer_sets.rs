//! Sets of peers in the kernel: random ones against a plain model, while they are edited, and large ones.

#[path = "common/peer_set.rs"]
mod peer_set;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sabot_abi as abi;
use sabot_core::action::Action;
use sabot_core::model::{BootTime, Direction, PacketFilter};
use sabot_core::plan::{PeerEntry, PeerPort, PeerSetId, RuleBody, Slot, TargetId};
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::boot_time;
use sabotd::kernel::trial::{Frame, Trial, Verdict, Words};

use self::peer_set::PeerSet;

const TARGET: TargetId = TargetId(3);
const SLOT: Slot = Slot(9);
/// Protocols and ports of the packets; the last port is in no set.
const PROTOCOLS: [u8; 3] = [TCP, UDP, SCTP];
const PORTS: [u16; 3] = [9, 80, 1];
/// The other slot's sets are next to this one's in number.
const NEIGHBOUR: PeerSetId = PeerSetId(20);

/// One for all tests, in turns.
static TRIAL: Mutex<Option<Trial>> = Mutex::new(None);

/// A target whose one fault cuts off the peers of a set.
struct Rig(MutexGuard<'static, Option<Trial>>);

impl Rig {
    fn new() -> Self {
        let mut trial = TRIAL.lock().unwrap_or_else(PoisonError::into_inner);
        trial.get_or_insert_with(|| {
            Trial::load(Duration::from_secs(10), Words::of_this_kernel())
                .expect("the fault object loads (root is needed)")
        });
        let rig = Self(trial);
        rig.trial().write_rule(SLOT, &rule()).expect("it is written");
        rig.list(1);
        rig
    }

    fn trial(&self) -> &Trial {
        self.0.as_ref().expect("it is loaded")
    }

    /// So many slots are in force, the first of which is the fault's; of several there is an index.
    fn list(&self, count: u32) {
        let mut slots = [0; abi::MAX_TARGET_SLOTS];
        slots[0] = SLOT.0;
        let target = abi::Target {
            ifindex: 900,
            line_ifindex: 0,
            segmenter_ifindex: 0,
            departures_ifindex: 0,
            flags: abi::TARGET_MAC_HEADER,
            slot_count: count,
            index: abi::TARGET_NO_INDEX,
            departures_bytes: 0,
            identity: 0,
            slots,
        };
        self.trial().set_target(TARGET, &target).expect("it is written");
    }

    fn add(&self, entries: &[PeerEntry]) {
        self.trial()
            .add_peers(SLOT.peer_set(), entries)
            .expect("there is room");
    }

    fn remove(&self, entries: &[PeerEntry]) {
        self.trial()
            .remove_peers(SLOT.peer_set(), entries)
            .expect("they go");
    }

    fn cuts(&self, other: IpAddr) -> bool {
        self.cuts_packet(&Packet::to(other))
    }

    /// On its way to the other end, and from there, which is the same.
    fn cuts_packet(&self, packet: &Packet) -> bool {
        let cut = |direction| {
            let bytes = packet.frame(direction);
            let frame = Frame {
                bytes: &bytes,
                ..Frame::default()
            };
            let outcome = self.trial().run(TARGET, direction, &frame);
            outcome.expect("the kernel takes it").verdict != Verdict::Pass
        };
        let [there, back] = LedgerDirection::BOTH.map(cut);
        assert_eq!(there, back, "{packet:?}");
        there
    }

    /// Nanoseconds for each of many packets one after the other, at best.
    fn nanoseconds(&self, other: IpAddr) -> u128 {
        let bytes = Packet::to(other).frame(LedgerDirection::Egress);
        let frame = Frame {
            bytes: &bytes,
            ..Frame::default()
        };
        let time = || {
            let time = self.trial().time(TARGET, LedgerDirection::Egress, &frame, 20_000);
            time.expect("the kernel takes it").as_nanos()
        };
        (0..10).map(|_| time()).min().unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.list(0);
        self.trial().clear_rule(SLOT).expect("it is cleared");
        self.trial().forget(SLOT, TARGET).expect("it is forgotten");
    }
}

fn rule() -> RuleBody {
    RuleBody {
        action: Action::Partition,
        direction: Direction::Both,
        ports: Vec::new(),
        packets: PacketFilter::ALL,
        peers: Some(SLOT.peer_set()),
        peers_exact: true,
        peers_prefix: true,
        spare_node: false,
        allow_control_plane: false,
        watches_dns: false,
        pulse: None,
        ramp: None,
        seed: 0,
        starts_at: BootTime(0),
        expires_at: boot_time().after(Duration::from_secs(3600)),
        sample_every: 0,
    }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// A small packet between the target, whose own port is 1, and another end.
#[derive(Clone, Copy, Debug)]
struct Packet {
    other: IpAddr,
    protocol: u8,
    /// The other end's, where the protocol has ports.
    port: u16,
    /// A later part of an IPv4 datagram, without the transport's header.
    fragment: bool,
}

impl Packet {
    fn to(other: IpAddr) -> Self {
        Self {
            other,
            protocol: UDP,
            port: 9,
            fragment: false,
        }
    }

    fn frame(&self, direction: LedgerDirection) -> Vec<u8> {
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

fn includes(set: &PeerSet, packet: &Packet) -> bool {
    let has_port = !packet.fragment && packet.protocol != ICMP;
    set.includes(packet.other, packet.protocol, has_port.then_some(packet.port))
}

/// The addresses of a set that are worth a look.
fn places(set: &PeerSet) -> Vec<IpAddr> {
    let ports = set.ports.iter().map(|(address, _)| *address);
    set.nets.keys().flat_map(edges).chain(ports).collect()
}

/// Every kind of packet between the target and that end that a set can tell from another.
fn packets(other: IpAddr) -> Vec<Packet> {
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

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<PeerEntry>),
    /// Some of what is there, by their places.
    Remove(Vec<prop::sample::Index>),
    /// What isn't there, as a rule.
    RemoveOthers(Vec<PeerEntry>),
    RemoveAll,
}

/// Addresses that differ in a few bits, so that prefixes of all lengths lie within one another.
fn v4() -> impl Strategy<Value = Ipv4Addr> {
    let bits = prop::collection::vec(0..32_u32, 0..4);
    bits.prop_map(|bits| Ipv4Addr::from(bits.iter().fold(0x0a14_1e28, |address, bit| address ^ 1 << bit)))
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    let bits = prop::collection::vec(0..128_u32, 0..4);
    bits.prop_map(|bits| {
        let start = 0xfd00_0a14_1e28_0102_0304_0506_0708_090a_u128;
        Ipv6Addr::from(bits.iter().fold(start, |address, bit| address ^ 1 << bit))
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![v4().prop_map(IpAddr::from), v6().prop_map(IpAddr::from)]
}

/// The lengths of a case: few, as sets have them as a rule, or any.
fn lengths() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let few = |most: u8, count| prop::collection::vec(0..=most, 1..count);
    prop_oneof![
        2 => (few(32, 6), few(128, 6)),
        1 => (few(32, 12), few(128, 12)),
        1 => Just(((0..=32).collect(), (0..=128).collect())),
    ]
}

fn entries(lengths: (Vec<u8>, Vec<u8>)) -> impl Strategy<Value = Vec<PeerEntry>> {
    let net = prop_oneof![
        (v4().prop_map(IpAddr::from), select(lengths.0)),
        (v6().prop_map(IpAddr::from), select(lengths.1)),
    ];
    let entry = (net, prop::bool::weighted(0.3)).prop_map(|((address, length), excepted)| PeerEntry {
        excepted,
        ..PeerEntry::included(IpNet::new(address, length).expect("a length").trunc())
    });
    let port = prop::option::weighted(0.8, select(&PORTS[..2]));
    let only = (select(&PROTOCOLS[..]), port).prop_map(|(protocol, port)| PeerPort { protocol, port });
    let limited = (address(), only).prop_map(|(address, only)| PeerEntry::limited(address, only));
    prop::collection::vec(prop_oneof![2 => entry, 1 => limited], 0..24)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    lengths().prop_flat_map(|lengths| {
        let step = prop_oneof![
            5 => entries(lengths.clone()).prop_map(Step::Add),
            3 => prop::collection::vec(any::<prop::sample::Index>(), 0..30).prop_map(Step::Remove),
            1 => entries(lengths).prop_map(Step::RemoveOthers),
            1 => Just(Step::RemoveAll),
        ];
        prop::collection::vec(step, 1..8)
    })
}

/// The addresses at the edges of a network, and those beside it.
fn edges(net: &IpNet) -> Vec<IpAddr> {
    match (net.network(), net.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let (first, last) = (u32::from(first), u32::from(last));
            let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            all.map(|address| Ipv4Addr::from(address).into()).into()
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let (first, last) = (u128::from(first), u128::from(last));
            let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
            all.map(|address| Ipv6Addr::from(address).into()).into()
        }
        mixed => panic!("{mixed:?} are of two families"),
    }
}

fn edit(rig: &Rig, model: &mut PeerSet, step: &Step) {
    let present = model.entries();
    let remove = |model: &mut PeerSet, entries: &[PeerEntry]| {
        rig.remove(entries);
        model.remove(entries);
    };
    match step {
        Step::Add(entries) => {
            rig.add(entries);
            model.add(entries);
        }
        Step::Remove(places) if !present.is_empty() => {
            let some: Vec<PeerEntry> = places.iter().map(|place| *place.get(&present)).collect();
            remove(model, &some);
        }
        Step::Remove(_) => {}
        Step::RemoveOthers(entries) => remove(model, entries),
        Step::RemoveAll => remove(model, &present),
    }
}

#[test]
fn a_set_includes_what_the_model_says_after_every_edit() {
    let rig = Rig::new();
    let run = |(slots, steps, others): (u32, Vec<Step>, Vec<IpAddr>)| {
        rig.list(slots);
        let mut model = PeerSet::default();
        let mut outcome = Ok(());
        for step in &steps {
            let mentioned = places(&model);
            edit(&rig, &mut model, step);
            let now = places(&model).into_iter();
            let wrong = now
                .chain(mentioned)
                .chain(others.iter().copied())
                .flat_map(packets)
                .find(|packet| rig.cuts_packet(packet) != includes(&model, packet));
            if let Some(packet) = wrong {
                let text = format!("{packet:?} after {step:?}: {model:?}");
                outcome = Err(TestCaseError::fail(text));
                break;
            }
        }
        edit(&rig, &mut model, &Step::RemoveAll);
        outcome
    };
    // Somebody else's set isn't in the way.
    let everything = [entry("0.0.0.0/0"), entry("::/0"), entry("10.20.30.40")];
    rig.trial()
        .add_peers(NEIGHBOUR, &everything)
        .expect("there is room");
    let config = Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = (1..=2_u32, steps(), prop::collection::vec(address(), 20));
    let result = TestRunner::new(config).run(&strategy, run);
    rig.trial().remove_peers(NEIGHBOUR, &everything).expect("they go");
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn entry(text: &str) -> PeerEntry {
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    PeerEntry::included(net.expect("a network or an address"))
}

/// Every other network of this length from 10.128.0.0 on, or for IPv6 from fd00:: on.
fn every_other(count: u32, length: u8) -> Vec<PeerEntry> {
    let net = |index: u32| -> IpNet {
        let first = if length <= 32 {
            let size = 1 << (32 - length);
            IpAddr::from(Ipv4Addr::from(0x0a80_0000 + 2 * index * size))
        } else {
            let size = 1_u128 << (128 - length);
            IpAddr::from(Ipv6Addr::from((0xfd00 << 112) + u128::from(2 * index) * size))
        };
        IpNet::new(first, length).expect("a length")
    };
    (0..count).map(|index| PeerEntry::included(net(index))).collect()
}

/// Large sets, of which each entry is found, and nothing between them. Prints what they cost.
#[test]
fn a_large_set_includes_each_of_its_entries_and_nothing_between() {
    let rig = Rig::new();
    rig.list(0);
    println!(
        "no slot: {} ns",
        rig.nanoseconds("10.0.0.1".parse().expect("one"))
    );
    rig.list(1);
    for (count, length) in [
        (1, 32),
        (150_000, 32),
        (1, 28),
        (150_000, 28),
        (1, 128),
        (150_000, 128),
        (1, 64),
        (150_000, 64),
    ] {
        let entries = every_other(count, length);
        let started = std::time::Instant::now();
        rig.add(&entries);
        let took = started.elapsed();
        let middle = entries[entries.len() / 2].net;
        let [inside, outside] = [middle.network(), edges(&middle)[3]];
        println!(
            "{count} of /{length}: added in {took:?}, {} ns matched, {} ns not",
            rig.nanoseconds(inside),
            rig.nanoseconds(outside)
        );
        for entry in entries.iter().step_by(count as usize / 1000 + 1) {
            let [first, last, _, behind] = edges(&entry.net)[..] else {
                panic!("a network has four edges");
            };
            assert!(rig.cuts(first) && rig.cuts(last), "{first} {last}");
            assert!(!rig.cuts(behind), "{behind}");
        }
        let started = std::time::Instant::now();
        rig.remove(&entries);
        println!("removed in {:?}", started.elapsed());
        assert!(!rig.cuts(inside));
    }
}
