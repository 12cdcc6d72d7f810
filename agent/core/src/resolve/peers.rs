//! The addresses that a fault's peers mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::{Fault, Peer, World};
use crate::plan::PeerEntry;

use super::services::{self, Coverage, covered_services};

/// Where IPv4 addresses lie among IPv6 ones in the kernel's tables.
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
const EVERY_IPV4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));

/// The entries of the fault's peer set; empty where the fault names no peers, or none that exists now.
///
/// The longest prefix decides over an address, and the set means the union of the peers: an exception of one peer is
/// left out where another peer includes that prefix, so what any peer includes is included. An IPv6 network that spans
/// the IPv4-mapped addresses doesn't mean IPv4 traffic: that is excepted from it.
///
/// Pods as peers are also reached through the Services that lead to them and to nobody else, whose own addresses are
/// peers as well.
pub fn peer_entries(fault: &Fault, world: &World) -> BTreeSet<PeerEntry> {
    let mut included: Vec<IpNet> = Vec::with_capacity(fault.peers.len());
    let mut ranges: Vec<(IpNet, &[IpNet])> = Vec::new();
    let mut limited: Vec<PeerEntry> = Vec::new();
    for peer in &fault.peers {
        match peer {
            Peer::Address(address) => included.push(address.to_canonical().into()),
            Peer::Cidr { net, except } => {
                included.push(*net);
                ranges.push((*net, except));
            }
            Peer::Pods(selector) => included.extend(selector.addresses(world).map(IpNet::from)),
            Peer::Host(name) => included
                .extend((world.names.get(name).into_iter().flatten()).map(|a| IpNet::from(a.to_canonical()))),
            Peer::Service { name, port } => {
                if let Some(service) = world.cluster.services.get(name) {
                    limited.extend(services::fronts(service, port.as_ref(), world));
                    limited.extend(services::backends(service, port.as_ref()));
                }
            }
            Peer::Node(name) => included.extend(node(name, world).map(IpNet::from)),
        }
    }
    for (_, service, coverage) in covered_services(fault, world) {
        if coverage == Coverage::All {
            limited.extend(services::fronts(service, None, world));
        }
    }
    let spans_mapped = |net: &IpNet| matches!(net, IpNet::V6(v6) if v6.contains(&MAPPED));
    let excepts_ipv4 = included.iter().any(spans_mapped) && !included.contains(&EVERY_IPV4);
    let mut entries: BTreeSet<PeerEntry> = included.into_iter().map(PeerEntry::included).collect();
    entries.extend(limited);
    if excepts_ipv4 {
        entries.insert(PeerEntry::excepted(EVERY_IPV4));
    }
    if ranges.iter().any(|(_, except)| !except.is_empty()) {
        entries.extend(exceptions(&ranges, &entries));
    }
    entries
}

/// This node knows more of its own addresses than the cluster does.
fn node<'a>(name: &str, world: &'a World) -> impl Iterator<Item = IpAddr> + 'a {
    let known = world.cluster.nodes.get(name).into_iter().flatten();
    let own = (!name.is_empty() && name == world.node.name).then_some(&world.node_addresses);
    known.chain(own.into_iter().flatten()).map(IpAddr::to_canonical)
}

/// The exceptions that no other peer overrules.
fn exceptions(ranges: &[(IpNet, &[IpNet])], entries: &BTreeSet<PeerEntry>) -> Vec<PeerEntry> {
    let mut by_net: BTreeMap<IpNet, Vec<&[IpNet]>> = BTreeMap::new();
    for (net, except) in ranges {
        by_net.entry(*net).or_default().push(except);
    }
    let overruled = |excepted: &IpNet| {
        // Some range includes all of it and excepts none of what contains it.
        supernets(*excepted)
            .filter_map(|net| by_net.get(&net))
            .flatten()
            .any(|except| !except.iter().any(|other| other.contains(excepted)))
    };
    let kept = |net: &IpNet| !entries.contains(&PeerEntry::included(*net)) && !overruled(net);
    let all = ranges.iter().flat_map(|(_, except)| except.iter().copied());
    all.filter(kept).map(PeerEntry::excepted).collect()
}

/// The network itself and every one that contains it.
fn supernets(net: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(Some(net), IpNet::supernet)
}
