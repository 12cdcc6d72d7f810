//! Which ports and protocols a rule names.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use sabot_abi::{MAX_PORTS, PORT_ALL, PortKey, RULE_PORTS, RULE_PROTOCOLS, Rule};

use crate::packet::Packet;

/// The value has no meaning.
#[map]
static PORTS: HashMap<PortKey, u32> = HashMap::with_max_entries(MAX_PORTS, BPF_F_NO_PREALLOC);

/// Whether the rule's ports include the packet.
///
/// A later fragment matches a whole protocol, never a port: the datagram's first fragment decides for it, and a fragment
/// of somebody else's datagram is never touched.
#[inline(always)]
pub fn include(rule: &Rule, packet: &Packet) -> bool {
    if rule.flags & (RULE_PORTS | RULE_PROTOCOLS) == 0 {
        return true;
    }
    if rule.flags & RULE_PROTOCOLS != 0 && names(rule, packet, PORT_ALL) {
        return true;
    }
    rule.flags & RULE_PORTS != 0
        && packet.has_ports
        && (names(rule, packet, packet.destination_port as u32)
            || names(rule, packet, packet.source_port as u32))
}

#[inline(always)]
fn names(rule: &Rule, packet: &Packet, port: u32) -> bool {
    let key = PortKey {
        port_set: rule.port_set,
        protocol: packet.protocol,
        port,
    };
    // SAFETY: only presence counts.
    unsafe { PORTS.get(key) }.is_some()
}
