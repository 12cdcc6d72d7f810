//! Who the other end is: the longest prefix decides, and a whole address before any.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap};
use sabot_abi::{
    MAX_PEER_LENGTHS, MAX_PEER_PORTS, MAX_PEER_SETS, MAX_PEERS, MAX_PEERS_BESIDE, PEER_BUCKET_CELLS,
    PEER_BUCKET_FULL, PEER_BUCKETS, PEER_INCLUDED, PEER_PORTS, PEER_PREFIX_BASE, PeerBucket4, PeerKey4,
    PeerKey6, PeerLengths, PeerPortKey, PeerPrefix, RULE_PEERS, RULE_PEERS_EXACT, RULE_PEERS_PREFIX,
    RULE_SPARE_NODE, Rule, peer_cell_value, peer_halves, peer_prefix, peer_v4,
};

use crate::packet::Packet;

const MAX_NODE_ADDRESSES: u32 = 1024;
const FULL_PREFIX: u32 = PEER_PREFIX_BASE + 128;
/// No entry has this value.
const NONE: u32 = 0;

#[map]
static PEERS_V4: Array<PeerBucket4> = Array::with_max_entries(PEER_BUCKETS, BPF_F_MMAPABLE);
/// Those that have no room in their bucket.
#[map]
static PEERS_V4_BESIDE: HashMap<PeerKey4, u32> =
    HashMap::with_max_entries(MAX_PEERS_BESIDE, BPF_F_NO_PREALLOC);
#[map]
static PEERS_V6: HashMap<PeerKey6, u32> = HashMap::with_max_entries(MAX_PEERS, BPF_F_NO_PREALLOC);
/// By set.
#[map]
static PEER_LENGTHS: Array<PeerLengths> = Array::with_max_entries(MAX_PEER_SETS, 0);
/// Prefixes of sets that use many lengths.
#[map]
static PEERS_TRIE: LpmTrie<PeerPrefix, u32> = LpmTrie::with_max_entries(MAX_PEERS, 0);
/// Ports of addresses that say so; the value has no meaning.
#[map]
static PORTS_OF_PEERS: HashMap<PeerPortKey, u32> =
    HashMap::with_max_entries(MAX_PEER_PORTS, BPF_F_NO_PREALLOC);
/// The node's own addresses; the value has no meaning.
#[map]
static NODE_ADDRESSES: HashMap<[u8; 16], u32> =
    HashMap::with_max_entries(MAX_NODE_ADDRESSES, BPF_F_NO_PREALLOC);

/// Whether the rule's peers include the packet's other end, which is this address with this port; 0 where it has none.
#[inline(always)]
pub fn include(rule: &Rule, packet: &Packet, address: &[u8; 16], port: u16) -> bool {
    if rule.flags & RULE_PEERS == 0 {
        return !spared(rule, address);
    }
    let halves = peer_halves(*address);
    let v4 = peer_v4(halves);
    if rule.flags & RULE_PEERS_EXACT != 0 {
        let entry = match v4 {
            Some(v4) => in_v4(PeerKey4::exact(rule.peer_set, v4)),
            None => in_v6(PeerKey6::exact(rule.peer_set, halves)),
        };
        if entry & PEER_PORTS != 0 && has_port(rule.peer_set, address, packet.protocol, port as u32) {
            return true;
        }
        let entry = entry & !PEER_PORTS;
        if entry != NONE {
            return entry == PEER_INCLUDED;
        }
    }
    if rule.flags & RULE_PEERS_PREFIX == 0 {
        return false;
    }
    let Some(lengths) = PEER_LENGTHS.get(rule.peer_set) else {
        return false;
    };
    let entry = if lengths.in_trie != 0 {
        in_trie(rule.peer_set, address)
    } else {
        match v4 {
            Some(v4) => longest_v4(rule.peer_set, lengths, v4),
            None => longest_v6(rule.peer_set, lengths, halves.0, halves.1),
        }
    };
    entry == PEER_INCLUDED && !spared(rule, address)
}

