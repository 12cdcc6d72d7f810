//! The contract between the rooms: faults as accepted, the world as resolved, and what the kernel holds.
//!
//! `spec` parses and validates what a user writes into [`Fault`]; `targets` resolves the [`World`]; `planner` compares
//! both with [`Observed`] and says which [`Operation`]s close the gap.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use crate::guard::{Guarded, Protections};

pub use self::cluster::*;
pub use crate::action::*;

/// A fault's name, unique on a node: `namespace/name`, or `name` where no namespace was given.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultName {
    /// Empty where none was given.
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for FaultName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// `CLOCK_BOOTTIME`, ns since boot: the kernel programs' clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootTime(pub u64);

impl BootTime {
    /// This much later, or the end of time.
    pub fn after(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// This much earlier, or the beginning of time.
    pub fn before(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

/// A share from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percent(pub(crate) f64);

impl Percent {
    /// `None` unless `0 <= value <= 100`.
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=100.0).contains(&value).then_some(Self(value))
    }

    pub fn value(self) -> f64 {
        self.0
    }

    /// The share in units of 2^-32, as the kernel compares it with 32 random bits.
    pub fn threshold(self) -> u64 {
        (self.0 / 100.0 * (1u64 << 32) as f64).round() as u64
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    Egress,
    Ingress,
    #[default]
    Both,
}

/// Which of a connection's two ends a port is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortSide {
    Source,
    Destination,
    #[default]
    Either,
}

/// One entry of the traffic filter; a packet passes the filter when one entry names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMatch {
    /// IP protocol number; `None` is every protocol that has ports.
    pub protocol: Option<u8>,
    pub what: PortRange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortRange {
    /// The whole protocol.
    All,
    /// Both ends inclusive.
    Ports { first: u16, last: u16, side: PortSide },
    /// Of ICMP or ICMPv6; `None`: every code of the type.
    Icmp { kind: u8, code: Option<u8> },
}

/// Which packets a fault means by what stands in their IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketFilter {
    /// Bit `n` stands for the code point `n`.
    pub dscp: u64,
    /// Length of the IP packet, in bytes, of the least and of the greatest that match.
    pub least_length: u32,
    pub greatest_length: u32,
}

impl PacketFilter {
    /// The longest IP packet.
    pub const MAX_LENGTH: u32 = 65_575;
    pub const ALL: Self = Self {
        dscp: u64::MAX,
        least_length: 0,
        greatest_length: Self::MAX_LENGTH,
    };

    /// Packets of some lengths only.
    pub fn has_lengths(&self) -> bool {
        (self.least_length, self.greatest_length) != (0, Self::MAX_LENGTH)
    }
}

impl Default for PacketFilter {
    fn default() -> Self {
        Self::ALL
    }
}

/// Periods in which a fault is in force, from its start on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    pub on: Duration,
    pub off: Duration,
}

/// The action's value moves linearly over a time, from its start on, and then stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    pub over: Duration,
    /// Parts of the action's value; 1 is the whole.
    pub from: f64,
    pub to: f64,
}

/// Which pods a selector means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodSelector {
    pub namespace: String,
    /// One pod by name; excludes `labels`.
    pub name: Option<String>,
    pub labels: LabelSelector,
}

impl PodSelector {
    pub fn all_of(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: None,
            labels: LabelSelector::default(),
        }
    }
}

/// Kubernetes' label selector: every requirement must hold; an empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelSelector {
    pub requirements: Vec<LabelRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LabelRequirement {
    In { key: String, values: BTreeSet<String> },
    NotIn { key: String, values: BTreeSet<String> },
    Exists { key: String },
    DoesNotExist { key: String },
}

/// A seeded choice among the pods that match.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pick {
    pub share: PickShare,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PickShare {
    Count(u32),
    /// Of the matching pods, rounded up.
    Percent(Percent),
}

#[derive(Clone, Debug, PartialEq)]
pub enum TargetSelector {
    Pods {
        selector: PodSelector,
        pick: Option<Pick>,
    },
    /// Every device with a default route in this network namespace, or every device but `lo` where there is none.
    Netns(PathBuf),
    /// A device of the node's own network namespace.
    Interface(String),
    /// The pods of this node that are backends of the Service. They are ranked by their names, since that is what a Service
    /// knows of them.
    Service { name: ObjectName, pick: Option<Pick> },
    /// The node of this name: the devices of its own network namespace that have a default route.
    Node(String),
}

impl TargetSelector {
    /// Whose pods it means.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Pods { selector, .. } => Some(&selector.namespace),
            Self::Service { name, .. } => Some(&name.namespace),
            Self::Netns(_) | Self::Interface(_) | Self::Node(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    Address(IpAddr),
    Cidr {
        net: IpNet,
        except: Vec<IpNet>,
    },
    Pods(PodSelector),
    /// A DNS name; its addresses are those that the target's own lookups answer.
    Host(String),
    /// The Service's own addresses and ports, and its backends'.
    Service {
        name: ObjectName,
        /// `None`: all of its ports.
        port: Option<PortRef>,
    },
    /// The node of this name, by its addresses.
    Node(String),
}

/// A fault as accepted: validated, with its times fixed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub name: FaultName,
    pub target: TargetSelector,
    /// Empty: every other end.
    pub peers: Vec<Peer>,
    pub direction: Direction,
    /// Empty: all traffic.
    pub ports: Vec<PortMatch>,
    pub packets: PacketFilter,
    pub spare_node: bool,
    /// On devices of the node, the connections that keep it reachable are hit too.
    pub allow_control_plane: bool,
    pub action: Action,
    pub pulse: Option<Pulse>,
    pub ramp: Option<Ramp>,
    /// What every random choice of the fault follows from.
    pub seed: u64,
    pub duration: Duration,
    pub starts_at: BootTime,
    pub expires_at: BootTime,
    /// The same instants for people and metrics.
    pub created: SystemTime,
    pub starts: SystemTime,
    pub expires: SystemTime,
    /// One in this many decided packets is reported as an event.
    pub sample_every: u32,
}

