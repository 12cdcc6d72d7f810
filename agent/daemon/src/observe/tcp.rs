//! What the TCP connections of pods, of namespaces that faults name, and of the node go through: counters for each owner,
//! and what is rare one by one.
//!
//! The counters are those of the kernel's sockets: segments that were sent again are those of `nstat`'s `TcpRetransSegs`.
//! Three things are counted differently from `nstat`. Retransmission timers (`TcpExtTCPTimeouts`): those of sockets are
//! counted, whether of data or of a SYN, and those of SYN-ACKs are not. Bytes: a stream's end counts as one, as in `ss`, and
//! what a connection did in the last tick of the kernel (a millisecond or some) is added with its next segment or its end.
//! A passive handshake's time is that from the last SYN-ACK to its acknowledgement, and unknown if it was sent repeatedly.
//!
//! A connect that fails before a SYN is sent, as without a route, is none. Resets that answer a segment of no connection
//! are told by kernels from 6.10 on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use sabot_abi::{
    CONNECT_ERRNOS, CONNECTION_FAILED, CONNECTION_OUTCOMES, Histogram, PEER_CLASSES, PEER_LOOPBACK,
    PEER_PRIVATE, PEER_PUBLIC, TCP_CONNECT_FAILED, TCP_LOSS_COUNT, TCP_LOSS_EVENT, TCP_LOSS_SIGHTING,
    TCP_LOSS_SOCKET, TCP_LOSS_UNRESOLVED, TCP_LOST, TCP_RESET_RECEIVED, TCP_RESET_SENT, TCP_RTO, TcpFirsts,
    TcpSocket, TcpStats,
};
use sabot_core::model::BootTime;

use super::clock;
use super::event::{Event, EventHub, EventKind, STREAM_TCP, TcpChange, TcpEvent};
use super::identity::{Identities, Identity, Owners};
use super::names::errno_name;
use super::ring::{OwnedTask, StreamLoss, publish_from};
use crate::kernel::object::ObjectError;
use crate::kernel::tcp::{PeerPrefix, TcpProgramConfig, TcpPrograms, address};

/// Addresses that are told apart wherever they are: loopback, what no route of the internet leads to, and the rest of IPv4,
/// which no prefix of IPv6 means.
const WELL_KNOWN: [(&str, u8, u32); 10] = [
    ("127.0.0.0", 8, PEER_LOOPBACK),
    ("::1", 128, PEER_LOOPBACK),
    ("10.0.0.0", 8, PEER_PRIVATE),
    ("172.16.0.0", 12, PEER_PRIVATE),
    ("192.168.0.0", 16, PEER_PRIVATE),
    ("100.64.0.0", 10, PEER_PRIVATE),
    ("169.254.0.0", 16, PEER_PRIVATE),
    ("fc00::", 7, PEER_PRIVATE),
    ("fe80::", 10, PEER_PRIVATE),
    ("0.0.0.0", 0, PEER_PUBLIC),
];
/// How long a change of owners that the kernel refused waits for the next attempt.
const RETRY: Duration = Duration::from_secs(1);
/// With room for some 18,000 events.
pub const DEFAULTS: TcpProgramConfig = TcpProgramConfig {
    ring_bytes: 1 << 20,
    connections: 65_536,
};

#[derive(Debug, thiserror::Error)]
pub enum TcpError {
    #[error(transparent)]
    Programs(#[from] ObjectError),
    #[error("the ring of TCP events can't be polled: {0}")]
    Ring(#[source] io::Error),
}

/// What one owner's connections did since the observer knows the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpTotals {
    /// By `PEER_*` and `CONNECTION_*`.
    pub connections: [[u64; CONNECTION_OUTCOMES]; PEER_CLASSES],
    /// Failed connects by their error, as `ECONNREFUSED`, where there were any; the application's giving up is `closed`,
    /// what isn't told apart `other`.
    pub connect_errors: Vec<(&'static str, u64)>,
    /// Established connections that an error ended.
    pub lost: u64,
    /// Segments.
    pub retransmits: u64,
    pub synack_retransmits: u64,
    pub rtos: u64,
    pub resets_sent: u64,
    pub resets_received: u64,
    /// Of payload, and acknowledged.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub handshakes: Histogram,
    pub rtts: Histogram,
}

/// When something first happened since the last [`TcpObserver::reset_firsts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpMoments {
    pub retransmit: Option<BootTime>,
    pub rto: Option<BootTime>,
    /// Sent or received.
    pub reset: Option<BootTime>,
    pub connect_failure: Option<BootTime>,
    /// An established connection was ended by an error.
    pub loss: Option<BootTime>,
}

/// Everything that is counted now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TcpSnapshot {
    /// In the order of the owners' numbers.
    pub owners: Vec<(Arc<Identity>, TcpTotals)>,
    /// Things that happened to connections of nobody who is known.
    pub unresolved: u64,
    /// Connections that began and that the table had no room for. That they were opened, accepted and failed or closed is
    /// counted nevertheless, and what happened to them; their bytes and times are not.
    pub untracked: u64,
    /// Later sightings of such connections, or of ones older than the observer, that the table had no room for either.
    pub untracked_sightings: u64,
}

