//! The contract of the planner: what the kernel holds, and the operations that change it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::{
    Action, BootTime, Direction, Fault, FaultName, PacketFilter, PortMatch, Pulse, Ramp, TargetDevice,
    TargetKey,
};

/// A fault's index in the kernel's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    /// The first of the slot's two peer sets; the other one is its [`PeerSetId::other`].
    pub fn peer_set(self) -> PeerSetId {
        PeerSetId(2 * self.0)
    }
}

/// The kernel's name for one attached device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub u32);

/// The kernel's name for a set of peers; a set belongs to one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerSetId(pub u32);

impl PeerSetId {
    /// The slot that the set belongs to.
    pub fn slot(self) -> Slot {
        Slot(self.0 / 2)
    }

    /// The slot's other set: an edit fills it, swaps the rule to it and empties this one.
    pub fn other(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// One entry of a peer set; the longest prefix decides. A full-length prefix is an exact address.
///
/// An entry that is limited to a port names an exact address and adds to the others, never takes away from them: what
/// comes from another port of that address is decided as though the entry weren't there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerEntry {
    pub net: IpNet,
    /// `except`: the prefix is taken out of a shorter one.
    pub excepted: bool,
    /// Only this traffic of the peer's end.
    pub only: Option<PeerPort>,
}

/// A port of a peer's own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerPort {
    /// IP protocol number.
    pub protocol: u8,
    /// `None`: the whole protocol.
    pub port: Option<u16>,
}

impl PeerEntry {
    pub fn included(net: IpNet) -> Self {
        Self {
            net,
            excepted: false,
            only: None,
        }
    }

    /// One port of an address.
    pub fn limited(address: IpAddr, only: PeerPort) -> Self {
        Self {
            only: Some(only),
            ..Self::included(address.to_canonical().into())
        }
    }

    pub fn excepted(net: IpNet) -> Self {
        Self {
            net,
            excepted: true,
            only: None,
        }
    }

    /// It names one address.
    pub fn is_exact(&self) -> bool {
        self.net.prefix_len() == self.net.max_prefix_len()
    }

    /// The entry that has the same key in the kernel: writing one replaces the other. One that is limited to a port has
    /// none; what this returns for it exists nowhere.
    pub fn twin(self) -> Self {
        Self {
            excepted: !self.excepted,
            ..self
        }
    }
}

/// What a target must have for the faults on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Equipment {
    pub egress: bool,
    pub ingress: bool,
    /// A delay line: a TAP in the target's netns.
    pub line: bool,
    /// A veth without segmentation offload, for actions that decide per wire packet.
    pub segmenter: bool,
    /// A way to the departure queue, for constant delays; what can't have it has the delay line.
    pub departures: bool,
}

impl Equipment {
    /// Programs in both directions and nothing else.
    pub const HOOKS: Self = Self {
        egress: true,
        ingress: true,
        line: false,
        segmenter: false,
        departures: false,
    };

    pub fn union(self, other: Self) -> Self {
        Self {
            egress: self.egress || other.egress,
            ingress: self.ingress || other.ingress,
            line: self.line || other.line,
            segmenter: self.segmenter || other.segmenter,
            departures: self.departures || other.departures,
        }
    }

    /// What is in `self` and not in `other`.
    pub fn minus(self, other: Self) -> Self {
        Self {
            egress: self.egress && !other.egress,
            ingress: self.ingress && !other.ingress,
            line: self.line && !other.line,
            segmenter: self.segmenter && !other.segmenter,
            departures: self.departures && !other.departures,
        }
    }

