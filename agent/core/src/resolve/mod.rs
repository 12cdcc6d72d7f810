//! Which devices and addresses a fault means in the world as it is now.

mod peers;
mod services;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crate::guard::{Guard, Guarded};
use crate::model::{
    Action, ApiServer, ClusterPod, ClusterWanted, Direction, Fault, ObjectName, Peer, Pick, Pod, PodSelector,
    TargetDevice, TargetKey, TargetSelector, World,
};
use crate::plan::{Equipment, Observed, RuleBody, Slot};
use crate::select;

pub use peers::peer_entries;
pub use services::{Coverage, covered_services, uses_node_ports};

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl From<&Pod> for PodRef {
    fn from(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedTarget {
    pub device: TargetDevice,
    /// `None` for `netns:` and `interface:` targets.
    pub pod: Option<PodRef>,
}

/// A target that can't have this fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedTarget {
    pub pod: Option<PodRef>,
    /// `None` where the refusal doesn't come from one device.
    pub device: Option<TargetDevice>,
    /// The guard that refuses it.
    pub guard: Option<Guard>,
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Each device once.
    pub targets: Vec<ResolvedTarget>,
    /// Those that it has as soon as its peers are known.
    pub held: Vec<ResolvedTarget>,
    pub refused: Vec<RefusedTarget>,
    /// What is awaited: nothing matches yet, or something that matches isn't ready or isn't known.
    pub pending: Option<String>,
    pub presence: Presence,
}

impl Resolution {
    /// It has targets here, be it as soon as its peers are known.
    pub fn has_targets(&self) -> bool {
        !(self.targets.is_empty() && self.held.is_empty())
    }

    /// The targets of a fault that has this slot. Those on which it is in force already keep it while something that its
    /// peers have come to mean is awaited: that is no gap for what they meant before.
    pub fn targets_in<'a>(
        &'a self,
        slot: Option<Slot>,
        observed: &'a Observed,
    ) -> impl Iterator<Item = &'a ResolvedTarget> {
        let is_listed = move |target: &&ResolvedTarget| {
            let known = observed.targets.get(&target.device.key);
            known
                .zip(slot)
                .is_some_and(|(known, slot)| known.slots.contains(&slot))
        };
        self.targets.iter().chain(self.held.iter().filter(is_listed))
    }
}

/// How much a fault has to do with this node; what it names of the cluster has to be known for that much of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// Nothing here can be its target.
    #[default]
    Elsewhere,
    /// There are pods here of which the cluster says whether they are its targets.
    Candidate,
    /// It has targets here.
    Here,
}

impl Presence {
    /// What of the cluster a fault of these has to be told.
    pub fn wanted(self, target: &TargetSelector, peers: &[Peer], whole_workloads: bool) -> ClusterWanted {
        let target = (self >= Self::Candidate).then(|| ClusterWanted::of_target(target, whole_workloads));
        let peers = (self >= Self::Here).then(|| ClusterWanted::of_peers(peers));
        ClusterWanted::all(target.iter().chain(&peers))
    }
}

/// What a target must have for a fault.
pub fn equipment(fault: &Fault) -> Equipment {
    rule_equipment(&RuleBody::without_peers(fault))
}

/// What a target must have for a rule: what is decided per wire packet needs the segmenter, and so do lengths, since a
/// super-packet's wire packets may differ in theirs.
pub fn rule_equipment(rule: &RuleBody) -> Equipment {
    let line = match &rule.action {
        Action::Delay(_)
        | Action::Reorder(_)
        | Action::RateLimit(_)
        | Action::Reject(_)
        | Action::Reset(_) => true,
        Action::Duplicate(duplicate) => !duplicate.delay.is_zero(),
        Action::Partition | Action::Drop(_) | Action::Corrupt(_) => false,
    };
    Equipment {
        egress: rule.direction != Direction::Ingress,
        // The answers to a target's lookups arrive at it.
        ingress: rule.direction != Direction::Egress || rule.watches_dns,
        line,
        segmenter: decides_per_wire_packet(rule) || rule.packets.has_lengths(),
        departures: departing_latency(rule).is_some(),
    }
}

