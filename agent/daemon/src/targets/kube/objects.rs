//! What the API server sends, as far as it matters here. Everything else is skipped while it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use sabot_core::guard::ANNOTATIONS;
use sabot_core::model::{ClusterPod, Endpoint, EndpointPort, ObjectName, Service, ServicePort, Workload};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::scopes::SERVICE_NAME;

/// Of the pods of a Deployment, which version they are of.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// One page of a list.
#[derive(Debug, Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
pub(super) struct Page<K> {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    /// Go writes an empty list as `null` in some places.
    #[serde(default)]
    pub(super) items: Option<Vec<K>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Owner {
    kind: String,
    name: String,
    controller: Option<bool>,
}

impl Meta {
    pub(super) fn version(&self) -> &str {
        &self.resource_version
    }

    /// A Deployment has a ReplicaSet for each version of its pods, whose name is its own and the version's hash.
    fn workload(&self) -> Workload {
        let owners = self.owner_references.iter().flatten();
        let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) else {
            return Workload::Alone;
        };
        let hash = self
            .labels
            .as_ref()
            .and_then(|labels| labels.get(POD_TEMPLATE_HASH));
        let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
        match (owner.kind.as_str(), deployment) {
            ("ReplicaSet", Some(name)) => Workload::Of(format!("Deployment {name}")),
            (kind, _) => Workload::Of(format!("{kind} {}", owner.name)),
        }
    }
}

/// What is kept of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Pod(Arc<ClusterPod>),
    /// Without its endpoints.
    Service(Service),
    /// The endpoints of one EndpointSlice, and the Service's name.
    Endpoints(String, Vec<Endpoint>),
    Node(BTreeSet<IpAddr>),
    /// Ranges of one ServiceCIDR.
    ServiceRanges(BTreeSet<IpNet>),
}

/// A kind of object that is followed.
pub(super) trait Kind: Clone + DeserializeOwned + Send + 'static {
    fn meta(&self) -> &Meta;

    /// `None`: it is there, but counts as gone.
    fn into_item(self) -> Option<Item>;
}

/// One version of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: ObjectName,
    pub(super) version: Version,
    pub(super) item: Option<Item>,
}

impl Entry {
    pub(super) fn of(object: impl Kind) -> Self {
        let meta = object.meta();
        Self {
            key: ObjectName {
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
            },
            version: Version::of(&meta.resource_version),
            item: object.into_item(),
        }
    }

    pub(super) fn gone(object: &impl Kind) -> Self {
        let meta = object.meta();
        Self {
            key: ObjectName {
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
            },
            version: Version::of(&meta.resource_version),
            item: None,
        }
    }
}

/// A resource version. Those of Kubernetes' own API server are numbers that grow; of others nothing is known, and whatever
/// they send last is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version(Option<u64>);

impl Version {
    fn of(text: &str) -> Self {
        Self(text.parse().ok())
    }

