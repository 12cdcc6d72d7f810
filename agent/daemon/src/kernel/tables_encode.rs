//! The domain's words in the ABI's layouts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sabot_abi as abi;
use sabot_core::model::{
    Action, CorruptKind, Direction, Handshake, Loss, LossModel, PacketFilter, Percent, PortMatch, PortRange,
    PortSide, Pulse, Ramp,
};
use sabot_core::plan::RuleBody;
use sabot_core::resolve::{decides_per_wire_packet, departing_latency};

/// `port_set` is the key under which the rule's ports stand.
pub(super) fn encode_rule(rule: &RuleBody, port_set: u32) -> abi::Rule {
    let mut encoded = abi::Rule {
        action: action(&rule.action),
        flags: flags(rule),
        starts_at: rule.starts_at.0,
        expires_at: rule.expires_at.0,
        peer_set: rule.peers.map_or(0, |set| set.0),
        port_set,
        dscp: rule.packets.dscp,
        least_length: rule.packets.least_length,
        greatest_length: rule.packets.greatest_length,
        seed: rule.seed,
        sample_every: rule.sample_every,
        latency: departing_latency(rule).map_or(0, nanos),
        ..abi::Rule::default()
    };
    if let Some(Pulse { on, off }) = rule.pulse {
        encoded.pulse_on = nanos(on);
        encoded.pulse_period = nanos(on).saturating_add(nanos(off));
    }
    if let Some(Ramp { over, from, to }) = rule.ramp {
        encoded.ramp_over = nanos(over);
        encoded.ramp_from = factor(from);
        encoded.ramp_to = factor(to);
    }
    encode_action(&rule.action, &mut encoded);
    encoded
}

/// What is the action's own.
fn encode_action(action: &Action, to: &mut abi::Rule) {
    match action {
        Action::Drop(loss) => encode_loss(loss, to),
        Action::Corrupt(corrupt) => {
            // Even where every packet is changed, what is changed in it follows from its draw.
            to.choice = abi::CHOICE_SHARE;
            to.threshold = corrupt.percent.threshold();
            to.corrupt_bits = u32::from(corrupt.bits);
            (to.corrupt_from, to.corrupt_to) = corrupt.offset;
        }
        Action::Duplicate(duplicate) => {
            encode_share(duplicate.percent, to);
            to.copies = u32::from(duplicate.copies);
        }
        Action::Reorder(reorder) => encode_share(reorder.percent, to),
        Action::RateLimit(limit) => to.segment_above = limit.burst,
        Action::Partition | Action::Reject(_) | Action::Reset(_) | Action::Delay(_) => {}
    }
}

fn encode_loss(loss: &Loss, to: &mut abi::Rule) {
    match loss.model {
        LossModel::Percent(percent) => encode_share(percent, to),
        LossModel::GilbertElliott(chain) => {
            to.choice = abi::CHOICE_GILBERT_ELLIOTT;
            to.threshold = probability(chain.loss_good);
            to.threshold_bad = probability(chain.loss_bad);
            to.to_bad = probability(chain.p);
            to.to_good = probability(chain.r);
        }
        LossModel::EveryNth(n) => {
            to.choice = abi::CHOICE_EVERY;
            to.count = n;
        }
        LossModel::FirstOfConnection(n) => {
            to.choice = abi::CHOICE_FIRST;
            to.count = n;
        }
        LossModel::Flows(percent) => {
            to.choice = abi::CHOICE_FLOWS;
            to.threshold = percent.threshold();
        }
    }
}

/// All of them need no draw, unless a ramp makes them fewer.
fn encode_share(percent: Percent, to: &mut abi::Rule) {
    to.threshold = percent.threshold();
    to.choice = if percent.value() == 100.0 && to.ramp_over == 0 {
        abi::CHOICE_ALL
    } else {
        abi::CHOICE_SHARE
    };
}

/// In units of 2^-32.
fn probability(value: f64) -> u64 {
    (value * (1u64 << 32) as f64).round() as u64
}

