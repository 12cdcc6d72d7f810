//! The engine's door to the kernel.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use nix::time::{ClockId, clock_gettime};
use sabot_abi as abi;
use sabot_core::model::{BootTime, TargetDevice, TargetKey};
use sabot_core::plan::{Equipment, PeerEntry, PeerSetId, RuleBody, Slot, TargetId};

use super::accounts::Accounts;
use super::departures::Yard;
use super::entry::Entries;
use super::equipment::{EquipError, Equipped, Workbench};
use super::gate::Gate;
use super::heartbeat::MapHeartbeat;
use super::hook::HookKind;
use super::line::VNET_HEADER;
use super::loader::{FaultObject, FaultSettings, LoadError, Words};
use super::losses::{Losses, UnderWay, departing};
use super::netns;
use super::tables::{Counted, TableError, Tables};
use super::watches::Watches;
use crate::delayline::{self, DelayHistogram, DelayLine, LineTallies, OwnerDrops, SlotPolicy, Treatment};
use crate::engine::datapath::{Datapath, DatapathError};
use crate::engine::handle::{Ledger, LedgerDirection, Tally};

/// How old the delay line's heartbeat may be before the classifier lets packets past it.
const HEARTBEAT_BOUND: Duration = Duration::from_millis(300);
const HEARTBEAT_EVERY: Duration = Duration::from_millis(50);
/// Packets that a stopped daemon held this long past their time are dropped when it goes on.
const LATE_AFTER: Duration = Duration::from_secs(1);

pub struct InjectorOptions {
    pub hook: HookKind,
    /// Bytes that one delay line may hold.
    pub line_bytes: usize,
    /// Bytes that all delay lines may hold.
    pub line_bytes_total: usize,
    /// The delay line's thread may run at the lowest real-time priority.
    pub line_real_time: bool,
    /// The kernel holds packets with a constant delay; the machine can do that. The same bounds hold there.
    pub departures: bool,
}

/// What the observers take over from the fault object.
pub struct Taps {
    pub packet_events: RingBuf<MapData>,
    /// Of [`sabot_abi::DnsAnswer`].
    pub dns_answers: RingBuf<MapData>,
    pub logger: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// The loaded fault object and the equipment of every target.
pub struct Injector {
    tables: Tables,
    gate: Mutex<Gate>,
    bench: Workbench,
    line: DelayLine,
    targets: Mutex<HashMap<TargetId, Arc<Target>>>,
    accounts: Accounts,
    watches: Watches,
    #[expect(dead_code, reason = "the programs live as long as this")]
    programs: Ebpf,
}

/// One target: what it is equipped with, which changes slowly, and what is in force on it, which changes at once.
struct Target {
    equipped: Mutex<Equipped>,
    body: Mutex<abi::Target>,
    losses: Losses,
}

impl Injector {
    pub fn load(options: &InjectorOptions) -> Result<(Arc<Self>, Taps), LoadError> {
        let workshop = netns::make_private()?;
        let yard = options
            .departures
            .then(|| Yard::open(workshop.as_fd()))
            .transpose();
        let yard = yard.map_err(|error| LoadError::Departures(error.into()))?;
        let bytes_total = u64::try_from(options.line_bytes_total).unwrap_or(u64::MAX);
        let object = FaultObject::load(FaultSettings {
            words: Words::of_this_kernel(),
            heartbeat_bound: HEARTBEAT_BOUND,
            departures_total: options.departures.then_some(bytes_total),
        })?;
        let config = delayline::Config {
            bytes_per_line: options.line_bytes,
            bytes_total: options.line_bytes_total,
            vnet_header: VNET_HEADER,
            heartbeat_every: HEARTBEAT_EVERY,
            late_after: LATE_AFTER,
            real_time: options.line_real_time,
        };
        let line = DelayLine::start(config, Box::new(MapHeartbeat::new(object.heartbeat)))
            .map_err(LoadError::DelayLine)?;
        let gate_fd = object.gate.share().map_err(LoadError::Instructions)?;
        let bench = Workbench {
            entries: Entries::default(),
            gate: gate_fd,
            bounce: object.bounce,
            workshop: workshop.into(),
            hook: options.hook,
            line: line.clone(),
            yard,
            departures_bytes: u32::try_from(options.line_bytes).unwrap_or(u32::MAX),
        };
        let injector = Self {
            tables: object.tables,
            gate: Mutex::new(object.gate),
            bench,
            line,
            targets: Mutex::default(),
            accounts: Accounts::default(),
            watches: Watches::default(),
            programs: object.programs,
        };
        Ok((
            Arc::new(injector),
            Taps {
                packet_events: object.events,
                dns_answers: object.dns_answers,
                logger: object.logger,
            },
        ))
    }

