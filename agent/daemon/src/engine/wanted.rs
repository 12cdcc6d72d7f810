//! What the source of the world has to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sabot_core::model::{BootTime, ClusterWanted, Fault, Peer, TargetSelector, World};
use sabot_core::resolve::{Presence, uses_node_ports};

use super::node::ControlPlane;
use crate::targets::Wanted;

/// What a fault names that isn't in sight by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sight {
    netns: Option<PathBuf>,
    interface: Option<String>,
    /// The node's own devices.
    node: bool,
    cluster: ClusterWanted,
}

impl Sight {
    /// What a fault of so much presence on this node names.
    pub(super) fn of(target: &TargetSelector, peers: &[Peer], presence: Presence, world: &World) -> Self {
        let mut sight = Self {
            cluster: presence.wanted(target, peers, world.protections.whole_workloads),
            ..Self::default()
        };
        match target {
            TargetSelector::Pods { .. } | TargetSelector::Service { .. } => {}
            TargetSelector::Netns(path) => sight.netns = Some(path.clone()),
            TargetSelector::Interface(name) => sight.interface = Some(name.clone()),
            TargetSelector::Node(name) => sight.node = *name == world.node.name,
        }
        sight
    }

    /// The same in a world in which some of its peers may be reached through ports of the nodes.
    pub(super) fn in_world(mut self, fault: &Fault, world: &World) -> Self {
        self.cluster.all_nodes = !self.cluster.is_empty() && uses_node_ports(fault, world);
        self
    }

    /// What of the cluster is in sight.
    pub(super) fn cluster(&self) -> &ClusterWanted {
        &self.cluster
    }

    /// Who has looked at this has looked at the other one.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let Self {
            netns,
            interface,
            node,
            cluster,
        } = other;
        (netns.is_none() || *netns == self.netns)
            && (interface.is_none() || *interface == self.interface)
            && (!node || self.node)
            && self.cluster.contains(cluster)
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What active faults name, and what is kept in sight for a while, so that the next fault on it finds it known and warm.
#[derive(Debug, Default)]
pub(super) struct Places {
    lingering: BTreeMap<Sight, BootTime>,
    /// Being looked at for a command, by how many of them.
    looking: BTreeMap<Sight, u32>,
    /// What the source was told last.
    told: Wanted,
}

impl Places {
    /// Keeps it in sight until then.
    pub(super) fn linger(&mut self, sight: Sight, until: BootTime) {
        if !sight.is_empty() {
            let known = self.lingering.entry(sight).or_insert(until);
            *known = until.max(*known);
        }
    }

    /// A command waits for it to be looked at, however long that takes. Returns what has to be read for it.
    pub(super) fn look(&mut self, sight: &Sight) -> BTreeSet<PathBuf> {
        *self.looking.entry(sight.clone()).or_default() += 1;
        sight.netns.iter().cloned().collect()
    }

    /// The command goes on.
    pub(super) fn looked(&mut self, sight: &Sight) {
        if let Some(commands) = self.looking.get_mut(sight) {
            *commands -= 1;
            if *commands == 0 {
                self.looking.remove(sight);
            }
        }
    }

    /// The source was told to look at what is meant of the cluster.
    pub(super) fn is_told(&self, sight: &Sight) -> bool {
        sight.cluster.is_empty() || self.told.cluster.contains(&sight.cluster)
    }

    /// Everything to look at now, with what the given faults name: each one as much of it as concerns this node.
    pub(super) fn wanted<'a>(
        &mut self,
        faults: impl Iterator<Item = (&'a Fault, &'a Sight)>,
        now: BootTime,
    ) -> Wanted {
        self.lingering.retain(|_, until| *until > now);
        let mut wanted = Wanted::default();
        let mut named = BTreeSet::new();
        for (fault, sight) in faults {
            named.insert(sight);
            wanted.names.extend(fault.peers.iter().filter_map(name).cloned());
        }
        let kept = self.lingering.keys().chain(self.looking.keys());
        let all: BTreeSet<&Sight> = named.into_iter().chain(kept).collect();
        for sight in &all {
            wanted.netns_paths.extend(sight.netns.iter().cloned());
            wanted.interfaces.extend(sight.interface.iter().cloned());
            wanted.node |= sight.node;
        }
        wanted.cluster = ClusterWanted::all(all.iter().map(|sight| &sight.cluster));
        if wanted.node || !(wanted.netns_paths.is_empty() && wanted.interfaces.is_empty()) {
            // It may be the node itself, whose way to the API server is kept.
            wanted.cluster.services.insert(ControlPlane::service());
        }
        wanted
    }

    /// Whether the source hasn't been told this yet; takes it as told from now on.
    pub(super) fn tell(&mut self, wanted: &Wanted) -> bool {
        let new = self.told != *wanted;
        if new {
            self.told = wanted.clone();
        }
        new
    }

    pub(super) fn wake_at(&self) -> Option<BootTime> {
        self.lingering.values().min().copied()
    }
}

fn name(peer: &Peer) -> Option<&String> {
    match peer {
        Peer::Host(name) => Some(name),
        _ => None,
    }
}
