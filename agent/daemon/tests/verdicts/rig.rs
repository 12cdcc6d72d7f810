//! The fault object with one target, whose slots the tests fill.

use std::collections::BTreeSet;
use std::mem;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sabot_abi as abi;
use sabot_core::delay::Distribution;
use sabot_core::model::{
    Action, BootTime, Corrupt, CorruptKind, Delay, Direction, Loss, LossModel, PacketFilter, Percent,
    PortMatch, PortRange, PortSide,
};
use sabot_core::plan::{PeerEntry, RuleBody, Slot, TargetId};
use sabot_testkit::Netns;
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::boot_time;
use sabotd::kernel::trial::{self, Outcome, Trial, Verdict, Words};

use crate::frame::Frame;

pub(crate) use sabotd::engine::handle::LedgerDirection::{Egress, Ingress};

pub(crate) const TARGET: TargetId = TargetId(5);
/// The slot of tests that need only one.
pub(crate) const SLOT: Slot = Slot(7);
pub(crate) const IDENTITY: u64 = 0x0123_4567_89ab_cdef;
pub(crate) const SEED: u64 = 42;
pub(crate) const LINE_IFINDEX: u32 = 901;
pub(crate) const SEGMENTER_IFINDEX: u32 = 902;
/// A device that is in every namespace.
pub(crate) const LOOPBACK_IFINDEX: u32 = 1;
pub(crate) const HEARTBEAT_BOUND: Duration = Duration::from_secs(10);
pub(crate) const BOTH: [LedgerDirection; 2] = [Egress, Ingress];

/// Loading takes long enough that all tests share one, in turns.
static TRIAL: Mutex<Option<Trial>> = Mutex::new(None);

pub(crate) struct Rig {
    trial: MutexGuard<'static, Option<Trial>>,
    target: abi::Target,
    /// What is to be taken out again at the end.
    slots: BTreeSet<Slot>,
    peers: Vec<(Slot, Vec<PeerEntry>)>,
    counted: BTreeSet<Slot>,
    is_gate_closed: bool,
}

impl Rig {
    /// A target with a MAC header and without detours or faults; nothing else is in the tables.
    pub(crate) fn new() -> Self {
        Self::of(Words::of_this_kernel())
    }

    /// The same with programs that change words in this way.
    pub(crate) fn of(words: Words) -> Self {
        let mut trial = TRIAL.lock().unwrap_or_else(PoisonError::into_inner);
        if trial.as_ref().is_some_and(|trial| trial.words() != words) {
            *trial = None;
        }
        let loaded = || Trial::load(HEARTBEAT_BOUND, words).expect("the fault object loads (root is needed)");
        trial.get_or_insert_with(loaded);
        let target = abi::Target {
            ifindex: 900,
            line_ifindex: 0,
            segmenter_ifindex: 0,
            departures_ifindex: 0,
            flags: abi::TARGET_MAC_HEADER,
            slot_count: 0,
            index: abi::TARGET_NO_INDEX,
            departures_bytes: 0,
            identity: IDENTITY,
            slots: [0; abi::MAX_TARGET_SLOTS],
        };
        let mut rig = Self {
            trial,
            target,
            slots: BTreeSet::new(),
            peers: Vec::new(),
            counted: BTreeSet::new(),
            is_gate_closed: false,
        };
        rig.equip(|_| {});
        rig
    }

    pub(crate) fn trial(&self) -> &Trial {
        self.trial.as_ref().expect("it is loaded")
    }

    /// Closes the gate, as a daemon does that ends. The next rig loads everything anew.
    pub(crate) fn close_gate(&mut self) {
        let trial = self.trial.as_mut().expect("it is loaded");
        trial.close_gate().expect("it closes");
        self.is_gate_closed = true;
    }

    /// Says that the delay line was alive at this time.
    pub(crate) fn beat(&mut self, at: BootTime) {
        let trial = self.trial.as_mut().expect("it is loaded");
        trial.beat(at).expect("it is written");
    }

    /// A target whose one fault cuts all that a rule matches.
    pub(crate) fn with_rule(rule: &RuleBody) -> Self {
        Self::new().under(rule)
    }