/// The programs in the kernel, and the tasks that tell them the owners and read their events; all end when this is dropped.
pub struct TcpObserver {
    identities: Identities,
    programs: Arc<TcpPrograms>,
    losses: Arc<LastLosses>,
    loss: Arc<StreamLoss>,
    peers_left_out: AtomicUsize,
    reader: OwnedTask,
    _sync: OwnedTask,
}

/// Begins to observe; events go to `hub`. Must be called within a tokio runtime.
///
/// # Errors
///
/// When this kernel or this process's privileges don't allow it.
pub fn start(
    identities: Identities,
    hub: EventHub,
    config: &TcpProgramConfig,
) -> Result<TcpObserver, TcpError> {
    let (programs, ring) = TcpPrograms::load(config)?;
    programs.set_peers(well_known())?;
    let mut owners = identities.watch();
    programs.set_owners(owners.borrow_and_update().keys())?;
    programs.set_attached(true)?;
    let programs = Arc::new(programs);
    let losses = Arc::new(LastLosses::new(Arc::clone(&programs)));
    let counted = Arc::clone(&losses);
    let loss = Arc::new(StreamLoss::new(STREAM_TCP, move || counted.get(TCP_LOSS_EVENT)));
    let reader = read(ring, identities.clone(), hub, Arc::clone(&loss)).map_err(TcpError::Ring)?;
    let told = Arc::clone(&programs);
    let sync = tokio::spawn(async move {
        while owners.changed().await.is_ok() {
            loop {
                let now: Arc<Owners> = owners.borrow_and_update().clone();
                match told.set_owners(now.keys()) {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, "the TCP observer doesn't know all pods"),
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    });
    Ok(TcpObserver {
        identities,
        programs,
        losses,
        loss,
        peers_left_out: AtomicUsize::new(0),
        reader,
        _sync: OwnedTask::new(&sync),
    })
}

impl TcpObserver {
    /// Reads the kernel's counters now: one system call for each owner.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn snapshot(&self) -> Result<TcpSnapshot, ObjectError> {
        let mut owners = Vec::new();
        for owner in self.identities.current().iter() {
            if let Some(stats) = self.programs.stats(owner.number)? {
                owners.push((Arc::clone(&owner.identity), TcpTotals::from(stats)));
            }
        }
        Ok(TcpSnapshot {
            owners,
            unresolved: self.unresolved(),
            untracked: self.untracked(),
            untracked_sightings: self.losses.get(TCP_LOSS_SIGHTING),
        })
    }

    /// What one owner's connections did; `None` for an owner that isn't there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn totals(&self, owner: u32) -> Result<Option<TcpTotals>, ObjectError> {
        Ok(self.programs.stats(owner)?.map(TcpTotals::from))
    }

    /// `None` for an owner that isn't there.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn firsts(&self, owner: u32) -> Result<Option<TcpMoments>, ObjectError> {
        Ok(self.programs.firsts(owner)?.map(TcpMoments::from))
    }

    /// From now on the first of everything is looked for again.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write a map.
    pub fn reset_firsts(&self, owner: u32) -> Result<(), ObjectError> {
        self.programs.reset_firsts(owner)
    }

    /// The live connections; some ten microseconds for each.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn connections(&self) -> Result<Vec<TcpSocket>, ObjectError> {
        self.programs.sockets()
    }

    /// Connections that began and that the table had no room for.
    pub fn untracked(&self) -> u64 {
        self.losses.get(TCP_LOSS_SOCKET)
    }

    pub fn owners(&self) -> Arc<Owners> {
        self.identities.current()
    }

    /// Which addresses are whose: `PEER_*`.
    pub fn peers(&self) -> Vec<(PeerPrefix, u32)> {
        self.programs.peers()
    }

    /// Says which addresses are whose, beside those that are the same everywhere: `PEER_*`. There is no room for `left_out`
    /// others, which a snapshot tells.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to write a map.
    pub fn set_peers(
        &self,
        peers: impl IntoIterator<Item = (PeerPrefix, u32)>,
        left_out: usize,
    ) -> Result<(), ObjectError> {
        // What is said last holds.
        self.programs.set_peers(well_known().chain(peers))?;
        self.peers_left_out.store(left_out, Ordering::Relaxed);
        Ok(())
    }

    /// Addresses that the table of peers has no room for.
    pub fn peers_left_out(&self) -> usize {
        self.peers_left_out.load(Ordering::Relaxed)
    }

    /// Stops observing, or goes on; what was counted stays. Waits for the kernel for some milliseconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_attached(&self, wanted: bool) -> Result<(), ObjectError> {
        self.programs.set_attached(wanted)
    }

    /// Events that never reached the hub.
    pub fn lost_events(&self) -> u64 {
        self.loss.total()
    }

    /// Things that happened to connections of nobody who is known.
    pub fn unresolved(&self) -> u64 {
        self.losses.get(TCP_LOSS_UNRESOLVED)
    }

    /// Entries in the kernel's tables of owners: by which they are known, of counters, of first times.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn entries(&self) -> Result<[usize; 3], ObjectError> {
        self.programs.entries()
    }

    /// The owners of all connections that are followed, each as often as it has some; [`sabot_abi::NO_OWNER`] is nobody who
    /// is known.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to read a map.
    pub fn followed(&self) -> Result<Vec<u32>, ObjectError> {
        let sockets = self.connections()?;
        Ok(sockets.iter().map(|socket| socket.owner).collect())
    }

    /// Whether events are still being read.
    pub fn is_running(&self) -> bool {
        self.reader.is_running()
    }
}

