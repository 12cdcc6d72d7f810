//! An engine without a kernel: it keeps faults in a map, and a fault's name says which error it wants.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sabot_core::model::{
    Action, BootTime, Direction, Fault, FaultName, Loss, LossModel, NetnsId, PacketFilter, Percent, Pod,
    TargetDevice, TargetIdentity, TargetKey, TargetSelector, World,
};
use sabot_core::spec::{FaultSpec, Metadata};
use tokio::sync::{mpsc, watch};

use crate::engine::handle::{
    Command, EngineError, FaultView, Handle, Ledger, LedgerDirection, LedgerEntry, Origin, Phase, Preview,
    RuntimeState, Snapshot, Tally, TargetPhase, TargetView, Violation,
};

#[derive(Clone)]
pub(super) struct FakeEngine {
    snapshots: Arc<watch::Sender<Arc<Snapshot>>>,
    ledgers: Arc<Mutex<Vec<LedgerEntry>>>,
    /// Of the last apply.
    wait: Arc<Mutex<Option<Duration>>>,
}

impl FakeEngine {
    pub(super) fn start() -> (Self, Handle) {
        let snapshot = Snapshot {
            generation: 0,
            faults: [].into(),
            world: Arc::new(World::default()),
            runtime: RuntimeState::Absent("no CRI socket was found".into()),
        };
        let (snapshots, receiver) = watch::channel(Arc::new(snapshot));
        let (commands, mut inbox) = mpsc::channel(8);
        let engine = Self {
            snapshots: Arc::new(snapshots),
            ledgers: Arc::default(),
            wait: Arc::default(),
        };
        let worker = engine.clone();
        tokio::spawn(async move {
            while let Some(command) = inbox.recv().await {
                worker.handle(command);
            }
        });
        (engine, Handle::new(commands, receiver))
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        self.snapshots.send_modify(|shared| {
            let mut snapshot = Snapshot::clone(shared);
            change(&mut snapshot);
            snapshot.generation += 1;
            *shared = Arc::new(snapshot);
        });
    }

    /// Sets the counters of one fault's one target: this many egress packets of 100 bytes matched and dropped.
    pub(super) fn count(&self, name: &str, packets: u64) {
        let fault = fault_name(name);
        let tally = Tally {
            packets,
            bytes: packets * 100,
        };
        let mut ledgers = self.ledgers.lock().expect("no test panicked");
        ledgers.retain(|l| l.fault != fault);
        ledgers.push(LedgerEntry {
            fault,
            target: target(),
            direction: LedgerDirection::Egress,
            ledger: Ledger {
                matched: tally,
                dropped: tally,
                ..Ledger::default()
            },
        });
    }

    pub(super) fn last_wait(&self) -> Option<Duration> {
        *self.wait.lock().expect("no test panicked")
    }

    fn handle(&self, command: Command) {
        match command {
            Command::Apply {
                metadata,
                spec,
                wait,
                reply,
                ..
            } => {
                *self.wait.lock().expect("no test panicked") = Some(wait);
                let _ = reply.send(self.apply(metadata, *spec));
            }
            Command::Delete { name, reply, .. } => {
                let _ = reply.send(self.delete(&name));
            }
            Command::DeleteAll { namespace, reply } => {
                let names: Vec<_> = self
                    .snapshots
                    .borrow()
                    .faults
                    .keys()
                    .filter(|n| namespace.as_ref().is_none_or(|ns| *ns == n.namespace))
                    .cloned()
                    .collect();
                let _ = reply.send(names.iter().map(|n| self.delete(n)).collect());
            }
            Command::Preview {
                metadata,
                spec,
                reply,
            } => {
                let preview = refusal(&metadata).map_or_else(
                    || {
                        let view = view(metadata, *spec);
                        Ok(Preview {
                            fault: Fault::clone(&view.fault),
                            targets: view.targets,
                            peers: vec!["10.0.0.1".into()],
                            warnings: vec!["the node is spared".into()],
                        })
                    },
                    Err,
                );
                let _ = reply.send(preview);
            }
            Command::Ledgers { name, reply } => {
                let all = self.ledgers.lock().expect("no test panicked").clone();
                let wanted = all
                    .into_iter()
                    .filter(|l| name.as_ref().is_none_or(|n| *n == l.fault))
                    .collect();
                let _ = reply.send(Ok(wanted));
            }
        }
    }

    fn apply(&self, metadata: Metadata, spec: FaultSpec) -> Result<FaultView, EngineError> {
        if let Some(error) = refusal(&metadata) {
            return Err(error);
        }
        let view = view(metadata, spec);
        self.change(|s| {
            s.faults.insert(view.fault.name.clone(), view.clone());
        });
        Ok(view)
    }