impl Fault {
    /// The share of the packets that are lost in the long run while it is in force, from 0 to 1, at the end of a ramp.
    /// `None` where nothing says how many will be.
    pub fn expected_loss(&self) -> Option<f64> {
        let height = self.ramp.map_or(1.0, |ramp| ramp.to);
        self.action.expected_loss().map(|loss| loss * height)
    }

    /// What its peers mean changes with the world.
    pub fn has_moving_peers(&self) -> bool {
        let moves = |peer: &Peer| !matches!(peer, Peer::Address(_) | Peer::Cidr { .. });
        self.peers.iter().any(moves)
    }

    /// Some of the peers are names, whose addresses are learnt from the target's own lookups.
    pub fn watches_dns(&self) -> bool {
        self.peers.iter().any(|peer| matches!(peer, Peer::Host(_)))
    }
}

/// A network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    /// Its inode number on nsfs, as `lsns` shows it. The kernel gives that of a namespace that is gone to the next one.
    pub ino: u64,
    /// Told by the daemon, and never twice.
    pub serial: u32,
}

/// One device of one network namespace: what programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey {
    pub netns: NetnsId,
    pub device: String,
    /// Tells a device from a later one of the same name.
    pub ifindex: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetDevice {
    pub key: TargetKey,
    /// Opens the namespace; may be `/proc/PID/ns/net`.
    pub netns_path: PathBuf,
    pub mac_header: bool,
    /// It belongs to the node's own namespace.
    pub node_device: bool,
    /// The same for the same pod and device, whatever the kernel calls it: random streams follow from it.
    pub identity: TargetIdentity,
}

/// A target's name as a number: the 64-bit FNV-1a hash of `NAMESPACE/POD/DEVICE`, `netns:PATH/DEVICE` or
/// `interface/DEVICE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetIdentity(pub u64);

impl TargetIdentity {
    pub fn of(name: &str) -> Self {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, step))
    }
}

/// A pod as its runtime describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub sandbox: String,
    pub labels: BTreeMap<String, String>,
    /// Those that mean something to Sabot: `sabot.dev/…`.
    pub annotations: BTreeMap<String, String>,
    pub addresses: Vec<IpAddr>,
    /// On the node's own network: it can be a peer, not a target.
    pub host_network: bool,
    pub workload: Workload,
    /// Where its network namespace is; `None` for a pod on the node's own network.
    pub netns_path: Option<PathBuf>,
    /// The sandbox's first process, in the daemon's pid namespace, where the runtime says.
    pub process: Option<u32>,
    /// Devices that a fault on the pod means; empty while the sandbox isn't ready.
    pub devices: Vec<TargetDevice>,
}

/// The node that the daemon runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnNode {
    pub name: String,
    /// Its devices with a default route; empty unless a desired fault names the node.
    pub devices: Vec<TargetDevice>,
}

/// Everything that selectors can mean right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// By sandbox id; only sandboxes that are ready.
    pub pods: BTreeMap<String, Pod>,
    /// Devices of `netns:` targets that desired faults name; absent path: the namespace doesn't exist now.
    pub namespaces: BTreeMap<PathBuf, Vec<TargetDevice>>,
    /// Devices of `interface:` targets that desired faults name.
    pub interfaces: BTreeMap<String, TargetDevice>,
    /// The node's own addresses, spared by default.
    pub node_addresses: BTreeSet<IpAddr>,
    /// What targets' lookups have answered for the names that desired faults name, and that is still valid.
    pub names: BTreeMap<String, BTreeSet<IpAddr>>,
    /// This node, as the cluster knows it.
    pub node: OwnNode,
    /// Empty where no API server was ever reached.
    pub cluster: Cluster,
    /// Pods that may not have a fault now, by sandbox id; what [`crate::guard::Guards::apply`] says.
    pub guarded: BTreeMap<String, Guarded>,
    /// What keeps pods of other nodes from having faults, whatever others have.
    pub protections: Arc<Protections>,
    /// Pods of other nodes that others of their workload keep from having faults, by uid.
    pub guarded_elsewhere: BTreeMap<String, Guarded>,
}

impl World {
    /// Everything is the same beside the cluster, which may be large, and what the guards say.
    pub fn is_same_here(&self, other: &Self) -> bool {
        let Self {
            pods,
            namespaces,
            interfaces,
            node_addresses,
            names,
            node,
            cluster: _,
            guarded: _,
            protections: _,
            guarded_elsewhere: _,
        } = self;
        *pods == other.pods
            && *namespaces == other.namespaces
            && *interfaces == other.interfaces
            && *node_addresses == other.node_addresses
            && *names == other.names
            && *node == other.node
    }
}
