//! Sets of peers in the kernel: random ones against a plain model, while they are edited, and large ones.

mod large;
mod packet;
#[path = "../common/peer_set.rs"]
mod peer_set;
mod rig;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sabot_abi as abi;
use sabot_core::plan::{PeerEntry, PeerPort, PeerSetId, RuleBody};
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::trial::Frame;

use self::packet::{ICMP, PORTS, PROTOCOLS, Packet, packets};
use self::peer_set::PeerSet;
use self::rig::{Rig, SLOT, TARGET, rule};

/// The other slot's sets are next to this one's in number.
const NEIGHBOUR: PeerSetId = PeerSetId(20);

fn includes(set: &PeerSet, packet: &Packet) -> bool {
    let has_port = !packet.fragment && packet.protocol != ICMP;
    set.includes(packet.other, packet.protocol, has_port.then_some(packet.port))
}

/// The addresses of a set that are worth a look.
fn places(set: &PeerSet) -> Vec<IpAddr> {
    let ports = set.ports.iter().map(|(address, _)| *address);
    set.nets.keys().flat_map(edges).chain(ports).collect()
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

/// Addresses whose entries would all stand in the bucket of the first one, three times as many as it has cells.
fn of_one_bucket() -> Vec<IpNet> {
    let set = SLOT.peer_set().0;
    let bucket = |address| abi::PeerKey4::exact(set, address).bucket();
    let first = 0x0a14_1e28;
    let alike = (first..).filter(|address| bucket(*address) == bucket(first));
    let alike = alike.take(3 * abi::PEER_BUCKET_CELLS);
    alike
        .map(|address| IpNet::from(IpAddr::from(Ipv4Addr::from(address))))
        .collect()
}

#[test]
fn a_bucket_with_more_entries_than_cells_includes_each_of_them() {
    let rig = Rig::new();
    let nets = of_one_bucket();
    // One of the addresses comes as included or excepted, or goes.
    let step = (0..nets.len(), select(&[Some(false), Some(true), None][..]));
    let run = |steps: Vec<(usize, Option<bool>)>| {
        let mut model = PeerSet::default();
        let mut outcome = Ok(());
        for (place, excepted) in &steps {
            let entry = PeerEntry::included(nets[*place]);
            let step = match *excepted {
                Some(excepted) => Step::Add(vec![PeerEntry { excepted, ..entry }]),
                None => Step::RemoveOthers(vec![entry]),
            };
            edit(&rig, &mut model, &step);
            let mut packets = nets.iter().map(|net| Packet::to(net.addr()));
            if let Some(packet) = packets.find(|packet| rig.cuts_packet(packet) != includes(&model, packet)) {
                outcome = Err(TestCaseError::fail(format!(
                    "{packet:?} after {step:?}: {model:?}"
                )));
                break;
            }
        }
        edit(&rig, &mut model, &Step::RemoveAll);
        let is_left = nets.iter().any(|net| rig.cuts(net.addr()));
        outcome.and_then(|()| match is_left {
            true => Err(TestCaseError::fail("something is left")),
            false => Ok(()),
        })
    };
    let config = Config {
        cases: 40,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&prop::collection::vec(step, 40..120), run);
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Packets to an address that each of two sets has in its own way, while the rule goes from one set to the other and what the
/// former one had is taken away.
#[test]
fn no_packet_slips_through_between_the_sets_of_an_edited_rule() {
    /// In so many goes of the kernel's.
    const PACKETS: u32 = 100_000;
    const GOES: u32 = 200;
    let rig = Rig::new();
    let other: IpAddr = "10.9.0.7".parse().expect("an address");
    let sets = [SLOT.peer_set(), SLOT.peer_set().other()];
    let entries = [[entry("10.9.0.7")], [entry("10.9.0.0/24")]];
    rig.add(&entries[0]);
    let edits = thread::scope(|scope| {
        let trial = rig.trial();
        let sending = scope.spawn(|| {
            let bytes = Packet::to(other).frame(LedgerDirection::Egress);
            let frame = Frame {
                bytes: &bytes,
                ..Frame::default()
            };
            for _ in 0..GOES {
                let sent = trial.time(TARGET, LedgerDirection::Egress, &frame, PACKETS);
                sent.expect("the kernel takes them");
            }
        });
        let mut edits = 0;
        while !sending.is_finished() {
            let (to, from) = ((edits + 1) % 2, edits % 2);
            trial.add_peers(sets[to], &entries[to]).expect("there is room");
            let peers = Some(sets[to]);
            trial
                .write_rule(SLOT, &RuleBody { peers, ..rule() })
                .expect("it is written");
            trial.remove_peers(sets[from], &entries[from]).expect("they go");
            edits += 1;
        }
        let last = edits % 2;
        trial.remove_peers(sets[last], &entries[last]).expect("they go");
        sending.join().expect("it sends");
        edits
    });
    assert!(edits > 1000, "{edits} edits");
    let counters = rig.trial().counters(SLOT, TARGET, LedgerDirection::Egress);
    let sent = u64::from(PACKETS) * u64::from(GOES);
    assert_eq!(counters.matched.packets, sent, "in {edits} edits");
}

fn entry(text: &str) -> PeerEntry {
    let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    PeerEntry::included(net.expect("a network or an address"))
}
