//! Which ports, ICMP types and protocols a rule names.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use sabot_abi::{
    MAX_PORTS, PORT_KEY_BITS, PortKey, RULE_PORTS, RULE_PROTOCOLS, Rule, SIDE_DESTINATION, SIDE_SOURCE,
    SIDE_WHOLE,
};

use crate::packet::Packet;

/// The value has no meaning.
#[map]
static PORTS: LpmTrie<PortKey, u32> = LpmTrie::with_max_entries(MAX_PORTS, BPF_F_NO_PREALLOC);

/// Whether the rule's ports include the packet.
///
/// A later fragment matches a whole protocol, never a port: the datagram's first fragment decides for it, and a fragment
/// of somebody else's datagram is never touched.
#[inline(always)]
pub fn include(rule: &Rule, packet: &Packet) -> bool {
    if rule.flags & (RULE_PORTS | RULE_PROTOCOLS) == 0 {
        return true;
    }
    if rule.flags & RULE_PROTOCOLS != 0 && names(rule, packet, SIDE_WHOLE, 0) {
        return true;
    }
    if rule.flags & RULE_PORTS == 0 {
        return false;
    }
    if let Some(kind_and_code) = packet.icmp {
        return names(rule, packet, SIDE_DESTINATION, kind_and_code);
    }
    packet.has_ports
        && (names(rule, packet, SIDE_DESTINATION, packet.destination_port)
            || names(rule, packet, SIDE_SOURCE, packet.source_port))
}

#[inline(always)]
fn names(rule: &Rule, packet: &Packet, side: u8, port: u16) -> bool {
    let key = PortKey::new(rule.port_set, packet.protocol as u8, side, port);
    PORTS.get(Key::new(PORT_KEY_BITS, key)).is_some()
}
