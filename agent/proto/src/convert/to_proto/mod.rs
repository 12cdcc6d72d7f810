mod action;

use sabot_core::spec;

use super::{FieldError, duration_to_proto, timestamp_to_proto};
use crate::sabot::v1;

/// The domain's spec for the wire. A valid spec always converts; one that names two kinds of the same thing does not,
/// since the wire has room for one, and which one is not ours to choose.
pub fn spec_to_proto(spec: &spec::FaultSpec) -> Result<v1::FaultSpec, Vec<FieldError>> {
    let mut errors = Vec::new();
    let target = keep(target(&spec.target), &mut errors);
    let peers = spec
        .peers
        .iter()
        .enumerate()
        .map(|(index, p)| v1::Peer {
            kind: keep(peer(index, p), &mut errors),
            except: p.except.clone(),
        })
        .collect();
    let action = action::action(&spec.action, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(v1::FaultSpec {
        duration: spec.duration.map(duration_to_proto),
        starts_at: spec.starts_at.map(timestamp_to_proto),
        target: Some(v1::Target { kind: target }),
        peers,
        direction: direction(spec.direction).into(),
        ports: spec.ports.iter().map(port).collect(),
        spare_node: spec.spare_node,
        allow_control_plane: spec.allow_control_plane,
        sample_every: spec.sample_every,
        action: Some(v1::Action { kind: action }),
        packets: spec.packets.as_ref().map(|packets| v1::Packets {
            dscp: packets.dscp.clone(),
            min_length: packets.min_length,
            max_length: packets.max_length,
        }),
        seed: spec.seed,
        pulse: spec.pulse.as_ref().map(|pulse| v1::Pulse {
            on_time: Some(duration_to_proto(pulse.on_time)),
            off_time: Some(duration_to_proto(pulse.off_time)),
        }),
        ramp: spec.ramp.as_ref().map(|ramp| v1::Ramp {
            over: Some(duration_to_proto(ramp.over)),
            from: ramp.from,
            to: ramp.to,
        }),
    })
}

fn port(port: &spec::Port) -> v1::Port {
    v1::Port {
        protocol: port.protocol.clone(),
        port: port.port,
        end_port: port.end_port,
        end: port.end.clone(),
        icmp_type: port.icmp_type,
        icmp_code: port.icmp_code,
    }
}

fn keep<T>(result: Result<Option<T>, FieldError>, errors: &mut Vec<FieldError>) -> Option<T> {
    result.unwrap_or_else(|e| {
        errors.push(e);
        None
    })
}

/// The one kind that is given, if any.
fn one_of<T, const N: usize>(field: &str, kinds: [(&str, Option<T>); N]) -> Result<Option<T>, FieldError> {
    let names: Vec<_> = kinds.iter().map(|(name, _)| format!("`{name}`")).collect();
    let (given, values): (Vec<_>, Vec<_>) = kinds
        .into_iter()
        .filter_map(|(name, value)| Some((format!("`{name}`"), value?)))
        .unzip();
    if values.len() > 1 {
        return Err(FieldError::new(
            field,
            format!(
                "{} are given; one of {} is allowed",
                given.join(" and "),
                names.join(", ")
            ),
        ));
    }
    Ok(values.into_iter().next())
}

fn target(target: &spec::Target) -> Result<Option<v1::target::Kind>, FieldError> {
    use v1::target::Kind;
    let pods = target.pods.as_ref().map(|pods| {
        Kind::Pods(v1::TargetPods {
            namespace: pods.namespace.clone(),
            name: pods.name.clone(),
            selector: pods.selector.as_ref().map(selector),
            pick: pods.pick.as_ref().map(pick),
        })
    });
    let service = target.service.as_ref().map(|service| {
        Kind::Service(v1::TargetService {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            pick: service.pick.as_ref().map(pick),
        })
    });
    one_of(
        "spec.target",
        [
            ("pods", pods),
            ("netns", target.netns.clone().map(Kind::Netns)),
            ("interface", target.interface.clone().map(Kind::Interface)),
            ("service", service),
            ("node", target.node.clone().map(Kind::Node)),
        ],
    )
}

fn pick(pick: &spec::Pick) -> v1::Pick {
    v1::Pick {
        count: pick.count,
        percent: pick.percent,
        seed: pick.seed,
    }
}

fn selector(selector: &spec::LabelSelector) -> v1::LabelSelector {
    v1::LabelSelector {
        match_labels: selector
            .match_labels
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        match_expressions: selector
            .match_expressions
            .iter()
            .map(|e| v1::LabelExpression {
                key: e.key.clone(),
                operator: e.operator.clone(),
                values: e.values.clone(),
            })
            .collect(),
    }
}

fn peer(index: usize, peer: &spec::Peer) -> Result<Option<v1::peer::Kind>, FieldError> {
    use v1::peer::Kind;
    let pods = peer.pods.as_ref().map(|pods| {
        Kind::Pods(v1::PeerPods {
            namespace: pods.namespace.clone(),
            name: pods.name.clone(),
            selector: pods.selector.as_ref().map(selector),
        })
    });
    one_of(
        &format!("spec.peers[{index}]"),
        [
            ("ip", peer.ip.clone().map(Kind::Ip)),
            ("cidr", peer.cidr.clone().map(Kind::Cidr)),
            ("pods", pods),
            ("host", peer.host.clone().map(Kind::Host)),
            ("service", peer.service.as_ref().map(service).map(Kind::Service)),
            ("node", peer.node.clone().map(Kind::Node)),
        ],
    )
}

fn service(service: &spec::ServiceRef) -> v1::ServiceRef {
    use v1::service_ref::Port;
    v1::ServiceRef {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        port: service.port.as_ref().map(|port| match port {
            spec::PortRef::Number(number) => Port::PortNumber(*number),
            spec::PortRef::Name(name) => Port::PortName(name.clone()),
        }),
    }
}

fn direction(direction: Option<spec::Direction>) -> v1::Direction {
    match direction {
        None => v1::Direction::Unspecified,
        Some(spec::Direction::Egress) => v1::Direction::Egress,
        Some(spec::Direction::Ingress) => v1::Direction::Ingress,
        Some(spec::Direction::Both) => v1::Direction::Both,
    }
}