    /// Puts a rule into force.
    pub(crate) fn under(mut self, rule: &RuleBody) -> Self {
        self.put(SLOT, rule);
        self.list(&[SLOT]);
        self
    }

    /// Changes what the classifier knows of the target beside its slots.
    pub(crate) fn equip(&mut self, change: impl FnOnce(&mut abi::Target)) {
        change(&mut self.target);
        self.trial()
            .set_target(TARGET, &self.target)
            .expect("it is written");
    }

    pub(crate) fn put(&mut self, slot: Slot, rule: &RuleBody) {
        self.slots.insert(slot);
        self.trial().write_rule(slot, rule).expect("it is written");
    }

    /// Puts a rule into force on the peers of its slot's first set.
    pub(crate) fn put_on_peers(&mut self, slot: Slot, mut rule: RuleBody, peers: &[PeerEntry]) {
        let set = slot.peer_set();
        self.trial().add_peers(set, peers).expect("there is room");
        self.peers.push((slot, peers.to_vec()));
        rule.peers = Some(set);
        rule.peers_exact = peers.iter().any(PeerEntry::is_exact);
        rule.peers_prefix = peers.iter().any(|peer| !peer.is_exact());
        self.put(slot, &rule);
    }

    /// The slots in force, in this order.
    pub(crate) fn list(&mut self, slots: &[Slot]) {
        self.counted.extend(slots);
        self.equip(|target| {
            target.slot_count = slots.len() as u32;
            for (place, slot) in target.slots.iter_mut().zip(slots) {
                *place = slot.0;
            }
        });
    }

    /// The node's own addresses.
    pub(crate) fn spare(&self, addresses: &BTreeSet<IpAddr>) {
        self.trial().set_node_addresses(addresses).expect("there is room");
    }

    /// Takes everything out of the tables and forgets what was counted.
    pub(crate) fn clear(&mut self) {
        self.list(&[]);
        for slot in mem::take(&mut self.slots) {
            self.trial().clear_rule(slot).expect("it is cleared");
        }
        for (slot, entries) in mem::take(&mut self.peers) {
            self.trial()
                .remove_peers(slot.peer_set(), &entries)
                .expect("they go");
        }
        for slot in mem::take(&mut self.counted) {
            self.trial().forget(slot, TARGET).expect("they go");
        }
        self.spare(&BTreeSet::new());
        self.beat(BootTime(0));
    }

    pub(crate) fn run(&self, direction: LedgerDirection, frame: &trial::Frame<'_>) -> Outcome {
        self.trial()
            .run(TARGET, direction, frame)
            .expect("the kernel takes it")
    }

    /// So many runs on the same frame, without a pause.
    pub(crate) fn repeat(&self, direction: LedgerDirection, frame: &trial::Frame<'_>, runs: u32) {
        let took = self.trial().time(TARGET, direction, frame, runs);
        took.expect("the kernel takes it");
    }

    /// Whether a rule that cuts everything it matches, the only one, matches a frame. Checks that verdict and counters
    /// say the same, that the frame stays as it is, and that nothing goes wrong.
    pub(crate) fn cuts(&self, direction: LedgerDirection, frame: &Frame) -> bool {
        self.cuts_bytes(direction, &frame.bytes())
    }

    pub(crate) fn cuts_bytes(&self, direction: LedgerDirection, bytes: &[u8]) -> bool {
        let before = (self.counters(direction), self.trial().incidents());
        let outcome = self.run(direction, &single(bytes));
        let after = (self.counters(direction), self.trial().incidents());
        assert_eq!(outcome.bytes, bytes, "the frame was changed");
        assert_eq!(before.1, after.1, "incidents: {:?}", abi::INCIDENT_NAMES);
        if after.0 == before.0 {
            assert_eq!(outcome.verdict, Verdict::Pass);
            return false;
        }
        let one = abi::Tally {
            packets: 1,
            bytes: bytes.len() as u64,
        };
        let mut expected = before.0;
        abi::Counters {
            matched: one,
            dropped: one,
            ..abi::Counters::default()
        }
        .add_to(&mut expected);
        assert_eq!(after.0, expected);
        assert_eq!(outcome.verdict, cut(direction));
        true
    }

