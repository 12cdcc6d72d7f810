//! Running the classifier on one frame without sending it.
//!
//! A [`Trial`] is the fault object alone: loaded by the daemon's own loader, with its tables, its gate and its entry
//! programs, and attached to nothing. The kernel runs an entry program on a frame that the caller made
//! (`BPF_PROG_TEST_RUN`) and says what became of it. A redirect isn't carried out, so that what a detour does with a packet
//! shows only in real namespaces.
//!
//! A process can have one at a time, beside no injector: the gate's descriptors stand at the top of what it may open.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, MapData, MapError, RingBuf};
use sabot_abi as abi;
use sabot_core::model::BootTime;
use sabot_core::plan::{PeerEntry, PeerSetId, RuleBody, Slot, TargetId};

use super::entry::{Door, Entries};
use super::gate::{Gate, GateError};
pub use super::loader::Words;
use super::loader::{FaultObject, FaultSettings, LoadError};
use super::sys::{self, TrialContext, TrialRun};
use super::tables::{TableError, Tables};
use crate::engine::handle::LedgerDirection;
use crate::observe::ring::read;

/// Where a frame on its way to the delay line has its stamp: behind the MAC addresses.
const STAMP: Range<usize> = 12..16;

/// A packet as the classifier meets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame<'a> {
    /// From the MAC header on; with a whole IP header where that follows at once, and about 3,500 bytes at most.
    pub bytes: &'a [u8],
    /// The payload of each wire packet in a super-packet; 0 for a single packet.
    pub gso_size: u32,
    pub mark: u32,
    /// The device that it came in on; 0 where it begins its way here.
    pub ingress_ifindex: u32,
}

/// What the classifier has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let on to whoever is attached after us.
    Pass,
    Drop,
    /// Sent to another device: on a detour, or, on egress, to none at all, which is how a packet is dropped there without
    /// the sender being told. The counters tell which.
    Redirect,
}

/// A frame after the classifier has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Without our tag and stamp.
    pub bytes: Vec<u8>,
    /// Of a frame on its way to the delay line.
    pub stamp: Option<abi::Stamp>,
}

