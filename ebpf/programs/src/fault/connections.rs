//! How many packets of each connection there were, for faults on the first ones.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use sabot_abi::{Connection, ConnectionKey, INCIDENT_HELPER_FAILED};

use crate::counters::incident;
use crate::packet::{Packet, TCP, TCP_SYN};
use crate::streams::StreamRef;

/// Connections of all faults of this kind; the ones that were quiet for longest are forgotten.
const MAX_CONNECTIONS: u32 = 1 << 16;
const EEXIST: i32 = -17;

/// The daemon removes those of streams that have ended.
#[map]
static CONNECTIONS: LruHashMap<ConnectionKey, Connection> = LruHashMap::with_max_entries(MAX_CONNECTIONS, 0);

/// Counts the packet; whether it is one of the first so many of its connection. `None`: there is no room to count it.
///
/// A TCP connection begins with its SYN, so that one that was there before the fault isn't at its start; of other protocols
/// the first packet that is seen is the first.
#[inline(always)]
pub fn is_among_first(stream: StreamRef, packet: &Packet, count: u64) -> Option<bool> {
    let key = &key(stream, packet);
    let found = CONNECTIONS.get_ptr_mut(key);
    let begins = packet.protocol != TCP || packet.tcp_flags & TCP_SYN != 0;
    let flags = match found {
        // SAFETY: the entry stays readable while the program runs, even when it is taken for another connection.
        Some(connection) if !is_renewed(packet, unsafe { (*connection).initial_sequence }) => {
            return Some(count_up(stream, connection, count));
        }
        None if !begins => return Some(false),
        Some(_) => BPF_ANY,
        None => BPF_NOEXIST,
    };
    let fresh = &Connection {
        initial_sequence: packet.tcp_sequence as u64,
        packets: 0,
    };
    match CONNECTIONS.insert(key, fresh, flags as u64) {
        Ok(()) | Err(EEXIST) => {}
        Err(_) => {
            incident(INCIDENT_HELPER_FAILED);
            return None;
        }
    }
    CONNECTIONS
        .get_ptr_mut(key)
        .map(|connection| count_up(stream, connection, count))
}

/// No wire packet of this super-packet can be among the first, so that it needn't be taken apart.
#[inline(always)]
pub fn is_past_start(stream: StreamRef, packet: &Packet, count: u64) -> bool {
    match CONNECTIONS.get_ptr_mut(key(stream, packet)) {
        // SAFETY: as above.
        Some(connection) => unsafe { (*connection).packets >= count },
        None => packet.protocol == TCP,
    }
}

#[inline(always)]
fn is_renewed(packet: &Packet, initial_sequence: u64) -> bool {
    packet.protocol == TCP
        && packet.tcp_flags & TCP_SYN != 0
        && packet.tcp_sequence as u64 != initial_sequence
}

#[inline(always)]
fn count_up(stream: StreamRef, connection: *mut Connection, count: u64) -> bool {
    // SAFETY: as above; the field is an aligned word.
    unsafe { (*connection).packets < count && stream.fetch_add(&raw mut (*connection).packets, 1) < count }
}

/// Fragments, of which only the first has ports, count as a connection of their own.
#[inline(always)]
fn key(stream: StreamRef, packet: &Packet) -> ConnectionKey {
    let (source_port, destination_port) = packet.stable_ports();
    ConnectionKey {
        stream: stream.id(),
        source: packet.source,
        destination: packet.destination,
        source_port,
        destination_port,
        protocol: packet.protocol,
    }
}
