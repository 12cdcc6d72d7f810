//! Who the other end is: exact addresses in a hash, prefixes in a trie, the longest prefix decides.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use sabot_abi::{
    MAX_PEERS, PEER_INCLUDED, PEER_PREFIX_BASE, PeerKey, PeerPrefix, RULE_PEERS, RULE_PEERS_EXACT,
    RULE_PEERS_PREFIX, RULE_SPARE_NODE, Rule, peer_prefix,
};

const MAX_NODE_ADDRESSES: u32 = 1024;
const FULL_PREFIX: u32 = PEER_PREFIX_BASE + 128;

#[map]
static PEERS_EXACT: HashMap<PeerKey, u32> = HashMap::with_max_entries(MAX_PEERS, BPF_F_NO_PREALLOC);
#[map]
static PEERS_PREFIX: LpmTrie<PeerPrefix, u32> = LpmTrie::with_max_entries(MAX_PEERS, 0);
/// The node's own addresses; the value has no meaning.
#[map]
static NODE_ADDRESSES: HashMap<[u8; 16], u32> =
    HashMap::with_max_entries(MAX_NODE_ADDRESSES, BPF_F_NO_PREALLOC);

/// Whether the rule's peers include the address.
#[inline(always)]
pub fn include(rule: &Rule, address: &[u8; 16]) -> bool {
    if rule.flags & RULE_PEERS == 0 {
        return !spared(rule, address);
    }
    if rule.flags & RULE_PEERS_EXACT != 0 {
        let key = PeerKey {
            peer_set: rule.peer_set,
            address: *address,
        };
        // SAFETY: a value is one aligned word; the daemon never writes another meaning into it.
        if let Some(entry) = unsafe { PEERS_EXACT.get(key) } {
            return *entry == PEER_INCLUDED;
        }
    }
    if rule.flags & RULE_PEERS_PREFIX == 0 {
        return false;
    }
    let key = Key::new(FULL_PREFIX, peer_prefix(rule.peer_set, *address));
    match PEERS_PREFIX.get(key) {
        Some(entry) => *entry == PEER_INCLUDED && !spared(rule, address),
        None => false,
    }
}

#[inline(always)]
fn spared(rule: &Rule, address: &[u8; 16]) -> bool {
    // SAFETY: only presence counts.
    rule.flags & RULE_SPARE_NODE != 0 && unsafe { NODE_ADDRESSES.get(address) }.is_some()
}
