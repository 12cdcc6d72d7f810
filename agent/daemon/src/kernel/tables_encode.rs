//! The domain's words in the ABI's layouts.

use std::net::IpAddr;

use sabot_abi as abi;
use sabot_core::model::{Action, Direction, Loss, LossModel, PortMatch, PortRange};
use sabot_core::plan::RuleBody;

/// `port_set` is the key under which the rule's ports stand.
pub(super) fn encode_rule(rule: &RuleBody, port_set: u32) -> abi::Rule {
    abi::Rule {
        action: action(&rule.action),
        flags: flags(rule),
        starts_at: rule.starts_at.0,
        expires_at: rule.expires_at.0,
        peer_set: rule.peers.map_or(0, |set| set.0),
        port_set,
        threshold: threshold(&rule.action),
        sample_every: rule.sample_every,
        ..abi::Rule::default()
    }
}

/// Protocols that have ports: what "every protocol" means for a port.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// The entries of the rule's port set.
pub(super) fn encode_ports(ports: &[PortMatch], port_set: u32) -> Vec<abi::PortKey> {
    let mut keys = Vec::new();
    for port in ports {
        let protocols = port
            .protocol
            .map_or(WITH_PORTS.to_vec(), |protocol| vec![protocol]);
        for protocol in protocols {
            match port.what {
                PortRange::All => keys.push(abi::PortKey::new(port_set, protocol, abi::SIDE_WHOLE, 0)),
                PortRange::Ports { first, .. } => {
                    keys.push(abi::PortKey::new(port_set, protocol, abi::SIDE_SOURCE, first));
                    keys.push(abi::PortKey::new(
                        port_set,
                        protocol,
                        abi::SIDE_DESTINATION,
                        first,
                    ));
                }
                PortRange::Icmp { .. } => {}
            }
        }
    }
    keys
}

/// IPv4 addresses as IPv4-mapped IPv6 ones.
pub(super) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn action(action: &Action) -> u32 {
    match action {
        Action::Partition => abi::ACTION_PARTITION,
        Action::Reject(_) => abi::ACTION_REJECT,
        Action::Reset(_) => abi::ACTION_RESET,
        Action::Drop(_) => abi::ACTION_DROP,
        Action::Corrupt(_) => abi::ACTION_CORRUPT_PAYLOAD,
        Action::Duplicate(_) => abi::ACTION_DUPLICATE,
        Action::RateLimit(_) => abi::ACTION_RATE_LIMIT,
        Action::Delay(_) => abi::ACTION_DELAY,
        Action::Reorder(_) => abi::ACTION_REORDER,
    }
}

fn threshold(action: &Action) -> u64 {
    match action {
        Action::Drop(Loss {
            model: LossModel::Percent(percent),
            ..
        }) => percent.threshold(),
        Action::Corrupt(corrupt) => corrupt.percent.threshold(),
        _ => 0,
    }
}

fn flags(rule: &RuleBody) -> u32 {
    let mut flags = match rule.direction {
        Direction::Egress => abi::RULE_EGRESS,
        Direction::Ingress => abi::RULE_INGRESS,
        Direction::Both => abi::RULE_EGRESS | abi::RULE_INGRESS,
    };
    for (holds, flag) in [
        (rule.peers.is_some(), abi::RULE_PEERS),
        (rule.peers_exact, abi::RULE_PEERS_EXACT),
        (rule.peers_prefix, abi::RULE_PEERS_PREFIX),
        (rule.spare_node, abi::RULE_SPARE_NODE),
        (
            rule.ports.iter().any(|port| port.what != PortRange::All),
            abi::RULE_PORTS,
        ),
        (
            rule.ports.iter().any(|port| port.what == PortRange::All),
            abi::RULE_PROTOCOLS,
        ),
    ] {
        if holds {
            flags |= flag;
        }
    }
    flags
}
