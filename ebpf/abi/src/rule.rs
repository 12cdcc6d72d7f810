//! Rules: what a slot does to the packets that it matches.

use crate::{assert_layout, pod};

/// Slots, and so faults, that the kernel's tables hold at once.
pub const MAX_SLOTS: u32 = 4096;
/// Peer entries in all sets, of each kind (exact addresses, prefixes).
pub const MAX_PEERS: u32 = 1 << 18;
/// The map flag for "insert only".
pub const BPF_NOEXIST: u32 = 1;
/// Ports and protocols in all rules.
pub const MAX_PORTS: u32 = 1 << 16;

/// Traffic that leaves the target.
pub const DIRECTION_EGRESS: u32 = 0;
/// Traffic that arrives at the target.
pub const DIRECTION_INGRESS: u32 = 1;

pub const ACTION_PARTITION: u32 = 1;
pub const ACTION_DROP: u32 = 2;
pub const ACTION_CORRUPT: u32 = 3;
pub const ACTION_DELAY: u32 = 4;

/// The rule covers egress.
pub const RULE_EGRESS: u32 = 1 << 0;
/// The rule covers ingress.
pub const RULE_INGRESS: u32 = 1 << 1;
/// Only packets whose other end is in the rule's peer set match; without it every other end does.
pub const RULE_PEERS: u32 = 1 << 2;
/// The peer set holds exact addresses (the `PEERS_EXACT` map).
pub const RULE_PEERS_EXACT: u32 = 1 << 3;
/// The peer set holds prefixes (the `PEERS_PREFIX` map).
pub const RULE_PEERS_PREFIX: u32 = 1 << 4;
/// Traffic with the node's own addresses is spared unless the peer set names that address exactly.
pub const RULE_SPARE_NODE: u32 = 1 << 5;

/// Only packets with a port of the rule's port set match (the `PORTS` map).
pub const RULE_PORTS: u32 = 1 << 6;
/// Only packets of a protocol of the rule's port set match; with [`RULE_PORTS`] too, either is enough.
pub const RULE_PROTOCOLS: u32 = 1 << 7;

/// `PortKey::port` for "the whole protocol".
pub const PORT_ALL: u32 = 1 << 16;

/// What a slot does. Bodies are immutable once a slot's state points at them: an edit writes the slot's other body and
/// then swaps the state word, so a packet sees the old rule or the new one, never a mixture.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// One of `ACTION_*`.
    pub action: u32,
    /// A set of `RULE_*`.
    pub flags: u32,
    /// `CLOCK_BOOTTIME` in ns; the rule is inert before.
    pub starts_at: u64,
    /// `CLOCK_BOOTTIME` in ns; the rule is inert from then on.
    pub expires_at: u64,
    /// The key of the rule's peers in the peer maps.
    pub peer_set: u32,
    /// The key of the rule's ports in the port map.
    pub port_set: u32,
    /// The share of wire packets acted upon, in units of 2^-32 (`1 << 32` is all of them): `drop`, `corrupt`.
    pub threshold: u64,
    /// One in this many decided packets is reported as an event; 0 reports none.
    pub sample_every: u32,
    pub reserved: u32,
}
assert_layout!(Rule, size = 48, align = 8);

/// Key of a port in a port set. A packet matches when its source or its destination port is there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    pub port_set: u32,
    /// The IP protocol number.
    pub protocol: u32,
    /// Host byte order, or [`PORT_ALL`].
    pub port: u32,
}
assert_layout!(PortKey, size = 12, align = 4);

/// Key of an exact peer address. IPv4 addresses are IPv4-mapped IPv6 ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey {
    pub peer_set: u32,
    pub address: [u8; 16],
}
assert_layout!(PeerKey, size = 20, align = 4);

/// The data part of a key in the prefix trie: the prefix length counts the 32 bits of `peer_set` and then the address's.
/// `peer_set` is in network byte order here, since the trie compares bits from the first byte on, and holds the family.
/// [`peer_prefix`] makes one.
pub type PeerPrefix = PeerKey;

/// Bits of the prefix trie's key that are not the address.
pub const PEER_PREFIX_BASE: u32 = 32;

/// The bit of a trie key's `peer_set` that says that its address is an IPv4 one, so that `::/0` doesn't take in IPv4.
const PEER_PREFIX_IPV4: u32 = 1 << 31;
const _: () = assert!(2 * MAX_SLOTS <= PEER_PREFIX_IPV4);

/// The data part of a trie key.
#[inline(always)]
pub const fn peer_prefix(peer_set: u32, address: [u8; 16]) -> PeerPrefix {
    let family = match address {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..] => PEER_PREFIX_IPV4,
        _ => 0,
    };
    PeerPrefix {
        peer_set: (peer_set | family).to_be(),
        address,
    }
}

/// Value of a peer entry: the address is in the set.
pub const PEER_INCLUDED: u32 = 1;
/// Value of a peer entry: the address is excepted from the set.
pub const PEER_EXCEPTED: u32 = 2;

/// A slot's state word: 0 when free, otherwise the index of its rule body plus one. Bodies of slot `s` are `2s` and `2s + 1`.
pub const SLOT_FREE: u32 = 0;

pod!(Rule, PortKey, PeerKey);