impl TcpTotals {
    /// Connections with this outcome, whoever the peer: `CONNECTION_*`.
    pub fn connections(&self, outcome: usize) -> u64 {
        self.connections.iter().map(|outcomes| outcomes[outcome]).sum()
    }

    /// Connects that failed, of whatever reason.
    pub fn failed(&self) -> u64 {
        self.connections(CONNECTION_FAILED)
    }
}

impl From<TcpStats> for TcpTotals {
    fn from(stats: TcpStats) -> Self {
        let errors = CONNECT_ERRNOS.iter().zip(stats.connect_errors);
        Self {
            connections: stats.connections,
            connect_errors: errors
                .filter(|(_, count)| *count > 0)
                .map(|(&errno, count)| (connect_error(errno), count))
                .collect(),
            lost: stats.lost,
            retransmits: stats.retransmits,
            synack_retransmits: stats.synack_retransmits,
            rtos: stats.rtos,
            resets_sent: stats.resets_sent,
            resets_received: stats.resets_received,
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            handshakes: stats.handshakes,
            rtts: stats.rtts,
        }
    }
}

impl From<TcpFirsts> for TcpMoments {
    fn from(firsts: TcpFirsts) -> Self {
        let moment = |time| (time != 0).then_some(BootTime(time));
        Self {
            retransmit: moment(firsts.retransmit),
            rto: moment(firsts.rto),
            reset: moment(firsts.reset),
            connect_failure: moment(firsts.connect_failure),
            loss: moment(firsts.loss),
        }
    }
}

/// The kernel's counts of what could not be recorded; the last ones known when they can't be read now, since they never go
/// back.
struct LastLosses {
    programs: Arc<TcpPrograms>,
    last: [AtomicU64; TCP_LOSS_COUNT as usize],
}

impl LastLosses {
    fn new(programs: Arc<TcpPrograms>) -> Self {
        Self {
            programs,
            last: Default::default(),
        }
    }

    fn get(&self, which: u32) -> u64 {
        let last = &self.last[which as usize];
        match self.programs.losses() {
            Ok(losses) => {
                let count = losses[which as usize];
                last.fetch_max(count, Ordering::Relaxed).max(count)
            }
            Err(error) => {
                tracing::warn!(%error, "the TCP observer's losses can't be read");
                last.load(Ordering::Relaxed)
            }
        }
    }
}

/// Addresses that are of the same class everywhere.
pub(super) fn well_known() -> impl Iterator<Item = (PeerPrefix, u32)> {
    WELL_KNOWN
        .iter()
        .filter_map(|&(address, length, class)| Some((PeerPrefix::new(address.parse().ok()?, length), class)))
}

fn read(
    ring: RingBuf<MapData>,
    identities: Identities,
    hub: EventHub,
    loss: Arc<StreamLoss>,
) -> io::Result<OwnedTask> {
    publish_from(ring, hub, loss, move |event| decode(&identities, &event))
}

fn decode(identities: &Identities, event: &sabot_abi::TcpEvent) -> Option<Event> {
    let change = match event.kind {
        TCP_CONNECT_FAILED => TcpChange::ConnectFailed,
        TCP_LOST => TcpChange::Lost,
        TCP_RESET_SENT => TcpChange::ResetSent,
        TCP_RESET_RECEIVED => TcpChange::ResetReceived,
        TCP_RTO => TcpChange::Rto,
        _ => return None,
    };
    Some(Event {
        time: clock::system_time(BootTime(event.time)),
        container: identities.container(event.cgroup),
        kind: EventKind::Tcp(TcpEvent {
            owner: identities.get(event.owner)?,
            change,
            local: address(event.local),
            remote: address(event.remote),
            local_port: event.local_port,
            remote_port: event.remote_port,
            errno: (event.errno != 0).then(|| errno_name(event.errno)),
        }),
    })
}

/// The label of a place in [`CONNECT_ERRNOS`].
fn connect_error(errno: u32) -> &'static str {
    match errno {
        0 => "closed",
        u32::MAX => "other",
        errno => errno_name(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_that_is_told_apart_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = CONNECT_ERRNOS.map(connect_error).into();
        assert_eq!(names.len(), CONNECT_ERRNOS.len());
        assert!(names.contains("ECONNREFUSED") && names.contains("closed"));
        assert!(!names.contains(super::super::names::UNKNOWN));
    }

    #[test]
    fn every_well_known_prefix_is_one() {
        assert_eq!(well_known().count(), WELL_KNOWN.len());
    }
}
