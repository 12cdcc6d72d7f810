//! Doors for the fuzz targets and their short form, to what is otherwise nobody's business.

use std::sync::Arc;

use sabot_abi::{DnsAnswer, PacketEvent, SyscallEvent};
use sabot_core::model::World;
use tokio::sync::{mpsc, watch};

pub use crate::observe::cri::fuzzing as cri_calls;
pub use crate::targets::cri::fuzzing as cri_pods;

use crate::engine::handle::{Handle, RuntimeState, Snapshot};
use crate::kernel::features::Features;
use crate::metrics::{HttpState, Metrics, Probe, ReconcileDuration, Sources};
use crate::observe::dns::{self, Answer, Malformed};
use crate::observe::event::Event;
use crate::observe::observers::Observers;
use crate::observe::packets::{self, Enricher};
use crate::observe::queries::question::read_question;
use crate::observe::ring;
use crate::observe::syscalls::details;
use crate::targets::kube::KubeStatus;

/// What is told of an entry of the packets' ring.
pub fn packet(entry: &[u8], enricher: &mut impl Enricher) -> Option<Event> {
    packets::decode(enricher, &ring::read::<PacketEvent>(entry)?)
}

/// What is said of an entry of the syscalls' ring, by name.
pub fn syscall(entry: &[u8]) -> Option<Vec<(&'static str, String)>> {
    ring::read::<SyscallEvent>(entry).map(|event| details::decode(&event))
}

/// What is learnt from an entry of the ring of DNS answers.
pub fn answer(entry: &[u8]) -> Option<Result<Option<Answer>, Malformed>> {
    let copied: DnsAnswer = ring::read(entry)?;
    Some(dns::read(copied.payload(), copied.is_cut()))
}

/// The name and the type of a DNS question that was copied.
pub fn question(bytes: &[u8]) -> Option<(String, String)> {
    read_question(bytes)
}

/// What the HTTP endpoint shows of a daemon that has nothing to do. It is alive, and not ready.
pub fn http() -> Arc<HttpState> {
    let snapshot = Snapshot {
        generation: 1,
        faults: Default::default(),
        world: Arc::new(World::default()),
        runtime: RuntimeState::Connecting,
    };
    let (commands, _) = mpsc::channel(1);
    let (_, snapshots) = watch::channel(Arc::new(snapshot));
    let sources = Sources {
        engine: Handle::new(commands, snapshots),
        observers: Arc::new(Observers::default()),
        delays: None,
        subscribers_lost: Box::new(|| 0),
        features: Arc::new(Features {
            kernel_release: "0".into(),
            list: Vec::new(),
        }),
        reconcile: ReconcileDuration::default(),
        costs: None,
        kubernetes: KubeStatus::absent("none is wanted".into()),
        exemplars: None,
    };
    Arc::new(HttpState {
        metrics: Metrics::new("sabot", sources),
        live: Probe::default(),
        ready: Probe::default().with("engine", || Err("there is none".to_owned())),
    })
}
