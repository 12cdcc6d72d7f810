//! The kernel's tables: rules, targets, peers, counters.
//!
//! A rule and a target have two bodies each and a state word that says which is valid: a change writes the other body and
//! then the word, so a packet sees the old or the new, never a mixture.

mod index;
mod peers;
mod removals;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{
    Array, HashMap as KernelHash, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues,
};
use aya::util::nr_cpus;
use nix::libc;
use sabot_abi as abi;
use sabot_core::plan::{PeerEntry, PeerSetId, RuleBody, Slot, TargetId};
use sabot_core::resolve::departing_latency;

use self::index::Indexes;
use self::peers::Peers;
use self::removals::Removals;
use super::injector::{boot_time, monotonic};
use super::tables_encode::{PortBlock, control_end, encode_ports, encode_rule, mapped, nanos};
use crate::delayline::DelayHistogram;
use crate::engine::handle::{LedgerDirection, Tally};

/// How long after its clock was read a rule may come into force, ns: packets meet the former one until then.
const SWAP: u64 = 20_000_000;

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("the fault object has no map {0}")]
    Missing(&'static str),
    #[error("cannot {what}: {source}")]
    Map { what: &'static str, source: MapError },
    #[error("the table of peers is full ({0} entries)")]
    PeersFull(u32),
    #[error("the table of peers' ports is full ({0} entries)")]
    PeerPortsFull(u32),
    #[error("the table of ports is full ({0} entries)")]
    PortsFull(u32),
    #[error("the table of counters is full")]
    CountersFull,
}

pub(super) struct Tables {
    inner: Mutex<Inner>,
    /// Apart from the rest, since a large set takes a while.
    peers: Mutex<Peers>,
    /// Locked for moments, while either of the others may be.
    indexes: Mutex<Indexes>,
    cpus: usize,
}

struct Inner {
    slot_state: Array<MapData, u32>,
    rules: Array<MapData, abi::Rule>,
    target_state: Array<MapData, u32>,
    targets: Array<MapData, abi::Target>,
    ports: LpmTrie<MapData, abi::PortKey, u32>,
    node_addresses: KernelHash<MapData, [u8; 16], u32>,
    control_plane: KernelHash<MapData, abi::ControlEnd, u32>,
    counters: PerCpuHashMap<MapData, abi::CounterKey, abi::Counters>,
    streams: KernelHash<MapData, abi::CounterKey, abi::Stream>,
    /// Of which the streams count the packets.
    connections: KernelHash<MapData, abi::ConnectionKey, abi::Connection>,
    /// The id of the next stream that is made.
    next_stream: u64,
    delays: PerCpuHashMap<MapData, u32, abi::Delays>,
    incidents: PerCpuArray<MapData, u64>,
    /// What the state words say, to know which body is free.
    slot_words: HashMap<Slot, u32>,
    /// The entries of each slot's valid port set.
    slot_ports: HashMap<Slot, Vec<PortBlock>>,
    /// Until when (`CLOCK_MONOTONIC`) the departure queue may hold what came by a slot's former rules, and how long what comes
    /// by its rule; ns.
    departing: HashMap<Slot, (u64, u64)>,
    target_words: HashMap<TargetId, u32>,
    spared: BTreeSet<IpAddr>,
    /// What the table of the control plane holds.
    kept: BTreeSet<SocketAddr>,
    removals: Arc<Removals>,
}

/// The summed counters of one (slot, target, direction).
pub(super) type Counted = abi::Counters;

impl Tables {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, TableError> {
        let cpus = nr_cpus().map_err(|(_, source)| TableError::Map {
            what: "count the CPUs",
            source: MapError::IoError(source),
        })?;
        let removals = Arc::new(Removals::take(ebpf)?);
        let inner = Inner {
            slot_state: take(ebpf, "SLOT_STATE")?,
            rules: take(ebpf, "RULES")?,
            target_state: take(ebpf, "TARGET_STATE")?,
            targets: take(ebpf, "TARGETS")?,
            ports: take(ebpf, "PORTS")?,
            node_addresses: take(ebpf, "NODE_ADDRESSES")?,
            control_plane: take(ebpf, "CONTROL_PLANE")?,
            counters: take(ebpf, "COUNTERS")?,
            streams: take(ebpf, "STREAMS")?,
            connections: take(ebpf, "CONNECTIONS")?,
            next_stream: 0,
            delays: take(ebpf, "DELAYS")?,
            incidents: take(ebpf, "INCIDENTS")?,
            slot_words: HashMap::new(),
            slot_ports: HashMap::new(),
            departing: HashMap::new(),
            target_words: HashMap::new(),
            spared: BTreeSet::new(),
            kept: BTreeSet::new(),
            removals: Arc::clone(&removals),
        };
        Ok(Self {
            inner: Mutex::new(inner),
            peers: Mutex::new(Peers::take(ebpf, removals)?),
            indexes: Mutex::new(Indexes::take(ebpf)?),
            cpus,
        })
    }

    pub(super) fn write_rule(&self, slot: Slot, rule: &RuleBody) -> Result<(), TableError> {
        let mut inner = self.lock();
        let word = other_word(inner.slot_words.get(&slot).copied(), slot.0);
        let ports = encode_ports(&rule.ports, word);
        if departing_latency(rule).is_some() {
            let none = PerCpuValues::try_from(vec![abi::Delays::default(); self.cpus])
                .map_err(|source| on("shape delays")(MapError::IoError(source)))?;
            let created = inner.delays.insert(slot.0, none, u64::from(abi::BPF_NOEXIST));
            unless_present(created, "count delays")?;
        }
        if let Err(error) = inner.add_ports(&ports) {
            inner.remove_ports(&ports)?;
            return Err(error);
        }
        let now = monotonic();
        let encoded = abi::Rule {
            not_before: inner.not_before(slot, rule, now),
            not_after: now.saturating_add(rule.expires_at.0.saturating_sub(boot_time().0)),
            ..encode_rule(rule, word)
        };
        inner
            .rules
            .set(word - 1, encoded, 0)
            .map_err(on("write a rule"))?;
        self.indexes().before_rule(slot, rule.peers.is_none())?;
        inner.slot_state.set(slot.0, word, 0).map_err(on("swap a slot"))?;
        inner.slot_words.insert(slot, word);
        self.indexes().after_rule(slot, rule.peers.is_none())?;
        let before = inner.slot_ports.insert(slot, ports);
        inner.remove_ports(before.as_deref().unwrap_or_default())
    }

    pub(super) fn clear_rule(&self, slot: Slot) -> Result<(), TableError> {
        let mut inner = self.lock();
        inner
            .slot_state
            .set(slot.0, abi::SLOT_FREE, 0)
            .map_err(on("free a slot"))?;
        inner.slot_words.remove(&slot);
        inner.departing.remove(&slot);
        unless_absent(inner.delays.remove(&slot.0)).map_err(on("forget delays"))?;
        self.indexes().after_rule(slot, false)?;
        let before = inner.slot_ports.remove(&slot);
        inner.remove_ports(before.as_deref().unwrap_or_default())
    }

    /// The key of the index is this function's to fill in.
    pub(super) fn write_target(&self, target: TargetId, body: &abi::Target) -> Result<(), TableError> {
        let mut inner = self.lock();
        let before = inner.target_words.get(&target).copied();
        let word = other_word(before, target.0);
        let body = abi::Target {
            index: self
                .indexes()
                .list(word, &body.slots[..body.slot_count as usize])?,
            ..*body
        };
        inner
            .targets
            .set(word - 1, body, 0)
            .map_err(on("write a target"))?;
        inner
            .target_state
            .set(target.0, word, 0)
            .map_err(on("swap a target"))?;
        inner.target_words.insert(target, word);
        before.map_or(Ok(()), |before| self.indexes().unlist(before))
    }

    pub(super) fn clear_target(&self, target: TargetId) -> Result<(), TableError> {
        let mut inner = self.lock();
        inner
            .target_state
            .set(target.0, abi::TARGET_FREE, 0)
            .map_err(on("free a target"))?;
        let before = inner.target_words.remove(&target);
        before.map_or(Ok(()), |before| self.indexes().unlist(before))
    }

    /// In the order in which they are given; each replaces the entry of the same prefix.
    pub(super) fn add_peers(&self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), TableError> {
        let mut peers = self.peers();
        self.indexes().before_peers(set, &peers::buckets(entries))?;
        let added = peers.add(set, entries);
        self.indexes().after_peers(set, peers.buckets(set))?;
        added
    }

    pub(super) fn remove_peers(&self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), TableError> {
        let mut peers = self.peers();
        let removed = peers.remove(set, entries);
        self.indexes().after_peers(set, peers.buckets(set))?;
        removed
    }

    pub(super) fn set_node_addresses(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), TableError> {
        let mut inner = self.lock();
        let (gone, new): (Vec<IpAddr>, Vec<IpAddr>) = (
            inner.spared.difference(addresses).copied().collect(),
            addresses.difference(&inner.spared).copied().collect(),
        );
        for address in new {
            inner
                .node_addresses
                .insert(mapped(address), 1, 0)
                .map_err(on("add a node address"))?;
            inner.spared.insert(address);
        }
        for address in gone {
            unless_absent(inner.node_addresses.remove(&mapped(address)))
                .map_err(on("remove a node address"))?;
            inner.spared.remove(&address);
        }
        Ok(())
    }

    pub(super) fn set_control_plane(&self, ends: &BTreeSet<SocketAddr>) -> Result<(), TableError> {
        let mut inner = self.lock();
        let gone: Vec<SocketAddr> = inner.kept.difference(ends).copied().collect();
        let new: Vec<SocketAddr> = ends.difference(&inner.kept).copied().collect();
        for end in new {
            inner
                .control_plane
                .insert(control_end(end), 1, 0)
                .map_err(on("add an end of the control plane"))?;
            inner.kept.insert(end);
        }
        for end in gone {
            unless_absent(inner.control_plane.remove(&control_end(end)))
                .map_err(on("remove an end of the control plane"))?;
            inner.kept.remove(&end);
        }
        Ok(())
    }

    /// Makes sure that a slot has counters and streams on a target; those that are there go on.
    pub(super) fn create_counters(&self, slot: Slot, target: TargetId) -> Result<(), TableError> {
        let mut inner = self.lock();
        for direction in LedgerDirection::BOTH {
            let key = counter_key(slot, target, direction);
            let zero = PerCpuValues::try_from(vec![abi::Counters::default(); self.cpus])
                .map_err(|source| on("shape counters")(MapError::IoError(source)))?;
            let created = inner.counters.insert(key, zero, u64::from(abi::BPF_NOEXIST));
            unless_present(created, "create counters")?;
            let stream = abi::Stream {
                word: 0,
                id: inner.next_stream,
            };
            let created = inner.streams.insert(key, stream, u64::from(abi::BPF_NOEXIST));
            unless_present(created, "create a stream")?;
            inner.next_stream += 1;
        }
        Ok(())
    }

    pub(super) fn remove_counters(&self, slot: Slot, target: TargetId) -> Result<(), TableError> {
        let mut inner = self.lock();
        let mut ended = Vec::new();
        for direction in LedgerDirection::BOTH {
            let key = counter_key(slot, target, direction);
            ended.extend(inner.streams.get(&key, 0).map(|stream| stream.id));
            unless_absent(inner.counters.remove(&key)).map_err(on("remove counters"))?;
            unless_absent(inner.streams.remove(&key)).map_err(on("remove a stream"))?;
        }
        inner.forget_connections(&ended)
    }

    /// Summed over the CPUs; zero where there are none.
    pub(super) fn counters(&self, slot: Slot, target: TargetId, direction: LedgerDirection) -> Counted {
        let inner = self.lock();
        let mut sum = abi::Counters::default();
        if let Ok(values) = inner.counters.get(&counter_key(slot, target, direction), 0) {
            for value in values.iter() {
                value.add_to(&mut sum);
            }
        }
        sum
    }

    /// The delays that the departure queue really added, summed over the CPUs.
    pub(super) fn delays(&self, slot: Slot) -> DelayHistogram {
        let inner = self.lock();
        let mut sum = DelayHistogram::default();
        if let Ok(values) = inner.delays.get(&slot.0, 0) {
            values
                .iter()
                .for_each(|delays| sum += DelayHistogram::from(*delays));
        }
        sum
    }

    /// Summed over the CPUs, by `abi::INCIDENT_*`.
    pub(super) fn incidents(&self) -> [u64; abi::INCIDENT_COUNT as usize] {
        let inner = self.lock();
        std::array::from_fn(|which| {
            let values = inner.incidents.get(&(which as u32), 0);
            values.map_or(0, |values| values.iter().sum())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn indexes(&self) -> MutexGuard<'_, Indexes> {
        self.indexes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Before which moment nothing may leave the departure queue by the slot's new rule, `CLOCK_MONOTONIC` in ns.
    fn not_before(&mut self, slot: Slot, rule: &RuleBody, now: u64) -> u64 {
        let latency = departing_latency(rule).map_or(0, nanos);
        let (mut until, before) = self.departing.get(&slot).copied().unwrap_or_default();
        if latency < before {
            until = until.max(now.saturating_add(before).saturating_add(SWAP));
        }
        self.departing.insert(slot, (until, latency));
        until
    }

    /// Removes what was counted of the connections of these streams. Without a fault on connections' first packets there is
    /// nothing to go through.
    fn forget_connections(&mut self, streams: &[u64]) -> Result<(), TableError> {
        // The kernel begins anew after one that goes meanwhile.
        let all: Result<BTreeSet<_>, _> = self.connections.keys().collect();
        let all = all.map_err(on("list connections"))?;
        all.iter()
            .filter(|connection| streams.contains(&connection.stream))
            .try_for_each(|connection| unless_absent(self.connections.remove(connection)))
            .map_err(on("forget a connection"))
    }

    fn add_ports(&mut self, blocks: &[PortBlock]) -> Result<(), TableError> {
        for block in blocks {
            let key = Key::new(block.prefix, block.key);
            self.ports.insert(&key, 1, 0).map_err(|error| {
                if is_full(&error) {
                    TableError::PortsFull(abi::MAX_PORTS)
                } else {
                    on("add a port")(error)
                }
            })?;
        }
        Ok(())
    }

    fn remove_ports(&mut self, blocks: &[PortBlock]) -> Result<(), TableError> {
        if !blocks.is_empty() {
            self.removals.announce()?;
        }
        blocks
            .iter()
            .try_for_each(|block| unless_absent(self.ports.remove(&Key::new(block.prefix, block.key))))
            .map_err(on("remove a port"))
    }
}

impl From<abi::Tally> for Tally {
    fn from(tally: abi::Tally) -> Self {
        Self {
            packets: tally.packets,
            bytes: tally.bytes,
        }
    }
}

/// Takes a map out of the object.
pub(super) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, TableError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(TableError::Missing(name))?;
    M::try_from(map).map_err(on("take a map"))
}

fn on(what: &'static str) -> impl Fn(MapError) -> TableError {
    move |source| TableError::Map { what, source }
}

/// The word of the body that isn't valid now.
fn other_word(word: Option<u32>, index: u32) -> u32 {
    let (first, second) = (2 * index + 1, 2 * index + 2);
    if word == Some(first) { second } else { first }
}

fn counter_key(slot: Slot, target: TargetId, direction: LedgerDirection) -> abi::CounterKey {
    let direction = match direction {
        LedgerDirection::Egress => abi::DIRECTION_EGRESS,
        LedgerDirection::Ingress => abi::DIRECTION_INGRESS,
    };
    abi::CounterKey {
        slot: slot.0,
        target: target.0,
        direction,
    }
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(e) => e.io_error.raw_os_error(),
        _ => None,
    }
}

fn is_present(error: &MapError) -> bool {
    errno(error) == Some(libc::EEXIST)
}

fn is_full(error: &MapError) -> bool {
    matches!(errno(error), Some(libc::E2BIG | libc::ENOSPC | libc::ENOMEM))
}

fn unless_present(result: Result<(), MapError>, what: &'static str) -> Result<(), TableError> {
    match result {
        Err(error) if is_present(&error) => Ok(()),
        Err(error) if is_full(&error) => Err(TableError::CountersFull),
        other => other.map_err(on(what)),
    }
}

fn unless_absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
