//! Services and nodes of the cluster, as targets and as peers.

use crate::model::{ObjectName, Peer, PortRef};
use crate::spec;

use super::names;
use super::report::Report;

const PORT_RULE: &str = "a port of the Service: its number, from 1 to 65535, or its name";

/// `fallback` is the fault's own namespace, empty where it has none.
pub(super) fn name(
    report: &mut Report,
    field: &str,
    namespace: Option<&str>,
    name: &str,
    fallback: &str,
) -> ObjectName {
    let given = namespace.filter(|n| !n.is_empty());
    let namespace = given.unwrap_or(fallback);
    let namespace_field = format!("{field}.namespace");
    if namespace.is_empty() {
        report.missing(namespace_field, "a namespace, since the fault itself is in none");
    } else if given.is_some() && !names::is_label(namespace) {
        report.add(namespace_field, namespace, names::LABEL_RULE);
    }
    if !names::is_label(name) {
        report.add(format!("{field}.name"), name, names::LABEL_RULE);
    }
    ObjectName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// `None` only when a violation was reported.
pub(super) fn peer(
    report: &mut Report,
    field: &str,
    service: &spec::ServiceRef,
    fallback: &str,
) -> Option<Peer> {
    let name = name(
        report,
        field,
        service.namespace.as_deref(),
        &service.name,
        fallback,
    );
    let port = match &service.port {
        None => None,
        Some(given) => Some(port(report, &format!("{field}.port"), given)?),
    };
    Some(Peer::Service { name, port })
}

/// Digits are a number, however they are quoted.
fn port(report: &mut Report, field: &str, given: &spec::PortRef) -> Option<PortRef> {
    let number = |number: u32| u16::try_from(number).ok().filter(|number| *number > 0);
    let read = match given {
        spec::PortRef::Number(given) => number(*given).map(PortRef::Number),
        spec::PortRef::Name(name) if name.bytes().all(|b| b.is_ascii_digit()) => {
            name.parse().ok().and_then(number).map(PortRef::Number)
        }
        spec::PortRef::Name(name) => names::is_label(name).then(|| PortRef::Name(name.clone())),
    };
    if read.is_none() {
        match given {
            spec::PortRef::Number(given) => report.add(field, given, PORT_RULE),
            spec::PortRef::Name(given) => report.add(field, given, PORT_RULE),
        }
    }
    read
}

pub(super) fn node(report: &mut Report, field: &str, name: &str) {
    if !names::is_subdomain(name) {
        report.add(field, name, names::SUBDOMAIN_RULE);
    }
}
