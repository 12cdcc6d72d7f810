//! What the rest of the daemon sees of the engine: commands in, snapshots out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sabot_core::model::{BootTime, Fault, FaultName, TargetKey, World};
use sabot_core::plan::{Slot, TargetId};
use sabot_core::spec::{FaultSpec, Metadata};
use tokio::sync::{mpsc, oneshot, watch};

/// Where a fault stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepted; no target yet, or its targets aren't ready, or `startsAt` lies ahead.
    Pending,
    /// In force on every target that it means.
    Injected,
    /// In force on some of them.
    Partial,
    /// In force on none, although it has targets.
    Failed,
    Expired,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPhase {
    Attaching,
    Injected,
    /// The reason; tried again.
    Failed(String),
    /// The reason; this target can't have this fault (host network, no MAC header).
    Refused(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetView {
    /// `None` for a target that is refused before any device is known.
    pub key: Option<TargetKey>,
    pub id: Option<TargetId>,
    /// Empty for targets that aren't pods.
    pub pod_namespace: String,
    pub pod_name: String,
    pub device: String,
    pub phase: TargetPhase,
}

/// Who asked for a fault: nobody else changes or deletes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A caller of the API.
    #[default]
    Api,
    /// A custom resource, whose name is the fault's.
    Resource { kind: &'static str, uid: String },
}

impl Origin {
    /// The fault's holder for people, as `NetworkFault shop/cut`.
    pub fn describe(&self, name: &FaultName) -> String {
        match self {
            Self::Api => format!("the fault {name} that was given over the API"),
            Self::Resource { kind, .. } => format!("{kind} {name}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct FaultView {
    pub fault: Arc<Fault>,
    pub origin: Origin,
    /// Since when its duration counts; `None` for a resource's fault that waits to be told.
    pub since: Option<SystemTime>,
    /// As the user wrote it.
    pub metadata: Metadata,
    pub spec: FaultSpec,
    pub phase: Phase,
    /// For people: why it is pending, what failed.
    pub message: String,
    pub slot: Option<Slot>,
    pub targets: Vec<TargetView>,
    /// The names among its peers, and the addresses that are known of each now.
    pub names: BTreeMap<String, BTreeSet<IpAddr>>,
    /// When it was first in force on all its targets.
    pub injected: Option<SystemTime>,
    /// When it expired or was deleted.
    pub ended: Option<SystemTime>,
}

/// The state of the source of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeState {
    /// No CRI socket is configured or found.
    Absent(String),
    Connecting,
    /// Name and version, as it reports them.
    Ready {
        name: String,
        version: String,
        events: bool,
    },
    /// It was there and doesn't answer; the last known world stays.
    Down(String),
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Grows with every change.
    pub generation: u64,
    /// Active faults, and ended ones for a while.
    pub faults: BTreeMap<FaultName, FaultView>,
    pub world: Arc<World>,
    pub runtime: RuntimeState,
}

/// Packets and bytes of one outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}

/// The counters of one fault on one target in one direction.
///
/// At quiescence `matched + duplicated = passed + dropped + bypassed + rejected + released + lost()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub matched: Tally,
    pub passed: Tally,
    /// By the fault's choice, or because a shaper's queue was full.
    pub dropped: Tally,
    pub bypassed: Tally,
    /// Answered, or just consumed, by `reject` or `reset`.
    pub rejected: Tally,
    pub released: Tally,
    /// Copies that the fault made.
    pub duplicated: Tally,
    /// Answers to rejected packets that went on, in the direction in which they go; beside the identity.
    pub replied: Tally,
    pub corrupted: Tally,
    pub delayed: Tally,
    /// In the delay line or the departure queue now.
    pub held: Tally,
    /// Died in the segmenter's queue.
    pub lost_segmenter: Tally,
    /// Died in the TAP's transmit queue, or on the way to the departure queue or back.
    pub lost_queue: Tally,
    /// Refused by the byte bound of the line or of the departure queue.
    pub lost_bound: Tally,
    /// The write back failed.
    pub lost_write: Tally,
    /// Held past its time by a stopped daemon.
    pub lost_late: Tally,
    /// When the first packet was matched.
    pub first_match: Option<BootTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerDirection {
    Egress,
    Ingress,
}

impl LedgerDirection {
    pub const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];
}

#[derive(Clone, Debug, PartialEq)]
pub struct LedgerEntry {
    pub fault: FaultName,
    pub target: TargetView,
    pub direction: LedgerDirection,
    pub ledger: Ledger,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    pub fault: Fault,
    pub targets: Vec<TargetView>,
    /// Peer addresses as they resolve now; empty for "every other end".
    pub peers: Vec<String>,
    /// What the user should know: spared node, peers behind a ClusterIP, nothing matches.
    pub warnings: Vec<String>,
}

/// One thing wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field, as `spec.peers[0].cidr`.
    pub field: String,
    /// What was given and what is allowed.
    pub description: String,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the fault is invalid: {}", .0.iter().map(|v| format!("{}: {}", v.field, v.description)).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Violation>),
    #[error("no fault named {0}")]
    NotFound(FaultName),
    /// An active fault of that name is somebody else's.
    #[error("the name {name} is taken by {holder}; choose another, or delete that first")]
    NameTaken { name: FaultName, holder: String },
    /// Only who asked for a fault ends it.
    #[error("{0} is not deleted here: a resource's fault ends when the resource is deleted")]
    Held(String),
    /// This machine can't do what the fault needs; the text says what is missing.
    #[error("{0}")]
    Unsupported(String),
    /// A guard refuses it.
    #[error("refused by the guard {guard}: {message}")]
    Refused { guard: &'static str, message: String },
    /// A table is full.
    #[error("{0}")]
    Exhausted(String),
    #[error("the daemon is shutting down")]
    ShuttingDown,
    #[error("{0}")]
    Internal(String),
}

pub type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

pub enum Command {
    Apply {
        metadata: Metadata,
        spec: Box<FaultSpec>,
        origin: Origin,
        /// Since when the duration counts, where that is known already.
        since: Option<SystemTime>,
        wait: Duration,
        reply: Reply<FaultView>,
    },
    Delete {
        name: FaultName,
        origin: Origin,
        reply: Reply<FaultView>,
    },
    DeleteAll {
        namespace: Option<String>,
        reply: Reply<Vec<FaultView>>,
    },
    Preview {
        metadata: Metadata,
        spec: Box<FaultSpec>,
        reply: Reply<Preview>,
    },
    Ledgers {
        name: Option<FaultName>,
        reply: Reply<Vec<LedgerEntry>>,
    },
}

impl Command {
    /// Nothing that is desired or known can be different after it.
    pub fn only_reads(&self) -> bool {
        match self {
            Self::Ledgers { .. } => true,
            // A preview may have the world looked at.
            Self::Preview { .. } | Self::Apply { .. } | Self::Delete { .. } | Self::DeleteAll { .. } => false,
        }
    }
}

/// A cheap clone for each user of the engine.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Handle {
    pub fn new(commands: mpsc::Sender<Command>, snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self { commands, snapshots }
    }

    /// Creates the fault, or edits the active one of that name in place. Returns once it is in force on every target it
    /// means now or can't be, at once where there is no target yet, or when `wait` is over, with whatever phase it has
    /// then.
    ///
    /// An edit keeps the slot, the counters and the time of creation. Its times begin anew, also where nothing else is
    /// different: applying a fault again before its end prolongs it by its duration from now. A fault that has ended is
    /// followed by a new one.
    pub async fn apply(
        &self,
        metadata: Metadata,
        spec: FaultSpec,
        wait: Duration,
    ) -> Result<FaultView, EngineError> {
        self.ask(|reply| Command::Apply {
            metadata,
            spec: Box::new(spec),
            origin: Origin::Api,
            since: None,
            wait,
            reply,
        })
        .await
    }

    /// The same for a resource; it never waits for the fault to be in force.
    ///
    /// Without `since` and `startsAt` the fault is put in place and waits there, until it is applied again with its begin: it
    /// has to be written down before anything happens. A fault that is applied again keeps its end unless the spec or
    /// `since` has changed.
    pub async fn apply_resource(
        &self,
        metadata: Metadata,
        spec: FaultSpec,
        origin: Origin,
        since: Option<SystemTime>,
    ) -> Result<FaultView, EngineError> {
        self.ask(|reply| Command::Apply {
            metadata,
            spec: Box::new(spec),
            origin,
            since,
            wait: Duration::ZERO,
            reply,
        })
        .await
    }

    /// Returns once the kernel no longer acts on it; at once for one that has ended already.
    pub async fn delete(&self, name: FaultName) -> Result<FaultView, EngineError> {
        self.ask(|reply| Command::Delete {
            name,
            origin: Origin::Api,
            reply,
        })
        .await
    }

    /// The same for the fault of a resource that is gone.
    pub async fn delete_resource(&self, name: FaultName, origin: Origin) -> Result<FaultView, EngineError> {
        self.ask(|reply| Command::Delete { name, origin, reply }).await
    }

    /// Deletes every active fault that was given over the API, or those of one namespace.
    ///
    /// # Errors
    /// `Held` where there are only such that belong to resources.
    pub async fn delete_all(&self, namespace: Option<String>) -> Result<Vec<FaultView>, EngineError> {
        self.ask(|reply| Command::DeleteAll { namespace, reply }).await
    }

    pub async fn preview(&self, metadata: Metadata, spec: FaultSpec) -> Result<Preview, EngineError> {
        self.ask(|reply| Command::Preview {
            metadata,
            spec: Box::new(spec),
            reply,
        })
        .await
    }

    /// The counters of one fault, or of all, read from the kernel now; an ended fault's are its last ones.
    pub async fn ledgers(&self, name: Option<FaultName>) -> Result<Vec<LedgerEntry>, EngineError> {
        self.ask(|reply| Command::Ledgers { name, reply }).await
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| EngineError::ShuttingDown)?;
        answer.await.map_err(|_| EngineError::ShuttingDown)?
    }
}
