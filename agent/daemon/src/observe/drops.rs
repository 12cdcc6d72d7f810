//! Packets that were dropped: whose they were, in which direction they went, why, and whether a fault did it.
//!
//! The kernel says what it drops, faults' verdicts and the queues of their devices among it. The delay line holds packets outside
//! of the kernel, and says what it drops by itself.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use sabot_abi::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, DROP_LOSS_COUNT_TABLE, DROP_LOSS_EVENT, DROP_LOSS_SUPPRESSED,
    DropKey, OwnerKey,
};
use sabot_core::model::BootTime;

use super::clock;
use super::event::{DropEvent, Event, EventHub, EventKind, STREAM_DROPS};
use super::follow::{follow, keys, lasting};
use super::identity::{Identities, Identity};
use super::ring::{OwnedTask, StreamLoss, publish_from};
use crate::delayline::{LineDrop, OwnerDrops};
use crate::kernel::Injector;
use crate::kernel::drops::{DropProgram, DropProgramConfig, FAULT, FAULT_LOST_BOUND};
use crate::kernel::object::ObjectError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropsConfig {
    /// Counts (owner, reason, direction, injected or not) that there is room for.
    pub counts: u32,
    /// The size of the ring of events in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Events in a second on each CPU; the others are only counted.
    pub event_rate: u64,
}

impl Default for DropsConfig {
    fn default() -> Self {
        Self {
            counts: 8192,
            ring_bytes: 256 * 1024,
            event_rate: 1000,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DropsError {
    #[error(transparent)]
    Program(#[from] ObjectError),
    #[error("the ring of drops can't be polled: {0}")]
    Ring(#[source] io::Error),
}

/// Packets that were dropped alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DropKind {
    /// By a fault, or on the way through its devices.
    pub injected: bool,
    pub egress: bool,
    /// As the kernel names it; `FAULT` for what faults decide to drop, and what is called after it for what the delay line
    /// loses.
    pub reason: String,
}

/// What is counted on its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DropClass {
    pub owner: Arc<Identity>,
    pub kind: DropKind,
}

/// In wire packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub packets: u64,
    /// From the outermost header on that the packet had where it was dropped.
    pub bytes: u64,
}

/// Everything counted of the owners that live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropSnapshot {
    pub drops: BTreeMap<DropClass, Dropped>,
    /// Drops that are in no count for want of room.
    pub uncounted: u64,
    /// Events that the bound on their rate kept back.
    pub suppressed: u64,
}

/// Holds packets outside of the kernel.
pub trait LineSource: Send + Sync + 'static {
    /// Says who owns what from now on; counts of those who don't any more go.
    fn set_owners(&self, owners: &[(OwnerKey, u32)]);

    /// What it dropped by itself, of those owners.
    fn drops(&self) -> Vec<OwnerDrops>;
}

impl LineSource for Injector {
    fn set_owners(&self, owners: &[(OwnerKey, u32)]) {
        Self::set_owners(self, owners);
    }

    fn drops(&self) -> Vec<OwnerDrops> {
        self.line_drops()
    }
}

/// The program in the kernel and the tasks around it; all end when this is dropped.
pub struct DropObserver {
    program: Arc<DropProgram>,
    line: Option<Line>,
    identities: Identities,
    loss: Arc<StreamLoss>,
    task: OwnedTask,
    _follower: OwnedTask,
}

/// The delay line, and the task that tells it about owners.
struct Line {
    source: Arc<dyn LineSource>,
    _follower: OwnedTask,
}

/// Begins to observe; events go to `hub`. Must be called within a tokio runtime.
///
/// # Errors
///
/// When this kernel or this process's privileges don't allow it.
pub fn start(
    config: &DropsConfig,
    identities: &Identities,
    hub: EventHub,
) -> Result<DropObserver, DropsError> {
    let (program, ring) = DropProgram::attach(&DropProgramConfig {
        counts: config.counts,
        ring_bytes: config.ring_bytes,
        event_rate: config.event_rate,
    })?;
    let program = Arc::new(program);
    program.set_owners(&keys(&identities.current()))?;
    let setter = Arc::clone(&program);
    let follower = follow(STREAM_DROPS, identities.watch(), move |owners| {
        setter.set_owners(owners)
    });
    let counter = Arc::clone(&program);
    let lost = lasting(STREAM_DROPS, move || {
        counter.losses().map(|losses| losses[DROP_LOSS_EVENT as usize])
    });
    let loss = Arc::new(StreamLoss::new(STREAM_DROPS, lost));
    let (decoder, known) = (Arc::clone(&program), identities.clone());
    let task = publish_from(ring, hub, Arc::clone(&loss), move |event| {
        decode(&decoder, &known, &event)
    })
    .map_err(DropsError::Ring)?;
    Ok(DropObserver {
        program,
        line: None,
        identities: identities.clone(),
        loss,
        task,
        _follower: follower,
    })
}

