//! Which devices and addresses a fault means in the world as it is now.

mod peers;
mod services;

use std::collections::{BTreeSet, HashSet};

use crate::model::{
    Action, Direction, Fault, ObjectName, Pick, Pod, PodSelector, TargetDevice, TargetKey, TargetSelector,
    World,
};
use crate::plan::{Equipment, RuleBody};
use crate::select;

pub use peers::peer_entries;
pub use services::{Coverage, covered_services};

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
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Each device once.
    pub targets: Vec<ResolvedTarget>,
    pub refused: Vec<RefusedTarget>,
    /// What is awaited: nothing matches yet, or something that matches isn't ready.
    pub pending: Option<String>,
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
/// A pod on the node's network is refused and is no candidate of a pick.
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
            Some(devices) => devices.iter().for_each(|device| finder.add(device, None)),
        },
        TargetSelector::Interface(name) => match world.interfaces.get(name) {
            None => finder.await_for(format!("the node has no interface {name}")),
            Some(device) => finder.add(device, None),
        },
        TargetSelector::Service { name, pick } => finder.service(world, name, pick.as_ref()),
        TargetSelector::Node(name) => finder.node(world, name),
    }
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
        if let Some(pick) = pick {
            // Every node ranks the pods of all nodes, so that all of them pick the same ones.
            let elsewhere = selector.elsewhere(world).filter(|pod| !pod.host_network);
            let uids = candidates.iter().map(|pod| pod.uid.as_str());
            let taken = select::taken(uids.chain(elsewhere.map(|pod| pod.uid.as_str())), pick);
            self.keep(&mut candidates, |pod| taken.contains(pod.uid.as_str()));
        }
        self.refuse(on_node);
        self.take(candidates);
    }

    /// The backends that are pods of this node.
    fn service(&mut self, world: &'a World, name: &ObjectName, pick: Option<&Pick>) {
        let Some(service) = world.cluster.services.get(name) else {
            self.await_for(format!("the Service {name} isn't known"));
            return;
        };
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
        self.refuse(on_node);
        self.take(candidates);
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

    fn refuse(&mut self, on_node: Vec<&Pod>) {
        for pod in on_node {
            self.found.refused.push(RefusedTarget {
                pod: Some(pod.into()),
                device: None,
                reason: format!(
                    "the pod {}/{} uses the node's network; a fault on it would hit the whole node",
                    pod.namespace, pod.name
                ),
            });
        }
    }

    fn take(&mut self, candidates: Vec<&'a Pod>) {
        for pod in candidates {
            if pod.devices.is_empty() {
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

    fn await_for(&mut self, what: String) {
        self.found.pending = Some(what);
    }

    fn add(&mut self, device: &'a TargetDevice, pod: Option<&Pod>) {
        if !self.seen.insert(&device.key) {
            return;
        }
        let pod = pod.map(PodRef::from);
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
            reason,
        });
    }
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
