//! What the cluster's API says, beyond what this node's container runtime knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rpds::RedBlackTreeMapSync;

use super::{Peer, Pod, PodSelector, TargetSelector};

/// A namespaced object of the cluster, of a kind that the context says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Pod {
    pub fn object_name(&self) -> ObjectName {
        ObjectName {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// A pod of any node, as the API server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Empty until it is scheduled.
    pub node: String,
    pub labels: BTreeMap<String, String>,
    /// Those that mean something to Sabot: `sabot.dev/…`.
    pub annotations: BTreeMap<String, String>,
    pub addresses: BTreeSet<IpAddr>,
    pub host_network: bool,
    pub workload: Workload,
}

impl ClusterPod {
    pub fn object_name(&self) -> ObjectName {
        ObjectName {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// What manages a pod, and makes another one in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Workload {
    /// The API server, which alone knows, hasn't said it.
    #[default]
    Unknown,
    /// Nothing does.
    Alone,
    /// Of the pod's namespace, by kind and name: `Deployment web`.
    Of(String),
}

/// A Service with its endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Where clients reach it: cluster IPs (none of a headless Service), external IPs, load balancers' addresses.
    pub addresses: BTreeSet<IpAddr>,
    pub ports: Vec<ServicePort>,
    /// It publishes endpoints that aren't ready.
    pub publishes_not_ready: bool,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty where the Service's only port has no name.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    pub port: u16,
    /// The port on every node's addresses, of NodePort and LoadBalancer Services.
    pub node_port: Option<u16>,
}

/// A port of a Service, as a fault names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortRef {
    Name(String),
    /// One for each protocol may have the number.
    Number(u16),
}

impl ServicePort {
    /// `None` means every port.
    pub fn is(&self, wanted: Option<&PortRef>) -> bool {
        match wanted {
            None => true,
            Some(PortRef::Name(name)) => self.name == *name,
            Some(PortRef::Number(number)) => self.port == *number,
        }
    }
}

impl Service {
    /// The backends that clients are sent to: those that are ready, those that aren't and are published nevertheless, and
    /// those that end and still serve, on which connections stand and to which new ones go where nobody else is left.
    pub fn backends(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| {
            endpoint.ready || self.publishes_not_ready || endpoint.serving && endpoint.terminating
        })
    }

    /// It is reached through the nodes' addresses too.
    pub fn has_node_ports(&self) -> bool {
        self.ports.iter().any(|port| port.node_port.is_some())
    }
}

/// One backend of a Service: an endpoint of one of its EndpointSlices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    pub addresses: BTreeSet<IpAddr>,
    pub ports: Vec<EndpointPort>,
    /// `None` where it isn't a pod.
    pub pod: Option<ObjectName>,
    pub node: Option<String>,
    pub ready: bool,
    /// It answers, terminating or not.
    pub serving: bool,
    pub terminating: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// The name of the Service's port that leads here.
    pub name: String,
    /// IP protocol number.
    pub protocol: u8,
    /// `None`: every port.
    pub port: Option<u16>,
}

/// Where the cluster's API stands, as far as it matters to what a fault means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiServer {
    /// There is none: what this node knows is all that there is.
    #[default]
    Absent,
    /// What isn't known yet will be.
    Answers,
    Away,
}

/// Pods by uid. A copy takes no time, and shares with the original what neither changes.
pub type PodSet = RedBlackTreeMapSync<String, Arc<ClusterPod>>;

/// Services by name; copied as [`PodSet`] is.
pub type ServiceSet = RedBlackTreeMapSync<ObjectName, Arc<Service>>;

/// What the cluster's API says of the things that desired faults name; nothing else of the cluster is kept.
///
/// Its parts are shared with the copies that were made before something changed, so that neither a copy nor a look at what
/// has changed takes longer in a larger cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    pub server: ApiServer,
    /// Pods of other nodes, by the wanted selector that means them.
    pub pods: BTreeMap<PodSelector, Arc<PodSet>>,
    /// Those that are wanted by name, and those of wanted namespaces.
    pub services: ServiceSet,
    /// Addresses of the nodes that are wanted, by name.
    pub nodes: Arc<BTreeMap<String, BTreeSet<IpAddr>>>,
    /// What Services have their addresses of, as far as the API server tells it. No fault means anything else by them.
    pub service_ranges: Arc<BTreeSet<IpNet>>,
    /// What was read at least once: what of it isn't here doesn't exist.
    pub known: Arc<ClusterWanted>,
    /// That, and what the API server doesn't let anybody read: none of it comes by waiting.
    pub answered: Arc<ClusterWanted>,
}

impl Cluster {
    /// Pods of other nodes; one comes as often as there are wanted selectors that mean it.
    pub fn all_pods(&self) -> impl Iterator<Item = &ClusterPod> {
        let sets = self.pods.values();
        sets.flat_map(|pods| pods.values().map(Arc::as_ref))
    }

    /// Some of that hasn't been read yet, from an API server that there is.
    pub fn lacks(&self, wanted: &ClusterWanted) -> bool {
        self.server != ApiServer::Absent && !self.known.contains(wanted)
    }

    /// Some of that will be read soon, as far as can be told.
    pub fn will_tell(&self, wanted: &ClusterWanted) -> bool {
        self.server == ApiServer::Answers && !self.answered.contains(wanted)
    }