impl DropObserver {
    /// Counts what the delay line drops, too, from its first line on. Must be called within a tokio runtime.
    #[must_use]
    pub fn with_line(self, source: Arc<dyn LineSource>) -> Self {
        source.set_owners(&keys(&self.identities.current()));
        let setter = Arc::clone(&source);
        let follower = follow(STREAM_DROPS, self.identities.watch(), move |owners| {
            setter.set_owners(owners);
            Ok::<(), Infallible>(())
        });
        Self {
            line: Some(Line {
                source,
                _follower: follower,
            }),
            ..self
        }
    }

    /// Reads the counters now.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn snapshot(&self) -> Result<DropSnapshot, ObjectError> {
        let owners = self.identities.current();
        let losses = self.program.losses()?;
        let mut snapshot = DropSnapshot {
            uncounted: losses[DROP_LOSS_COUNT_TABLE as usize],
            suppressed: losses[DROP_LOSS_SUPPRESSED as usize],
            ..DropSnapshot::default()
        };
        for (owner, kind, dropped) in self.counts()? {
            // Of those who have just gone nothing is told any more.
            let Some(owner) = owners.get(owner) else {
                continue;
            };
            let class = DropClass {
                owner: Arc::clone(&owner.identity),
                kind,
            };
            let sum = snapshot.drops.entry(class).or_default();
            sum.packets += dropped.packets;
            sum.bytes += dropped.bytes;
        }
        Ok(snapshot)
    }

    /// Wire packets that were dropped, by owner.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn totals(&self) -> Result<HashMap<u32, BTreeMap<DropKind, u64>>, ObjectError> {
        let mut totals: HashMap<u32, BTreeMap<DropKind, u64>> = HashMap::new();
        for (owner, kind, dropped) in self.counts()? {
            let kinds = totals.entry(owner).or_default();
            *kinds.entry(kind).or_default() += dropped.packets;
        }
        Ok(totals)
    }

    /// What the kernel and the delay line have dropped, by owner; a kind may be there twice.
    fn counts(&self) -> Result<Vec<(u32, DropKind, Dropped)>, ObjectError> {
        let kernel = self.program.counts()?;
        let kernel = kernel.into_iter().map(|(key, tally)| {
            let dropped = Dropped {
                packets: tally.packets,
                bytes: tally.bytes,
            };
            (key.owner, self.kind(&key), dropped)
        });
        let line = self.line.as_ref().map(|line| line.source.drops());
        let line = line.into_iter().flatten().map(|drops| {
            let dropped = Dropped {
                packets: drops.dropped.packets,
                bytes: drops.dropped.bytes,
            };
            (drops.owner, line_kind(&drops), dropped)
        });
        Ok(kernel.chain(line).collect())
    }

    fn kind(&self, key: &DropKey) -> DropKind {
        DropKind {
            injected: key.injected != 0,
            egress: key.direction == DIRECTION_EGRESS,
            reason: self.program.reasons().name(key.reason),
        }
    }

    /// Whether this kernel says why it drops a packet.
    pub fn has_reasons(&self) -> bool {
        self.program.reasons().are_known()
    }

    /// Entries in the kernel's tables: bounded by the owners that live.
    pub fn entries(&self) -> usize {
        self.program.entries()
    }

    /// What nobody could be found for; 0 where the kernel can't be asked now.
    pub fn unresolved(&self) -> u64 {
        self.program.unresolved().unwrap_or_default()
    }

    /// Events that never reached the hub.
    pub fn lost_events(&self) -> u64 {
        self.loss.total()
    }

    /// Whether events are still being read.
    pub fn is_running(&self) -> bool {
        self.task.is_running()
    }
}

/// The names after `FAULT` are those of the outcomes in the books of the faults.
fn line_kind(drops: &OwnerDrops) -> DropKind {
    let reason = match drops.why {
        LineDrop::Queue => FAULT,
        LineDrop::Bound => FAULT_LOST_BOUND,
        LineDrop::Write => "FAULT_LOST_WRITE",
        LineDrop::Late => "FAULT_LOST_LATE",
    };
    DropKind {
        injected: true,
        egress: drops.egress,
        reason: reason.to_owned(),
    }
}

fn decode(program: &DropProgram, identities: &Identities, event: &sabot_abi::DropEvent) -> Option<Event> {
    let egress = match event.direction {
        DIRECTION_EGRESS => true,
        DIRECTION_INGRESS => false,
        _ => return None,
    };
    let owner = identities.get(event.owner)?;
    Some(Event {
        time: clock::system_time(BootTime(event.time)),
        container: identities.container(event.cgroup),
        kind: EventKind::Drop(DropEvent {
            owner,
            egress,
            reason: program.reasons().name(event.reason),
            source: address(event.source),
            destination: address(event.destination),
            source_port: event.source_port,
            destination_port: event.destination_port,
            protocol: u8::try_from(event.protocol).ok()?,
            wire_packets: event.wire_packets,
            wire_bytes: event.wire_bytes,
        }),
    })
}

fn address(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}