impl Outcome {
    /// The tag stands beside the frame then, and the stamp in it.
    fn of(verdict: Verdict, mut bytes: Vec<u8>, length: usize) -> Self {
        let mut stamp = None;
        if verdict == Verdict::Redirect && bytes.len() == length + STAMP.len() {
            let tci = [bytes[STAMP.start + 2], bytes[STAMP.start + 3]];
            stamp = Some(abi::Stamp::from_tci(u16::from_be_bytes(tci)));
            bytes.drain(STAMP);
        }
        Self {
            verdict,
            bytes,
            stamp,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error("cannot load an entry program: {0}")]
    Entry(#[source] io::Error),
    #[error("cannot run the classifier on a frame of {length} bytes: {source}")]
    Run { length: usize, source: io::Error },
    #[error("the classifier's verdict {0} is none that it knows")]
    Verdict(i32),
    #[error("cannot write the heartbeat: {0}")]
    Heartbeat(#[source] MapError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Gate(#[from] GateError),
}

/// The fault object, attached to nothing.
pub struct Trial {
    words: Words,
    tables: Tables,
    entries: Entries,
    gate: Gate,
    gate_fd: OwnedFd,
    heartbeat: Array<MapData, u64>,
    dns_answers: RingBuf<MapData>,
    #[expect(dead_code, reason = "the programs live as long as this")]
    programs: Ebpf,
}

impl Trial {
    /// `heartbeat_bound` is the age of the heartbeat at which the delay line counts as hung.
    ///
    /// # Errors
    /// The object can't be loaded.
    pub fn load(heartbeat_bound: Duration, words: Words) -> Result<Self, LoadError> {
        let object = FaultObject::load(FaultSettings {
            words,
            heartbeat_bound,
            // A kernel that needs the locks has no departure times either.
            departures_total: (words == Words::Atomic).then_some(u64::MAX),
        })?;
        let gate_fd = object.gate.share().map_err(LoadError::Instructions)?;
        Ok(Self {
            words,
            tables: object.tables,
            entries: Entries::default(),
            gate: object.gate,
            gate_fd,
            heartbeat: object.heartbeat,
            dns_answers: object.dns_answers,
            programs: object.programs,
        })
    }

    /// What it was loaded with.
    pub fn words(&self) -> Words {
        self.words
    }

    /// Runs what is attached to one side of a target's device on a frame, which goes nowhere.
    ///
    /// # Errors
    /// The kernel doesn't take the frame.
    pub fn run(
        &self,
        target: TargetId,
        direction: LedgerDirection,
        frame: &Frame<'_>,
    ) -> Result<Outcome, TrialError> {
        let (run, bytes) = self.repeat(target, direction, frame, 1)?;
        let verdict = match run.verdict {
            // `TCX_NEXT`, `TC_ACT_SHOT` and `TC_ACT_REDIRECT`.
            -1 => Verdict::Pass,
            2 => Verdict::Drop,
            7 => Verdict::Redirect,
            other => return Err(TrialError::Verdict(other)),
        };
        Ok(Outcome::of(verdict, bytes, frame.bytes.len()))
    }

    /// How long that takes for each of so many runs on the same frame. What is attached must let the frame be as it is.
    ///
    /// # Errors
    /// The kernel doesn't take the frame.
    pub fn time(
        &self,
        target: TargetId,
        direction: LedgerDirection,
        frame: &Frame<'_>,
        runs: u32,
    ) -> Result<Duration, TrialError> {
        let (run, _) = self.repeat(target, direction, frame, runs)?;
        Ok(run.took)
    }

    fn repeat(
        &self,
        target: TargetId,
        direction: LedgerDirection,
        frame: &Frame<'_>,
        runs: u32,
    ) -> Result<(TrialRun, Vec<u8>), TrialError> {
        let door = match direction {
            LedgerDirection::Egress => Door::Egress,
            LedgerDirection::Ingress => Door::Ingress,
        };
        let program = self
            .entries
            .get(target, self.gate_fd.as_fd(), door)
            .map_err(TrialError::Entry)?;
        let context = TrialContext::new(frame.mark, frame.ingress_ifindex, frame.gso_size);
        let mut bytes = vec![0; frame.bytes.len() + STAMP.len()];
        let run = sys::try_out(program.as_fd(), frame.bytes, &context, &mut bytes, runs);
        let run = run.map_err(|source| TrialError::Run {
            length: frame.bytes.len(),
            source,
        })?;
        Ok((run, bytes))
    }

    /// What the classifier knows of a target from now on. Creates the counters of its slots.
    ///
    /// # Errors
    /// A table is full.
    pub fn set_target(&self, target: TargetId, body: &abi::Target) -> Result<(), TrialError> {
        for slot in body.slots.iter().take(body.slot_count as usize) {
            self.tables.create_counters(Slot(*slot), target)?;
        }
        Ok(self.tables.write_target(target, body)?)
    }

    /// # Errors
    /// A table is full.
    pub fn write_rule(&self, slot: Slot, rule: &RuleBody) -> Result<(), TrialError> {
        Ok(self.tables.write_rule(slot, rule)?)
    }

    /// # Errors
    /// The kernel refuses it.
    pub fn clear_rule(&self, slot: Slot) -> Result<(), TrialError> {
        Ok(self.tables.clear_rule(slot)?)
    }

    /// Forgets what a slot has counted on a target. Only for a slot that is not in force there.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn forget(&self, slot: Slot, target: TargetId) -> Result<(), TrialError> {
        Ok(self.tables.remove_counters(slot, target)?)
    }

    /// # Errors
    /// The table is full.
    pub fn add_peers(&self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), TrialError> {
        Ok(self.tables.add_peers(set, entries)?)
    }

    /// # Errors
    /// The kernel refuses it.
    pub fn remove_peers(&self, set: PeerSetId, entries: &[PeerEntry]) -> Result<(), TrialError> {
        Ok(self.tables.remove_peers(set, entries)?)
    }

    /// # Errors
    /// The table is full.
    pub fn set_node_addresses(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), TrialError> {
        Ok(self.tables.set_node_addresses(addresses)?)
    }

    /// # Errors
    /// The table is full.
    pub fn set_control_plane(&self, ends: &BTreeSet<SocketAddr>) -> Result<(), TrialError> {
        Ok(self.tables.set_control_plane(ends)?)
    }

    /// Says that the delay line was alive at this time.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn beat(&mut self, at: BootTime) -> Result<(), TrialError> {
        self.heartbeat.set(0, at.0, 0).map_err(TrialError::Heartbeat)
    }

    /// Closes the gate, as a daemon does that ends.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn close_gate(&mut self) -> Result<(), TrialError> {
        Ok(self.gate.close()?)
    }

    /// Summed over the CPUs; zero where there are none. Without the moments of the first match and of the last departure, so
    /// that whoever knows the packets knows what to expect.
    pub fn counters(&self, slot: Slot, target: TargetId, direction: LedgerDirection) -> abi::Counters {
        abi::Counters {
            first_match: 0,
            last_departure: 0,
            ..self.tables.counters(slot, target, direction)
        }
    }

    /// When the first packet was matched; `None`: none was.
    pub fn first_match(&self, slot: Slot, target: TargetId, direction: LedgerDirection) -> Option<BootTime> {
        let first = self.tables.counters(slot, target, direction).first_match;
        (first != 0).then_some(BootTime(first))
    }

    /// The next DNS answer that was copied at a watched target; `None` when there is none.
    ///
    /// # Panics
    /// What the programs put into the ring is none.
    pub fn next_dns_answer(&mut self) -> Option<abi::DnsAnswer> {
        let entry = self.dns_answers.next()?;
        Some(read(&entry).expect("the ring holds answers"))
    }

    /// What went wrong inside the programs, by `abi::INCIDENT_*`.
    pub fn incidents(&self) -> [u64; abi::INCIDENT_COUNT as usize] {
        self.tables.incidents()
    }
}
