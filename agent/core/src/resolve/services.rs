//! What a Service is to those who use it: its own addresses and ports, and those of its backends.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::{Endpoint, Fault, ObjectName, Peer, PortRef, Service, World};
use crate::plan::{PeerEntry, PeerPort};

/// Where clients reach the Service itself: its addresses at its ports, and every node's at its node ports.
///
/// A target sees them where traffic is sent to a backend outside its own network namespace, as kube-proxy does in all of
/// its modes.
pub(super) fn fronts<'a>(
    service: &'a Service,
    port: Option<&'a PortRef>,
    world: &'a World,
) -> impl Iterator<Item = PeerEntry> + 'a {
    let ports = service.ports.iter().filter(move |known| known.is(port));
    ports.flat_map(move |known| {
        let at = move |address: &IpAddr, port| {
            let only = PeerPort {
                protocol: known.protocol,
                port: Some(port),
            };
            PeerEntry::limited(*address, only)
        };
        let own = service
            .addresses
            .iter()
            .map(move |address| at(address, known.port));
        let on_nodes = known.node_port.into_iter().flat_map(move |node_port| {
            let nodes = world.cluster.nodes.values().flatten();
            let nodes = nodes.chain(&world.node_addresses);
            nodes.map(move |address| at(address, node_port))
        });
        own.chain(on_nodes)
    })
}

/// The backends' addresses at the ports that the Service's lead to. A target sees them where its socket is connected to a
/// backend at once, and where the Service is headless. Without any port of its own it is nothing but a name for its
/// backends.
pub(super) fn backends<'a>(
    service: &'a Service,
    port: Option<&'a PortRef>,
) -> impl Iterator<Item = PeerEntry> + 'a {
    service
        .backends()
        .flat_map(move |endpoint| of_endpoint(service, endpoint, port))
}

fn of_endpoint<'a>(
    service: &'a Service,
    endpoint: &'a Endpoint,
    port: Option<&'a PortRef>,
) -> impl Iterator<Item = PeerEntry> + 'a {
    let is_portless = service.ports.is_empty() && port.is_none();
    let whole = is_portless.then(|| {
        let addresses = endpoint.addresses.iter();
        addresses.map(|address| PeerEntry::included(address.to_canonical().into()))
    });
    let led_to = endpoint.ports.iter().filter(move |target| {
        let mut ports = service.ports.iter();
        ports.any(|known| known.is(port) && known.name == target.name && known.protocol == target.protocol)
    });
    let limited = led_to.flat_map(|target| {
        let only = PeerPort {
            protocol: target.protocol,
            port: target.port,
        };
        let addresses = endpoint.addresses.iter();
        addresses.map(move |address| PeerEntry::limited(*address, only))
    });
    whole.into_iter().flatten().chain(limited)
}

/// A Service, and how much of it the peers are that are given as pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coverage {
    /// Some of its backends are peers, others aren't.
    Some,
    /// Each of its backends is one: what goes to the Service goes to a peer.
    All,
}

/// The known Services that lead to peers that are given as pods.
pub fn covered_services<'a>(
    fault: &Fault,
    world: &'a World,
) -> impl Iterator<Item = (&'a ObjectName, &'a Service, Coverage)> {
    let pods = pod_addresses(fault, world);
    let namespaces: BTreeSet<String> = fault
        .peers
        .iter()
        .filter_map(|peer| match peer {
            Peer::Pods(selector) => Some(selector.namespace.clone()),
            _ => None,
        })
        .collect();
    let known = (!pods.is_empty()).then_some(&world.cluster.services);
    // A Service's pods are of its own namespace. What is known of others is known for the sake of other faults.
    let known = known.into_iter().flatten();
    let near = known.filter(move |(name, _)| namespaces.contains(&name.namespace));
    near.filter_map(move |(name, service)| {
        let mut of_peers = service
            .backends()
            .flat_map(|endpoint| &endpoint.addresses)
            .map(|address| pods.contains(&address.to_canonical()));
        let first = of_peers.next()?;
        let coverage = match (first, of_peers.all(|is_peer| is_peer == first)) {
            (true, true) => Coverage::All,
            (false, true) => return None,
            (_, false) => Coverage::Some,
        };
        Some((name, &**service, coverage))
    })
}

/// Some of the fault's peers are reached through ports of the nodes, all of whose addresses are meant then.
pub fn uses_node_ports(fault: &Fault, world: &World) -> bool {
    let services = &world.cluster.services;
    if !services.values().any(|service| service.has_node_ports()) {
        return false;
    }
    let named = fault.peers.iter().any(|peer| match peer {
        Peer::Service { name, .. } => services.get(name).is_some_and(|service| service.has_node_ports()),
        _ => false,
    });
    let mut covered = covered_services(fault, world);
    named || covered.any(|(_, service, coverage)| coverage == Coverage::All && service.has_node_ports())
}

/// The addresses of the peers that are given as pods.
fn pod_addresses(fault: &Fault, world: &World) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    if world.cluster.services.is_empty() {
        return addresses;
    }
    for peer in &fault.peers {
        if let Peer::Pods(selector) = peer {
            addresses.extend(selector.addresses(world));
        }
    }
    addresses
}
