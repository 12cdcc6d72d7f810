//! Buckets of an index, as sets and as counts.

use std::collections::HashMap;
use std::iter;

use ipnet::IpNet;
use sabot_abi as abi;

use crate::kernel::tables_encode::mapped;

const WORDS: usize = abi::INDEX_BUCKETS.div_ceil(u64::BITS as usize);

/// Some of an index's buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::kernel::tables) struct Buckets([u64; WORDS]);

impl Buckets {
    /// Those of networks that are canonical.
    pub(in crate::kernel::tables) fn of(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let mut all = Self::default();
        for net in nets {
            of_net(&net).for_each(|bucket| all.insert(bucket));
        }
        all
    }

    pub(super) fn every_address() -> Self {
        let mut all = Self::default();
        all.insert(abi::INDEX_ALWAYS);
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether that has made them more.
    pub(super) fn include(&mut self, more: &Self) -> bool {
        let before = self.clone();
        for (word, more) in self.0.iter_mut().zip(more.0) {
            *word |= more;
        }
        *self != before
    }

    /// The slot at this place of the list has entries in these buckets, and in no others.
    pub(super) fn mark(&self, index: &mut abi::PeerIndex, place: usize) {
        for (bucket, slots) in index.buckets.iter_mut().enumerate() {
            *slots = *slots & !(1 << place) | u64::from(self.contains(bucket)) << place;
        }
    }

    fn insert(&mut self, bucket: usize) {
        self.0[bucket / u64::BITS as usize] |= 1 << (bucket % u64::BITS as usize);
    }

    fn contains(&self, bucket: usize) -> bool {
        self.0[bucket / u64::BITS as usize] >> (bucket % u64::BITS as usize) & 1 != 0
    }
}

/// How many of a set's entries each bucket has; an entry is counted when it has come into the kernel, and no longer when
/// it has gone.
#[derive(Debug, Default)]
pub(in crate::kernel::tables) struct Summary(HashMap<usize, u32>);

impl Summary {
    pub(in crate::kernel::tables) fn add(&mut self, net: &IpNet) {
        for bucket in of_net(net) {
            *self.0.entry(bucket).or_default() += 1;
        }
    }

    pub(in crate::kernel::tables) fn remove(&mut self, net: &IpNet) {
        for bucket in of_net(net) {
            if let Some(count) = self.0.get_mut(&bucket) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(&bucket);
                }
            }
        }
    }

    pub(in crate::kernel::tables) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::kernel::tables) fn buckets(&self) -> Buckets {
        let mut all = Buckets::default();
        self.0.keys().for_each(|bucket| all.insert(*bucket));
        all
    }
}

/// Where the entry of a canonical network stands.
fn of_net(net: &IpNet) -> impl Iterator<Item = usize> + use<> {
    let buckets = abi::index_buckets(abi::peer_halves(mapped(net.addr())));
    let (lengths, length) = match net {
        IpNet::V4(_) => (abi::INDEX_LENGTHS_V4, net.prefix_len()),
        IpNet::V6(_) => (abi::INDEX_LENGTHS_V6, net.prefix_len()),
    };
    let [whole, also_whole, prefixes @ ..] = buckets;
    let (one, another) = if length == net.max_prefix_len() {
        (whole, Some(also_whole))
    } else {
        let row = lengths.iter().position(|row| *row <= length);
        (row.map_or(abi::INDEX_ALWAYS, |row| prefixes[row]), None)
    };
    iter::once(one).chain(another)
}

#[cfg(test)]
mod tests;