/// The longest delay that a packet may wait in the kernel's departure queue. Nothing leaves that queue before its time, so
/// that what a fault finds there when it is deleted is held for no longer than this.
pub const MOST_DEPARTING: Duration = Duration::from_millis(200);

/// The delay of a rule that the departure queue can add: one that is the same for every packet, always, and not too long.
pub fn departing_latency(rule: &RuleBody) -> Option<Duration> {
    match &rule.action {
        Action::Delay(delay) if delay.is_constant() && rule.ramp.is_none() => {
            Some(delay.latency).filter(|latency| !latency.is_zero() && *latency <= MOST_DEPARTING)
        }
        _ => None,
    }
}

/// Whether wire packets of one super-packet may fare differently.
pub fn decides_per_wire_packet(rule: &RuleBody) -> bool {
    match &rule.action {
        Action::Drop(loss) => loss.is_partial() || rule.ramp.is_some(),
        Action::Corrupt(corrupt) => corrupt.percent.value() > 0.0,
        Action::Duplicate(duplicate) => duplicate.percent.value() > 0.0,
        Action::Reorder(reorder) => reorder.percent.value() > 0.0,
        Action::Delay(delay) => !delay.is_constant(),
        // A super-packet larger than the burst is segmented.
        Action::RateLimit(_) => true,
        Action::Partition | Action::Reject(_) | Action::Reset(_) => false,
    }
}

/// The devices that the fault means, those that can't have it, and what is awaited.
///
/// A pod on the node's network is refused and is no candidate of a pick. As long as the cluster's API hasn't told what the
/// fault names of it, the fault has no targets: peers that aren't known would be none, and a pick among some of the pods
/// would be another one than that of the other nodes. Where it won't tell, because it is away or forbids it, the fault does
/// what it can with the peers that are known.
pub fn resolve(fault: &Fault, world: &World) -> Resolution {
    let mut finder = Finder {
        fault,
        needed: equipment(fault),
        seen: HashSet::new(),
        found: Resolution::default(),
    };
    match &fault.target {
        TargetSelector::Pods { selector, pick } => finder.pods(world, selector, pick.as_ref()),
        TargetSelector::Netns(path) => match world.namespaces.get(path).map(Vec::as_slice) {
            None => finder.await_for(format!("there is no network namespace {}", path.display())),
            Some([]) => {
                let path = path.display();
                finder.await_for(format!("the network namespace {path} has no device to attach to"));
            }
            Some(devices) => finder.namespace(world, devices),
        },
        TargetSelector::Interface(name) => match world.interfaces.get(name) {
            None => finder.await_for(format!("the node has no interface {name}")),
            Some(device) => finder.add(device, None),
        },
        TargetSelector::Service { name, pick } => finder.service(world, name, pick.as_ref()),
        TargetSelector::Node(name) => finder.node(world, name),
    }
    finder.await_peers(world);
    finder.found
}

struct Finder<'a> {
    fault: &'a Fault,
    needed: Equipment,
    seen: HashSet<&'a TargetKey>,
    found: Resolution,
}

impl<'a> Finder<'a> {
    fn pods(&mut self, world: &'a World, selector: &PodSelector, pick: Option<&Pick>) {
        let (on_node, mut candidates): (Vec<&Pod>, Vec<&Pod>) = world
            .pods
            .values()
            .filter(|pod| selector.matches(pod))
            .partition(|pod| pod.host_network);
        if on_node.is_empty() && candidates.is_empty() {
            self.await_for(nothing_matches(selector));
        }
        if !candidates.is_empty() {
            self.present(Presence::Candidate);
            if self.lacks_rivals(world) {
                candidates.clear();
            }
        }
        candidates.retain(|pod| !self.is_guarded(world, pod, Guard::is_protection));
        if let Some(pick) = pick {
            // Every node ranks the pods of all nodes, so that all of them pick the same ones.
            let may_have_it = |pod: &&ClusterPod| {
                let is_guarded =
                    world.protections.spare(pod) || world.guarded_elsewhere.contains_key(&pod.uid);
                !(pod.host_network || is_guarded)
            };
            let elsewhere = selector.elsewhere(world).filter(may_have_it);
            let uids = candidates.iter().map(|pod| pod.uid.as_str());
            let taken = select::taken(uids.chain(elsewhere.map(|pod| pod.uid.as_str())), pick);
            self.keep(&mut candidates, |pod| taken.contains(pod.uid.as_str()));
        }
        self.refuse_all(on_node);
        self.take(world, candidates);
    }

