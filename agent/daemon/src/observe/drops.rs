//! Packets that the kernel dropped: whose they were, in which direction they went, why, and whether a fault did it.
//!
//! What the delay line drops by itself, the queue of a rate limit for one, is not among it: the fault's ledger has it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use sabot_abi::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, DROP_LOSS_COUNT_TABLE, DROP_LOSS_EVENT, DROP_LOSS_SUPPRESSED,
    DropKey,
};
use sabot_core::model::BootTime;

use super::clock;
use super::event::{DropEvent, Event, EventHub, EventKind, STREAM_DROPS};
use super::follow::{follow, keys, lasting};
use super::identity::{Identities, Identity};
use super::ring::{OwnedTask, StreamLoss, publish_from};
use crate::kernel::drops::{DropProgram, DropProgramConfig};
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
    /// As the kernel names it, or `FAULT`.
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

/// The program in the kernel and the tasks around it; all end when this is dropped.
pub struct DropObserver {
    program: Arc<DropProgram>,
    identities: Identities,
    loss: Arc<StreamLoss>,
    task: OwnedTask,
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
        identities: identities.clone(),
        loss,
        task,
        _follower: follower,
    })
}

impl DropObserver {
    /// Reads the kernel's counters now.
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
        for (key, tally) in self.program.counts()? {
            // Of those who have just gone nothing is told any more.
            let Some(owner) = owners.get(key.owner) else {
                continue;
            };
            let class = DropClass {
                owner: Arc::clone(&owner.identity),
                kind: self.kind(&key),
            };
            let dropped = snapshot.drops.entry(class).or_default();
            dropped.packets += tally.packets;
            dropped.bytes += tally.bytes;
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
        for (key, tally) in self.program.counts()? {
            let kinds = totals.entry(key.owner).or_default();
            *kinds.entry(self.kind(&key)).or_default() += tally.packets;
        }
        Ok(totals)
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
