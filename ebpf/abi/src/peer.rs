//! Sets of peers: exact addresses and prefixes, included or excepted; the longest prefix decides.
//!
//! Both families have a hash of their own, since an IPv4 key is a third of an IPv6 one. A prefix is looked up once for each
//! length that its set uses, from the longest on. It is keyed by its address with one more bit set right behind the
//! prefix and none after that, its marker, which tells prefixes of different lengths apart.

use crate::{MAX_SLOTS, assert_layout, pod};

/// Entries of each family in all sets: an edit of a large set needs its entries twice for a moment.
pub const MAX_PEERS: u32 = 1 << 19;

/// Sets of peers: each slot has two.
pub const MAX_PEER_SETS: u32 = 2 * MAX_SLOTS;

/// Prefix lengths of one family up to which a set's prefixes are in the hashes. Those of a set with more are in the trie,
/// whose cost doesn't grow with the lengths.
pub const MAX_PEER_LENGTHS: u32 = 8;

/// Value of a peer entry: the address is in the set.
pub const PEER_INCLUDED: u32 = 1;
/// Value of a peer entry: the address is excepted from the set.
pub const PEER_EXCEPTED: u32 = 2;
/// Beside the value of a whole address, or in its place: some of its ports are in the set whatever the rest is. They stand
/// in a map of their own, by [`PeerPortKey`], which is looked into for such addresses alone.
pub const PEER_PORTS: u32 = 4;

/// Ports of peers' addresses in all sets; an edit needs them twice for a moment.
pub const MAX_PEER_PORTS: u32 = 1 << 18;

/// In a scope, beside the number of the set: the key is a whole address and no prefix.
const EXACT: u32 = 1 << 31;
const _: () = assert!(MAX_PEER_SETS <= EXACT);

/// Key of an IPv4 entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey4 {
    scope: u32,
    address: u32,
}
assert_layout!(PeerKey4, size = 8, align = 4);

impl PeerKey4 {
    #[inline(always)]
    pub const fn exact(peer_set: u32, address: u32) -> Self {
        Self {
            scope: peer_set | EXACT,
            address,
        }
    }

    /// The prefix around an address whose marker this is.
    #[inline(always)]
    pub const fn prefix(peer_set: u32, address: u32, marker: u32) -> Self {
        Self {
            scope: peer_set,
            address: address & (marker << 1).wrapping_neg() | marker,
        }
    }

    /// The marker of a prefix length below 32.
    #[inline(always)]
    pub const fn marker(length: u32) -> u32 {
        1 << (31 - length)
    }
}

/// Key of an IPv6 entry; the address in two halves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey6 {
    scope: u64,
    high: u64,
    low: u64,
}
assert_layout!(PeerKey6, size = 24, align = 8);

impl PeerKey6 {
    #[inline(always)]
    pub const fn exact(peer_set: u32, (high, low): (u64, u64)) -> Self {
        Self {
            scope: (peer_set | EXACT) as u64,
            high,
            low,
        }
    }

    /// The prefix around an address whose marker, in two halves, this is.
    #[inline(always)]
    pub const fn prefix(peer_set: u32, (high, low): (u64, u64), marker: (u64, u64)) -> Self {
        let scope = peer_set as u64;
        match marker {
            (0, marker) => Self {
                scope,
                high,
                low: low & (marker << 1).wrapping_neg() | marker,
            },
            (marker, _) => Self {
                scope,
                high: high & (marker << 1).wrapping_neg() | marker,
                low: 0,
            },
        }
    }

    /// The marker of a prefix length below 128.
    #[inline(always)]
    pub const fn marker(length: u32) -> (u64, u64) {
        if length < 64 {
            (1 << (63 - length), 0)
        } else {
            (0, 1 << (127 - length))
        }
    }
}

/// Key of one port of a peer's address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerPortKey {
    peer_set: u32,
    /// The IP protocol number.
    protocol: u16,
    /// The peer's own port; 0 stands for the whole protocol.
    port: u16,
    /// IPv4 addresses are IPv4-mapped.
    address: [u8; 16],
}
assert_layout!(PeerPortKey, size = 24, align = 4);

impl PeerPortKey {
    #[inline(always)]
    pub const fn new(peer_set: u32, protocol: u8, port: u16, address: [u8; 16]) -> Self {
        Self {
            peer_set,
            protocol: protocol as u16,
            port,
            address,
        }
    }

    /// The whole protocol of the same address.
    #[inline(always)]
    pub const fn whole(self) -> Self {
        Self { port: 0, ..self }
    }
}

/// The prefix lengths that a set uses, as the union of their markers, by the number of the set.
///
/// Each bit stands for itself: one without entries costs a look-up, so that bits are set before the first entry comes
/// and taken away after the last one has gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerLengths {
    pub v4: u32,
    /// Not 0: the set's prefixes are in the trie, whatever the other fields say.
    pub in_trie: u32,
    pub v6_high: u64,
    pub v6_low: u64,
}
assert_layout!(PeerLengths, size = 24, align = 8);

/// The halves of an address.
#[inline(always)]
pub const fn peer_halves(address: [u8; 16]) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    (
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes([i, j, k, l, m, n, o, p]),
    )
}

/// The IPv4 address that an IPv4-mapped one is.
#[inline(always)]
pub const fn peer_v4((high, low): (u64, u64)) -> Option<u32> {
    if high == 0 && low >> 32 == 0xffff {
        Some(low as u32)
    } else {
        None
    }
}

/// The data part of a key in the prefix trie: the prefix length counts the 32 bits of `peer_set` and then the address's.
/// Big-endian, since the trie compares bits from the first byte on. [`peer_prefix`] makes one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerPrefix {
    /// Holds the family as well.
    peer_set: [u8; 4],
    address: [u8; 16],
}
assert_layout!(PeerPrefix, size = 20, align = 1);

/// Bits of the prefix trie's key that are not the address.
pub const PEER_PREFIX_BASE: u32 = 32;

/// The bit of a trie key's `peer_set` that says that its address is an IPv4 one, so that `::/0` doesn't take in IPv4.
const IPV4: u32 = 1 << 31;
const _: () = assert!(MAX_PEER_SETS <= IPV4);

/// The data part of a trie key.
#[inline(always)]
pub const fn peer_prefix(peer_set: u32, address: [u8; 16]) -> PeerPrefix {
    let family = match peer_v4(peer_halves(address)) {
        Some(_) => IPV4,
        None => 0,
    };
    PeerPrefix {
        peer_set: (peer_set | family).to_be_bytes(),
        address,
    }
}

pod!(PeerKey4, PeerKey6, PeerLengths, PeerPortKey, PeerPrefix);
