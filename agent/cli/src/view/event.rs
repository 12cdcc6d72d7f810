//! Events, one document each.

use std::collections::BTreeMap;

use sabot_core::spec::Metadata;
use sabot_proto::sabot::v1;
use serde::Serialize;

use super::tcp::{TcpDoc, tcp_doc};
use super::{Span, Time, metadata, span, time};
use crate::error::CliError;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EventDoc {
    pub(crate) time: Option<Time>,
    #[serde(flatten)]
    pub(crate) kind: EventKindDoc,
    #[serde(rename = "containerRef", skip_serializing_if = "Option::is_none")]
    pub(crate) container_ref: Option<ContainerRefDoc>,
    /// Left out where it is said elsewhere.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) node: String,
}

/// In which it happened, or that it is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ContainerRefDoc {
    /// Left out for a sandbox itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    pub(crate) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<PodDoc>,
}

/// Told apart by `type`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum EventKindDoc {
    Packet(PacketDoc),
    Syscall(SyscallDoc),
    Tcp(TcpDoc),
    Fault {
        fault: Metadata,
        change: String,
        message: String,
        /// Left out for the fault as a whole.
        #[serde(skip_serializing_if = "Option::is_none")]
        target: Option<PodDoc>,
    },
    Cri(CriDoc),
    Container(ContainerDoc),
    Dns(DnsDoc),
    Drop(DropDoc),
    Lost {
        stream: String,
        count: u64,
    },
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PacketDoc {
    pub(crate) fault: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<PodDoc>,
    pub(crate) device: String,
    pub(crate) direction: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) source_port: u32,
    pub(crate) destination_port: u32,
    /// The IP protocol number.
    pub(crate) protocol: u32,
    pub(crate) wire_packets: u32,
    pub(crate) wire_bytes: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PodDoc {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SyscallDoc {
    pub(crate) process: String,
    pub(crate) comm: String,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) syscall: String,
    pub(crate) duration: Option<Span>,
    pub(crate) result: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errno: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) detail: BTreeMap<String, String>,
}

/// What isn't known is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct CriDoc {
    pub(crate) operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<PodDoc>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) container: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) process: String,
    pub(crate) pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration: Option<Span>,
    pub(crate) outcome: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message: String,
}

/// What isn't known is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ContainerDoc {
    pub(crate) change: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<PodDoc>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
    /// Left out for the sandbox itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) container: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DropDoc {
    /// Absent for the node itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<PodDoc>,
    pub(crate) direction: &'static str,
    pub(crate) reason: String,
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) source_port: u32,
    pub(crate) destination_port: u32,
    /// The IP protocol number.
    pub(crate) protocol: u32,
    pub(crate) wire_packets: u32,
    pub(crate) wire_bytes: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DnsDoc {
    /// Absent for the node itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<PodDoc>,
    pub(crate) outcome: &'static str,
    pub(crate) name: String,
    pub(crate) query_type: String,
    pub(crate) server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rcode: Option<String>,
    pub(crate) latency: Option<Span>,
}

impl From<v1::PodRef> for PodDoc {
    fn from(pod: v1::PodRef) -> Self {
        Self {
            namespace: pod.namespace,
            name: pod.name,
        }
    }
}

impl TryFrom<v1::Event> for EventDoc {
    type Error = CliError;