    /// What went wrong inside the programs, by `abi::INCIDENT_*`.
    pub fn incidents(&self) -> [u64; abi::INCIDENT_COUNT as usize] {
        self.tables.incidents()
    }

    /// The delay really added, by slot.
    pub fn delay_histograms(&self) -> Vec<(Slot, DelayHistogram)> {
        let slots = self.accounts.in_line();
        slots
            .into_iter()
            .map(|slot| (slot, self.line.histogram(slot) + self.tables.delays(slot)))
            .collect()
    }

    /// Says who owns what from now on, for what the delay line drops by itself.
    pub fn set_owners(&self, owners: &[(abi::OwnerKey, u32)]) {
        self.line.set_owners(owners);
    }

    /// What the delay line dropped by itself, of those owners.
    pub fn line_drops(&self) -> Vec<OwnerDrops> {
        self.line.drops()
    }

    /// The delay line's thread is alive.
    pub fn is_alive(&self) -> bool {
        self.line.is_alive()
    }

    fn target(&self, target: TargetId) -> Option<Arc<Target>> {
        lock(&self.targets).get(&target).cloned()
    }

    fn put_in_force(&self, target: TargetId, body: &mut abi::Target) -> Result<(), TableError> {
        self.watches.mark(body);
        self.tables.write_target(target, body)
    }

    /// What is counted, and what is in no count yet.
    fn account(&self, slot: Slot, target: TargetId, direction: LedgerDirection) -> (Ledger, UnderWay) {
        let counted = self.tables.counters(slot, target, direction);
        let egress = direction == LedgerDirection::Egress;
        let held = self.line.tallies(slot, target, egress);
        let mut ledger = ledger(&counted, &held);
        departing(&counted, monotonic(), &mut ledger);
        (ledger, UnderWay::of(&counted, &held))
    }

    /// Watches the lookups of the targets that list a slot, or no longer does.
    fn watch(&self, slot: Slot, watches: bool) -> Result<(), TableError> {
        let is_new = self.watches.note(slot, watches);
        if !is_new && !watches {
            return Ok(());
        }
        let targets: Vec<_> = lock(&self.targets)
            .iter()
            .map(|(id, target)| (*id, Arc::clone(target)))
            .collect();
        for (id, target) in targets {
            let mut body = lock(&target.body);
            let mut marked = *body;
            self.watches.mark(&mut marked);
            if marked != *body {
                self.tables.write_target(id, &marked)?;
                *body = marked;
            }
        }
        Ok(())
    }
}

impl Datapath for Injector {
    fn equip(
        &self,
        target: TargetId,
        device: &TargetDevice,
        equipment: Equipment,
    ) -> Result<(), DatapathError> {
        let entry = lock(&self.targets)
            .entry(target)
            .or_insert_with(|| Arc::new(Target::new(&self.bench, target, device)))
            .clone();
        let mut equipped = lock(&entry.equipped);
        let added = equipped.add(&self.bench, target, equipment);
        // What is in force may have changed meanwhile, and may change again as soon as this lock is open.
        let mut body = lock(&entry.body);
        *body = equipped.body(&self.bench, &body.slots.map(Slot)[..body.slot_count as usize]);
        self.put_in_force(target, &mut body)?;
        Ok(added?)
    }

    fn strip(&self, target: TargetId, _key: &TargetKey) -> Result<(), DatapathError> {
        self.tables.clear_target(target)?;
        let Some(entry) = self.target(target) else {
            return Ok(());
        };
        lock(&entry.equipped).remove(&self.bench, target)?;
        lock(&self.targets).remove(&target);
        Ok(())
    }

    fn add_peers(&self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), DatapathError> {
        Ok(self.tables.add_peers(set, entries)?)
    }

    fn remove_peers(&self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), DatapathError> {
        Ok(self.tables.remove_peers(set, entries)?)
    }

    fn set_node_addresses(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), DatapathError> {
        Ok(self.tables.set_node_addresses(addresses)?)
    }

    fn set_control_plane(&self, ends: &BTreeSet<SocketAddr>) -> Result<(), DatapathError> {
        Ok(self.tables.set_control_plane(ends)?)
    }

    fn write_rule(&self, slot: Slot, rule: &RuleBody) -> Result<(), DatapathError> {
        let treatment = Treatment::of(&rule.action).map_err(|error| DatapathError {
            reason: error.to_string(),
            permanent: true,
        })?;
        let for_line = treatment.is_some();
        if let Some(treatment) = treatment {
            let policy = SlotPolicy {
                treatment,
                starts_at: rule.starts_at,
                expires_at: rule.expires_at,
                ramp: rule.ramp,
                seed: rule.seed,
            };
            // Before the first packet that the rule sends there.
            self.line.set_slot(slot, policy);
        }
        self.accounts.rule(slot, for_line);
        self.tables.write_rule(slot, rule)?;
        if !for_line && self.accounts.is_in_line(slot) {
            self.line.expire_slot(slot, rule.expires_at);
        }
        Ok(self.watch(slot, rule.watches_dns)?)
    }