/// In units of 2^-16.
fn factor(value: f64) -> u32 {
    (value * 65_536.0).round() as u32
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An entry of the trie of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortBlock {
    /// The bits of the key that count.
    pub(super) prefix: u32,
    pub(super) key: abi::PortKey,
}

/// Protocols that have ports: what "every protocol" means for a port.
const WITH_PORTS: [u8; 3] = [6, 17, 132];
/// The bits of a code beside an ICMP type.
const CODE_BITS: u32 = 8;

/// The entries of the rule's port set.
pub(super) fn encode_ports(ports: &[PortMatch], port_set: u32) -> Vec<PortBlock> {
    let mut blocks = Vec::new();
    for port in ports {
        let one = port.protocol.map(|protocol| [protocol]);
        for &protocol in one.as_ref().map_or(&WITH_PORTS[..], |one| one) {
            let block = |side, port, free_bits| PortBlock {
                prefix: abi::PORT_KEY_BITS - free_bits,
                key: abi::PortKey::new(port_set, protocol, side, port),
            };
            match port.what {
                PortRange::All => blocks.push(block(abi::SIDE_WHOLE, 0, 0)),
                PortRange::Ports { first, last, side } => {
                    for &side in sides(side) {
                        let aligned = aligned_blocks(first, last);
                        blocks.extend(aligned.map(|(port, free_bits)| block(side, port, free_bits)));
                    }
                }
                PortRange::Icmp { kind, code } => {
                    let number = u16::from_be_bytes([kind, code.unwrap_or(0)]);
                    let free_bits = if code.is_none() { CODE_BITS } else { 0 };
                    blocks.push(block(abi::SIDE_DESTINATION, number, free_bits));
                }
            }
        }
    }
    blocks
}

fn sides(side: PortSide) -> &'static [u8] {
    match side {
        PortSide::Source => &[abi::SIDE_SOURCE],
        PortSide::Destination => &[abi::SIDE_DESTINATION],
        PortSide::Either => &[abi::SIDE_SOURCE, abi::SIDE_DESTINATION],
    }
}

/// The fewest blocks that make up a range, each of 2^n ports and beginning at a multiple of that; with each its n.
fn aligned_blocks(first: u16, last: u16) -> impl Iterator<Item = (u16, u32)> {
    let mut next = u32::from(first);
    let end = u32::from(last) + 1;
    std::iter::from_fn(move || {
        let left = end.checked_sub(next).filter(|left| *left > 0)?;
        let port = u16::try_from(next).ok()?;
        // 0 is a multiple of everything.
        let aligned = port.trailing_zeros();
        let bits = aligned.min(left.ilog2());
        next += 1 << bits;
        Some((port, bits))
    })
}

pub(super) fn control_end(end: SocketAddr) -> abi::ControlEnd {
    abi::ControlEnd {
        address: mapped(end.ip().to_canonical()),
        port: end.port().to_be_bytes(),
    }
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
        Action::Corrupt(corrupt) => match corrupt.kind {
            CorruptKind::Payload => abi::ACTION_CORRUPT_PAYLOAD,
            CorruptKind::Wire => abi::ACTION_CORRUPT_WIRE,
        },
        Action::Duplicate(_) => abi::ACTION_DUPLICATE,
        Action::RateLimit(_) => abi::ACTION_RATE_LIMIT,
        Action::Delay(_) => abi::ACTION_DELAY,
        Action::Reorder(_) => abi::ACTION_REORDER,
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
        (rule.allow_control_plane, abi::RULE_CONTROL_PLANE),
        (
            rule.ports.iter().any(|port| port.what != PortRange::All),
            abi::RULE_PORTS,
        ),
        (
            rule.ports.iter().any(|port| port.what == PortRange::All),
            abi::RULE_PROTOCOLS,
        ),
        (rule.packets.dscp != PacketFilter::ALL.dscp, abi::RULE_DSCP),
        (rule.packets.has_lengths(), abi::RULE_LENGTHS),
        (decides_per_wire_packet(rule), abi::RULE_SEGMENT),
    ] {
        if holds {
            flags |= flag;
        }
    }
    flags | action_flags(&rule.action)
}

fn action_flags(action: &Action) -> u32 {
    match action {
        Action::Drop(loss) => match loss.only {
            None => 0,
            Some(Handshake::Syn) => abi::RULE_SYN,
            Some(Handshake::Both) => abi::RULE_HANDSHAKE,
        },
        Action::Duplicate(duplicate) if !duplicate.delay.is_zero() => abi::RULE_LINE,
        // Packets are counted as they pass those that are held; where none is held none needs to be counted.
        Action::Reorder(reorder) if reorder.gap.is_some() && reorder.percent.value() > 0.0 => {
            abi::RULE_LINE_ALL
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