    fn delete(&self, name: &FaultName) -> Result<FaultView, EngineError> {
        let mut found = self
            .snapshots
            .borrow()
            .faults
            .get(name)
            .cloned()
            .ok_or_else(|| EngineError::NotFound(name.clone()))?;
        found.phase = Phase::Deleted;
        found.ended = Some(SystemTime::now());
        self.change(|s| {
            s.faults.insert(name.clone(), found.clone());
        });
        Ok(found)
    }
}

pub(super) fn fault_name(name: &str) -> FaultName {
    FaultName {
        namespace: "team-a".into(),
        name: name.into(),
    }
}

pub(super) fn pod(name: &str, host_network: bool) -> Pod {
    Pod {
        namespace: "team-a".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        sandbox: format!("sandbox-{name}"),
        labels: [("app".to_owned(), name.to_owned())].into(),
        annotations: Default::default(),
        addresses: vec![IpAddr::from([10, 0, 0, 7])],
        host_network,
        workload: Default::default(),
        netns_path: None,
        process: None,
        devices: if host_network { Vec::new() } else { vec![device()] },
    }
}

fn device() -> TargetDevice {
    TargetDevice {
        key: TargetKey {
            netns: NetnsId {
                ino: 4_026_532_000,
                serial: 1,
            },
            device: "eth0".into(),
            ifindex: 2,
        },
        netns_path: PathBuf::from("/run/netns/web"),
        mac_header: true,
        node_device: false,
        identity: TargetIdentity::of("team-a/web/eth0"),
    }
}

fn target() -> TargetView {
    TargetView {
        key: Some(device().key),
        id: None,
        pod_namespace: "team-a".into(),
        pod_name: "web".into(),
        device: "eth0".into(),
        phase: TargetPhase::Injected,
    }
}

fn refusal(metadata: &Metadata) -> Option<EngineError> {
    match metadata.name.as_str() {
        "invalid" => Some(EngineError::Invalid(vec![
            Violation {
                field: "spec.duration".into(),
                description: "2h is above the maximum of 1h".into(),
            },
            Violation {
                field: "spec.peers[0].cidr".into(),
                description: "10.0.0.0/99 is not a network".into(),
            },
        ])),
        "wholly-invalid" => Some(EngineError::Invalid(
            (0..150_000)
                .map(|index| Violation {
                    field: format!("spec.peers[{index}].ip"),
                    description: "`x` given; allowed: an IPv4 or IPv6 address, as 10.20.7.1 or fd00::1"
                        .into(),
                })
                .collect(),
        )),
        "unsupported" => Some(EngineError::Unsupported(
            "delay needs /dev/net/tun, which is missing".into(),
        )),
        "exhausted" => Some(EngineError::Exhausted("all 4096 slots are in use".into())),
        "shutting-down" => Some(EngineError::ShuttingDown),
        "internal" => Some(EngineError::Internal("a map is gone".into())),
        _ => None,
    }
}

fn action(name: &str) -> Action {
    match name {
        "lossy" => Action::Drop(Loss {
            model: LossModel::Percent(Percent::new(5.0).expect("a percent")),
            only: None,
        }),
        _ => Action::Partition,
    }
}

fn view(metadata: Metadata, spec: FaultSpec) -> FaultView {
    let now = SystemTime::now();
    let duration = spec.duration.unwrap_or_default();
    let selector = match &spec.target.netns {
        Some(path) => TargetSelector::Netns(path.into()),
        None => TargetSelector::Pods {
            selector: sabot_core::model::PodSelector {
                namespace: metadata.namespace.clone(),
                name: Some("web".into()),
                labels: sabot_core::model::LabelSelector::default(),
            },
            pick: None,
        },
    };
    FaultView {
        fault: Arc::new(Fault {
            name: FaultName {
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone(),
            },
            target: selector,
            peers: Vec::new(),
            direction: Direction::Both,
            ports: Vec::new(),
            packets: PacketFilter::ALL,
            pulse: None,
            ramp: None,
            seed: 7,
            spare_node: true,
            allow_control_plane: false,
            action: action(&metadata.name),
            duration,
            starts_at: BootTime(0),
            expires_at: BootTime(0),
            created: now,
            starts: now,
            expires: now + duration,
            sample_every: 100,
        }),
        origin: Origin::Api,
        since: Some(now),
        metadata,
        spec,
        phase: Phase::Injected,
        message: String::new(),
        slot: None,
        targets: vec![
            target(),
            TargetView {
                key: None,
                pod_name: "agent".into(),
                device: String::new(),
                phase: TargetPhase::Refused("it is on the node's network".into()),
                ..target()
            },
        ],
        names: [("api.shop.test".to_owned(), [IpAddr::from([192, 0, 2, 7])].into())].into(),
        injected: Some(now),
        ended: None,
    }
}
