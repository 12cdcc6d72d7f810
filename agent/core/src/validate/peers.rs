//! Peers and their addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::model::Peer;
use crate::spec;

use super::names;
use super::pods::{self, PodFields};
use super::report::Report;
use super::services;

const CIDR_RULE: &str = "a network as address/prefix length, as 10.20.0.0/16 or fd00::/64";
/// `None` only when a violation was reported.
pub(super) fn check(report: &mut Report, field: &str, peer: &spec::Peer, namespace: &str) -> Option<Peer> {
    let given = [
        ("ip", peer.ip.is_some()),
        ("cidr", peer.cidr.is_some()),
        ("pods", peer.pods.is_some()),
        ("host", peer.host.is_some()),
        ("service", peer.service.is_some()),
        ("node", peer.node.is_some()),
    ];
    report.exactly_one(field, &given);
    if peer.cidr.is_none() && !peer.except.is_empty() {
        report.add(
            format!("{field}.except"),
            peer.except.join(", "),
            "except only beside cidr",
        );
    }
    let address = peer
        .ip
        .as_deref()
        .and_then(|text| address(report, &format!("{field}.ip"), text));
    let cidr = peer
        .cidr
        .as_deref()
        .and_then(|text| cidr(report, field, text, &peer.except));
    let pods = peer.pods.as_ref().map(|pods| {
        let fields = PodFields {
            namespace: pods.namespace.as_deref(),
            name: pods.name.as_deref(),
            selector: pods.selector.as_ref(),
        };
        Peer::Pods(pods::selector(
            report,
            &format!("{field}.pods"),
            &fields,
            namespace,
        ))
    });
    let host = peer
        .host
        .as_deref()
        .and_then(|text| host(report, &format!("{field}.host"), text));
    let service = peer
        .service
        .as_ref()
        .and_then(|service| services::peer(report, &format!("{field}.service"), service, namespace));
    let node = peer.node.as_deref().map(|name| {
        services::node(report, &format!("{field}.node"), name);
        Peer::Node(name.to_owned())
    });
    pods.or(cidr).or(address).or(host).or(service).or(node)
}

/// Names are kept as a resolver compares them: in lower case, and without the root's dot.
fn host(report: &mut Report, field: &str, text: &str) -> Option<Peer> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if text.parse::<IpAddr>().is_ok() {
        report.add(field, text, "a DNS name; an address is given as `ip`");
        return None;
    }
    if !names::is_host(&name) {
        report.add(field, text, names::HOST_RULE);
        return None;
    }
    Some(Peer::Host(name))
}

fn address(report: &mut Report, field: &str, text: &str) -> Option<Peer> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(Peer::Address(address.to_canonical())),
        Err(_) => {
            report.add(field, text, "an IPv4 or IPv6 address, as 10.20.7.1 or fd00::1");
            None
        }
    }
}

fn cidr(report: &mut Report, field: &str, text: &str, except: &[String]) -> Option<Peer> {
    let net = network(report, &format!("{field}.cidr"), text);
    let mut excepted = Vec::with_capacity(except.len());
    for (index, text) in except.iter().enumerate() {
        let field = format!("{field}.except[{index}]");
        let Some(inner) = network(report, &field, text) else {
            continue;
        };
        if let Some(net) = net
            && (net == inner || !net.contains(&inner))
        {
            report.add(
                field,
                inner,
                format!("a network inside {net} and smaller than it"),
            );
        }
        excepted.push(inner);
    }
    Some(Peer::Cidr {
        net: net?,
        except: excepted,
    })
}

/// Reads a network without host bits; an IPv4-mapped one becomes the IPv4 network that it means.
fn network(report: &mut Report, field: &str, text: &str) -> Option<IpNet> {
    let Ok(net) = text.parse::<IpNet>() else {
        report.add(field, text, CIDR_RULE);
        return None;
    };
    let net = unmapped(net);
    if net.trunc() != net {
        let network = net.trunc();
        let host = IpNet::from(net.addr());
        report.add(
            field,
            text,
            format!("the network {network}, or {host} for the one address"),
        );
        return None;
    }
    Some(net)
}

fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let address: Option<Ipv4Addr> = Ipv6Addr::to_ipv4_mapped(&v6.addr());
    let length = v6.prefix_len().checked_sub(96);
    match (address, length) {
        (Some(address), Some(length)) => Ipv4Net::new(address, length).map_or(net, IpNet::V4),
        _ => net,
    }
}
