//! Sets of peers: which entries there are, and by which lengths the programs look for them.

mod limited;
mod v4;

use std::collections::HashMap;
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap as KernelHash, LpmTrie, MapData, MapError};
use ipnet::IpNet;
use sabot_abi as abi;
use sabot_core::plan::{PeerEntry, PeerSetId};

use self::limited::Limited;
use self::v4::PeersV4;
use super::index::{Buckets, Summary};
use super::removals::Removals;
use super::{TableError, is_full, is_present, on, take, unless_absent};
use crate::kernel::tables_encode::mapped;

/// No entry of its own.
const NONE: u32 = 0;

/// The maps of peers, and what they hold.
pub(super) struct Peers {
    maps: Maps,
    /// Those that have prefixes.
    sets: HashMap<PeerSetId, Prefixes>,
    /// Entries that are limited to ports.
    limited: Limited,
}

struct Maps {
    v4: PeersV4,
    v6: KernelHash<MapData, abi::PeerKey6, u32>,
    trie: LpmTrie<MapData, abi::PeerPrefix, u32>,
    lengths: Array<MapData, abi::PeerLengths>,
    removals: Arc<Removals>,
    /// Of the entries that are in them.
    summaries: HashMap<PeerSetId, Summary>,
}

/// The prefixes of a set that are in the kernel.
#[derive(Default)]
struct Prefixes {
    /// With the value of each.
    entries: HashMap<IpNet, u32>,
    counts: Counts,
    /// They are in the trie; until all have gone, since a set that once used many lengths may do so again.
    in_trie: bool,
}

/// How many entries use each prefix length.
struct Counts {
    v4: [u32; 32],
    v6: [u32; 128],
}

/// Where the programs look for an entry.
enum Place {
    V4(abi::PeerKey4),
    V6(abi::PeerKey6),
    Trie(Key<abi::PeerPrefix>),
}

impl Peers {
    pub(super) fn take(ebpf: &mut Ebpf, removals: Arc<Removals>) -> Result<Self, TableError> {
        let maps = Maps {
            v4: PeersV4::take(ebpf)?,
            v6: take(ebpf, "PEERS_V6")?,
            trie: take(ebpf, "PEERS_TRIE")?,
            lengths: take(ebpf, "PEER_LENGTHS")?,
            removals,
            summaries: HashMap::new(),
        };
        Ok(Self {
            maps,
            sets: HashMap::new(),
            limited: Limited::take(ebpf)?,
        })
    }

    /// Where the entries are that a set has now.
    pub(super) fn buckets(&self, set: PeerSetId) -> Buckets {
        let summary = self.maps.summaries.get(&set);
        summary.map(Summary::buckets).unwrap_or_default()
    }