    /// Of the one slot.
    pub(crate) fn counters(&self, direction: LedgerDirection) -> abi::Counters {
        self.trial().counters(SLOT, TARGET, direction)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.clear();
        if self.is_gate_closed {
            *self.trial = None;
        }
    }
}

/// How words can be changed here; under locks they can everywhere.
pub(crate) fn ways() -> BTreeSet<Words> {
    [Words::of_this_kernel(), Words::Locked].into()
}

/// Runs a test in a network namespace of its own, where clones, which the kernel really sends, get no further than its
/// loopback device: they aren't addressed to it.
pub(crate) fn in_private_netns(test: impl FnOnce() + Send) {
    Netns::new("verdicts")
        .expect("a network namespace (root is needed)")
        .run(test);
}

/// How a packet is dropped in a direction: on egress by a redirect to no device.
pub(crate) fn cut(direction: LedgerDirection) -> Verdict {
    match direction {
        Egress => Verdict::Redirect,
        Ingress => Verdict::Drop,
    }
}

/// A packet that is no super-packet.
pub(crate) fn single(bytes: &[u8]) -> trial::Frame<'_> {
    trial::Frame {
        bytes,
        ..trial::Frame::default()
    }
}

/// For every peer, both directions, all traffic, and the next hour.
pub(crate) fn rule(action: Action) -> RuleBody {
    RuleBody {
        action,
        direction: Direction::Both,
        ports: Vec::new(),
        packets: PacketFilter::ALL,
        peers: None,
        peers_exact: false,
        peers_prefix: false,
        spare_node: false,
        allow_control_plane: false,
        watches_dns: false,
        pulse: None,
        ramp: None,
        seed: SEED,
        starts_at: BootTime(0),
        expires_at: boot_time().after(Duration::from_secs(3600)),
        sample_every: 0,
    }
}

pub(crate) fn partition() -> RuleBody {
    rule(Action::Partition)
}

pub(crate) fn drop(percent: f64) -> Action {
    lose(LossModel::Percent(share(percent)))
}

pub(crate) fn lose(model: LossModel) -> Action {
    Action::Drop(Loss { model, only: None })
}

pub(crate) fn corrupt(percent: f64) -> Action {
    Action::Corrupt(corruption(percent, CorruptKind::Payload))
}

/// One bit anywhere in the payload.
pub(crate) fn corruption(percent: f64, kind: CorruptKind) -> Corrupt {
    Corrupt {
        percent: share(percent),
        kind,
        bits: 1,
        offset: (0, u32::MAX),
    }
}

pub(crate) fn delay() -> Action {
    jittering(Duration::ZERO)
}

pub(crate) fn jittering(jitter: Duration) -> Action {
    Action::Delay(Delay {
        latency: Duration::from_millis(50),
        jitter,
        distribution: Distribution::Uniform,
        correlation: 0.0,
        allow_reorder: false,
    })
}

/// The same delay for every packet.
pub(crate) fn delaying(latency: Duration) -> Action {
    Action::Delay(Delay {
        latency,
        jitter: Duration::ZERO,
        distribution: Distribution::Uniform,
        correlation: 0.0,
        allow_reorder: false,
    })
}

/// A peer as `10.0.0.0/8` or `10.0.0.1`; with `!` in front it is excepted.
pub(crate) fn peer(text: &str) -> PeerEntry {
    let (excepted, text) = match text.strip_prefix('!') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let net = text.parse().or_else(|_| {
        let address: Result<IpAddr, _> = text.parse();
        address.map(Into::into)
    });
    PeerEntry {
        excepted,
        ..PeerEntry::included(net.expect("a network or an address"))
    }
}

pub(crate) fn peers(texts: &[&str]) -> Vec<PeerEntry> {
    texts.iter().map(|text| peer(text)).collect()
}

/// A whole protocol, or one port of it.
pub(crate) fn port(protocol: u8, port: impl Into<Option<u16>>) -> PortMatch {
    PortMatch {
        protocol: Some(protocol),
        what: match port.into() {
            Some(port) => range(port, port, PortSide::Either),
            None => PortRange::All,
        },
    }
}

pub(crate) fn range(first: u16, last: u16, side: PortSide) -> PortRange {
    PortRange::Ports { first, last, side }
}

pub(crate) fn share(percent: f64) -> Percent {
    Percent::new(percent).expect("0 to 100")
}