    /// The backends that are pods of this node. A pick ranks the protected ones too, and leaves them out of what it takes: a
    /// Service doesn't tell which those of other nodes are.
    fn service(&mut self, world: &'a World, name: &ObjectName, pick: Option<&Pick>) {
        let is_near = |pod: &Pod| pod.namespace == name.namespace;
        if !world.pods.values().any(is_near) {
            let namespace = &name.namespace;
            self.await_for(format!(
                "the Service {name} has no backend on this node, which has no pod of namespace {namespace}"
            ));
            return;
        }
        self.present(Presence::Candidate);
        let Some(service) = world.cluster.services.get(name) else {
            self.await_for(format!("the Service {name} isn't known"));
            return;
        };
        if self.lacks_rivals(world) {
            return;
        }
        let backends: BTreeSet<&ObjectName> = service
            .backends()
            .filter_map(|endpoint| endpoint.pod.as_ref())
            .collect();
        let (on_node, mut candidates): (Vec<&Pod>, Vec<&Pod>) = world
            .pods
            .values()
            .filter(|pod| backends.contains(&pod.object_name()))
            .partition(|pod| pod.host_network);
        if on_node.is_empty() && candidates.is_empty() {
            self.await_for(format!("the Service {name} has no backend on this node"));
        }
        if let Some(pick) = pick {
            let names: Vec<String> = backends.iter().map(ToString::to_string).collect();
            let taken = select::taken(names.iter().map(String::as_str), pick);
            self.keep(&mut candidates, |pod| {
                taken.contains(pod.object_name().to_string().as_str())
            });
        }
        self.refuse_all(on_node);
        self.take(world, candidates);
    }

    fn node(&mut self, world: &'a World, name: &str) {
        if world.node.name != name {
            self.await_for(format!(
                "this node is {}, and the fault is on {name}",
                world.node.name
            ));
        } else if world.node.devices.is_empty() {
            self.await_for("the node has no device with a default route".to_owned());
        }
        for device in world.node.devices.iter().filter(|_| world.node.name == name) {
            self.add(device, None);
        }
    }

    /// Those that a pick takes.
    fn keep(&mut self, candidates: &mut Vec<&Pod>, is_taken: impl Fn(&Pod) -> bool) {
        let before = candidates.len();
        candidates.retain(|pod| is_taken(pod));
        if candidates.is_empty() && before > 0 {
            self.await_for(format!(
                "the pick takes none of the {before} matching pods of this node"
            ));
        }
    }

    /// Pods on the node's network.
    fn refuse_all(&mut self, on_node: Vec<&Pod>) {
        for pod in on_node {
            self.found.refused.push(RefusedTarget {
                pod: Some(pod.into()),
                device: None,
                guard: None,
                reason: format!(
                    "the pod {}/{} uses the node's network; a fault on it would hit the whole node",
                    pod.namespace, pod.name
                ),
            });
        }
    }

    fn take(&mut self, world: &World, candidates: Vec<&'a Pod>) {
        for pod in candidates {
            if self.is_guarded(world, pod, |_| true) {
                continue;
            }
            if pod.devices.is_empty() {
                self.present(Presence::Here);
                self.await_for(format!(
                    "the pod {}/{} has no device yet",
                    pod.namespace, pod.name
                ));
            }
            for device in &pod.devices {
                self.add(device, Some(pod));
            }
        }
    }

    /// A namespace that is a pod's is guarded as the pod is.
    fn namespace(&mut self, world: &'a World, devices: &'a [TargetDevice]) {
        for device in devices {
            match guard_of(world, device) {
                Some((pod, guarded)) => self.refuse(pod, Some(device), guarded),
                None => self.add(device, None),
            }
        }
    }

