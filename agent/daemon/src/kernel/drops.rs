//! Loads the `drops` object and reads its maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use aya::maps::{MapData, PerCpuArray, PerCpuHashMap, RingBuf};
use aya::programs::RawTracePoint;
use aya::{Ebpf, EbpfLoader};
use sabot_abi::{
    DROP_LOSS_COUNT, DROP_NOTE_KINDS, DROP_REASON_FAULT, DROP_REASON_FAULT_BOUND,
    DROP_REASON_SUBSYSTEM_SHIFT, DROP_REASON_UNKNOWN, DropKey, OwnerKey, Tally,
};

use super::btf::{Btf, BtfError};
use super::object::{Named, ObjectError, OwnerTable, require_cookies};
use super::offsets;
use super::verified;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/drops"));
const NAME: Named = Named("drops");
const PROGRAM: &str = "kfree_skb";
const DROPS: &str = "DROPS";
const LOSSES: &str = "LOSSES";
const UNRESOLVED: &str = "UNRESOLVED";
/// What faults decide to drop, as the kernel's reasons are named.
pub const FAULT: &str = "FAULT";
/// The same of what a delay line or the departure queue has no room for.
pub const FAULT_LOST_BOUND: &str = "FAULT_LOST_BOUND";
/// No reason has this number.
const NO_REASON: u32 = u32::MAX;

/// What the daemon's own classifiers write into packets that they drop; drawn once, since all objects must agree.
pub(super) fn drop_mark() -> u32 {
    static MARK: OnceLock<u32> = OnceLock::new();
    // Words that nobody has written are 0.
    *MARK.get_or_init(|| (rand::random::<u32>() | 1 << 31) & !DROP_NOTE_KINDS)
}

/// What the program is told before it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropProgramConfig {
    /// Keys of counts that there is room for.
    pub counts: u32,
    /// The size of the ring of events: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Events in a second on each CPU.
    pub event_rate: u64,
}

/// The program, attached until this is dropped.
pub struct DropProgram {
    counts: Mutex<PerCpuHashMap<MapData, DropKey, Tally>>,
    owners: Mutex<OwnerTable>,
    losses: PerCpuArray<MapData, u64>,
    unresolved: PerCpuArray<MapData, u64>,
    reasons: Reasons,
    _object: Ebpf,
}

/// The kernel's names for its reasons.
#[derive(Clone, Debug, Default)]
pub struct Reasons {
    names: BTreeMap<u32, String>,
}

/// How much the tracepoint says. An attachment asks for no more than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arguments {
    Receiver,
    Reason,
    Packet,
}

impl DropProgram {
    /// Loads and attaches the program; returns it and the ring of [`sabot_abi::DropEvent`].
    ///
    /// # Errors
    ///
    /// When the kernel doesn't describe its types, or refuses the object.
    pub fn attach(config: &DropProgramConfig) -> Result<(Self, RingBuf<MapData>), ObjectError> {
        let btf = Btf::kernel()?;
        btf.require_tracepoints([PROGRAM]).map_err(BtfError::from)?;
        let reasons = Reasons::read(&btf);
        let wanted: &[Arguments] = if reasons.names.is_empty() {
            &[Arguments::Packet]
        } else {
            &[Arguments::Receiver, Arguments::Reason, Arguments::Packet]
        };
        let mut attempt = Err(ObjectError::NoProgram {
            object: NAME.0,
            program: PROGRAM,
        });
        for &arguments in wanted {
            attempt = attach(config, &btf, &reasons, arguments);
            if attempt.is_ok() {
                break;
            }
        }
        let mut object = attempt?;
        let events = NAME.take(&mut object, "DROP_EVENTS")?;
        let program = Self {
            counts: Mutex::new(NAME.take(&mut object, DROPS)?),
            owners: Mutex::new(OwnerTable::take(NAME, &mut object)?),
            losses: NAME.take(&mut object, LOSSES)?,
            unresolved: NAME.take(&mut object, UNRESOLVED)?,
            reasons,
            _object: object,
        };
        Ok((program, events))
    }

    pub fn reasons(&self) -> &Reasons {
        &self.reasons
    }

    /// Says who owns what from now on; counts of those who don't any more are removed.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_owners(&self, owners: &[(OwnerKey, u32)]) -> Result<(), ObjectError> {
        lock(&self.owners).set(owners)?;
        let living: BTreeSet<u32> = owners.iter().map(|&(_, owner)| owner).collect();
        let mut counts = lock(&self.counts);
        let keys: Vec<DropKey> = counts.keys().collect::<Result<_, _>>().map_err(NAME.map(DROPS))?;
        for key in keys.iter().filter(|key| !living.contains(&key.owner)) {
            let result = counts.remove(key);
            NAME.removed(DROPS, result)?;
        }
        Ok(())
    }

    /// Drops so far, summed over the CPUs.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn counts(&self) -> Result<Vec<(DropKey, Tally)>, ObjectError> {
        lock(&self.counts)
            .iter()
            .map(|entry| entry.map(|(key, tallies)| (key, sum(tallies.iter()))))
            .collect::<Result<_, _>>()
            .map_err(NAME.map(DROPS))
    }

    /// What could not be recorded so far, by `DROP_LOSS_*`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn losses(&self) -> Result<[u64; DROP_LOSS_COUNT as usize], ObjectError> {
        NAME.sums(&self.losses, LOSSES)
    }

    /// Drops in namespaces that nobody owns.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read the map.
    pub fn unresolved(&self) -> Result<u64, ObjectError> {
        NAME.sums::<1>(&self.unresolved, UNRESOLVED).map(|[count]| count)
    }

    /// Entries in the tables, which are bounded by the owners that live.
    pub fn entries(&self) -> usize {
        lock(&self.owners).len() + lock(&self.counts).keys().filter_map(Result::ok).count()
    }
}