    pub(super) fn is_newer_than(self, known: Self) -> bool {
        match (self.0, known.0) {
            (Some(new), Some(known)) => new > known,
            _ => true,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PodObject {
    metadata: Meta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

impl Kind for PodObject {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    /// The addresses of pods that have finished belong to others, or will.
    fn into_item(self) -> Option<Item> {
        let Self {
            metadata,
            spec,
            status,
        } = self;
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let all = status.pod_ips.unwrap_or_default();
        let workload = metadata.workload();
        Some(Item::Pod(Arc::new(ClusterPod {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            node: spec.node_name.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: ours(metadata.annotations.unwrap_or_default()),
            addresses: addresses(all.iter().map(|ip| &ip.ip).chain(&status.pod_ip)),
            host_network: spec.host_network.unwrap_or_default(),
            workload,
        })))
    }
}

/// The annotations that mean something to Sabot.
fn ours(mut annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    annotations.retain(|key, _| key.starts_with(ANNOTATIONS));
    annotations
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ServiceObject {
    metadata: Meta,
    #[serde(default)]
    spec: ServiceSpec,
    #[serde(default)]
    status: ServiceStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    ports: Option<Vec<Port>>,
    publish_not_ready_addresses: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
    node_port: Option<u16>,
}

impl Port {
    fn name(&self) -> String {
        self.name.clone().unwrap_or_default()
    }

    /// The protocol's number; `None`: one that this version of Kubernetes' API doesn't have.
    fn protocol(&self) -> Option<u8> {
        match self.protocol.as_deref() {
            None | Some("TCP") => Some(6),
            Some("UDP") => Some(17),
            Some("SCTP") => Some(132),
            Some(_) => None,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: Option<LoadBalancer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Ingress {
    ip: Option<String>,
}

impl Kind for ServiceObject {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    /// An ExternalName is a name of the DNS and nothing that packets are sent to.
    fn into_item(self) -> Option<Item> {
        let Self { spec, status, .. } = self;
        if spec.kind.as_deref() == Some("ExternalName") {
            return Some(Item::Service(Service::default()));
        }
        let balanced = status.load_balancer.and_then(|balancer| balancer.ingress);
        let balanced: Vec<String> = balanced.into_iter().flatten().filter_map(|i| i.ip).collect();
        // A headless Service's is `None`, in letters, and so no address.
        let own = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let all = own.chain(spec.external_ips.iter().flatten()).chain(&balanced);
        Some(Item::Service(Service {
            addresses: addresses(all),
            ports: spec
                .ports
                .iter()
                .flatten()
                .filter_map(|port| {
                    Some(ServicePort {
                        name: port.name(),
                        protocol: port.protocol()?,
                        port: port.port?,
                        node_port: port.node_port.filter(|&port| port != 0),
                    })
                })
                .collect(),
            publishes_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            endpoints: Vec::new(),
        }))
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct SliceObject {
    metadata: Meta,
    #[serde(default)]
    endpoints: Option<Vec<SliceEndpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SliceEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<Conditions>,
    node_name: Option<String>,
    target_ref: Option<TargetRef>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: String,
    namespace: String,
    name: String,
}

impl Kind for SliceObject {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn into_item(self) -> Option<Item> {
        let ports: Vec<EndpointPort> = self
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: port.name(),
                    protocol: port.protocol()?,
                    port: port.port,
                })
            })
            .collect();
        let endpoint = |endpoint: SliceEndpoint| {
            let conditions = endpoint.conditions.unwrap_or_default();
            // What isn't known of them is to be taken as ready.
            let ready = conditions.ready.unwrap_or(true);
            let pod = endpoint.target_ref.filter(|target| target.kind == "Pod");
            Endpoint {
                addresses: addresses(endpoint.addresses.iter().flatten()),
                ports: ports.clone(),
                pod: pod.map(|TargetRef { namespace, name, .. }| ObjectName { namespace, name }),
                node: endpoint.node_name,
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
            }
        };
        let mut labels = self.metadata.labels.unwrap_or_default();
        let service = labels.remove(SERVICE_NAME)?;
        let endpoints = self.endpoints.into_iter().flatten().map(endpoint);
        Some(Item::Endpoints(service, endpoints.collect()))
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct NodeObject {
    metadata: Meta,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    addresses: Option<Vec<NodeAddress>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAddress {
    address: String,
}

impl Kind for NodeObject {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    /// Its names are among its addresses; only those that are addresses count.
    fn into_item(self) -> Option<Item> {
        let all = self.status.addresses.unwrap_or_default();
        Some(Item::Node(addresses(all.iter().map(|a| &a.address))))
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ServiceCidrObject {
    metadata: Meta,
    #[serde(default)]
    spec: ServiceCidrSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceCidrSpec {
    cidrs: Option<Vec<String>>,
}

impl Kind for ServiceCidrObject {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    /// One that is being deleted is there as long as a Service has an address of it.
    fn into_item(self) -> Option<Item> {
        let all = self.spec.cidrs.unwrap_or_default();
        let nets = all.iter().filter_map(|text| text.parse().ok());
        Some(Item::ServiceRanges(nets.map(|net: IpNet| net.trunc()).collect()))
    }
}

/// What isn't an address is none.
fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> BTreeSet<IpAddr> {
    texts.filter_map(|text| text.parse().ok()).collect()
}
