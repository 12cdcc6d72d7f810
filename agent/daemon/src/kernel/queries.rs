//! Loads the `queries` object and reads its maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, MapData, MapError, PerCpuArray, PerCpuHashMap, RingBuf};
use aya::programs::CgroupSkbAttachType;
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use sabot_abi::{OwnerKey, QUERY_LOSS_COUNT, QUERY_OPEN, QUERY_UNANSWERED, Query, QueryCounts, QueryKey};
use sabot_core::model::BootTime;

use super::btf::Btf;
use super::object::{Named, ObjectError, OwnerTable, require_cookies};
use super::offsets;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/queries"));
const NAME: Named = Named("queries");
/// Answers come first, so that none is missed.
const PROGRAMS: [(&str, CgroupSkbAttachType); 2] = [
    ("dns_ingress", CgroupSkbAttachType::Ingress),
    ("dns_egress", CgroupSkbAttachType::Egress),
];
const COUNTS: &str = "QUERY_COUNTS";
const OPEN: &str = "OPEN";
const LOSSES: &str = "LOSSES";
const UNRESOLVED: &str = "UNRESOLVED";

/// What the programs are told before they are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryProgramConfig {
    /// Queries that can be open at once, with those that are kept for their late answers.
    pub open: u32,
    /// The size of the ring of events: a power of two, at least a page.
    pub ring_bytes: u32,
    /// An answer that takes longer is slow, ns.
    pub slow_threshold_ns: u64,
}

/// The programs, attached until this is dropped.
pub struct QueryPrograms {
    tables: Mutex<Tables>,
    losses: PerCpuArray<MapData, u64>,
    unresolved: PerCpuArray<MapData, u64>,
    _object: Ebpf,
}

struct Tables {
    owners: OwnerTable,
    counts: PerCpuHashMap<MapData, u32, QueryCounts>,
    open: HashMap<MapData, QueryKey, Query>,
}

impl QueryPrograms {
    /// Loads and attaches the programs; returns them and the ring of [`sabot_abi::QueryEvent`].
    ///
    /// # Errors
    ///
    /// When the kernel doesn't describe its types, there is no hierarchy of cgroups of version 2, or the kernel refuses the
    /// object.
    pub fn attach(config: &QueryProgramConfig) -> Result<(Self, RingBuf<MapData>), ObjectError> {
        require_cookies()?;
        let btf = Btf::kernel()?;
        let net = offsets::of_net(&btf)?;
        drop(btf);
        let mut object = EbpfLoader::new()
            .override_global("NET", &net, true)
            .override_global("SLOW_THRESHOLD", &config.slow_threshold_ns, true)
            .map_max_entries(OPEN, config.open)
            .map_max_entries("QUERY_EVENTS", config.ring_bytes)
            .load(OBJECT)
            .map_err(|source| NAME.load(source))?;
        NAME.attach_to_sockets(&mut object, PROGRAMS)?;
        let events = NAME.take(&mut object, "QUERY_EVENTS")?;
        let tables = Tables {
            owners: OwnerTable::take(NAME, &mut object)?,
            counts: NAME.take(&mut object, COUNTS)?,
            open: NAME.take(&mut object, OPEN)?,
        };
        let programs = Self {
            tables: Mutex::new(tables),
            losses: NAME.take(&mut object, LOSSES)?,
            unresolved: NAME.take(&mut object, UNRESOLVED)?,
            _object: object,
        };
        Ok((programs, events))
    }

