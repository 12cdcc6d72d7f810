//! Sets of peers: exact addresses and prefixes, included or excepted; the longest prefix decides.
//!
//! Both families have a table of their own. An IPv4 entry is one word, so that a bucket of eight is one line of the
//! processor's cache, which is all that a look-up fetches; an IPv6 one stands in a hash of the kernel's. A prefix is looked
//! up once for each length that its set uses, from the longest on. It is keyed by its address with one more bit set right
//! behind the prefix and none after that, its marker, which tells prefixes of different lengths apart.

use crate::{MAX_SLOTS, assert_layout, pod};

/// Entries of each family in all sets: an edit of a large set needs its entries twice for a moment.
pub const MAX_PEERS: u32 = 1 << 19;

/// Sets of peers: each slot has two.
pub const MAX_PEER_SETS: u32 = 2 * MAX_SLOTS;

/// Prefix lengths of one family up to which a set's prefixes are beside its addresses. Those of a set with more are in the trie,
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

/// Buckets of IPv4 entries. With [`MAX_PEERS`] entries as many cells are there, and [`MAX_PEERS_BESIDE`] for those whose
/// bucket is full.
pub const PEER_BUCKETS: u32 = 1 << PEER_BUCKET_BITS;
const PEER_BUCKET_BITS: u32 = 16;

/// Cells of a bucket.
pub const PEER_BUCKET_CELLS: usize = 8;

/// IPv4 entries whose bucket is full, which are in a hash: one in seven or so when there are [`MAX_PEERS`], one in two thousand
/// of 150,000.
pub const MAX_PEERS_BESIDE: u32 = 1 << 17;

/// In a scope, beside the number of the set: the key is a whole address and no prefix.
const EXACT: u32 = 1 << 15;
const _: () = assert!(MAX_PEER_SETS <= EXACT);

/// Key of an IPv4 entry: the address in the low half, above it a scope of 16 bits, and nothing above that.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey4(u64);
assert_layout!(PeerKey4, size = 8, align = 8);

impl PeerKey4 {
    const BITS: u32 = 48;

    #[inline(always)]
    pub const fn exact(peer_set: u32, address: u32) -> Self {
        Self::new(peer_set | EXACT, address)
    }

    /// The prefix around an address whose marker this is.
    #[inline(always)]
    pub const fn prefix(peer_set: u32, address: u32, marker: u32) -> Self {
        Self::new(peer_set, address & (marker << 1).wrapping_neg() | marker)
    }

    /// The marker of a prefix length below 32.
    #[inline(always)]
    pub const fn marker(length: u32) -> u32 {
        1 << (31 - length)
    }

    #[inline(always)]
    const fn new(scope: u32, address: u32) -> Self {
        Self((scope as u64) << 32 | address as u64)
    }

    /// As a number, for functions that take only numbers.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// What [`to_bits`](Self::to_bits) made.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bucket in which the entry is, if it is in one. Neighbours, and addresses at any distance from each other, spread
    /// evenly: each bit of the key counts in each bit of the result.
    #[inline(always)]
    pub const fn bucket(self) -> u32 {
        // The golden ratio, and the multiplier of SplitMix64's last step.
        let half = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let whole = (half ^ half >> 32).wrapping_mul(0x94d0_49bb_1331_11eb);
        (whole >> (u64::BITS - PEER_BUCKET_BITS)) as u32
    }

    /// The entry as it stands in a cell; its value isn't 0.
    #[inline(always)]
    pub const fn cell(self, value: u32) -> u64 {
        (value as u64) << Self::BITS | self.0
    }

    /// Whether this cell is the key's: no key is 0, which is what an empty cell has in its place.
    #[inline(always)]
    pub const fn is_in(self, cell: u64) -> bool {
        (cell ^ self.0) << (u64::BITS - Self::BITS) == 0
    }
}

/// The value of a cell's entry, 0 of an empty one.
#[inline(always)]
pub const fn peer_cell_value(cell: u64) -> u32 {
    (cell >> PeerKey4::BITS) as u32 & (PEER_INCLUDED | PEER_EXCEPTED | PEER_PORTS)
}

/// In a bucket's first cell, whatever else is in it: some of the bucket's entries are in the hash beside.
pub const PEER_BUCKET_FULL: u64 = 1 << 63;

/// Some IPv4 entries, in no order; a line of the cache. Each cell changes as one.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerBucket4 {
    pub cells: [u64; PEER_BUCKET_CELLS],
}
assert_layout!(PeerBucket4, size = 64, align = 64);

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

pod!(
    PeerBucket4,
    PeerKey4,
    PeerKey6,
    PeerLengths,
    PeerPortKey,
    PeerPrefix
);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;

    /// How many of the entries don't find a cell.
    fn displaced(keys: impl Iterator<Item = PeerKey4>) -> usize {
        let mut counts = vec![0; PEER_BUCKETS as usize];
        keys.for_each(|key| counts[key.bucket() as usize] += 1);
        let beside = counts
            .iter()
            .map(|count: &usize| count.saturating_sub(PEER_BUCKET_CELLS));
        beside.sum()
    }

    #[test]
    fn entries_of_any_pattern_spread_as_chance_would_have_them() {
        // By Poisson's distribution 62 of 150,000, and 73,300 of as many as there may be.
        for stride in [1, 2, 16, 256, 65_536 + 256, 0x0100_0001, 0x9e37_79b1] {
            let some = |count: u32| (0..count).map(move |index| index.wrapping_mul(stride));
            let exact = |address| PeerKey4::exact(5, 0x0a80_0000_u32.wrapping_add(address));
            let prefix = |address| PeerKey4::prefix(5, address, PeerKey4::marker(28));
            assert!(displaced(some(150_000).map(exact)) < 200, "by {stride}");
            let all = displaced(some(MAX_PEERS).map(exact));
            assert!(all < MAX_PEERS_BESIDE as usize * 2 / 3, "{all} by {stride}");
            if stride >= 16 && stride % 16 == 0 {
                assert!(displaced(some(65_536).map(prefix)) < 200, "by {stride}");
            }
        }
        // The same few addresses in each of many sets.
        let sets = (0..MAX_PEER_SETS).flat_map(|set| (0..18).map(move |last| PeerKey4::exact(set, last)));
        assert!(displaced(sets) < 200);
    }

    #[test]
    fn a_cell_is_its_keys_alone() {
        let key = PeerKey4::exact(MAX_PEER_SETS - 1, u32::MAX);
        let marker = PeerKey4::marker(31);
        let others = [
            PeerKey4::prefix(MAX_PEER_SETS - 1, u32::MAX, marker),
            PeerKey4::exact(MAX_PEER_SETS - 2, u32::MAX),
            PeerKey4::exact(MAX_PEER_SETS - 1, u32::MAX - 1),
            PeerKey4::prefix(0, 0, marker),
            PeerKey4::exact(0, 0),
        ];
        for value in [PEER_INCLUDED, PEER_EXCEPTED, PEER_PORTS | PEER_EXCEPTED] {
            for cell in [key.cell(value), key.cell(value) | PEER_BUCKET_FULL] {
                assert!(key.is_in(cell));
                assert_eq!(peer_cell_value(cell), value);
                assert!(others.iter().all(|other| !other.is_in(cell)));
            }
        }
        for empty in [0, PEER_BUCKET_FULL] {
            assert!(!key.is_in(empty) && others.iter().all(|other| !other.is_in(empty)));
            assert_eq!(peer_cell_value(empty), 0);
        }
    }
}
