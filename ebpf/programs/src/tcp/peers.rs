//! Who the other end of a connection is.

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use sabot_abi::{MAX_PEER_PREFIXES, PEER_PUBLIC};

/// The daemon writes it; IPv4 prefixes are IPv4-mapped.
#[map]
static PEERS: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(MAX_PEER_PREFIXES, 0);

const WHOLE_ADDRESS: u32 = 128;

/// `PEER_*`.
#[inline(always)]
pub fn class(address: [u8; 16]) -> u32 {
    PEERS
        .get(Key::new(WHOLE_ADDRESS, address))
        .map_or(PEER_PUBLIC, |class| *class)
}
