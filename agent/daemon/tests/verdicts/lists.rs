//! Targets with many slots, of which each packet concerns few: random lists with random peers against a plain model, while
//! all of it is edited.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sabot_abi::MAX_TARGET_SLOTS;
use sabot_core::plan::{PeerEntry, PeerPort, PeerSetId, RuleBody, Slot};
use sabotd::engine::handle::LedgerDirection;

use crate::frame::{Frame, udp};
use crate::peer_set::PeerSet;
use crate::rig::{BOTH, Egress, Ingress, Rig, TARGET, drop, rule, single};

const CASES: u32 = 300;
const SLOTS: usize = MAX_TARGET_SLOTS;
const UDP: u8 = 17;
/// Of the other end.
const PORT: u16 = 2;

#[derive(Clone, Debug)]
enum Step {
    Add(usize, Vec<PeerEntry>),
    /// Some of what is there, by their places.
    Remove(usize, Vec<Index>),
    /// What isn't there, as a rule.
    RemoveOthers(usize, Vec<PeerEntry>),
    /// The slot's rule names every other end.
    NameAll(usize),
    NameSet(usize),
    /// Fills the slot's other set, has the rule go over to it, and empties the former one.
    Swap(usize, Vec<PeerEntry>),
    /// The slots in force from now on, in this order.
    List(Vec<usize>),
}

#[derive(Clone, Debug)]
struct Fault {
    set: PeerSetId,
    peers: PeerSet,
    names_all: bool,
}

/// A target's slots, those that aren't in its list as well, and the rig that holds the same.
struct Scene<'a> {
    rig: &'a mut Rig,
    faults: Vec<Fault>,
    listed: Vec<usize>,
    /// The packets that each slot has matched.
    matched: Vec<[u64; 2]>,
}

fn slot(index: usize) -> Slot {
    Slot(300 + 5 * index as u32)
}

impl<'a> Scene<'a> {
    fn new(rig: &'a mut Rig) -> Self {
        let faults = (0..SLOTS).map(|index| Fault {
            set: slot(index).peer_set(),
            peers: PeerSet::default(),
            names_all: false,
        });
        let mut scene = Self {
            rig,
            faults: faults.collect(),
            listed: Vec::new(),
            matched: vec![[0; 2]; SLOTS],
        };
        (0..SLOTS).for_each(|index| scene.write(index));
        scene
    }

    /// A rule that passes what it matches, so that the next slot meets it too.
    fn write(&mut self, index: usize) {
        let fault = &self.faults[index];
        let rule = RuleBody {
            peers: (!fault.names_all).then_some(fault.set),
            peers_exact: true,
            peers_prefix: true,
            ..rule(drop(0.0))
        };
        self.rig.put(slot(index), &rule);
    }

    fn remove(&mut self, index: usize, entries: &[PeerEntry]) {
        let fault = &mut self.faults[index];
        fault.peers.remove(entries);
        self.rig
            .trial()
            .remove_peers(fault.set, entries)
            .expect("they go");
    }

    fn edit(&mut self, step: &Step) {
        match step {
            Step::Add(index, entries) => {
                let fault = &mut self.faults[*index];
                fault.peers.add(entries);
                let added = self.rig.trial().add_peers(fault.set, entries);
                added.expect("there is room");
            }
            Step::Remove(index, places) => {
                let present = self.faults[*index].peers.entries();
                if !present.is_empty() {
                    let some: Vec<_> = places.iter().map(|place| *place.get(&present)).collect();
                    self.remove(*index, &some);
                }
            }
            Step::RemoveOthers(index, entries) => self.remove(*index, entries),
            Step::NameAll(index) | Step::NameSet(index) => {
                self.faults[*index].names_all = matches!(step, Step::NameAll(_));
                self.write(*index);
            }
            Step::Swap(index, entries) => {
                let former = self.faults[*index].clone();
                let fault = &mut self.faults[*index];
                fault.set = former.set.other();
                fault.peers = PeerSet::default();
                self.edit(&Step::Add(*index, entries.clone()));
                self.write(*index);
                let gone = former.peers.entries();
                self.rig.trial().remove_peers(former.set, &gone).expect("they go");
            }
            Step::List(listed) => {
                self.listed.clone_from(listed);
                self.rig
                    .list(&listed.iter().copied().map(slot).collect::<Vec<_>>());
            }
        }
    }

    /// Sends a packet to and from each of the other ends.
    fn check(&mut self, others: &[IpAddr]) -> Result<(), TestCaseError> {
        for direction in BOTH {
            for other in others {
                self.rig
                    .run(direction, &single(&between(direction, *other).bytes()));
                for index in &self.listed {
                    let fault = &self.faults[*index];
                    let is_named = fault.names_all || fault.peers.includes(*other, UDP, Some(PORT));
                    self.matched[*index][direction as usize] += u64::from(is_named);
                }
            }
        }
        for (index, expected) in self.matched.iter().enumerate() {
            let matched = BOTH.map(|direction| {
                let counters = self.rig.trial().counters(slot(index), TARGET, direction);
                counters.matched.packets
            });
            prop_assert_eq!(
                matched,
                *expected,
                "slot {} of {:?} by {:?}: {:?}",
                index,
                self.listed,
                others,
                self.faults[index]
            );
        }
        Ok(())
    }

