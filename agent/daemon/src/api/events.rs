//! Events as the API says them, and which of them a reader wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sabot_core::model::FaultName;
use sabot_proto::convert::{duration_from_proto, duration_to_proto, timestamp_to_proto};
use sabot_proto::sabot::v1;
use tonic::Status;

use super::status::{invalid_field, invalid_fields};
use super::tcp::{owner_ref, tcp_event};
use super::traffic::{direction, dns_event, drop_event};
use crate::observe::event::{
    ContainerEvent, CriEvent, Event, EventHub, EventKind, FaultEvent, PacketEvent, Subscription, SyscallEvent,
};
use crate::observe::identity::Identity;
use crate::observe::identity::containers::Container;

/// The stream's name where events get lost on their way to a slow reader.
pub(super) const WATCH_STREAM: &str = "watch";

/// As many characters of a container's id are enough, as in the runtimes' own clients.
const SHORT_ID: usize = 12;

/// Events that slow readers of WatchEvents lost since the daemon's start. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct WatchLoss(Arc<AtomicU64>);

impl WatchLoss {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// Every part that is given must hold.
#[derive(Debug, Default)]
pub(super) struct EventFilter {
    /// Empty: all.
    types: Vec<v1::EventType>,
    fault: Option<FaultName>,
    pod: Option<v1::PodRef>,
    process: Option<String>,
    outcome: Option<v1::PacketOutcome>,
    failed_only: bool,
    min_duration: Option<Duration>,
    container: Option<String>,
}

impl TryFrom<v1::WatchEventsRequest> for EventFilter {
    type Error = Status;

    fn try_from(request: v1::WatchEventsRequest) -> Result<Self, Status> {
        let types = request
            .types
            .into_iter()
            .map(|number| match v1::EventType::try_from(number) {
                Ok(v1::EventType::Unspecified) | Err(_) => Err(invalid_field(
                    "types",
                    format!(
                        "{number} is not a type of events; allowed are PACKET, SYSCALL, FAULT, CRI, TCP, DNS, DROP and CONTAINER"
                    ),
                )),
                Ok(kind) => Ok(kind),
            })
            .collect::<Result<_, _>>()?;
        let outcome = match v1::PacketOutcome::try_from(request.outcome) {
            Ok(v1::PacketOutcome::Unspecified) => None,
            Ok(outcome) => Some(outcome),
            Err(_) => {
                return Err(invalid_field(
                    "outcome",
                    format!("{} is not a packet's outcome", request.outcome),
                ));
            }
        };
        let min_duration = request
            .min_duration
            .map(|d| duration_from_proto("minDuration", d))
            .transpose()
            .map_err(|e| invalid_fields(vec![e]))?;
        Ok(Self {
            types,
            fault: request.fault.map(|f| FaultName {
                namespace: f.namespace,
                name: f.name,
            }),
            pod: request.pod,
            process: request.process,
            outcome,
            failed_only: request.failed_only,
            min_duration,
            container: request.container,
        })
    }
}

impl EventFilter {
    /// Events of syscalls cost something while somebody reads all of them, and only they do: who filters them out gets the others
    /// without.
    pub(super) fn subscribe(&self, hub: &EventHub) -> Subscription {
        let takes_syscalls =
            self.wants(v1::EventType::Syscall) && self.fault.is_none() && !self.asks_for_packets();
        if takes_syscalls {
            hub.subscribe()
        } else {
            hub.overhear()
        }
    }

    pub(super) fn passes(&self, event: &Event) -> bool {
        let container = event.container.as_deref();
        let is_wanted = matches!(event.kind, EventKind::Lost { .. }) || self.takes_container(container);
        is_wanted && self.passes_kind(&event.kind, container)
    }

