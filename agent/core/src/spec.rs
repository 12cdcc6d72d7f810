//! The fault as a user writes it, before validation. The same shape serves YAML, the custom resources and gRPC.

mod actions;
mod schema;
mod text;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::actions::*;
use self::schema::{DurationText, Time};
pub(crate) use self::text::rfc3339;
use self::text::{duration_option, duration_text, timestamp_option};

pub const API_VERSION: &str = "sabot.dev/v1alpha1";
pub const KIND: &str = "NetworkFault";
/// One that is in no namespace.
pub const CLUSTER_KIND: &str = "ClusterNetworkFault";

/// One YAML document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with apiVersion, kind, metadata and spec"
)]
pub struct Manifest {
    pub api_version: String,
    pub kind: String,
    pub metadata: Metadata,
    pub spec: FaultSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {name: slow, namespace: shop}"
)]
pub struct Metadata {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with duration, target and action"
)]
pub struct FaultSpec {
    // Required; optional here so that its absence is reported like every other violation.
    /// How long the fault lasts, as `90s`, `5m` or `1h30m`.
    #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DurationText")]
    pub duration: Option<Duration>,
    /// When it begins, RFC 3339; absent: at once.
    #[serde(default, with = "timestamp_option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    pub starts_at: Option<SystemTime>,
    /// Whose traffic is affected; exactly one field is given.
    pub target: Target,
    /// The other ends; none: every other end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub peers: Vec<Peer>,
    /// `egress`: packets that leave the target; `ingress`: packets that arrive at it; absent: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "both"))]
    pub direction: Option<Direction>,
    /// A packet is meant when one of these names it; none: all traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub ports: Vec<Port>,
    /// Which packets are meant by what stands in their IP header; every field that is given must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<Packets>,
    /// Traffic with the node itself, as the kubelet's probes, is left alone; absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = true))]
    pub spare_node: Option<bool>,
    /// On devices of the node: hit the node's SSH, kubelet, API server and Sabot's own connections too; absent: they are
    /// kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub allow_control_plane: Option<bool>,
    /// Report one in this many decided packets as an event; absent: the daemon's default; 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_every: Option<u32>,
    /// What every random choice follows from; absent: the daemon draws one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Periods in which the fault is in force, from its start on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulse: Option<Pulse>,
    /// The action's value moves linearly over a time and then stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// What happens to the traffic; exactly one field is given.
    pub action: Action,
}

/// Exactly one field is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {netns: /run/netns/lab}"
)]
pub struct Target {
    /// Pods, by name or by labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<TargetPods>,
    /// The absolute path of a network namespace, as `/run/netns/web`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), regex(pattern = "^/"))]
    pub netns: Option<String>,
    /// A device of the node's own network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// The pods of this node that are backends of a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<TargetService>,
    /// A node, by its name in the cluster: its devices with a default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {name: web-0}"
)]
pub struct TargetPods {
    /// Absent: the fault's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// One pod; excludes `selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Pods by their labels; an empty one means every pod of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// A seeded choice among the pods that match; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pick: Option<Pick>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {name: payments}"
)]
pub struct TargetService {
    /// Absent: the fault's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// The Service's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// A seeded choice among the backends; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pick: Option<Pick>,
}

/// Kubernetes' LabelSelector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {matchLabels: {app: web}}"
)]
pub struct LabelSelector {
    /// Each label must have this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "schema::Labels")]
    pub match_labels: BTreeMap<String, String>,
    /// Each requirement must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub match_expressions: Vec<LabelExpression>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {key: app, operator: Exists}"
)]
pub struct LabelExpression {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,
    /// One or more with `In` and `NotIn`, none with the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// Exactly one of `count` and `percent`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {percent: 50, seed: 7}"
)]
pub struct Pick {
    /// So many pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub count: Option<u32>,
    /// A share of the matching pods, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
    /// The same seed chooses the same pods, on every node.
    #[serde(default)]
    pub seed: u64,
}

/// Exactly one of `ip`, `cidr`, `pods`, `host`, `service` and `node`; `except` goes with `cidr`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {ip: 10.0.0.1}"
)]
pub struct Peer {
    /// One IPv4 or IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 45))]
    pub ip: Option<String>,
    /// A network as address/prefix length, as `10.20.0.0/16`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 4, max = 49))]
    pub cidr: Option<String>,
    /// Networks inside `cidr` that aren't meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 4, max = 49)))]
    pub except: Vec<String>,
    /// Pods of any node, by name or by labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PeerPods>,
    /// A DNS name, whose addresses are learnt from the target's own lookups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 254))]
    pub host: Option<String>,
    /// A Service: its own addresses and its backends', at its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// A node of the cluster, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {name: payments, port: 8443}"
)]
pub struct ServiceRef {
    /// Absent: the fault's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// The Service's name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// One of its ports, by number or name; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortRef>,
}

/// A port of a Service, by its number or its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a port's number, as 8443, or its name, as https")]
pub enum PortRef {
    Number(u32),
    Name(String),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {namespace: shop, name: web-0}"
)]
pub struct PeerPods {
    /// Absent: the fault's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// One pod; excludes `selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Pods by their labels; an empty one means every pod of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Egress,
    Ingress,
    #[default]
    Both,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {protocol: TCP, port: 8443}"
)]
pub struct Port {
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6`; absent: TCP, as in Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"], "default" = "TCP"))]
    pub protocol: Option<String>,
    /// Absent: every port of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u32>,
    /// The last port of a range that begins with `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub end_port: Option<u32>,
    /// `source` or `destination`; absent: either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["source", "destination"]))]
    pub end: Option<String>,
    /// Of ICMP and ICMPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 255))]
    pub icmp_type: Option<u32>,
    /// Goes with `icmp_type`; absent: every code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 255))]
    pub icmp_code: Option<u32>,
}

/// Which packets are meant by what stands in their IP header; every field that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {dscp: [46]}"
)]
pub struct Packets {
    /// Code points, 0 to 63; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(max = 63)))]
    pub dscp: Vec<u32>,
    /// Bytes of the IP packet, of each wire packet, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 65_575))]
    pub min_length: Option<u32>,
    /// Bytes of the IP packet, of each wire packet, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 65_575))]
    pub max_length: Option<u32>,
}

/// From its start on the fault is in force for `onTime`, then not for `offTime`, and so on. `on` and `off` alone
/// would be truth values to many readers of YAML, kubectl among them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {onTime: 10s, offTime: 5s}"
)]
pub struct Pulse {
    /// In force for this long.
    #[serde(with = "duration_text")]
    #[schemars(with = "DurationText")]
    pub on_time: Duration,
    /// Then not for this long.
    #[serde(with = "duration_text")]
    #[schemars(with = "DurationText")]
    pub off_time: Duration,
}

/// The action's value moves linearly over a time and then stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping such as {over: 60s}"
)]
pub struct Ramp {
    /// How long the value moves.
    #[serde(with = "duration_text")]
    #[schemars(with = "DurationText")]
    pub over: Duration,
    /// Percent of the action's value at the start; absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("default" = 0))]
    pub from: Option<f64>,
    /// Percent of the action's value at the end; absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("default" = 100))]
    pub to: Option<f64>,
}
