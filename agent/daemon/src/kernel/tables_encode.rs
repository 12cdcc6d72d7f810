//! The domain's words in the ABI's layouts.

use std::net::IpAddr;

use sabot_abi as abi;
use sabot_core::model::{Action, Direction, PortMatch};
use sabot_core::plan::RuleBody;

/// `port_set` is the key under which the rule's ports stand.
pub(super) fn encode_rule(rule: &RuleBody, port_set: u32) -> abi::Rule {
    abi::Rule {
        action: action(&rule.action),
        flags: flags(rule),
        starts_at: rule.starts_at.0,
        expires_at: rule.expires_at.0,
        peer_set: rule.peers.map_or(0, |set| set.0),
        threshold: threshold(&rule.action),
        sample_every: rule.sample_every,
        port_set,
        reserved: 0,
    }
}

/// Protocols that have ports: what "every protocol" means for a port.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// The entries of the rule's port set.
pub(super) fn encode_ports(ports: &[PortMatch], port_set: u32) -> Vec<abi::PortKey> {
    let key = |protocol, port: Option<u16>| abi::PortKey {
        port_set,
        protocol: u32::from(protocol),
        port: port.map_or(abi::PORT_ALL, u32::from),
    };
    let keys = ports.iter().flat_map(|port| match port.protocol {
        Some(protocol) => vec![key(protocol, port.port)],
        None => WITH_PORTS.map(|protocol| key(protocol, port.port)).to_vec(),
    });
    keys.collect()
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
        Action::Drop { .. } => abi::ACTION_DROP,
        Action::CorruptPayload { .. } => abi::ACTION_CORRUPT,
        Action::Delay { .. } => abi::ACTION_DELAY,
    }
}

fn threshold(action: &Action) -> u64 {
    match action {
        Action::Drop { percent } | Action::CorruptPayload { percent } => percent.threshold(),
        Action::Partition | Action::Delay { .. } => 0,
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
        (rule.ports.iter().any(|port| port.port.is_some()), abi::RULE_PORTS),
        (
            rule.ports.iter().any(|port| port.port.is_none()),
            abi::RULE_PROTOCOLS,
        ),
    ] {
        if holds {
            flags |= flag;
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use sabot_core::model::{BootTime, Percent};
    use sabot_core::plan::PeerSetId;

    fn body(action: Action) -> RuleBody {
        RuleBody {
            action,
            direction: Direction::Both,
            ports: Vec::new(),
            peers: None,
            peers_exact: false,
            peers_prefix: false,
            spare_node: false,
            starts_at: BootTime(1),
            expires_at: BootTime(2),
            sample_every: 3,
        }
    }

    #[test]
    fn every_field_arrives() {
        let percent = Percent::new(50.0).unwrap();
        let mut rule = body(Action::Drop { percent });
        rule.peers = Some(PeerSetId(9));
        rule.peers_exact = true;
        rule.ports = vec![
            PortMatch {
                protocol: Some(6),
                port: Some(443),
            },
            PortMatch {
                protocol: Some(1),
                port: None,
            },
        ];
        let encoded = encode_rule(&rule, 5);
        assert_eq!(encoded.threshold, 1 << 31);
        assert_eq!(
            (encoded.starts_at, encoded.expires_at, encoded.sample_every),
            (1, 2, 3)
        );
        assert_eq!((encoded.peer_set, encoded.port_set), (9, 5));
        let both = abi::RULE_EGRESS | abi::RULE_INGRESS;
        let ports = abi::RULE_PORTS | abi::RULE_PROTOCOLS;
        assert_eq!(
            encoded.flags,
            both | ports | abi::RULE_PEERS | abi::RULE_PEERS_EXACT
        );
        let keys = encode_ports(&rule.ports, 5);
        assert_eq!(
            keys[0],
            abi::PortKey {
                port_set: 5,
                protocol: 6,
                port: 443
            }
        );
        assert_eq!(
            keys[1],
            abi::PortKey {
                port_set: 5,
                protocol: 1,
                port: abi::PORT_ALL
            }
        );
    }

    #[test]
    fn a_port_of_every_protocol_is_one_of_each_that_has_ports() {
        let keys = encode_ports(
            &[PortMatch {
                protocol: None,
                port: Some(53),
            }],
            1,
        );
        assert_eq!(
            keys.iter().map(|key| key.protocol).collect::<Vec<_>>(),
            [6, 17, 132]
        );
    }

    #[test]
    fn all_packets_is_all_of_32_random_bits() {
        let percent = Percent::new(100.0).unwrap();
        assert_eq!(encode_rule(&body(Action::Drop { percent }), 0).threshold, 1 << 32);
    }
}
