//! What the cluster's API says, beyond what this node's container runtime knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::{Pod, PodSelector};

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

/// What the cluster's API says of the things that desired faults name; nothing else of the cluster is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Pods of other nodes that wanted selectors match, by uid.
    pub pods: BTreeMap<String, ClusterPod>,
    /// Those that are wanted by name, and those of wanted namespaces. One that is wanted and isn't here doesn't exist.
    pub services: BTreeMap<ObjectName, Service>,
    /// Addresses of the nodes that are wanted, by name.
    pub nodes: BTreeMap<String, BTreeSet<IpAddr>>,
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
            && services.is_subset(&self.services)
            && service_namespaces.is_subset(&self.service_namespaces)
            && nodes.is_subset(&self.nodes)
            && (self.all_nodes || !all_nodes)
    }
}