    /// The other ends that are worth a look after a step.
    fn places(&self, step: &Step, others: &[IpAddr]) -> Vec<IpAddr> {
        let touched = match step {
            Step::Add(index, entries) | Step::RemoveOthers(index, entries) | Step::Swap(index, entries) => {
                let mut entries = entries.clone();
                entries.extend(self.faults[*index].peers.entries());
                entries
            }
            Step::Remove(index, _) | Step::NameAll(index) | Step::NameSet(index) => {
                self.faults[*index].peers.entries()
            }
            Step::List(listed) => {
                let listed = listed.iter().take(8);
                listed
                    .flat_map(|index| self.faults[*index].peers.entries())
                    .collect()
            }
        };
        let edges = touched
            .iter()
            .flat_map(|entry| [entry.net.network(), entry.net.broadcast()]);
        edges.chain(others.iter().copied()).collect()
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        self.edit(&Step::List(Vec::new()));
        for index in 0..SLOTS {
            let entries = self.faults[index].peers.entries();
            self.remove(index, &entries);
        }
        self.rig.clear();
    }
}

fn between(direction: LedgerDirection, other: IpAddr) -> Frame {
    let (own, text) = match other {
        IpAddr::V4(other) => ("172.16.0.7", other.to_string()),
        IpAddr::V6(other) => ("fd77::7", other.to_string()),
    };
    match direction {
        Egress => Frame::new(own, &text, udp(1, PORT)),
        Ingress => Frame::new(&text, own, udp(PORT, 1)),
    }
}

/// Pods of a few nodes, and addresses that differ from one in a few bits, so that prefixes of all lengths lie within one
/// another.
fn address() -> impl Strategy<Value = IpAddr> {
    let pod = (0..4_u8, 0..64_u8).prop_map(|(node, pod)| IpAddr::from([10, 244, node, pod]));
    let bits = |most: u32| prop::collection::vec(0..most, 0..4);
    let v4 = bits(32).prop_map(|bits| {
        let flip = |address, bit| address ^ (1_u32 << bit);
        IpAddr::from(Ipv4Addr::from(bits.into_iter().fold(0x0af4_0128, flip)))
    });
    let v6 = bits(128).prop_map(|bits| {
        let start = 0xfd00_0a14_1e28_0102_0304_0506_0708_090a_u128;
        let flip = |address, bit| address ^ (1_u128 << bit);
        IpAddr::from(Ipv6Addr::from(bits.into_iter().fold(start, flip)))
    });
    prop_oneof![3 => pod, 2 => v4, 3 => v6]
}

fn entry() -> impl Strategy<Value = PeerEntry> {
    let length = prop_oneof![2 => Just(128_u8), 3 => 0..=128_u8];
    let net = (address(), length, prop::bool::weighted(0.2)).prop_map(|(address, length, excepted)| {
        let length = if address.is_ipv4() { length / 4 } else { length };
        let net = IpNet::new(address, length).expect("a length").trunc();
        PeerEntry {
            excepted,
            ..PeerEntry::included(net)
        }
    });
    let port = select(&[PORT, PORT + 1][..]).prop_map(|port| PeerPort {
        protocol: UDP,
        port: Some(port),
    });
    let limited = (address(), port).prop_map(|(address, only)| PeerEntry::limited(address, only));
    prop_oneof![6 => net, 1 => limited]
}

fn entries() -> impl Strategy<Value = Vec<PeerEntry>> {
    prop::collection::vec(entry(), 0..6)
}

/// So many that some fall where others are.
fn addresses() -> impl Strategy<Value = Vec<PeerEntry>> {
    let whole = address().prop_map(|address| PeerEntry::included(address.into()));
    prop::collection::vec(whole, 0..40)
}

fn step() -> impl Strategy<Value = Step> {
    let index = || 0..SLOTS;
    let indices = Just((0..SLOTS).collect::<Vec<_>>()).prop_shuffle();
    let list = (indices, 0..=SLOTS).prop_map(|(mut all, count)| {
        all.truncate(count);
        all
    });
    prop_oneof![
        3 => (index(), entries()).prop_map(|(index, entries)| Step::Add(index, entries)),
        4 => (index(), prop::collection::vec(any::<Index>(), 0..6))
            .prop_map(|(index, places)| Step::Remove(index, places)),
        2 => (index(), addresses()).prop_map(|(index, entries)| Step::RemoveOthers(index, entries)),
        1 => index().prop_map(Step::NameAll),
        1 => index().prop_map(Step::NameSet),
        3 => (index(), entries()).prop_map(|(index, entries)| Step::Swap(index, entries)),
        2 => list.prop_map(Step::List),
    ]
}

#[test]
fn every_slot_of_a_long_list_meets_what_the_model_says() {
    let rig = RefCell::new(Rig::new());
    let start = (prop::collection::vec(entries(), SLOTS), 0..=SLOTS);
    let steps = prop::collection::vec(step(), 1..12);
    let others = prop::collection::vec(address(), 12);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(CASES)
    });
    let result = runner.run(&(start, steps, others), |((peers, count), steps, others)| {
        let mut rig = rig.borrow_mut();
        let mut scene = Scene::new(&mut rig);
        for (index, entries) in peers.into_iter().enumerate() {
            scene.edit(&Step::Add(index, entries));
        }
        let first = Step::List((0..count).collect());
        for step in [&first].into_iter().chain(&steps) {
            let before = scene.places(step, &others);
            scene.edit(step);
            scene.check(&before)?;
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
