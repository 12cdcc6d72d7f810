//! The domain's words in the ABI's layouts.

use std::net::IpAddr;

use sabot_abi as abi;
use sabot_core::model::{Action, Direction, PortMatch};
use sabot_core::plan::RuleBody;

pub(super) fn encode_rule(rule: &RuleBody) -> abi::Rule {
    let mut encoded = abi::Rule {
        action: action(&rule.action),
        flags: flags(rule),
        starts_at: rule.starts_at.0,
        expires_at: rule.expires_at.0,
        peer_set: rule.peers.map_or(0, |set| set.0),
        threshold: threshold(&rule.action),
        sample_every: rule.sample_every,
        ..abi::Rule::default()
    };
    for (place, port) in encoded.ports.iter_mut().zip(&rule.ports) {
        *place = port_match(*port);
        encoded.port_count += 1;
    }
    encoded
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
    ] {
        if holds {
            flags |= flag;
        }
    }
    flags
}

fn port_match(port: PortMatch) -> abi::PortMatch {
    abi::PortMatch {
        protocol: port.protocol.map_or(abi::PROTOCOL_ANY, u32::from),
        first: port.port.map_or(0, u32::from),
        last: u32::from(port.port.unwrap_or(u16::MAX)),
        reserved: 0,
    }
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
            PortMatch { protocol: Some(6), port: Some(443) },
            PortMatch { protocol: Some(1), port: None },
        ];
        let encoded = encode_rule(&rule);
        assert_eq!(encoded.threshold, 1 << 31);
        assert_eq!((encoded.starts_at, encoded.expires_at, encoded.sample_every), (1, 2, 3));
        assert_eq!((encoded.peer_set, encoded.port_count), (9, 2));
        let both = abi::RULE_EGRESS | abi::RULE_INGRESS;
        assert_eq!(encoded.flags, both | abi::RULE_PEERS | abi::RULE_PEERS_EXACT);
        assert_eq!((encoded.ports[0].first, encoded.ports[0].last), (443, 443));
        assert_eq!((encoded.ports[1].first, encoded.ports[1].last), (0, 65535));
    }

    #[test]
    fn all_packets_is_all_of_32_random_bits() {
        let percent = Percent::new(100.0).unwrap();
        assert_eq!(encode_rule(&body(Action::Drop { percent })).threshold, 1 << 32);
    }
}
