//! TCP connections, and flows of UDP.

use sabot_proto::sabot::v1;
use serde::Serialize;

use super::event::PodDoc;
use super::{Span, Time, span, time};
use crate::error::CliError;

const TCP: &str = "TCP";

/// Something that happened to a connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TcpDoc {
    /// Absent: the node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<PodDoc>,
    pub(crate) change: &'static str,
    pub(crate) local: String,
    pub(crate) remote: String,
    pub(crate) local_port: u32,
    pub(crate) remote_port: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errno: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct FlowsDoc {
    pub(crate) time: Option<Time>,
    pub(crate) flows: Vec<FlowDoc>,
    /// What is not among them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) missing: Vec<String>,
}

/// An open connection of TCP, or a flow of UDP.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FlowDoc {
    /// Absent: the node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<PodDoc>,
    pub(crate) protocol: String,
    pub(crate) local: String,
    pub(crate) remote: String,
    pub(crate) local_port: u32,
    pub(crate) remote_port: u32,
    pub(crate) peer: String,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) packets_sent: u32,
    pub(crate) packets_received: u32,
    /// UDP has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retransmits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rtt: Option<Span>,
}

pub(super) fn tcp_doc(event: v1::TcpEvent) -> TcpDoc {
    TcpDoc {
        change: match event.change() {
            v1::TcpChange::Unspecified => "unknown",
            v1::TcpChange::ConnectFailed => "connect-failed",
            v1::TcpChange::Lost => "lost",
            v1::TcpChange::ResetSent => "reset-sent",
            v1::TcpChange::ResetReceived => "reset-received",
            v1::TcpChange::Rto => "rto",
        },
        pod: event.pod.map(PodDoc::from),
        local: event.local,
        remote: event.remote,
        local_port: event.local_port,
        remote_port: event.remote_port,
        errno: event.errno,
    }
}

impl TryFrom<v1::ListFlowsResponse> for FlowsDoc {
    type Error = CliError;

    fn try_from(answer: v1::ListFlowsResponse) -> Result<Self, CliError> {
        Ok(Self {
            time: time("time", answer.time)?,
            flows: answer.flows.into_iter().map(flow_doc).collect::<Result<_, _>>()?,
            missing: answer.missing,
        })
    }
}

fn flow_doc(flow: v1::Flow) -> Result<FlowDoc, CliError> {
    // Daemons that know no other protocol don't say it.
    let protocol = if flow.protocol.is_empty() {
        TCP.to_owned()
    } else {
        flow.protocol
    };
    Ok(FlowDoc {
        retransmits: (protocol == TCP).then_some(flow.retransmits),
        protocol,
        pod: flow.pod.map(PodDoc::from),
        local: flow.local,
        remote: flow.remote,
        local_port: flow.local_port,
        remote_port: flow.remote_port,
        peer: flow.peer,
        bytes_sent: flow.bytes_sent,
        bytes_received: flow.bytes_received,
        packets_sent: flow.packets_sent,
        packets_received: flow.packets_received,
        rtt: span("flow.rtt", flow.rtt)?,
    })
}
