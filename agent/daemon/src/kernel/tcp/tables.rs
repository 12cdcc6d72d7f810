//! The maps of owners and of peers, as the daemon fills and reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, MapData, MapError, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;
use sabot_abi::{OwnerKey, TcpFirsts, TcpStats};

use super::{PeerPrefix, TCP};
use crate::kernel::object::ObjectError;

pub(super) struct Tables {
    owners: HashMap<MapData, OwnerKey, u32>,
    stats: PerCpuHashMap<MapData, u32, TcpStats>,
    firsts: HashMap<MapData, u32, TcpFirsts>,
    peers: LpmTrie<MapData, [u8; 16], u32>,
    /// What the maps hold: the keys by which owners are known, ..
    keys: BTreeMap<OwnerKey, u32>,
    /// .. owners that have counters, and prefixes.
    counted: BTreeSet<u32>,
    prefixes: BTreeMap<PeerPrefix, u32>,
}

impl Tables {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, ObjectError> {
        Ok(Self {
            owners: TCP.take(object, "OWNERS")?,
            stats: TCP.take(object, "STATS")?,
            firsts: TCP.take(object, "FIRSTS")?,
            peers: TCP.take(object, "PEERS")?,
            keys: BTreeMap::new(),
            counted: BTreeSet::new(),
            prefixes: BTreeMap::new(),
        })
    }

    /// An owner has counters before the programs can find it, and keeps them until they can't.
    pub(super) fn set_owners(&mut self, wanted: BTreeMap<OwnerKey, u32>) -> Result<(), ObjectError> {
        let changed = |key: &OwnerKey, owner: &u32| wanted.get(key) != Some(owner);
        let gone: Vec<_> = self
            .keys
            .iter()
            .filter(|(key, owner)| changed(key, owner))
            .collect();
        let gone: Vec<OwnerKey> = gone.into_iter().map(|(key, _)| *key).collect();
        for key in gone {
            TCP.removed("OWNERS", self.owners.remove(&key))?;
            self.keys.remove(&key);
        }
        let live: BTreeSet<u32> = wanted.values().copied().collect();
        let ended: Vec<u32> = self.counted.difference(&live).copied().collect();
        for owner in ended {
            TCP.removed("FIRSTS", self.firsts.remove(&owner))?;
            TCP.removed("STATS", self.stats.remove(&owner))?;
            self.counted.remove(&owner);
        }
        for owner in live {
            self.make_counters(owner)?;
        }
        for (key, owner) in wanted {
            if !self.keys.contains_key(&key) {
                written("OWNERS", self.owners.insert(key, owner, 0))?;
                self.keys.insert(key, owner);
            }
        }
        Ok(())
    }

    fn make_counters(&mut self, owner: u32) -> Result<(), ObjectError> {
        if self.counted.contains(&owner) {
            return Ok(());
        }
        let values = empty_on_every_cpu().map_err(|error| {
            let source = MapError::IoError(error);
            TCP.map("STATS")(source)
        })?;
        written("FIRSTS", self.firsts.insert(owner, TcpFirsts::default(), 0))?;
        written("STATS", self.stats.insert(owner, values, 0))?;
        self.counted.insert(owner);
        Ok(())
    }

    pub(super) fn set_peers(&mut self, wanted: BTreeMap<PeerPrefix, u32>) -> Result<(), ObjectError> {
        let gone: Vec<PeerPrefix> = self
            .prefixes
            .keys()
            .filter(|prefix| !wanted.contains_key(prefix))
            .copied()
            .collect();
        for prefix in gone {
            TCP.removed("PEERS", self.peers.remove(&key(prefix)))?;
            self.prefixes.remove(&prefix);
        }
        for (prefix, class) in wanted {
            if self.prefixes.get(&prefix) != Some(&class) {
                written("PEERS", self.peers.insert(&key(prefix), class, 0))?;
                self.prefixes.insert(prefix, class);
            }
        }
        Ok(())
    }

    pub(super) fn peers(&self) -> Vec<(PeerPrefix, u32)> {
        let prefixes = self.prefixes.iter();
        prefixes.map(|(prefix, class)| (*prefix, *class)).collect()
    }

    pub(super) fn stats(&self, owner: u32) -> Result<Option<TcpStats>, ObjectError> {
        let values = TCP.found("STATS", self.stats.get(&owner, 0))?;
        Ok(values.map(|values| sum(values.iter())))
    }

    pub(super) fn firsts(&self, owner: u32) -> Result<Option<TcpFirsts>, ObjectError> {
        TCP.found("FIRSTS", self.firsts.get(&owner, 0))
    }

    pub(super) fn reset_firsts(&mut self, owner: u32) -> Result<(), ObjectError> {
        if self.counted.contains(&owner) {
            written("FIRSTS", self.firsts.insert(owner, TcpFirsts::default(), 0))?;
        }
        Ok(())
    }

    pub(super) fn entries(&self) -> Result<[usize; 3], ObjectError> {
        Ok([
            count("OWNERS", self.owners.keys())?,
            count("STATS", self.stats.keys())?,
            count("FIRSTS", self.firsts.keys())?,
        ])
    }
}

fn key(prefix: PeerPrefix) -> Key<[u8; 16]> {
    Key::new(prefix.length, prefix.address)
}

fn empty_on_every_cpu() -> Result<PerCpuValues<TcpStats>, io::Error> {
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    PerCpuValues::try_from(vec![TcpStats::EMPTY; cpus])
}

fn written(map: &'static str, result: Result<(), MapError>) -> Result<(), ObjectError> {
    result.map_err(TCP.map(map))
}

fn count<K>(
    map: &'static str,
    mut keys: impl Iterator<Item = Result<K, MapError>>,
) -> Result<usize, ObjectError> {
    keys.try_fold(0, |count, key| key.map(|_| count + 1))
        .map_err(TCP.map(map))
}

/// Every field is named, so that a new one can't be forgotten here.
fn sum<'a>(cpus: impl Iterator<Item = &'a TcpStats>) -> TcpStats {
    cpus.fold(TcpStats::EMPTY, |mut sum, cpu| {
        let TcpStats {
            connections,
            connect_errors,
            lost,
            retransmits,
            synack_retransmits,
            rtos,
            resets_sent,
            resets_received,
            bytes_sent,
            bytes_received,
            handshakes,
            rtts,
        } = cpu;
        for (total, count) in sum
            .connections
            .as_flattened_mut()
            .iter_mut()
            .zip(connections.as_flattened())
        {
            *total += count;
        }
        for (total, count) in sum.connect_errors.iter_mut().zip(connect_errors) {
            *total += count;
        }
        sum.lost += lost;
        sum.retransmits += retransmits;
        sum.synack_retransmits += synack_retransmits;
        sum.rtos += rtos;
        sum.resets_sent += resets_sent;
        sum.resets_received += resets_received;
        sum.bytes_sent += bytes_sent;
        sum.bytes_received += bytes_received;
        sum.handshakes.add(handshakes);
        sum.rtts.add(rtts);
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_the_cpus() {
        let mut one = TcpStats::EMPTY;
        one.connections[2][1] = 3;
        one.retransmits = 5;
        one.rtts.buckets[7] = 1;
        one.rtts.sum = 100;
        let mut other = one;
        other.connect_errors[4] = 2;
        other.bytes_received = 9;
        let total = sum([one, other].iter());
        assert_eq!((total.connections[2][1], total.retransmits), (6, 10));
        assert_eq!((total.connect_errors[4], total.bytes_received), (2, 9));
        assert_eq!((total.rtts.buckets[7], total.rtts.sum), (2, 200));
    }
}