    pub fn contains(self, other: Self) -> bool {
        other.minus(self).is_empty()
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// What a slot's rule says, for the kernel room and the delay line to encode.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleBody {
    pub action: Action,
    pub direction: Direction,
    pub ports: Vec<PortMatch>,
    pub packets: PacketFilter,
    /// `None`: every other end.
    pub peers: Option<PeerSetId>,
    /// The set has full-length entries / shorter ones.
    pub peers_exact: bool,
    pub peers_prefix: bool,
    pub spare_node: bool,
    pub allow_control_plane: bool,
    /// Some of the peers are names: the target's lookups are watched.
    pub watches_dns: bool,
    pub pulse: Option<Pulse>,
    pub ramp: Option<Ramp>,
    pub seed: u64,
    pub starts_at: BootTime,
    pub expires_at: BootTime,
    pub sample_every: u32,
}

impl RuleBody {
    /// What a fault says, apart from its peers.
    pub fn without_peers(fault: &Fault) -> Self {
        Self {
            action: fault.action.clone(),
            direction: fault.direction,
            ports: fault.ports.clone(),
            packets: fault.packets,
            peers: None,
            peers_exact: false,
            peers_prefix: false,
            spare_node: fault.spare_node,
            allow_control_plane: fault.allow_control_plane,
            watches_dns: fault.watches_dns(),
            pulse: fault.pulse,
            ramp: fault.ramp,
            seed: fault.seed,
            starts_at: fault.starts_at,
            expires_at: fault.expires_at,
            sample_every: fault.sample_every,
        }
    }
}

/// One step towards the desired state. The planner orders them: peers before the rule, the rule before the slot lists,
/// and the reverse when a fault goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Bookkeeping only, nothing for the kernel: the slot belongs to the fault from now on. Comes before everything
    /// else that names the slot.
    Claim { slot: Slot, fault: FaultName },
    /// Slow, by a worker inside the target's netns, at most one at a time per target: add what is missing.
    Equip {
        target: TargetId,
        device: TargetDevice,
        equipment: Equipment,
    },
    /// Slow: detach everything and forget the target.
    Strip { target: TargetId, key: TargetKey },
    /// An entry replaces one of the same prefix.
    AddPeers { set: PeerSetId, entries: Vec<PeerEntry> },
    /// An entry that isn't there is no error; `excepted` doesn't matter.
    RemovePeers { set: PeerSetId, entries: Vec<PeerEntry> },
    /// Writes the slot's other body and swaps to it.
    WriteRule { slot: Slot, rule: RuleBody },
    /// Frees the slot; only after no target lists it.
    ClearRule { slot: Slot },
    /// The slots in force on a target, in the order of evaluation. Creates the counters of new ones first.
    SetSlots { target: TargetId, slots: Vec<Slot> },
}

/// What the kernel holds, as far as operations that succeeded tell. Written by the reconciler alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub rules: BTreeMap<Slot, ObservedRule>,
    pub targets: BTreeMap<TargetKey, ObservedTarget>,
    /// Slots that were cleared, and the instant from which they may be used again: packets of the former fault may
    /// still be on their way. Who knows of packets that are held for longer may move the instant.
    pub cooling: BTreeMap<Slot, BootTime>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ObservedRule {
    pub fault: FaultName,
    pub peer_set: PeerSetId,
    pub peers: BTreeSet<PeerEntry>,
    /// `None` until it is written.
    pub rule: Option<RuleBody>,
    /// Entries of the slot's other peer set, which no rule reads.
    pub spare: BTreeSet<PeerEntry>,
    /// Entries that an operation failed on: they may or may not be in the kernel.
    pub doubtful: BTreeMap<PeerSetId, BTreeSet<PeerEntry>>,
    /// The rule was cleared; only peers are left to be removed.
    pub cleared: bool,
    /// The last failure of an operation on the slot; nothing more is done with it before `retry_at`.
    pub failure: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ObservedTarget {
    pub id: TargetId,
    pub device: TargetDevice,
    pub equipment: Equipment,
    /// A worker is equipping or stripping it now.
    pub busy: bool,
    pub slots: Vec<Slot>,
    /// Since when no fault needs it.
    pub idle_since: Option<BootTime>,
    /// The last failure to equip it; it is tried again from `retry_at` on.
    pub failure: Option<Failure>,
    /// A worker strips it now, or tried and failed; nothing else is done with it until that succeeds.
    pub stripping: bool,
    /// What it could not be given, and why; anything that doesn't ask for all of one entry is still tried.
    pub refusals: Vec<(Equipment, Failure)>,
    /// Its slot list could not be written; it is tried again from `retry_at` on.
    pub slots_failure: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    /// Trying again can't help while the target is what it is (no MAC header, say).
    pub permanent: bool,
    pub attempts: u32,
    pub retry_at: BootTime,
}

/// Settings of the planner.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// How long an attachment outlives its last fault.
    pub keep_warm: Duration,
    /// Attach to every pod as it appears, before any fault asks for it.
    pub attach_eagerly: bool,
    pub max_slots: u32,
    pub max_targets: u32,
    pub max_slots_per_target: usize,
}
