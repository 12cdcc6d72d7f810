//! What a fault would touch, and what its author should know before.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use sabot_core::model::{Fault, ObjectName, Peer, PodSelector, PortRef, World};
use sabot_core::plan::{Observed, PeerEntry};
use sabot_core::resolve::{Coverage, covered_services};
use sabot_core::{peer_entries, resolve};

use super::handle::Preview;
use super::store::explained;
use super::view;
use crate::targets::WorldUpdate;

/// Of very many ends of the control plane, so many are named.
const NAMED_ENDS: usize = 16;

/// `control` are the ends of the connections that keep the node reachable.
pub(super) fn preview(
    fault: Fault,
    update: &WorldUpdate,
    observed: &Observed,
    control: &BTreeSet<SocketAddr>,
) -> Preview {
    let resolution = resolve(&fault, &update.world);
    let targets = view::targets(&fault, &resolution, None, observed);
    let on_node = resolution.targets.iter().any(|target| target.device.node_device);
    let mut warnings = Vec::new();
    if let Some(reason) = resolution.pending {
        let reason = explained(&fault.target, reason, update);
        warnings.push(format!("the fault would be pending: {reason}"));
    }
    warnings.extend(resolution.refused.iter().map(|refused| refused.reason.clone()));
    let entries = peer_entries(&fault, &update.world);
    warnings.extend(node_warning(&fault, &update.world, entries.iter()));
    warnings.extend(on_node.then(|| control_warning(&fault, control)));
    warnings.extend(peer_warnings(&fault, &update.world));
    if !fault.peers.is_empty() && entries.is_empty() && !fault.watches_dns() {
        warnings.push("none of the peers exists now, so that no packet would match".to_owned());
    }
    Preview {
        peers: entries.iter().map(peer_text).collect(),
        targets,
        warnings,
        fault,
    }
}

fn peer_text(entry: &PeerEntry) -> String {
    let what = if entry.is_exact() {
        entry.net.addr().to_string()
    } else {
        entry.net.to_string()
    };
    match entry.only {
        Some(only) => {
            let protocol = protocol_name(only.protocol);
            only.port.map_or_else(
                || format!("{what} {protocol}"),
                |port| format!("{what} {protocol} port {port}"),
            )
        }
        None if entry.excepted => format!("except {what}"),
        None => what,
    }
}

fn protocol_name(protocol: u8) -> String {
    match protocol {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("IP protocol {other}"),
    }
}

/// What `spareNode` means for this fault, where the node's addresses are among its peers.
fn node_warning<'a>(
    fault: &Fault,
    world: &World,
    entries: impl Iterator<Item = &'a PeerEntry>,
) -> Option<String> {
    // The ports of a Service are none that a kubelet's probes come from.
    let entries: Vec<_> = entries.filter(|entry| entry.only.is_none()).collect();
    let meant = |address: &IpAddr| {
        fault.peers.is_empty()
            || entries
                .iter()
                .filter(|entry| entry.net.contains(address))
                .max_by_key(|entry| entry.net.prefix_len())
                .is_some_and(|entry| !entry.excepted)
    };
    let meant: Vec<String> = world
        .node_addresses
        .iter()
        .filter(|address| meant(address))
        .map(ToString::to_string)
        .collect();
    if meant.is_empty() {
        return None;
    }
    let addresses = meant.join(", ");
    Some(if fault.spare_node {
        format!(
            "traffic with this node's own addresses ({addresses}) is spared unless a peer names one exactly, so that the \
             kubelet's probes go on; spareNode: false includes it"
        )
    } else {
        format!(
            "traffic with this node's own addresses ({addresses}) is included: the kubelet's probes may fail, and it may \
             restart the pods"
        )
    })
}

/// What `allowControlPlane` means for a fault on the node's own devices.
fn control_warning(fault: &Fault, control: &BTreeSet<SocketAddr>) -> String {
    let named: Vec<String> = control.iter().take(NAMED_ENDS).map(ToString::to_string).collect();
    let more = match control.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let ends = format!("TCP connections with {}{more}", named.join(", "));
    if fault.allow_control_plane {
        format!("{ends} are included: the node may not be reachable any more before the fault ends")
    } else {
        format!("{ends} are kept, so that the node stays reachable; allowControlPlane: true includes them")
    }
}