    fn passes_kind(&self, kind: &EventKind, container: Option<&Container>) -> bool {
        match kind {
            EventKind::Packet(packet) => {
                self.wants(v1::EventType::Packet)
                    && !self.asks_for_syscalls()
                    && self.fault.as_ref().is_none_or(|f| *f == packet.fault)
                    && self
                        .pod
                        .as_ref()
                        .is_none_or(|p| p.namespace == packet.pod_namespace && p.name == packet.pod_name)
                    && self.outcome.is_none_or(|o| o == outcome(packet.outcome))
            }
            EventKind::Syscall(syscall) => {
                self.wants(v1::EventType::Syscall)
                    && self.fault.is_none()
                    && !self.asks_for_packets()
                    && container.map_or(self.pod.is_none(), |c| {
                        self.takes_pod(&c.pod_namespace, &c.pod_name)
                    })
                    && self.process.as_ref().is_none_or(|p| *p == syscall.process)
                    && (!self.failed_only || syscall.errno.is_some())
                    && self.min_duration.is_none_or(|d| d <= syscall.duration)
            }
            EventKind::Fault(change) => {
                self.wants(v1::EventType::Fault)
                    && !self.asks_for_packets()
                    && self.pod.as_ref().is_none_or(|p| {
                        let target = change.target.as_deref();
                        target.is_some_and(|target| owner_ref(target).as_ref() == Some(p))
                    })
                    && !self.asks_for_syscalls()
                    && self.fault.as_ref().is_none_or(|f| *f == change.fault)
            }
            EventKind::Cri(call) => {
                self.wants(v1::EventType::Cri)
                    && self.fault.is_none()
                    && self.outcome.is_none()
                    && self.takes_pod(&call.pod_namespace, &call.pod_name)
                    && self.process.as_ref().is_none_or(|p| *p == call.process)
                    && (!self.failed_only || call.outcome != "OK")
                    && self
                        .min_duration
                        .is_none_or(|d| call.duration.is_some_and(|took| d <= took))
            }
            EventKind::Container(told) => {
                self.wants(v1::EventType::Container)
                    && self.fault.is_none()
                    && self.outcome.is_none()
                    && !self.asks_for_syscalls()
                    && self.takes_pod(&told.pod_namespace, &told.pod_name)
            }
            EventKind::Tcp(tcp) => self.passes_owned(v1::EventType::Tcp, &tcp.owner),
            EventKind::Drop(drop) => self.passes_owned(v1::EventType::Drop, &drop.owner),
            EventKind::Dns(query) => self.passes_owned(v1::EventType::Dns, &query.owner),
            EventKind::Lost { .. } => true,
        }
    }

    /// What has an owner, and nothing else that can be filtered on.
    fn passes_owned(&self, kind: v1::EventType, owner: &Identity) -> bool {
        self.wants(kind)
            && self.fault.is_none()
            && self.outcome.is_none()
            && !self.asks_for_syscalls()
            && self
                .pod
                .as_ref()
                .is_none_or(|p| owner_ref(owner).as_ref() == Some(p))
    }

    fn takes_container(&self, container: Option<&Container>) -> bool {
        let Some(wanted) = &self.container else {
            return true;
        };
        let has_id = |id: &str| wanted.len() >= SHORT_ID && id.starts_with(wanted.as_str());
        container.is_some_and(|c| c.name == *wanted || has_id(&c.id))
    }

    fn takes_pod(&self, namespace: &str, name: &str) -> bool {
        let pod = self.pod.as_ref();
        pod.is_none_or(|p| p.namespace == namespace && p.name == name)
    }

    fn wants(&self, kind: v1::EventType) -> bool {
        self.types.is_empty() || self.types.contains(&kind)
    }

    /// A property that only syscalls and calls of the runtime have is filtered on.
    fn asks_for_syscalls(&self) -> bool {
        self.process.is_some() || self.failed_only || self.min_duration.is_some()
    }

