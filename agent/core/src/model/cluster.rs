//! What the cluster's API says, beyond what this node's container runtime knows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::PodSelector;

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

/// A pod of any node, as the API server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Empty until it is scheduled.
    pub node: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub addresses: BTreeSet<IpAddr>,
    pub host_network: bool,
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
    /// A Service that is wanted and isn't here doesn't exist.
    pub services: BTreeMap<ObjectName, Service>,
    /// Addresses of the nodes that are wanted, by name.
    pub nodes: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// What of the cluster desired faults name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterWanted {
    /// Pods of any node.
    pub pods: Vec<PodSelector>,
    pub services: BTreeSet<ObjectName>,
    pub nodes: BTreeSet<String>,
    /// Addresses of all nodes: a Service with node ports is named.
    pub all_nodes: bool,
}
