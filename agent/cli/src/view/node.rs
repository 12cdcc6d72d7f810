//! The node and its targets.

use std::collections::BTreeMap;

use sabot_core::spec::Metadata;
use sabot_proto::sabot::v1;
use serde::Serialize;

use super::{Span, Time, metadata, span, time};
use crate::error::CliError;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeDoc {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) kernel_release: String,
    pub(crate) started_at: Option<Time>,
    pub(crate) uptime: Option<Span>,
    pub(crate) active_faults: u32,
    pub(crate) runtime: RuntimeDoc,
    pub(crate) limits: LimitsDoc,
    pub(crate) features: Vec<FeatureDoc>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RuntimeDoc {
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) version: String,
    /// It pushes changes; otherwise it is polled.
    pub(crate) events: bool,
    pub(crate) sources: Vec<SourceDoc>,
}

/// A way to see what the container runtime does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceDoc {
    pub(crate) name: String,
    pub(crate) in_use: bool,
    pub(crate) detail: String,
    pub(crate) blind_spots: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LimitsDoc {
    pub(crate) max_duration: Option<Span>,
    pub(crate) max_faults: u32,
    pub(crate) max_targets: u32,
    pub(crate) max_faults_per_target: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FeatureDoc {
    pub(crate) name: String,
    pub(crate) available: bool,
    pub(crate) detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) consequence: String,
}

impl TryFrom<v1::Node> for NodeDoc {
    type Error = CliError;

    fn try_from(node: v1::Node) -> Result<Self, CliError> {
        let limits = node.limits.unwrap_or_default();
        Ok(Self {
            name: node.name,
            version: node.version,
            kernel_release: node.kernel_release,
            started_at: time("node.startedAt", node.started_at)?,
            uptime: span("node.uptime", node.uptime)?,
            active_faults: node.active_faults,
            runtime: runtime(node.runtime.unwrap_or_default()),
            limits: LimitsDoc {
                max_duration: span("node.limits.maxDuration", limits.max_duration)?,
                max_faults: limits.max_faults,
                max_targets: limits.max_targets,
                max_faults_per_target: limits.max_faults_per_target,
            },
            features: node
                .features
                .into_iter()
                .map(|f| FeatureDoc {
                    name: f.name,
                    available: f.available,
                    detail: f.detail,
                    consequence: f.consequence,
                })
                .collect(),
        })
    }
}

fn runtime(runtime: v1::RuntimeStatus) -> RuntimeDoc {
    RuntimeDoc {
        state: match runtime.state() {
            v1::RuntimeState::Unspecified => "unknown",
            v1::RuntimeState::Absent => "absent",
            v1::RuntimeState::Connecting => "connecting",
            v1::RuntimeState::Ready => "ready",
            v1::RuntimeState::Down => "down",
        },
        message: runtime.message,
        name: runtime.name,
        version: runtime.version,
        events: runtime.events,
        sources: runtime
            .sources
            .into_iter()
            .map(|source| SourceDoc {
                name: source.name,
                in_use: source.in_use,
                detail: source.detail,
                blind_spots: source.blind_spots,
            })
            .collect(),
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct TargetsDoc {
    pub(crate) targets: Vec<TargetDoc>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct TargetDoc {
    #[serde(flatten)]
    pub(crate) kind: TargetKind,
    pub(crate) devices: Vec<DeviceDoc>,
    /// Why it can't be a target; absent where it can.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) refusal: String,
    /// The active faults that mean it.
    pub(crate) faults: Vec<Metadata>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum TargetKind {
    Pod(PodTargetDoc),
    /// The path.
    Netns(String),
    /// The device.
    Interface(String),
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodTargetDoc {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) sandbox: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) addresses: Vec<String>,
    pub(crate) host_network: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceDoc {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    /// The namespace's inode.
    pub(crate) netns: u64,
    pub(crate) mac_header: bool,
}

impl From<v1::TargetInfo> for TargetDoc {
    fn from(target: v1::TargetInfo) -> Self {
        use v1::target_info::Kind;
        let kind = match target.kind {
            Some(Kind::Pod(pod)) => TargetKind::Pod(PodTargetDoc {
                namespace: pod.namespace,
                name: pod.name,
                uid: pod.uid,
                sandbox: pod.sandbox,
                labels: pod.labels.into_iter().collect(),
                addresses: pod.addresses,
                host_network: pod.host_network,
            }),
            Some(Kind::Netns(path)) => TargetKind::Netns(path),
            Some(Kind::Interface(name)) => TargetKind::Interface(name),
            None => TargetKind::Unknown,
        };
        Self {
            kind,
            devices: target
                .devices
                .into_iter()
                .map(|d| DeviceDoc {
                    name: d.name,
                    ifindex: d.ifindex,
                    netns: d.netns,
                    mac_header: d.mac_header,
                })
                .collect(),
            refusal: target.refusal,
            faults: target.faults.into_iter().map(|f| metadata(Some(f))).collect(),
        }
    }
}