    /// A property that neither syscalls nor changes of faults have is filtered on.
    fn asks_for_packets(&self) -> bool {
        self.outcome.is_some()
    }
}

pub(super) fn event(event: &Event, node: &str) -> v1::Event {
    use v1::event::Kind;
    let kind = match &event.kind {
        EventKind::Packet(packet) => Kind::Packet(packet_event(packet)),
        EventKind::Syscall(syscall) => Kind::Syscall(syscall_event(syscall)),
        EventKind::Fault(change) => Kind::Fault(fault_event(change)),
        EventKind::Cri(call) => Kind::Cri(cri_event(call)),
        EventKind::Container(told) => Kind::Container(container_event(told)),
        EventKind::Drop(drop) => Kind::Drop(drop_event(drop)),
        EventKind::Dns(query) => Kind::Dns(dns_event(query)),
        EventKind::Tcp(tcp) => Kind::Tcp(tcp_event(tcp)),
        EventKind::Lost { stream, count } => Kind::Lost(v1::Lost {
            stream: (*stream).to_owned(),
            count: *count,
        }),
    };
    v1::Event {
        time: Some(timestamp_to_proto(event.time)),
        kind: Some(kind),
        container_ref: event.container.as_deref().map(container_ref),
        node: node.to_owned(),
    }
}

fn packet_event(packet: &PacketEvent) -> v1::PacketEvent {
    let pod = pod_ref(&packet.pod_namespace, &packet.pod_name);
    v1::PacketEvent {
        fault: Some(fault_ref(&packet.fault)),
        pod,
        device: packet.device.clone(),
        direction: direction(packet.egress).into(),
        outcome: outcome(packet.outcome).into(),
        source: packet.source.to_string(),
        destination: packet.destination.to_string(),
        source_port: packet.source_port.into(),
        destination_port: packet.destination_port.into(),
        protocol: packet.protocol.into(),
        wire_packets: packet.wire_packets,
        wire_bytes: packet.wire_bytes,
    }
}

fn syscall_event(syscall: &SyscallEvent) -> v1::SyscallEvent {
    v1::SyscallEvent {
        process: syscall.process.clone(),
        pid: syscall.pid,
        tid: syscall.tid,
        syscall: syscall.syscall.to_owned(),
        duration: Some(duration_to_proto(syscall.duration)),
        result: syscall.result,
        errno: syscall.errno.map(str::to_owned),
        comm: syscall.comm.clone(),
        detail: syscall
            .detail
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
    }
}

fn fault_event(change: &FaultEvent) -> v1::FaultEvent {
    v1::FaultEvent {
        fault: Some(fault_ref(&change.fault)),
        change: change.change.to_owned(),
        message: change.message.clone(),
        target: change.target.as_deref().map(|target| v1::PodRef {
            namespace: target.namespace().to_owned(),
            name: target.label(),
        }),
    }
}

fn cri_event(call: &CriEvent) -> v1::CriEvent {
    v1::CriEvent {
        operation: call.operation.to_owned(),
        pod: pod_ref(&call.pod_namespace, &call.pod_name),
        sandbox: call.sandbox.clone(),
        container: call.container.clone(),
        image: call.image.clone(),
        process: call.process.clone(),
        pid: call.pid,
        duration: call.duration.map(duration_to_proto),
        outcome: call.outcome.to_owned(),
        message: call.message.clone(),
    }
}

fn container_event(told: &ContainerEvent) -> v1::ContainerEvent {
    v1::ContainerEvent {
        change: told.change.to_owned(),
        pod: pod_ref(&told.pod_namespace, &told.pod_name),
        sandbox: told.sandbox.clone(),
        container: told.container.clone(),
    }
}

fn container_ref(container: &Container) -> v1::ContainerRef {
    v1::ContainerRef {
        name: container.name.clone(),
        id: container.id.clone(),
        pod: pod_ref(&container.pod_namespace, &container.pod_name),
    }
}

/// `None` where no pod is known.
fn pod_ref(namespace: &str, name: &str) -> Option<v1::PodRef> {
    (!name.is_empty()).then(|| v1::PodRef {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn fault_ref(name: &FaultName) -> v1::Metadata {
    v1::Metadata {
        name: name.name.clone(),
        namespace: name.namespace.clone(),
    }
}

fn outcome(name: &str) -> v1::PacketOutcome {
    match name {
        "passed" => v1::PacketOutcome::Passed,
        "dropped" => v1::PacketOutcome::Dropped,
        "bypassed" => v1::PacketOutcome::Bypassed,
        "delayed" => v1::PacketOutcome::Delayed,
        "corrupted" => v1::PacketOutcome::Corrupted,
        "duplicated" => v1::PacketOutcome::Duplicated,
        "rejected" => v1::PacketOutcome::Rejected,
        _ => v1::PacketOutcome::Unspecified,
    }
}
