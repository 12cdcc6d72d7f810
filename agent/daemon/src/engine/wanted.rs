//! What the source of the world has to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sabot_core::guard::Guards;
use sabot_core::model::{BootTime, ClusterWanted, Fault, Peer, PodSelector, Service, TargetSelector, World};
use sabot_core::resolve::{Coverage, covered_services};

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
    /// `whole_workloads`: it matters how many pods the targets' workloads have, wherever they are.
    fn of(target: &TargetSelector, peers: &[Peer], whole_workloads: bool) -> Self {
        let mut sight = Self::default();
        if whole_workloads && let Some(namespace) = target.namespace() {
            sight.cluster.pods.push(PodSelector::all_of(namespace));
        }
        match target {
            TargetSelector::Pods { pick: None, .. } => {}
            // The other nodes' pods are ranked as well.
            TargetSelector::Pods { selector, .. } => sight.cluster.pods.push(selector.clone()),
            TargetSelector::Netns(path) => sight.netns = Some(path.clone()),
            TargetSelector::Interface(name) => sight.interface = Some(name.clone()),
            TargetSelector::Service { name, .. } => drop(sight.cluster.services.insert(name.clone())),
            TargetSelector::Node(_) => sight.node = true,
        }
        for peer in peers {
            match peer {
                Peer::Address(_) | Peer::Cidr { .. } | Peer::Host(_) => {}
                Peer::Pods(selector) => {
                    sight.cluster.pods.push(selector.clone());
                    let namespaces = &mut sight.cluster.service_namespaces;
                    namespaces.insert(selector.namespace.clone());
                }
                Peer::Service { name, .. } => drop(sight.cluster.services.insert(name.clone())),
                Peer::Node(name) => drop(sight.cluster.nodes.insert(name.clone())),
            }
        }
        sight
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What active faults name, and what is kept in sight for a while, so that the next fault on it finds it known and warm.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Which pods may have faults depends on all pods of their workloads.
    whole_workloads: bool,
    lingering: BTreeMap<Sight, BootTime>,
    /// Being looked at for a command, by how many of them.
    looking: BTreeMap<Sight, u32>,
    /// What the source was told last.
    told: Wanted,
}

impl Places {
    pub(super) fn new(guards: &Guards) -> Self {
        Self {
            whole_workloads: guards.limit_workloads(),
            ..Self::default()
        }
    }

    /// What has to be in sight for a fault.
    pub(super) fn sight(&self, fault: &Fault) -> Sight {
        self.sight_of(&fault.target, &fault.peers)
    }

    pub(super) fn sight_of(&self, target: &TargetSelector, peers: &[Peer]) -> Sight {
        Sight::of(target, peers, self.whole_workloads)
    }

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

    /// Everything to look at now, with what the given faults name.
    pub(super) fn wanted<'a>(
        &mut self,
        faults: impl Iterator<Item = &'a Fault>,
        world: &World,
        now: BootTime,
    ) -> Wanted {
        self.lingering.retain(|_, until| *until > now);
        let mut wanted = Wanted::default();
        let mut named = BTreeSet::new();
        for fault in faults {
            let mut sight = self.sight(fault);
            sight.cluster.all_nodes = has_node_ports(fault, world);
            named.insert(sight);
            wanted.names.extend(fault.peers.iter().filter_map(name).cloned());
        }
        let kept = self.lingering.keys().chain(self.looking.keys());
        let all: BTreeSet<&Sight> = named.iter().chain(kept).collect();
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

/// Some of its peers are reached through ports of the nodes.
fn has_node_ports(fault: &Fault, world: &World) -> bool {
    let services = &world.cluster.services;
    let named = fault.peers.iter().any(|peer| match peer {
        Peer::Service { name, .. } => services.get(name).is_some_and(Service::has_node_ports),
        _ => false,
    });
    let mut covered = covered_services(fault, world);
    named || covered.any(|(_, service, coverage)| coverage == Coverage::All && service.has_node_ports())
}

fn name(peer: &Peer) -> Option<&String> {
    match peer {
        Peer::Host(name) => Some(name),
        _ => None,
    }
}
