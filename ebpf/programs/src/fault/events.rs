//! Sampled packet events.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use sabot_abi::{INCIDENT_EVENT_LOST, PacketEvent};

use crate::counters::incident;
use crate::packet::Packet;
use crate::waking;

#[map]
static PACKET_EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Where and what of a decision.
pub struct Decision {
    pub slot: u32,
    pub target: u32,
    pub direction: u32,
    pub outcome: u32,
    pub time: u64,
}

/// Reports one in `sample_every` decisions; a full ring is counted.
#[inline(never)]
pub fn sample(sample_every: u32, packet: &Packet, decision: &Decision) {
    // SAFETY: the helper takes nothing and returns a number.
    if sample_every == 0 || (unsafe { bpf_get_prandom_u32() } as u64 * sample_every as u64) >> 32 != 0 {
        return;
    }
    let Some(mut entry) = PACKET_EVENTS.reserve::<PacketEvent>(0) else {
        incident(INCIDENT_EVENT_LOST);
        return;
    };
    entry.write(PacketEvent {
        time: decision.time,
        slot: decision.slot,
        target: decision.target,
        direction: decision.direction,
        outcome: decision.outcome,
        source: packet.source,
        destination: packet.destination,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: packet.protocol,
        wire_packets: packet.wire.packets as u32,
        wire_bytes: packet.wire.bytes as u32,
    });
    entry.submit(waking::flags(&PACKET_EVENTS));
}
