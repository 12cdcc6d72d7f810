//! Loading the fault object.

use std::time::Duration;

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use sabot_abi as abi;

use super::drops::drop_mark;
use super::entry::{self};
use super::gate::{Gate, GateError};
use super::netns::NetnsError;
use super::tables::{TableError, Tables, take};
use super::verified;

static FAULT_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fault"));
static LOCKED_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fault_locked"));

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot load the fault object: {0}")]
    Object(#[from] EbpfError),
    #[error("cannot load the program {name}: {source}")]
    Program {
        name: &'static str,
        source: ProgramError,
    },
    #[error("the fault object has no program {0}")]
    NoProgram(&'static str),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error("cannot load a program from instructions: {0}")]
    Instructions(#[source] std::io::Error),
    #[error("cannot make a private network namespace: {0}")]
    Workshop(#[from] NetnsError),
    #[error("cannot prepare departure queues: {0}")]
    Departures(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot start the delay line: {0}")]
    DelayLine(#[source] std::io::Error),
    /// No way to attach programs.
    #[error("{0}")]
    NoHook(String),
}

/// How the programs change words that CPUs share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Words {
    /// In one step (Linux 5.12).
    Atomic,
    /// Each under a lock.
    Locked,
}

impl Words {
    /// The best that this kernel can.
    pub fn of_this_kernel() -> Self {
        match entry::load_fetch() {
            Ok(_) => Self::Atomic,
            Err(_) => Self::Locked,
        }
    }

    fn object(self) -> &'static [u8] {
        match self {
            Self::Atomic => FAULT_OBJECT,
            Self::Locked => LOCKED_OBJECT,
        }
    }
}

/// The loaded object, taken apart.
pub(super) struct FaultObject {
    /// Keeps the programs; their maps are taken out of it.
    pub(super) programs: Ebpf,
    pub(super) gate: Gate,
    pub(super) tables: Tables,
    pub(super) events: RingBuf<MapData>,
    pub(super) dns_answers: RingBuf<MapData>,
    pub(super) heartbeat: Array<MapData, u64>,
    /// `None` when the object logs nothing.
    pub(super) logger: Option<EbpfLogger<&'static dyn log::Log>>,
    pub(super) bounce: std::os::fd::OwnedFd,
}

/// Programs behind the gate.
const BEHIND_THE_GATE: [(u32, &str); 4] = [
    (abi::GATE_EGRESS, "fault_egress"),
    (abi::GATE_INGRESS, "fault_ingress"),
    (abi::GATE_LINE, "fault_line"),
    (abi::GATE_SEGMENTER, "fault_segmenter"),
];

/// Behind it too, where the kernel has departure times.
const OF_DEPARTURES: (u32, &str) = (abi::GATE_DEPARTURES, "fault_departures");
const _: () = assert!(BEHIND_THE_GATE.len() + 1 == abi::GATE_SIZE as usize);

/// What is decided before the object is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultSettings {
    pub(super) words: Words,
    /// The age at which a delay line counts as hung.
    pub(super) heartbeat_bound: Duration,
    /// Bytes that the departure queue may hold of all targets; `None` where there is no such queue.
    pub(super) departures_total: Option<u64>,
}

impl FaultObject {
    /// Loads everything and opens the gate.
    pub(super) fn load(settings: FaultSettings) -> Result<Self, LoadError> {
        // Any non-zero number that others don't use; it is fresh with each start.
        let return_mark: u32 = rand::random::<u32>() | 1;
        let bound = u64::try_from(settings.heartbeat_bound.as_nanos()).unwrap_or(u64::MAX);
        let has_departures = u32::from(settings.departures_total.is_some());
        let held_bytes = settings.departures_total.unwrap_or(0);
        let mut programs = EbpfLoader::new()
            .override_global("RETURN_MARK", &return_mark, true)
            .override_global("DROP_MARK", &drop_mark(), true)
            .override_global("HEARTBEAT_BOUND", &bound, true)
            .override_global("HAS_DEPARTURES", &has_departures, true)
            .override_global("HELD_BYTES_TOTAL", &held_bytes, true)
            .load(settings.words.object())?;
        let logger = match EbpfLogger::init(&mut programs) {
            Ok(logger) => Some(logger),
            Err(error) => {
                tracing::debug!(%error, "no logs from the fault object");
                None
            }
        };
        let gate_map = programs.take_map("GATE").ok_or(TableError::Missing("GATE"))?;
        let mut gate = Gate::new(gate_map)?;
        let tables = Tables::take(&mut programs)?;
        let events = take(&mut programs, "PACKET_EVENTS")?;
        let dns_answers = take(&mut programs, "DNS_ANSWERS")?;
        let heartbeat = take(&mut programs, "HEARTBEAT")?;
        let of_departures = settings.departures_total.map(|_| OF_DEPARTURES);
        for (index, name) in BEHIND_THE_GATE.into_iter().chain(of_departures) {
            gate.open(
                index,
                load_program(&mut programs, name)?
                    .fd()
                    .map_err(|source| LoadError::Program { name, source })?,
            )?;
        }
        let bounce = entry::load_bounce().map_err(LoadError::Instructions)?;
        Ok(Self {
            programs,
            gate,
            tables,
            events,
            dns_answers,
            heartbeat,
            logger,
            bounce,
        })
    }
}

fn load_program<'a>(programs: &'a mut Ebpf, name: &'static str) -> Result<&'a SchedClassifier, LoadError> {
    let failed = |source| LoadError::Program { name, source };
    let program = programs.program_mut(name).ok_or(LoadError::NoProgram(name))?;
    let classifier: &mut SchedClassifier = program.try_into().map_err(failed)?;
    verified::load(name, classifier, SchedClassifier::load, SchedClassifier::info).map_err(failed)?;
    Ok(classifier)
}