    /// Says who owns what from now on; what there is of those who don't any more is removed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_owners(&self, owners: &[(OwnerKey, u32)]) -> Result<(), ObjectError> {
        let living: BTreeSet<u32> = owners.iter().map(|&(_, owner)| owner).collect();
        let mut tables = self.lock();
        tables.make_counts(&living)?;
        tables.owners.set(owners)?;
        tables.remove_counts(&living)?;
        tables.remove_open(|key, _| !living.contains(&key.owner))
    }

    /// Counts so far, by owner, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn counts(&self) -> Result<Vec<(u32, QueryCounts)>, ObjectError> {
        self.lock()
            .counts
            .iter()
            .map(|entry| entry.map(|(owner, counts)| (owner, sum(counts.iter()))))
            .collect::<Result<_, _>>()
            .map_err(NAME.map(COUNTS))
    }

    /// Marks the open queries that were sent before `sent_before` as unanswered and returns them; removes those that were
    /// sent before `forget_before`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn sweep(
        &self,
        sent_before: BootTime,
        forget_before: BootTime,
    ) -> Result<Vec<(QueryKey, Query)>, ObjectError> {
        let mut tables = self.lock();
        let old: Vec<(QueryKey, Query)> = tables
            .open()?
            .into_iter()
            .filter(|(_, query)| query.time <= sent_before.0)
            .collect();
        let mut unanswered = Vec::new();
        for (key, query) in old {
            if query.state == QUERY_OPEN && tables.mark(&key, &query)? {
                unanswered.push((key, query));
            }
        }
        tables.remove_open(|_, query| query.time <= forget_before.0 && query.state == QUERY_UNANSWERED)?;
        Ok(unanswered)
    }

    /// What could not be recorded so far, by `QUERY_LOSS_*`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn losses(&self) -> Result<[u64; QUERY_LOSS_COUNT as usize], ObjectError> {
        NAME.sums(&self.losses, LOSSES)
    }

    /// Messages in namespaces that nobody owns.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn unresolved(&self) -> Result<u64, ObjectError> {
        NAME.sums::<1>(&self.unresolved, UNRESOLVED).map(|[count]| count)
    }

    /// Entries in the tables, which are bounded by the owners that live.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn entries(&self) -> Result<usize, ObjectError> {
        let tables = self.lock();
        Ok(tables.owners.len() + tables.known()?.len() + tables.open()?.len())
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn known(&self) -> Result<BTreeSet<u32>, ObjectError> {
        self.counts
            .keys()
            .collect::<Result<_, _>>()
            .map_err(NAME.map(COUNTS))
    }

    fn make_counts(&mut self, living: &BTreeSet<u32>) -> Result<(), ObjectError> {
        let known = self.known()?;
        let cpus = nr_cpus().map_err(|(_, error)| NAME.map(COUNTS)(MapError::IoError(error)))?;
        for owner in living.difference(&known) {
            let nothing = vec![QueryCounts::default(); cpus].try_into();
            let nothing = nothing.map_err(|error| NAME.map(COUNTS)(MapError::IoError(error)))?;
            self.counts.insert(owner, nothing, 0).map_err(NAME.map(COUNTS))?;
        }
        Ok(())
    }

    fn remove_counts(&mut self, living: &BTreeSet<u32>) -> Result<(), ObjectError> {
        for owner in self.known()?.difference(living) {
            let result = self.counts.remove(owner);
            NAME.removed(COUNTS, result)?;
        }
        Ok(())
    }

    /// An entry that goes while it is looked at is left out. The kernel begins anew then, so that others come twice.
    fn open(&self) -> Result<BTreeMap<QueryKey, Query>, ObjectError> {
        self.open.iter().collect::<Result<_, _>>().map_err(NAME.map(OPEN))
    }

    fn remove_open(&mut self, goes: impl Fn(&QueryKey, &Query) -> bool) -> Result<(), ObjectError> {
        for (key, query) in self.open()? {
            if goes(&key, &query) {
                let result = self.open.remove(&key);
                NAME.removed(OPEN, result)?;
            }
        }
        Ok(())
    }

    /// False when it has been answered at this moment.
    fn mark(&mut self, key: &QueryKey, query: &Query) -> Result<bool, ObjectError> {
        /// Only an entry that is there is changed.
        const BPF_EXIST: u64 = 2;
        let marked = Query {
            state: QUERY_UNANSWERED,
            ..*query
        };
        match self.open.insert(key, marked, BPF_EXIST) {
            Ok(()) => Ok(true),
            Err(_) if matches!(self.open.get(key, 0), Err(MapError::KeyNotFound)) => Ok(false),
            Err(source) => Err(NAME.map(OPEN)(source)),
        }
    }
}

fn sum<'a>(cpus: impl Iterator<Item = &'a QueryCounts>) -> QueryCounts {
    cpus.fold(QueryCounts::default(), |mut sum, cpu| {
        sum.queries += cpu.queries;
        sum.retries += cpu.retries;
        for (total, count) in sum.responses.iter_mut().zip(&cpu.responses) {
            *total += count;
        }
        sum.late += cpu.late;
        sum.unmatched += cpu.unmatched;
        sum.replaced += cpu.replaced;
        sum.latency.add(&cpu.latency);
        sum
    })
}