/// Whether the set has this port of the address, or the whole protocol.
///
/// A subprogram of its own, as [`longest_v4`] is.
#[inline(never)]
fn has_port(peer_set: u32, address: &[u8; 16], protocol: u32, port: u32) -> bool {
    let key = PeerPortKey::new(peer_set, protocol as u8, port as u16, *address);
    // SAFETY: only presence counts.
    if unsafe { PORTS_OF_PEERS.get(key) }.is_some() {
        return true;
    }
    // SAFETY: as above.
    port != 0 && unsafe { PORTS_OF_PEERS.get(key.whole()) }.is_some()
}

/// As [`longest_v4`], of a set whose prefixes have many lengths.
///
/// A subprogram of its own, so that what its key is made of doesn't take room on the caller's stack.
#[inline(never)]
fn in_trie(peer_set: u32, address: &[u8; 16]) -> u32 {
    let key = Key::new(FULL_PREFIX, peer_prefix(peer_set, *address));
    PEERS_TRIE.get(key).map_or(NONE, |entry| *entry)
}

/// The value of the longest prefix around the address, [`NONE`] without one.
///
/// A subprogram of its own, so that the verifier goes on from its result and not from each of its ends.
#[inline(never)]
fn longest_v4(peer_set: u32, lengths: &PeerLengths, address: u32) -> u32 {
    let mut markers = lengths.v4;
    for _ in 0..MAX_PEER_LENGTHS {
        // The longest prefix has the lowest marker.
        let marker = markers & markers.wrapping_neg();
        if marker == 0 {
            return NONE;
        }
        let entry = in_v4(PeerKey4::prefix(peer_set, address, marker));
        if entry != NONE {
            return entry;
        }
        markers ^= marker;
    }
    NONE
}

/// As [`longest_v4`].
#[inline(never)]
fn longest_v6(peer_set: u32, lengths: &PeerLengths, high: u64, low: u64) -> u32 {
    let address = (high, low);
    let (mut high, mut low) = (lengths.v6_high, lengths.v6_low);
    for _ in 0..MAX_PEER_LENGTHS {
        let marker = if low != 0 {
            (0, low & low.wrapping_neg())
        } else {
            (high & high.wrapping_neg(), 0)
        };
        if marker == (0, 0) {
            return NONE;
        }
        let entry = in_v6(PeerKey6::prefix(peer_set, address, marker));
        if entry != NONE {
            return entry;
        }
        high ^= marker.0;
        low ^= marker.1;
    }
    NONE
}

#[inline(always)]
fn in_v4(key: PeerKey4) -> u32 {
    fault_peer_v4(key.to_bits())
}

/// The value of an entry, [`NONE`] without one.
///
/// A global function in the verifier's sense, which is followed once and not from each of its callers.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fault_peer_v4(key: u64) -> u32 {
    let key = PeerKey4::from_bits(key);
    let Some(bucket) = PEERS_V4.get(key.bucket()) else {
        return NONE;
    };
    let mut is_full = false;
    for place in 0..PEER_BUCKET_CELLS {
        // SAFETY: the reference is valid; the daemon may change a cell at any time, and does so as one.
        let cell = unsafe { (&raw const bucket.cells[place]).read_volatile() };
        if key.is_in(cell) {
            return peer_cell_value(cell);
        }
        if place == 0 {
            is_full = cell & PEER_BUCKET_FULL != 0;
        }
    }
    if !is_full {
        return NONE;
    }
    // SAFETY: a value is one aligned word; the daemon never writes another meaning into it.
    unsafe { PEERS_V4_BESIDE.get(key) }.copied().unwrap_or(NONE)
}

#[inline(always)]
fn in_v6(key: PeerKey6) -> u32 {
    // SAFETY: as in `fault_peer_v4`.
    unsafe { PEERS_V6.get(key) }.copied().unwrap_or(NONE)
}

#[inline(always)]
fn spared(rule: &Rule, address: &[u8; 16]) -> bool {
    // SAFETY: only presence counts.
    rule.flags & RULE_SPARE_NODE != 0 && unsafe { NODE_ADDRESSES.get(address) }.is_some()
}
