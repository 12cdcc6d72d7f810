//! An engine that shows what a test tells it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sabot_core::model::{Action, BootTime, Direction, Fault, FaultName, PacketFilter, TargetSelector, World};
use sabot_core::plan::{Slot, TargetId};
use sabot_core::spec::{FaultSpec, Metadata};
use tokio::sync::{mpsc, watch};

use crate::engine::handle::{
    Command, FaultView, Handle, LedgerEntry, Origin, Phase, RuntimeState, Snapshot, TargetPhase, TargetView,
};

pub(crate) fn name(text: &str) -> FaultName {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    FaultName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// A partition; `targets` are in force, on pods named after them.
pub(crate) fn fault_view(text: &str, phase: Phase, slot: u32, targets: &[u32]) -> FaultView {
    let name = name(text);
    let duration = Duration::from_secs(60);
    let fault = Fault {
        name: name.clone(),
        target: TargetSelector::Interface("eth0".into()),
        peers: Vec::new(),
        direction: Direction::Both,
        ports: Vec::new(),
        packets: PacketFilter::ALL,
        pulse: None,
        ramp: None,
        seed: 7,
        spare_node: true,
        allow_control_plane: false,
        action: Action::Partition,
        duration,
        starts_at: BootTime(0),
        expires_at: BootTime(u64::MAX),
        created: SystemTime::UNIX_EPOCH,
        starts: SystemTime::UNIX_EPOCH,
        expires: SystemTime::now() + duration,
        sample_every: 1,
    };
    FaultView {
        fault: Arc::new(fault),
        origin: Origin::Api,
        since: Some(SystemTime::UNIX_EPOCH),
        metadata: Metadata {
            name: name.name,
            namespace: name.namespace,
        },
        spec: FaultSpec {
            duration: Some(duration),
            ..FaultSpec::default()
        },
        phase,
        message: String::new(),
        slot: Some(Slot(slot)),
        targets: targets.iter().map(|&id| target_view(id)).collect(),
        names: BTreeMap::new(),
        injected: None,
        ended: None,
    }
}

pub(crate) fn target_view(id: u32) -> TargetView {
    TargetView {
        key: None,
        id: Some(TargetId(id)),
        pod_namespace: "shop".into(),
        pod_name: format!("pod-{id}"),
        device: "eth0".into(),
        phase: TargetPhase::Injected,
    }
}

pub(crate) fn snapshot(generation: u64, faults: impl IntoIterator<Item = FaultView>) -> Snapshot {
    Snapshot {
        generation,
        faults: faults
            .into_iter()
            .map(|view| (view.fault.name.clone(), view))
            .collect(),
        world: Arc::new(World {
            node_addresses: [IpAddr::from([192, 0, 2, 1])].into(),
            ..World::default()
        }),
        runtime: RuntimeState::Connecting,
    }
}

/// An engine that shows a snapshot and answers no command.
pub(crate) fn engine(first: Snapshot) -> (Handle, watch::Sender<Arc<Snapshot>>) {
    let (sender, receiver) = watch::channel(Arc::new(first));
    let (commands, _) = mpsc::channel(1);
    (Handle::new(commands, receiver), sender)
}

/// An engine that shows a snapshot and has these ledgers.
pub(crate) fn engine_with_ledgers(
    first: Snapshot,
    ledgers: Vec<LedgerEntry>,
) -> (Handle, watch::Sender<Arc<Snapshot>>) {
    let (sender, receiver) = watch::channel(Arc::new(first));
    let (commands, mut received) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(command) = received.recv().await {
            if let Command::Ledgers { reply, .. } = command {
                let _ = reply.send(Ok(ledgers.clone()));
            }
        }
    });
    (Handle::new(commands, receiver), sender)
}