    /// The Services that are there, gone or different now.
    pub fn moved_services(&self, before: &Self) -> BTreeSet<ObjectName> {
        let stands = |set: &ServiceSet, name: &ObjectName, service: &Arc<Service>| {
            set.get(name).is_some_and(|other| Arc::ptr_eq(service, other))
        };
        let new = self.services.iter();
        let new = new.filter(|(name, service)| !stands(&before.services, name, service));
        let gone = before.services.keys();
        let gone = gone.filter(|name| !self.services.contains_key(*name));
        new.map(|(name, _)| name).chain(gone).cloned().collect()
    }

    /// No pod of another node is different.
    pub fn has_same_pods(&self, before: &Self) -> bool {
        let mut pairs = self.pods.iter().zip(&before.pods);
        self.pods.len() == before.pods.len()
            && pairs.all(|((one, pods), (other, others))| one == other && Arc::ptr_eq(pods, others))
    }

    /// Nothing of what is wanted is different; `moved` are the Services that are.
    pub fn is_same_for(&self, wanted: &ClusterWanted, before: &Self, moved: &BTreeSet<ObjectName>) -> bool {
        if wanted.is_empty() {
            return true;
        }
        let same_pods = |selector: &PodSelector| match (self.pods.get(selector), before.pods.get(selector)) {
            (Some(pods), Some(others)) => Arc::ptr_eq(pods, others),
            (None, None) => true,
            _ => false,
        };
        let is_named = |name: &ObjectName| {
            wanted.services.contains(name) || wanted.service_namespaces.contains(&name.namespace)
        };
        // Some of the Services may have ports on every node.
        let has_services = !(wanted.services.is_empty() && wanted.service_namespaces.is_empty());
        let same_nodes = Arc::ptr_eq(&self.nodes, &before.nodes)
            || !has_services
                && (wanted.nodes.iter()).all(|name| self.nodes.get(name) == before.nodes.get(name));
        self.server == before.server
            && self.known.contains(wanted) == before.known.contains(wanted)
            && self.answered.contains(wanted) == before.answered.contains(wanted)
            && wanted.pods.iter().all(same_pods)
            && !moved.iter().any(is_named)
            && same_nodes
    }
}

/// What of the cluster desired faults name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterWanted {
    /// Pods of any node; of several faults in order and each once.
    pub pods: Vec<PodSelector>,
    pub services: BTreeSet<ObjectName>,
    /// All Services of these namespaces: pods that are peers are reached through some of them.
    pub service_namespaces: BTreeSet<String>,
    pub nodes: BTreeSet<String>,
    /// Addresses of all nodes: a Service with node ports is meant.
    pub all_nodes: bool,
}

impl ClusterWanted {
    /// What says which pods of this node a target means, and which of those may have faults, where that depends on the
    /// `whole_workloads` that they belong to.
    pub fn of_target(target: &TargetSelector, whole_workloads: bool) -> Self {
        let mut wanted = Self::default();
        if whole_workloads && let Some(namespace) = target.namespace() {
            wanted.pods.push(PodSelector::all_of(namespace));
        }
        match target {
            // The other nodes' pods are ranked as well.
            TargetSelector::Pods {
                selector,
                pick: Some(_),
            } => wanted.pods.push(selector.clone()),
            TargetSelector::Service { name, .. } => drop(wanted.services.insert(name.clone())),
            TargetSelector::Pods { pick: None, .. }
            | TargetSelector::Netns(_)
            | TargetSelector::Interface(_)
            | TargetSelector::Node(_) => {}
        }
        wanted.pods.sort_unstable();
        wanted.pods.dedup();
        wanted
    }

    /// What peers mean in the cluster.
    pub fn of_peers(peers: &[Peer]) -> Self {
        let mut wanted = Self::default();
        for peer in peers {
            match peer {
                Peer::Address(_) | Peer::Cidr { .. } | Peer::Host(_) => {}
                Peer::Pods(selector) => {
                    wanted.pods.push(selector.clone());
                    wanted.service_namespaces.insert(selector.namespace.clone());
                }
                Peer::Service { name, .. } => drop(wanted.services.insert(name.clone())),
                Peer::Node(name) => drop(wanted.nodes.insert(name.clone())),
            }
        }
        wanted.pods.sort_unstable();
        wanted.pods.dedup();
        wanted
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What all of them want.
    pub fn all<'a>(wanted: impl Iterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for wanted in wanted {
            all.take_in(wanted);
        }
        all.pods.sort_unstable();
        all.pods.dedup();
        all
    }

    /// Takes in what the other one wants; the order of pods is [`Self::all`]'s to make.
    fn take_in(&mut self, other: &Self) {
        let Self {
            pods,
            services,
            service_namespaces,
            nodes,
            all_nodes,
        } = other;
        self.pods.extend(pods.iter().cloned());
        self.services.extend(services.iter().cloned());
        self.service_namespaces.extend(service_namespaces.iter().cloned());
        self.nodes.extend(nodes.iter().cloned());
        self.all_nodes |= all_nodes;
    }

    pub fn contains(&self, other: &Self) -> bool {
        let Self {
            pods,
            services,
            service_namespaces,
            nodes,
            all_nodes,
        } = other;
        pods.iter()
            .all(|selector| self.pods.binary_search(selector).is_ok())
            && services
                .iter()
                .all(|name| self.services.contains(name) || self.service_namespaces.contains(&name.namespace))
            && service_namespaces.is_subset(&self.service_namespaces)
            && (self.all_nodes || !all_nodes && nodes.is_subset(&self.nodes))
    }
}