    /// Whether a guard of this kind refuses the pod; then that is noted.
    fn is_guarded(&mut self, world: &World, pod: &Pod, kind: impl FnOnce(Guard) -> bool) -> bool {
        let guarded = world
            .guarded
            .get(&pod.sandbox)
            .filter(|guarded| kind(guarded.guard));
        if let Some(guarded) = guarded {
            self.refuse(pod, None, guarded);
        }
        guarded.is_some()
    }

    fn refuse(&mut self, pod: &Pod, device: Option<&TargetDevice>, guarded: &Guarded) {
        self.found.refused.push(RefusedTarget {
            pod: Some(pod.into()),
            device: device.cloned(),
            guard: Some(guarded.guard),
            reason: guarded.to_string(),
        });
    }

    fn await_for(&mut self, what: String) {
        self.found.pending = Some(what);
    }

    fn await_cluster(&mut self, world: &World, wanted: &ClusterWanted, what: &str) {
        self.await_for(match world.cluster.server {
            ApiServer::Away => format!("{what} aren't known, and the cluster's API server doesn't answer"),
            ApiServer::Answers if !world.cluster.will_tell(wanted) => {
                format!("{what} aren't known, and the cluster's API server doesn't tell them")
            }
            ApiServer::Absent | ApiServer::Answers => format!("{what} aren't known yet"),
        });
    }

    /// Whether some of the other nodes' pods aren't known that say which ones of this node may be targets; that is noted then.
    fn lacks_rivals(&mut self, world: &World) -> bool {
        let whole = world.protections.whole_workloads;
        let wanted = ClusterWanted::of_target(&self.fault.target, whole);
        let lacks = world.cluster.lacks(&wanted);
        if lacks {
            let what = "the pods of other nodes that are counted or ranked too";
            self.await_cluster(world, &wanted, what);
        }
        lacks
    }

    fn await_peers(&mut self, world: &World) {
        let mut wanted = ClusterWanted::of_peers(&self.fault.peers);
        if self.found.targets.is_empty() {
            return;
        }
        let what = if world.cluster.lacks(&wanted) {
            "its peers in the cluster"
        } else {
            wanted.all_nodes = uses_node_ports(self.fault, world);
            "the addresses of the nodes, through whose ports its peers are reached,"
        };
        if !world.cluster.lacks(&wanted) {
            return;
        }
        if world.cluster.will_tell(&wanted) || peer_entries(self.fault, world).is_empty() {
            self.found.held = std::mem::take(&mut self.found.targets);
            self.await_cluster(world, &wanted, what);
        }
    }

    fn present(&mut self, presence: Presence) {
        self.found.presence = self.found.presence.max(presence);
    }

    fn add(&mut self, device: &'a TargetDevice, pod: Option<&Pod>) {
        if !self.seen.insert(&device.key) {
            return;
        }
        let pod = pod.map(PodRef::from);
        self.present(Presence::Here);
        if device.mac_header || !(self.needed.line || self.needed.segmenter) {
            let device = device.clone();
            self.found.targets.push(ResolvedTarget { device, pod });
            return;
        }
        let reason = format!(
            "the device {} has no MAC header, so its packets can't be taken aside; {} needs that",
            device.key.device,
            self.fault.action.name()
        );
        self.found.refused.push(RefusedTarget {
            pod,
            device: Some(device.clone()),
            guard: None,
            reason,
        });
    }
}

/// The guarded pod whose network namespace the device is in.
fn guard_of<'a>(world: &'a World, device: &TargetDevice) -> Option<(&'a Pod, &'a Guarded)> {
    world.guarded.iter().find_map(|(sandbox, guarded)| {
        let pod = world.pods.get(sandbox)?;
        let is_there = pod.devices.iter().any(|own| own.key.netns == device.key.netns);
        is_there.then_some((pod, guarded))
    })
}

fn nothing_matches(selector: &PodSelector) -> String {
    let PodSelector {
        namespace,
        name,
        labels,
    } = selector;
    match name {
        Some(name) => format!("there is no pod {namespace}/{name}"),
        None if labels.requirements.is_empty() => format!("there is no pod in namespace {namespace}"),
        None => format!("no pod in namespace {namespace} matches {labels}"),
    }
}
