//! Which packets a rule names.

use sabot_abi::{DIRECTION_EGRESS, RULE_DSCP, RULE_EGRESS, RULE_INGRESS, RULE_LENGTHS, Rule, Tally};

use crate::packet::Packet;
use crate::peers;
use crate::ports;

/// What the rule's lengths leave of a packet: a super-packet's wire packets are all of one length but the last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    Nothing,
    Whole,
    AllButLast,
    Last,
}

/// Whether the rule names the packet, whatever its length.
#[inline(never)]
pub fn matches(rule: &Rule, packet: &Packet, direction: u32) -> bool {
    let (wanted, other_end, its_port) = if direction == DIRECTION_EGRESS {
        (RULE_EGRESS, &packet.destination, packet.destination_port)
    } else {
        (RULE_INGRESS, &packet.source, packet.source_port)
    };
    rule.flags & wanted != 0
        && (rule.flags & RULE_DSCP == 0 || rule.dscp >> (packet.dscp & 63) & 1 != 0)
        && ports::include(rule, packet)
        && peers::include(rule, packet, other_end, its_port)
}

/// The wire packets that have one of the rule's lengths.
#[inline(always)]
pub fn portion(rule: &Rule, packet: &Packet) -> Portion {
    if rule.flags & RULE_LENGTHS == 0 {
        return Portion::Whole;
    }
    match (
        has_length(rule, packet.ip_length),
        has_length(rule, packet.last_ip_length),
    ) {
        (true, true) => Portion::Whole,
        (true, false) => Portion::AllButLast,
        (false, true) => Portion::Last,
        (false, false) => Portion::Nothing,
    }
}

/// What these of its wire packets weigh.
#[inline(always)]
pub fn weight(packet: &Packet, portion: Portion) -> Tally {
    let longer = packet.ip_length.wrapping_sub(packet.last_ip_length) as u64;
    // Each but the last one is longer by as much.
    let average = packet.wire.bytes + longer;
    let last = Tally {
        packets: 1,
        bytes: (average / packet.wire.packets.max(1)).wrapping_sub(longer),
    };
    match portion {
        Portion::Nothing => Tally::default(),
        Portion::Whole => packet.wire,
        Portion::Last => last,
        Portion::AllButLast => Tally {
            packets: packet.wire.packets.wrapping_sub(last.packets),
            bytes: packet.wire.bytes.wrapping_sub(last.bytes),
        },
    }
}

#[inline(always)]
fn has_length(rule: &Rule, length: u32) -> bool {
    length >= rule.least_length && length <= rule.greatest_length
}
