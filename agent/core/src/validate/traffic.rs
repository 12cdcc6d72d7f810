//! The traffic filter: ports, and what stands in the IP header.

use crate::model::{PacketFilter, PortMatch, PortRange, PortSide};
use crate::spec;

use super::report::Report;

/// Port matches in one fault, as many as a rule in the kernel holds.
pub const MAX_PORTS: usize = 16;

const PROTOCOLS: [(&str, u8); 5] = [
    ("TCP", 6),
    ("UDP", 17),
    ("SCTP", 132),
    ("ICMP", 1),
    ("ICMPv6", 58),
];

/// The shortest IP packet.
const MIN_LENGTH: u32 = 20;

pub(super) fn ports(report: &mut Report, ports: &[spec::Port]) -> Vec<PortMatch> {
    if ports.len() > MAX_PORTS {
        report.add(
            "spec.ports",
            ports.len(),
            format!("at most {MAX_PORTS} port matches"),
        );
    }
    let check = |(index, port)| port_match(report, &format!("spec.ports[{index}]"), port);
    ports.iter().enumerate().filter_map(check).collect()
}

fn port_match(report: &mut Report, field: &str, port: &spec::Port) -> Option<PortMatch> {
    let given = port.protocol.as_deref().unwrap_or("TCP");
    let known = PROTOCOLS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(given));
    if known.is_none() {
        report.add(
            format!("{field}.protocol"),
            given,
            "TCP, UDP, SCTP, ICMP or ICMPv6",
        );
    }
    let what = match known {
        Some((name @ ("ICMP" | "ICMPv6"), _)) => icmp(report, field, name, port),
        _ => range(report, field, port),
    };
    let (_, protocol) = known?;
    Some(PortMatch {
        protocol: Some(*protocol),
        what: what?,
    })
}

/// Of a protocol that has ports.
fn range(report: &mut Report, field: &str, port: &spec::Port) -> Option<PortRange> {
    for (name, given) in [("icmpType", port.icmp_type), ("icmpCode", port.icmp_code)] {
        if let Some(given) = given {
            let allowed = "nothing unless the protocol is ICMP or ICMPv6";
            report.add(format!("{field}.{name}"), given, allowed);
        }
    }
    let sides = [
        ("source", PortSide::Source),
        ("destination", PortSide::Destination),
    ];
    let side = match port.end.as_deref() {
        None => Some(PortSide::Either),
        end => report.choice(&format!("{field}.end"), end, &sides),
    };
    let Some(first) = port.port else {
        if let Some(last) = port.end_port {
            report.add(format!("{field}.endPort"), last, "an endPort only beside port");
        }
        if let Some(end) = &port.end {
            report.add(format!("{field}.end"), end, "an end only beside port");
        }
        return Some(PortRange::All);
    };
    let last = port.end_port.unwrap_or(first);
    let number = |number: u32| u16::try_from(number).ok().filter(|number| *number > 0);
    if number(first).is_none() {
        report.add(format!("{field}.port"), first, "a port from 1 to 65535");
    } else if last < first || number(last).is_none() {
        let allowed = format!("a port from {first}, which is `port`, to 65535");
        report.add(format!("{field}.endPort"), last, allowed);
    }
    Some(PortRange::Ports {
        first: number(first)?,
        last: number(last)?,
        side: side?,
    })
}

fn icmp(report: &mut Report, field: &str, protocol: &str, port: &spec::Port) -> Option<PortRange> {
    let ports = [
        ("port", port.port.map(|port| port.to_string())),
        ("endPort", port.end_port.map(|port| port.to_string())),
        ("end", port.end.clone()),
    ];
    for (name, given) in ports {
        if let Some(given) = given {
            let allowed = format!("no port, since {protocol} has none");
            report.add(format!("{field}.{name}"), given, allowed);
        }
    }
    let mut byte = |name: &str, given: Option<u32>| {
        let given = given?;
        let byte = u8::try_from(given).ok();
        if byte.is_none() {
            report.add(format!("{field}.{name}"), given, "a number from 0 to 255");
        }
        byte
    };
    let (kind, code) = (byte("icmpType", port.icmp_type), byte("icmpCode", port.icmp_code));
    match (port.icmp_type, port.icmp_code) {
        (None, None) => Some(PortRange::All),
        (None, Some(code)) => {
            report.add(
                format!("{field}.icmpCode"),
                code,
                "an icmpCode only beside icmpType",
            );
            None
        }
        (Some(_), _) => Some(PortRange::Icmp { kind: kind?, code }),
    }
}

pub(super) fn packets(report: &mut Report, packets: &spec::Packets) -> PacketFilter {
    let mut dscp = 0;
    for (index, &point) in packets.dscp.iter().enumerate() {
        if point < 64 {
            dscp |= 1 << point;
        } else {
            let field = format!("spec.packets.dscp[{index}]");
            report.add(field, point, "a code point from 0 to 63");
        }
    }
    let most = PacketFilter::MAX_LENGTH;
    let lengths = [
        ("minLength", packets.min_length),
        ("maxLength", packets.max_length),
    ];
    let mut in_range = true;
    for (name, given) in lengths {
        if let Some(given) = given
            && !(MIN_LENGTH..=most).contains(&given)
        {
            in_range = false;
            let allowed = format!("bytes of an IP packet from {MIN_LENGTH} to {most}");
            report.add(format!("spec.packets.{name}"), given, allowed);
        }
    }
    let least_length = packets.min_length.unwrap_or(0);
    let greatest_length = packets.max_length.unwrap_or(most);
    if in_range && least_length > greatest_length {
        let allowed = format!("at most maxLength, {greatest_length}");
        report.add("spec.packets.minLength", least_length, allowed);
    }
    PacketFilter {
        dscp: if packets.dscp.is_empty() { u64::MAX } else { dscp },
        least_length,
        greatest_length,
    }
}