    fn clear_rule(&self, slot: Slot) -> Result<(), DatapathError> {
        self.tables.clear_rule(slot)?;
        self.watch(slot, false)?;
        if self.accounts.clear(slot) {
            self.line.clear_slot(slot);
        }
        Ok(())
    }

    fn set_slots(&self, target: TargetId, slots: &[Slot]) -> Result<(), DatapathError> {
        let entry = self.target(target).ok_or_else(|| DatapathError {
            reason: format!("target {} is not equipped", target.0),
            permanent: false,
        })?;
        for slot in slots {
            self.tables.create_counters(*slot, target)?;
            self.accounts.add(*slot, target);
        }
        let mut body = lock(&entry.body);
        body.slot_count = slots.len().min(abi::MAX_TARGET_SLOTS) as u32;
        for (place, slot) in body.slots.iter_mut().zip(slots) {
            *place = slot.0;
        }
        Ok(self.put_in_force(target, &mut body)?)
    }

    fn ledger(&self, slot: Slot, target: TargetId, direction: LedgerDirection) -> Ledger {
        let (mut ledger, under_way) = self.account(slot, target, direction);
        match self.target(target) {
            _ if under_way.is_none() => {}
            Some(entry) => under_way.attribute(&mut ledger, entry.losses.unclaimed()),
            None => under_way.write_off(&mut ledger),
        }
        ledger
    }

    fn rests(&self, slot: Slot, target: TargetId) -> bool {
        // What was read from the queue until now is in the ledgers that are read after this.
        let is_drained = !self.accounts.is_in_line(slot) || self.line.is_drained(target);
        is_drained
            && LedgerDirection::BOTH
                .into_iter()
                .all(|direction| self.ledger(slot, target, direction).balances())
    }

    fn close(&self, slot: Slot, target: TargetId) -> [Ledger; 2] {
        let last = LedgerDirection::BOTH.map(|direction| {
            let (mut ledger, under_way) = self.account(slot, target, direction);
            under_way.write_off(&mut ledger);
            ledger
        });
        if let Some(entry) = self.target(target) {
            last.iter().for_each(|ledger| entry.losses.claim(ledger));
        }
        if let Err(error) = self.tables.remove_counters(slot, target) {
            tracing::warn!(slot = slot.0, target = target.0, %error, "cannot free counters");
        }
        if self.accounts.remove(slot, target) {
            self.line.forget(slot, target);
        }
        last
    }

    fn disarm(&self) {
        if let Err(error) = lock(&self.gate).close() {
            tracing::error!(%error, "cannot close the gate");
        }
    }

    fn now(&self) -> BootTime {
        boot_time()
    }
}

impl Target {
    fn new(bench: &Workbench, target: TargetId, device: &TargetDevice) -> Self {
        let equipped = Equipped::new(device.clone());
        let body = Mutex::new(equipped.body(bench, &[]));
        Self {
            equipped: Mutex::new(equipped),
            body,
            losses: Losses::new(target, device),
        }
    }
}

/// `CLOCK_MONOTONIC` in ns, as departures are told.
pub(super) fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// `CLOCK_BOOTTIME`, as the kernel programs read it.
pub fn boot_time() -> BootTime {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default();
    BootTime(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

fn ledger(counted: &Counted, held: &LineTallies) -> Ledger {
    Ledger {
        matched: counted.matched.into(),
        passed: counted.passed.into(),
        dropped: Tally::from(counted.dropped) + held.dropped,
        bypassed: counted.bypassed.into(),
        rejected: held.rejected,
        released: counted.released.into(),
        duplicated: counted.duplicated.into(),
        replied: counted.replied.into(),
        corrupted: counted.corrupted.into(),
        delayed: counted.delayed.into(),
        held: held.held,
        lost_segmenter: Tally::default(),
        lost_queue: Tally::default(),
        lost_bound: Tally::from(counted.lost_bound) + held.lost_bound,
        lost_write: held.lost_write,
        lost_late: held.lost_late,
        first_match: (counted.first_match != 0).then_some(BootTime(counted.first_match)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<TableError> for DatapathError {
    fn from(error: TableError) -> Self {
        Self {
            reason: error.to_string(),
            permanent: false,
        }
    }
}

impl From<EquipError> for DatapathError {
    fn from(error: EquipError) -> Self {
        Self {
            reason: error.to_string(),
            permanent: error.is_permanent(),
        }
    }
}
