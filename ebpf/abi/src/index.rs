//! A bitmap index of a list of several slots: by addresses, which of the slots may have them among their peers.
//!
//! An address falls into one bucket of each row, and a bucket says which slots have an entry in it. The first two rows are of
//! whole addresses, which fall into them differently, so that an address is a slot's only when both say so. Each other row
//! is of the address's prefix of one length, where the shorter entries are: an entry stands in the row of the longest such
//! prefix that isn't longer than itself. What is shorter than all of them concerns every address. Thus a slot may be named
//! in vain, and is never missed.

use crate::{MAX_TARGET_SLOTS, assert_layout, peer_v4, pod};

/// Rows of whole addresses, and of prefixes.
const WHOLE: usize = 2;
const PREFIXES: usize = 3;
const ROWS: usize = WHOLE + PREFIXES;

/// The lengths of the prefixes that have a row, in the order of the rows.
pub const INDEX_LENGTHS_V4: [u8; PREFIXES] = [24, 16, 8];
pub const INDEX_LENGTHS_V6: [u8; PREFIXES] = [64, 48, 32];

/// Buckets of a row, as bits of their number.
const WHOLE_BITS: u32 = 7;
const PREFIX_BITS: u32 = 6;
const PREFIX_START: usize = WHOLE << WHOLE_BITS;

/// The bucket that every address falls into, behind all rows.
pub const INDEX_ALWAYS: usize = PREFIX_START + (PREFIXES << PREFIX_BITS);
pub const INDEX_BUCKETS: usize = INDEX_ALWAYS + 1;

/// Odd and without a pattern, so that the upper bits of a product depend on all bits of its factor; the first is 2^64
/// divided by the golden ratio, which spreads numbers that follow each other.
const FACTORS: [u64; WHOLE] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f];

/// Bit `n` of a bucket stands for the `n`-th slot of the list.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIndex {
    pub buckets: [u64; INDEX_BUCKETS],
}
assert_layout!(PeerIndex, size = 8 * INDEX_BUCKETS, align = 8);
const _: () = assert!(MAX_TARGET_SLOTS <= u64::BITS as usize);

impl PeerIndex {
    pub const EMPTY: Self = Self {
        buckets: [0; INDEX_BUCKETS],
    };

    /// The slots that may have an address, in halves, among their peers.
    #[inline(always)]
    pub const fn slots(&self, halves: (u64, u64)) -> u64 {
        let buckets = &self.buckets;
        let [a, b, c, d, e] = index_buckets(halves);
        buckets[a] & buckets[b] | buckets[c] | buckets[d] | buckets[e] | buckets[INDEX_ALWAYS]
    }
}

/// The bucket of an address, in halves, in each row.
#[inline(always)]
pub const fn index_buckets(halves: (u64, u64)) -> [usize; ROWS] {
    let (whole, [c, d, e]) = match peer_v4(halves) {
        Some(v4) => {
            let v4 = v4 as u64;
            (v4, [v4 >> 8, v4 >> 16, v4 >> 24])
        }
        None => {
            let (high, low) = halves;
            (
                high.wrapping_mul(FACTORS[1]) ^ low,
                [high, high >> 16, high >> 32],
            )
        }
    };
    [
        bucket(whole, FACTORS[0], WHOLE_BITS),
        (1 << WHOLE_BITS) + bucket(whole, FACTORS[1], WHOLE_BITS),
        PREFIX_START + bucket(c, FACTORS[0], PREFIX_BITS),
        PREFIX_START + (1 << PREFIX_BITS) + bucket(d, FACTORS[0], PREFIX_BITS),
        PREFIX_START + (2 << PREFIX_BITS) + bucket(e, FACTORS[0], PREFIX_BITS),
    ]
}

#[inline(always)]
const fn bucket(key: u64, factor: u64, bits: u32) -> usize {
    (key.wrapping_mul(factor) >> (u64::BITS - bits)) as usize
}

pod!(PeerIndex);