fn attach(
    config: &DropProgramConfig,
    btf: &Btf,
    reasons: &Reasons,
    arguments: Arguments,
) -> Result<Ebpf, ObjectError> {
    require_cookies()?;
    let (net, skb) = (offsets::of_net(btf)?, offsets::of_skb(btf)?);
    let has_reason = u32::from(arguments != Arguments::Packet);
    let has_receiver = u32::from(arguments == Arguments::Receiver);
    let reason = |name| reasons.number(name).unwrap_or(NO_REASON);
    let mut object = EbpfLoader::new()
        .override_global("NET", &net, true)
        .override_global("SKB", &skb, true)
        .override_global("HAS_REASON", &has_reason, true)
        .override_global("HAS_RECEIVER", &has_receiver, true)
        .override_global("DROP_MARK", &drop_mark(), true)
        .override_global("NOT_DROPPED", &reason("NOT_DROPPED_YET"), true)
        .override_global("CONSUMED", &reason("CONSUMED"), true)
        .override_global("BACKLOG_FULL", &reason("CPU_BACKLOG"), true)
        .override_global("XDP", &reason("XDP"), true)
        .override_global("EVENT_RATE", &config.event_rate, true)
        .map_max_entries(DROPS, config.counts)
        .map_max_entries("DROP_EVENTS", config.ring_bytes)
        .load(OBJECT)
        .map_err(|source| NAME.load(source))?;
    let program: &mut RawTracePoint = NAME.get(&mut object, PROGRAM)?;
    verified::load(PROGRAM, program, RawTracePoint::load, RawTracePoint::info)
        .map_err(|source| NAME.program(PROGRAM, source))?;
    program
        .attach(PROGRAM)
        .map_err(|source| NAME.program(PROGRAM, source))?;
    Ok(object)
}

impl Reasons {
    fn read(btf: &Btf) -> Self {
        // Kernels before 5.17 have no such enumeration.
        let values = btf.enumerators("skb_drop_reason").unwrap_or_default();
        let core = values.into_iter().filter_map(|(name, value)| {
            let number = u32::try_from(value).ok()?;
            let name = name
                .strip_prefix("SKB_DROP_REASON_")
                .or_else(|| name.strip_prefix("SKB_"))?;
            (number >> DROP_REASON_SUBSYSTEM_SHIFT == 0 && name != "MAX").then(|| (number, name.to_owned()))
        });
        Self {
            names: core.collect(),
        }
    }

    /// Whether this kernel says why it drops a packet.
    pub fn are_known(&self) -> bool {
        !self.names.is_empty()
    }

    /// As the kernel names it, without what all names begin with; `subsys<N>:<n>` for those of a subsystem, whose names
    /// may be in a module.
    pub fn name(&self, reason: u32) -> String {
        match reason {
            DROP_REASON_FAULT => FAULT.to_owned(),
            DROP_REASON_FAULT_BOUND => FAULT_LOST_BOUND.to_owned(),
            DROP_REASON_UNKNOWN => "unknown".to_owned(),
            _ => match self.names.get(&reason) {
                Some(name) => name.clone(),
                None => {
                    let subsystem = reason >> DROP_REASON_SUBSYSTEM_SHIFT;
                    let number = reason & ((1 << DROP_REASON_SUBSYSTEM_SHIFT) - 1);
                    format!("subsys{subsystem}:{number}")
                }
            },
        }
    }

    fn number(&self, name: &str) -> Option<u32> {
        let found = self.names.iter().find(|(_, known)| *known == name);
        found.map(|(&number, _)| number)
    }
}

fn sum<'a>(cpus: impl Iterator<Item = &'a Tally>) -> Tally {
    cpus.fold(Tally::default(), |sum, cpu| Tally {
        packets: sum.packets + cpu.packets,
        bytes: sum.bytes + cpu.bytes,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_the_kernels_names() {
        let reasons = Reasons::read(&Btf::kernel().expect("the kernel describes its types"));
        assert!(reasons.are_known(), "a kernel from 5.17 on");
        let no_socket = reasons.number("NO_SOCKET").expect("every kernel has it");
        assert_eq!(reasons.name(no_socket), "NO_SOCKET");
        assert_eq!(reasons.name(0), "NOT_DROPPED_YET");
        assert_eq!(reasons.number("MAX"), None);
        assert_eq!(reasons.name(3 << 16 | 5), "subsys3:5");
        assert_eq!(reasons.name(DROP_REASON_FAULT), FAULT);
        assert_eq!(Reasons::default().name(DROP_REASON_UNKNOWN), "unknown");
    }

    #[test]
    fn a_mark_leaves_room_for_its_kinds_and_is_never_nothing() {
        assert_eq!(drop_mark() & DROP_NOTE_KINDS, 0);
        assert_ne!(drop_mark(), 0);
        assert_eq!(drop_mark(), drop_mark());
    }
}