/// What is known of a name now, and how more gets known.
fn host_warning(index: usize, name: &str, world: &World) -> String {
    let how = "whole answers over UDP are watched, over TCP or encrypted ones aren't";
    match world.names.get(name) {
        Some(addresses) => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            format!(
                "peers[{index}]: {name} means {} now, as targets of other faults have looked it up, and what the target's \
                 lookups answer from then on; {how}",
                addresses.join(", ")
            )
        }
        None => format!(
            "peers[{index}]: no address of {name} is known before the target looks it up while the fault is in force; {how}"
        ),
    }
}

fn peer_warnings(fault: &Fault, world: &World) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, peer) in fault.peers.iter().enumerate() {
        match peer {
            Peer::Address(_) => {}
            Peer::Host(name) => warnings.push(host_warning(index, name, world)),
            Peer::Cidr { net, except } => {
                let entries = peer_entries(fault, world);
                for excepted in except {
                    if !entries.contains(&PeerEntry::excepted(*excepted)) {
                        warnings.push(format!(
                            "peers[{index}]: the exception {excepted} of {net} has no effect, since another peer includes it"
                        ));
                    }
                }
            }
            Peer::Pods(selector) => warnings.extend(pods_warning(index, selector, world)),
            Peer::Service { name, port } => {
                warnings.extend(service_warning(index, name, port.as_ref(), world));
            }
            Peer::Node(name) => {
                if !world.cluster.nodes.contains_key(name) && world.node.name != *name {
                    warnings.push(format!("peers[{index}]: the node {name} isn't known"));
                }
            }
        }
    }
    warnings.extend(way_warnings(fault, world));
    warnings
}

fn pods_warning(index: usize, selector: &PodSelector, world: &World) -> Option<String> {
    if selector.addresses(world).next().is_some() {
        return None;
    }
    let named = selector.name.as_deref().map_or_else(
        || format!("pods {}/{}", selector.namespace, selector.labels),
        |name| format!("pod {}/{name}", selector.namespace),
    );
    Some(format!(
        "peers[{index}]: nothing that is known here matches {named}; pods of other nodes are known where the cluster's API \
         tells of them"
    ))
}

fn service_warning(index: usize, name: &ObjectName, port: Option<&PortRef>, world: &World) -> Option<String> {
    let Some(service) = world.cluster.services.get(name) else {
        return Some(format!("peers[{index}]: the Service {name} isn't known"));
    };
    if let Some(port) = port
        && !service.ports.iter().any(|known| known.is(Some(port)))
    {
        let text = match port {
            PortRef::Name(name) => name.clone(),
            PortRef::Number(number) => number.to_string(),
        };
        let known = service.ports.iter().map(|known| match known.name.as_str() {
            "" => known.port.to_string(),
            name => format!("{name} ({})", known.port),
        });
        let known: Vec<_> = known.collect();
        return Some(format!(
            "peers[{index}]: the Service {name} has no port {text}; it has {}",
            known.join(", ")
        ));
    }
    let nobody = service.backends().next().is_none();
    nobody.then(|| format!("peers[{index}]: the Service {name} has no backend now"))
}

/// How pods that are peers are reached beside their own addresses.
fn way_warnings(fault: &Fault, world: &World) -> Vec<String> {
    if !fault.peers.iter().any(|peer| matches!(peer, Peer::Pods(_))) {
        return Vec::new();
    }
    let (mut all, mut some) = (Vec::new(), Vec::new());
    for (name, _, coverage) in covered_services(fault, world) {
        match coverage {
            Coverage::All => all.push(name.to_string()),
            Coverage::Some => some.push(name.to_string()),
        }
    }
    let mut warnings = vec![if all.is_empty() {
        "peers that are pods are matched by their own addresses; what the target sends to a Service's ClusterIP isn't \
         recognised at this end"
            .to_owned()
    } else {
        format!(
            "peers that are pods are matched by their own addresses and by those of the Services that lead to nobody else: {}",
            all.join(", ")
        )
    }];
    if !some.is_empty() {
        warnings.push(format!(
            "of the Services {} some backends are peers and others aren't: what the target sends to their ClusterIPs is only \
             recognised at the peers' end; a fault on the peers, with the target as its peer, recognises it there",
            some.join(", ")
        ));
    }
    warnings
}
