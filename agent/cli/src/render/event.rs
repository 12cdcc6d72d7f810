//! Events, a line each.

use super::tcp::{self, owner};
use super::{bytes, cri, or_dash, syscall, time};
use crate::text;
use crate::view::{ContainerRefDoc, DnsDoc, DropDoc, EventDoc, EventKindDoc, PacketDoc, full_name};

pub(crate) fn event_line(event: &EventDoc) -> String {
    let text = match &event.kind {
        EventKindDoc::Packet(packet) => packet_line(packet),
        EventKindDoc::Syscall(call) => syscall::line(call),
        EventKindDoc::Cri(call) => cri::line(call),
        EventKindDoc::Container(told) => cri::container_line(told),
        EventKindDoc::Fault {
            fault,
            change,
            message,
            target,
        } => {
            let target = target
                .as_ref()
                .map(|target| format!(" at {}", owner(Some(target))));
            let message = if message.is_empty() {
                String::new()
            } else {
                format!(": {message}")
            };
            let target = target.unwrap_or_default();
            format!("fault {} {change}{target}{message}", full_name(fault))
        }
        EventKindDoc::Tcp(event) => tcp::event_line(event),
        EventKindDoc::Drop(drop) => drop_line(drop),
        EventKindDoc::Dns(query) => dns_line(query),
        EventKindDoc::Lost { stream, count } => format!("lost {count} events of {stream}"),
        EventKindDoc::Unknown => "an event of a kind that this client doesn't know".to_owned(),
    };
    let container = event.container_ref.as_ref().map(container).unwrap_or_default();
    format!("{} {text}{container}", or_dash(time(event.time)))
}

/// `, container team-a/web/main`, or `, sandbox team-a/web`.
fn container(container: &ContainerRefDoc) -> String {
    let pod = container.pod.as_ref();
    let pod = pod.map(|pod| format!("{}/{}", pod.namespace, pod.name));
    let (what, name) = if container.name.is_empty() {
        ("sandbox", None)
    } else {
        ("container", Some(container.name.clone()))
    };
    let parts: Vec<_> = pod.into_iter().chain(name).collect();
    format!(", {what} {}", parts.join("/"))
}

fn packet_line(packet: &PacketDoc) -> String {
    let pod = packet.pod.as_ref();
    let place = pod.map_or_else(
        || packet.device.clone(),
        |pod| format!("{}/{} {}", pod.namespace, pod.name, packet.device),
    );
    let several = if packet.wire_packets > 1 {
        format!("{} packets, ", packet.wire_packets)
    } else {
        String::new()
    };
    format!(
        "packet {} by {} at {place} {} {} {} -> {} ({several}{})",
        packet.outcome,
        full_name(&packet.fault),
        packet.direction,
        text::protocol(packet.protocol),
        text::endpoint(&packet.source, packet.source_port),
        text::endpoint(&packet.destination, packet.destination_port),
        bytes(packet.wire_bytes.into()),
    )
}

fn drop_line(drop: &DropDoc) -> String {
    let several = if drop.wire_packets > 1 {
        format!("{} packets, ", drop.wire_packets)
    } else {
        String::new()
    };
    format!(
        "drop {} at {} {} {} {} -> {} ({several}{})",
        drop.reason,
        owner(drop.pod.as_ref()),
        drop.direction,
        text::protocol(drop.protocol),
        text::endpoint(&drop.source, drop.source_port),
        text::endpoint(&drop.destination, drop.destination_port),
        bytes(drop.wire_bytes.into()),
    )
}

fn dns_line(query: &DnsDoc) -> String {
    let rcode = query.rcode.as_ref().map(|rcode| format!(" {rcode}"));
    let after = query.latency.map(|d| format!(" after {d}")).unwrap_or_default();
    format!(
        "dns {}{} {} {} from {} to {}{after}",
        query.outcome,
        rcode.unwrap_or_default(),
        query.name,
        query.query_type,
        owner(query.pod.as_ref()),
        query.server,
    )
}