    /// One after the other, in this order, so that a rule that reads the set meanwhile sees exceptions that come first.
    pub(super) fn add(&mut self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), TableError> {
        self.make_room_for_lengths(set, entries)?;
        let in_trie = self.sets.get(&set).is_some_and(|prefixes| prefixes.in_trie);
        for entry in entries {
            let value = if entry.excepted {
                abi::PEER_EXCEPTED
            } else {
                abi::PEER_INCLUDED
            };
            let net = canonical(&entry.net);
            if let Some(only) = entry.only {
                self.limited.add(&mut self.maps, set, &net, only)?;
                continue;
            }
            if is_exact(&net) {
                let value = value | self.limited.beside(set, &net, value);
                self.maps.insert_whole(set, &net, value)?;
                continue;
            }
            self.maps.insert(&place(set, &net, in_trie), value)?;
            if self.sets.entry(set).or_default().add(net, value) {
                self.maps.summarise(set, |summary| summary.add(&net));
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), TableError> {
        self.maps.removals.announce()?;
        let in_trie = self.sets.get(&set).is_some_and(|prefixes| prefixes.in_trie);
        for entry in entries {
            let net = canonical(&entry.net);
            if let Some(only) = entry.only {
                self.limited.remove(&mut self.maps, set, &net, only)?;
                continue;
            }
            if is_exact(&net) {
                match self.limited.beside(set, &net, NONE) {
                    NONE => self.maps.remove_whole(set, &net)?,
                    ports => self.maps.insert_whole(set, &net, ports)?,
                }
                continue;
            }
            self.maps.remove(&place(set, &net, in_trie))?;
            if self
                .sets
                .get_mut(&set)
                .is_some_and(|prefixes| prefixes.remove(&net))
            {
                self.maps.summarise(set, |summary| summary.remove(&net));
            }
        }
        let Some(prefixes) = self.sets.get(&set) else {
            return Ok(());
        };
        if !prefixes.entries.is_empty() {
            return self.maps.set_lengths(set, prefixes.lengths());
        }
        self.sets.remove(&set);
        self.maps.set_lengths(set, abi::PeerLengths::default())
    }

    /// Has the programs look for the lengths of entries that are to come, before the first one does.
    fn make_room_for_lengths(&mut self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), TableError> {
        if entries.iter().all(PeerEntry::is_exact) {
            return Ok(());
        }
        let prefixes = self.sets.entry(set).or_default();
        if prefixes.in_trie {
            return Ok(());
        }
        let mut lengths = prefixes.lengths();
        for entry in entries {
            include(&mut lengths, &canonical(&entry.net));
        }
        if are_few(&lengths) {
            return self.maps.set_lengths(set, lengths);
        }
        self.maps.move_to_trie(set, prefixes)
    }
}

impl Maps {
    /// A packet finds the entries in the hashes until it is told to look into the trie, where all of them are by then.
    fn move_to_trie(&mut self, set: PeerSetId, prefixes: &mut Prefixes) -> Result<(), TableError> {
        let copied = prefixes
            .entries
            .iter()
            .try_for_each(|(net, value)| self.insert(&place(set, net, true), *value).map(drop));
        if let Err(error) = copied {
            for net in prefixes.entries.keys() {
                self.remove(&place(set, net, true))?;
            }
            return Err(error);
        }
        prefixes.in_trie = true;
        self.set_lengths(set, prefixes.lengths())?;
        self.removals.announce()?;
        // Exceptions go last, for packets that were told before.
        for gone in [abi::PEER_INCLUDED, abi::PEER_EXCEPTED] {
            for (net, value) in &prefixes.entries {
                if *value == gone {
                    self.remove(&place(set, net, false))?;
                }
            }
        }
        Ok(())
    }

    /// [`NONE`] where there is none.
    fn get(&self, place: &Place) -> Result<u32, TableError> {
        let result = match place {
            Place::V4(key) => return self.v4.get(*key),
            Place::V6(key) => self.v6.get(key, 0),
            Place::Trie(key) => self.trie.get(key, 0),
        };
        match result {
            Err(MapError::KeyNotFound) => Ok(NONE),
            other => other.map_err(on("read a peer")),
        }
    }

    /// A whole address, whose entry may be there already.
    fn insert_whole(&mut self, set: PeerSetId, net: &IpNet, value: u32) -> Result<(), TableError> {
        if self.insert(&place(set, net, false), value)? {
            self.summarise(set, |summary| summary.add(net));
        }
        Ok(())
    }

    /// One that isn't there is no error.
    fn remove_whole(&mut self, set: PeerSetId, net: &IpNet) -> Result<(), TableError> {
        if self.remove(&place(set, net, false))? {
            self.summarise(set, |summary| summary.remove(net));
        }
        Ok(())
    }

    fn summarise(&mut self, set: PeerSetId, change: impl FnOnce(&mut Summary)) {
        let summary = self.summaries.entry(set).or_default();
        change(summary);
        if summary.is_empty() {
            self.summaries.remove(&set);
        }
    }

    /// Whether there was none before; of the trie nobody knows.
    fn insert(&mut self, place: &Place, value: u32) -> Result<bool, TableError> {
        let inserted = match place {
            Place::V4(key) => return self.v4.insert(*key, value),
            Place::V6(key) => match self.v6.insert(key, value, u64::from(abi::BPF_NOEXIST)) {
                Err(error) if is_present(&error) => self.v6.insert(key, value, 0).map(|()| false),
                other => other.map(|()| true),
            },
            Place::Trie(key) => self.trie.insert(key, value, 0).map(|()| true),
        };
        inserted.map_err(refused)
    }

    /// Whether there was one; that there was none is no error.
    fn remove(&mut self, place: &Place) -> Result<bool, TableError> {
        let result: Result<(), MapError> = match place {
            Place::V4(key) => return self.v4.remove(*key),
            Place::V6(key) => self.v6.remove(key),
            Place::Trie(key) => self.trie.remove(key),
        };
        let was_there = result.is_ok();
        unless_absent(result).map_err(on("remove a peer"))?;
        Ok(was_there)
    }

    fn set_lengths(&mut self, set: PeerSetId, lengths: abi::PeerLengths) -> Result<(), TableError> {
        self.lengths
            .set(set.0, lengths, 0)
            .map_err(on("write a set's prefix lengths"))
    }
}

impl Prefixes {
    /// Whether it wasn't there.
    fn add(&mut self, net: IpNet, value: u32) -> bool {
        let is_new = self.entries.insert(net, value).is_none();
        if is_new {
            *self.counts.of(&net) += 1;
        }
        is_new
    }

    /// Whether it was there.
    fn remove(&mut self, net: &IpNet) -> bool {
        let was_there = self.entries.remove(net).is_some();
        if was_there {
            *self.counts.of(net) -= 1;
        }
        was_there
    }

    fn lengths(&self) -> abi::PeerLengths {
        let mut lengths = abi::PeerLengths {
            in_trie: self.in_trie.into(),
            ..abi::PeerLengths::default()
        };
        for (length, count) in (0..).zip(self.counts.v4) {
            if count > 0 {
                include_v4(&mut lengths, length);
            }
        }
        for (length, count) in (0..).zip(self.counts.v6) {
            if count > 0 {
                include_v6(&mut lengths, length);
            }
        }
        lengths
    }
}

impl Counts {
    fn of(&mut self, net: &IpNet) -> &mut u32 {
        let length = usize::from(net.prefix_len());
        match net {
            IpNet::V4(_) => &mut self.v4[length],
            IpNet::V6(_) => &mut self.v6[length],
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            v4: [0; 32],
            v6: [0; 128],
        }
    }
}

/// Why an entry isn't there.
fn refused(error: MapError) -> TableError {
    if is_full(&error) {
        TableError::PeersFull(abi::MAX_PEERS)
    } else {
        on("add a peer")(error)
    }
}

fn include(lengths: &mut abi::PeerLengths, net: &IpNet) {
    let length = u32::from(net.prefix_len());
    match net {
        _ if is_exact(net) => {}
        IpNet::V4(_) => include_v4(lengths, length),
        IpNet::V6(_) => include_v6(lengths, length),
    }
}

fn include_v4(lengths: &mut abi::PeerLengths, length: u32) {
    lengths.v4 |= abi::PeerKey4::marker(length);
}

fn include_v6(lengths: &mut abi::PeerLengths, length: u32) {
    let (high, low) = abi::PeerKey6::marker(length);
    lengths.v6_high |= high;
    lengths.v6_low |= low;
}

/// The hashes serve so many.
fn are_few(lengths: &abi::PeerLengths) -> bool {
    let v6 = lengths.v6_high.count_ones() + lengths.v6_low.count_ones();
    lengths.v4.count_ones().max(v6) <= abi::MAX_PEER_LENGTHS
}

/// Where entries are going to be.
pub(super) fn buckets(entries: &[PeerEntry]) -> Buckets {
    Buckets::of(entries.iter().map(|entry| canonical(&entry.net)))
}

/// An IPv4-mapped network is the IPv4 one.
fn canonical(net: &IpNet) -> IpNet {
    let net = net.trunc();
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, length)| IpNet::new(address.into(), length).ok())
        .unwrap_or(net)
}

fn is_exact(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// Of a canonical network.
fn place(set: PeerSetId, net: &IpNet, in_trie: bool) -> Place {
    let length = u32::from(net.prefix_len());
    if in_trie && !is_exact(net) {
        let mapping = 128 - u32::from(net.max_prefix_len());
        let length = abi::PEER_PREFIX_BASE + mapping + length;
        return Place::Trie(Key::new(length, abi::peer_prefix(set.0, mapped(net.addr()))));
    }
    match net {
        IpNet::V4(v4) => {
            let address = u32::from(v4.addr());
            Place::V4(if is_exact(net) {
                abi::PeerKey4::exact(set.0, address)
            } else {
                abi::PeerKey4::prefix(set.0, address, abi::PeerKey4::marker(length))
            })
        }
        IpNet::V6(v6) => {
            let halves = abi::peer_halves(v6.addr().octets());
            Place::V6(if is_exact(net) {
                abi::PeerKey6::exact(set.0, halves)
            } else {
                abi::PeerKey6::prefix(set.0, halves, abi::PeerKey6::marker(length))
            })
        }
    }
}