    fn try_from(event: v1::Event) -> Result<Self, CliError> {
        use v1::event::Kind;
        let kind = match event.kind {
            Some(Kind::Packet(packet)) => EventKindDoc::Packet(packet_doc(packet)),
            Some(Kind::Syscall(syscall)) => EventKindDoc::Syscall(SyscallDoc {
                duration: span("syscall.duration", syscall.duration)?,
                process: syscall.process,
                pid: syscall.pid,
                tid: syscall.tid,
                syscall: syscall.syscall,
                result: syscall.result,
                errno: syscall.errno,
                comm: syscall.comm,
                detail: syscall.detail.into_iter().collect(),
            }),
            Some(Kind::Fault(change)) => EventKindDoc::Fault {
                fault: metadata(change.fault),
                change: change.change,
                message: change.message,
                target: change.target.map(PodDoc::from),
            },
            Some(Kind::Cri(call)) => EventKindDoc::Cri(CriDoc {
                duration: span("cri.duration", call.duration)?,
                operation: call.operation,
                pod: call.pod.map(PodDoc::from),
                sandbox: call.sandbox,
                container: call.container,
                image: call.image,
                process: call.process,
                pid: call.pid,
                outcome: call.outcome,
                message: call.message,
            }),
            Some(Kind::Container(told)) => EventKindDoc::Container(ContainerDoc {
                change: told.change,
                pod: told.pod.map(PodDoc::from),
                sandbox: told.sandbox,
                container: told.container,
            }),
            Some(Kind::Drop(drop)) => EventKindDoc::Drop(drop_doc(drop)),
            Some(Kind::Dns(query)) => EventKindDoc::Dns(dns_doc(query)?),
            Some(Kind::Tcp(tcp)) => EventKindDoc::Tcp(tcp_doc(tcp)),
            Some(Kind::Lost(lost)) => EventKindDoc::Lost {
                stream: lost.stream,
                count: lost.count,
            },
            None => EventKindDoc::Unknown,
        };
        Ok(Self {
            time: time("event.time", event.time)?,
            kind,
            container_ref: event.container_ref.map(|container| ContainerRefDoc {
                name: container.name,
                id: container.id,
                pod: container.pod.map(PodDoc::from),
            }),
            node: event.node,
        })
    }
}

fn packet_doc(packet: v1::PacketEvent) -> PacketDoc {
    PacketDoc {
        direction: direction(packet.direction()),
        outcome: outcome(packet.outcome()),
        fault: metadata(packet.fault),
        pod: packet.pod.map(PodDoc::from),
        device: packet.device,
        source: packet.source,
        destination: packet.destination,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: packet.protocol,
        wire_packets: packet.wire_packets,
        wire_bytes: packet.wire_bytes,
    }
}

fn drop_doc(drop: v1::DropEvent) -> DropDoc {
    DropDoc {
        direction: direction(drop.direction()),
        pod: drop.pod.map(PodDoc::from),
        reason: drop.reason,
        source: drop.source,
        destination: drop.destination,
        source_port: drop.source_port,
        destination_port: drop.destination_port,
        protocol: drop.protocol,
        wire_packets: drop.wire_packets,
        wire_bytes: drop.wire_bytes,
    }
}

fn dns_doc(query: v1::DnsEvent) -> Result<DnsDoc, CliError> {
    Ok(DnsDoc {
        outcome: match query.outcome() {
            v1::DnsOutcome::Unspecified => "unknown",
            v1::DnsOutcome::Unanswered => "unanswered",
            v1::DnsOutcome::Slow => "slow",
            v1::DnsOutcome::Failed => "failed",
        },
        pod: query.pod.map(PodDoc::from),
        name: query.name,
        query_type: query.r#type,
        server: query.server,
        rcode: query.rcode,
        latency: span("dns.latency", query.latency)?,
    })
}

pub(super) fn direction(direction: v1::Direction) -> &'static str {
    match direction {
        v1::Direction::Unspecified => "unknown",
        v1::Direction::Egress => "egress",
        v1::Direction::Ingress => "ingress",
        v1::Direction::Both => "both",
    }
}

fn outcome(outcome: v1::PacketOutcome) -> &'static str {
    match outcome {
        v1::PacketOutcome::Unspecified => "unknown",
        v1::PacketOutcome::Passed => "passed",
        v1::PacketOutcome::Dropped => "dropped",
        v1::PacketOutcome::Bypassed => "bypassed",
        v1::PacketOutcome::Delayed => "delayed",
        v1::PacketOutcome::Corrupted => "corrupted",
        v1::PacketOutcome::Duplicated => "duplicated",
        v1::PacketOutcome::Rejected => "rejected",
    }
}
