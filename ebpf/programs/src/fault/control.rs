//! The connections that keep the node reachable: SSH, the kubelet, the API server, the daemon itself. Faults on the node's
//! own devices leave them alone unless they say otherwise.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use sabot_abi::{ControlEnd, MAX_CONTROL_ENDS, RULE_CONTROL_PLANE, Rule, TARGET_NODE_DEVICE, Target};

use crate::packet::{Packet, TCP};

/// The value has no meaning.
#[map]
static CONTROL_PLANE: HashMap<ControlEnd, u32> =
    HashMap::with_max_entries(MAX_CONTROL_ENDS, BPF_F_NO_PREALLOC);

/// Whether the packet is one that the rule leaves alone on this target.
#[inline(always)]
pub fn spares(rule: &Rule, target: &Target, packet: &Packet) -> bool {
    target.flags & TARGET_NODE_DEVICE != 0
        && rule.flags & RULE_CONTROL_PLANE == 0
        && packet.protocol == TCP
        && packet.has_ports
        && (has(&packet.source, packet.source_port) || has(&packet.destination, packet.destination_port))
}

#[inline(never)]
fn has(address: &[u8; 16], port: u16) -> bool {
    let end = ControlEnd {
        address: *address,
        port: port.to_be_bytes(),
    };
    // SAFETY: only presence counts.
    unsafe { CONTROL_PLANE.get(end) }.is_some()
}
