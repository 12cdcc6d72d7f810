mod action;

use std::time::Duration;

use sabot_core::spec;

use super::{FieldError, duration_from_proto, timestamp_from_proto};
use crate::sabot::v1;

/// What a client sent, as the domain's spec. All fields that have no counterpart are reported, not only the first.
pub fn spec_from_proto(proto: v1::FaultSpec) -> Result<spec::FaultSpec, Vec<FieldError>> {
    let mut errors = Vec::new();
    let spec = spec::FaultSpec {
        duration: keep(optional_duration("spec.duration", proto.duration), &mut errors),
        starts_at: keep(
            proto
                .starts_at
                .map(|t| timestamp_from_proto("spec.startsAt", t))
                .transpose(),
            &mut errors,
        ),
        target: target(proto.target.unwrap_or_default()),
        peers: proto.peers.into_iter().map(peer).collect(),
        direction: keep(direction(proto.direction), &mut errors),
        ports: proto.ports.into_iter().map(port).collect(),
        packets: proto.packets.map(packets),
        seed: proto.seed,
        pulse: proto.pulse.map(|p| pulse(p, &mut errors)),
        ramp: proto.ramp.map(|r| ramp(r, &mut errors)),
        spare_node: proto.spare_node,
        allow_control_plane: proto.allow_control_plane,
        sample_every: proto.sample_every,
        action: action::action(proto.action.unwrap_or_default(), &mut errors),
    };
    if errors.is_empty() { Ok(spec) } else { Err(errors) }
}

/// The value, or a default in its place while its error is kept: the spec is then thrown away.
fn keep<T: Default>(result: Result<T, FieldError>, errors: &mut Vec<FieldError>) -> T {
    result.unwrap_or_else(|e| {
        errors.push(e);
        T::default()
    })
}

fn target(proto: v1::Target) -> spec::Target {
    use v1::target::Kind;
    let mut target = spec::Target::default();
    match proto.kind {
        Some(Kind::Pods(pods)) => {
            target.pods = Some(spec::TargetPods {
                namespace: pods.namespace,
                name: pods.name,
                selector: pods.selector.map(selector),
                pick: pods.pick.map(pick),
            });
        }
        Some(Kind::Netns(path)) => target.netns = Some(path),
        Some(Kind::Interface(name)) => target.interface = Some(name),
        Some(Kind::Service(service)) => {
            target.service = Some(spec::TargetService {
                namespace: service.namespace,
                name: service.name,
                pick: service.pick.map(pick),
            });
        }
        Some(Kind::Node(name)) => target.node = Some(name),
        None => {}
    }
    target
}

fn pick(proto: v1::Pick) -> spec::Pick {
    spec::Pick {
        count: proto.count,
        percent: proto.percent,
        seed: proto.seed,
    }
}

fn selector(proto: v1::LabelSelector) -> spec::LabelSelector {
    spec::LabelSelector {
        match_labels: proto.match_labels.into_iter().collect(),
        match_expressions: proto
            .match_expressions
            .into_iter()
            .map(|e| spec::LabelExpression {
                key: e.key,
                operator: e.operator,
                values: e.values,
            })
            .collect(),
    }
}

fn peer(proto: v1::Peer) -> spec::Peer {
    use v1::peer::Kind;
    let mut peer = spec::Peer {
        except: proto.except,
        ..spec::Peer::default()
    };
    match proto.kind {
        Some(Kind::Ip(address)) => peer.ip = Some(address),
        Some(Kind::Cidr(prefix)) => peer.cidr = Some(prefix),
        Some(Kind::Pods(pods)) => {
            peer.pods = Some(spec::PeerPods {
                namespace: pods.namespace,
                name: pods.name,
                selector: pods.selector.map(selector),
            });
        }
        Some(Kind::Host(name)) => peer.host = Some(name),
        Some(Kind::Service(service)) => peer.service = Some(self::service(service)),
        Some(Kind::Node(name)) => peer.node = Some(name),
        None => {}
    }
    peer
}

fn service(proto: v1::ServiceRef) -> spec::ServiceRef {
    use v1::service_ref::Port;
    spec::ServiceRef {
        namespace: proto.namespace,
        name: proto.name,
        port: proto.port.map(|port| match port {
            Port::PortNumber(number) => spec::PortRef::Number(number),
            Port::PortName(name) => spec::PortRef::Name(name),
        }),
    }
}

fn direction(proto: i32) -> Result<Option<spec::Direction>, FieldError> {
    match v1::Direction::try_from(proto) {
        Ok(v1::Direction::Unspecified) => Ok(None),
        Ok(v1::Direction::Egress) => Ok(Some(spec::Direction::Egress)),
        Ok(v1::Direction::Ingress) => Ok(Some(spec::Direction::Ingress)),
        Ok(v1::Direction::Both) => Ok(Some(spec::Direction::Both)),
        Err(_) => Err(FieldError::new(
            "spec.direction",
            format!("{proto} is not a direction; allowed are EGRESS, INGRESS and BOTH"),
        )),
    }
}

fn port(proto: v1::Port) -> spec::Port {
    spec::Port {
        protocol: proto.protocol,
        port: proto.port,
        end_port: proto.end_port,
        end: proto.end,
        icmp_type: proto.icmp_type,
        icmp_code: proto.icmp_code,
    }
}

fn packets(proto: v1::Packets) -> spec::Packets {
    spec::Packets {
        dscp: proto.dscp,
        min_length: proto.min_length,
        max_length: proto.max_length,
    }
}

fn pulse(proto: v1::Pulse, errors: &mut Vec<FieldError>) -> spec::Pulse {
    spec::Pulse {
        on_time: keep(required_duration("spec.pulse.onTime", proto.on_time), errors),
        off_time: keep(required_duration("spec.pulse.offTime", proto.off_time), errors),
    }
}

fn ramp(proto: v1::Ramp, errors: &mut Vec<FieldError>) -> spec::Ramp {
    spec::Ramp {
        over: keep(required_duration("spec.ramp.over", proto.over), errors),
        from: proto.from,
        to: proto.to,
    }
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, FieldError> {
    value.ok_or_else(|| FieldError::new(field, "is required"))
}

fn required_duration(field: &str, value: Option<prost_types::Duration>) -> Result<Duration, FieldError> {
    required(field, value).and_then(|duration| duration_from_proto(field, duration))
}

fn optional_duration(
    field: &str,
    value: Option<prost_types::Duration>,
) -> Result<Option<Duration>, FieldError> {
    value
        .map(|duration| duration_from_proto(field, duration))
        .transpose()
}
