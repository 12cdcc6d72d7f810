//! An engine with a kernel and a world made for tests, under tokio's paused clock.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sabot_core::Limits;
use sabot_core::guard::Guards;
use sabot_core::model::{FaultName, NetnsId, Pod, TargetDevice, TargetIdentity, TargetKey};
use sabot_core::plan::{Policy, Slot, TargetId};
use sabot_core::spec::{FaultSpec, Metadata};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::kernel::FakeKernel;
use crate::engine::handle::{EngineError, FaultView, Handle, Phase, RuntimeState};
use crate::engine::{Control, ControlPlane, Engine, LeftBehind, Options, Parts, WorldSource};
use crate::kernel::features::{Feature, Features};
use crate::observe::event::{EventHub, EventKind, Subscription};
use crate::targets::kube::KubeState;
use crate::targets::{Wanted, WorldUpdate};

pub(crate) const WAIT: Duration = Duration::from_secs(10);

pub(crate) struct FakeWorld {
    updates: watch::Sender<Arc<WorldUpdate>>,
    /// What is there to be found, whether somebody looks or not.
    existing: Mutex<BTreeMap<PathBuf, Vec<TargetDevice>>>,
    wanted: Mutex<Wanted>,
    refreshes: Mutex<u32>,
}

impl FakeWorld {
    fn new() -> Self {
        let update = WorldUpdate {
            world: Default::default(),
            runtime: RuntimeState::Ready {
                name: "containerd".into(),
                version: "1.6.20".into(),
                events: false,
            },
            kubernetes: KubeState::Absent(String::new()),
            netns_failures: BTreeMap::new(),
            interface_failures: BTreeMap::new(),
        };
        Self {
            updates: watch::Sender::new(Arc::new(update)),
            existing: Mutex::default(),
            wanted: Mutex::default(),
            refreshes: Mutex::default(),
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut WorldUpdate)) {
        self.updates.send_modify(|update| change(Arc::make_mut(update)));
    }

    pub(crate) fn add_pod(&self, pod: Pod) {
        self.change(|update| drop(update.world.pods.insert(pod.sandbox.clone(), pod)));
    }

    pub(crate) fn add_node_address(&self, address: impl Into<std::net::IpAddr>) {
        let address = address.into();
        self.change(|update| {
            update.world.node_addresses.insert(address);
        });
    }

    pub(crate) fn remove_pod(&self, sandbox: &str) {
        self.change(|update| drop(update.world.pods.remove(sandbox)));
    }

    pub(crate) fn add_netns(&self, path: &str, device: TargetDevice) {
        self.existing
            .lock()
            .expect("unpoisoned")
            .insert(path.into(), vec![device]);
    }

    pub(crate) fn wanted(&self) -> Wanted {
        self.wanted.lock().expect("unpoisoned").clone()
    }

    pub(crate) fn refreshes(&self) -> u32 {
        *self.refreshes.lock().expect("unpoisoned")
    }

    fn look(
        updates: &watch::Sender<Arc<WorldUpdate>>,
        existing: &BTreeMap<PathBuf, Vec<TargetDevice>>,
        wanted: &Wanted,
    ) {
        let found: BTreeMap<_, _> = existing
            .iter()
            .filter(|(path, _)| wanted.netns_paths.contains(*path))
            .map(|(path, devices)| (path.clone(), devices.clone()))
            .collect();
        updates.send_if_modified(|update| {
            let changed = update.world.namespaces != found;
            if changed {
                Arc::make_mut(update).world.namespaces = found;
            }
            changed
        });
    }
}

impl WorldSource for FakeWorld {
    fn watch(&self) -> watch::Receiver<Arc<WorldUpdate>> {
        self.updates.subscribe()
    }

    fn is_current(&self, path: &Path, devices: &[TargetDevice]) -> bool {
        self.existing
            .lock()
            .expect("unpoisoned")
            .get(path)
            .is_some_and(|existing| existing == devices)
    }

    fn want(&self, wanted: Wanted) {
        let existing = self.existing.lock().expect("unpoisoned");
        Self::look(&self.updates, &existing, &wanted);
        *self.wanted.lock().expect("unpoisoned") = wanted;
    }

    fn refresh(&self, wanted: Wanted, _: BTreeSet<PathBuf>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        *self.refreshes.lock().expect("unpoisoned") += 1;
        *self.wanted.lock().expect("unpoisoned") = wanted.clone();
        let existing = self.existing.lock().expect("unpoisoned").clone();
        let updates = self.updates.clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Self::look(&updates, &existing, &wanted);
        })
    }
}

pub(crate) struct Rig {
    pub(crate) kernel: Arc<FakeKernel>,
    pub(crate) world: Arc<FakeWorld>,
    /// Where the API server is.
    pub(crate) servers: watch::Sender<BTreeSet<std::net::SocketAddr>>,
    pub(crate) handle: Handle,
    pub(crate) control: Control,
    pub(crate) events: Subscription,
    task: JoinHandle<Result<(), LeftBehind>>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(|_| {}, &[])
    }

    /// With settings of its own, on a machine that lacks these features.
    pub(crate) fn with(change: impl FnOnce(&mut Options), missing: &[&'static str]) -> Self {
        let mut options = Options {
            limits: Limits::default(),
            guards: Guards::default(),
            policy: Policy {
                keep_warm: Duration::from_secs(60),
                attach_eagerly: false,
                max_slots: 8,
                max_targets: 8,
                max_slots_per_target: 4,
            },
            max_faults: 32,
            keep_ended: Duration::from_secs(600),
        };
        change(&mut options);
        let (kernel, world) = (Arc::new(FakeKernel::new()), Arc::new(FakeWorld::new()));
        let servers = watch::Sender::default();
        let hub = EventHub::new(256);
        let events = hub.subscribe();
        let parts = Parts {
            datapath: kernel.clone(),
            source: world.clone(),
            features: Arc::new(features(missing)),
            events: hub,
            control_plane: ControlPlane {
                ports: [22].into(),
                servers: servers.subscribe(),
            },
            on_reconcile: Box::new(|_| {}),
        };
        let (engine, handle, control) = Engine::new(parts, options);
        Self {
            kernel,
            world,
            servers,
            handle,
            control,
            events,
            task: tokio::spawn(engine.run()),
        }
    }

    pub(crate) async fn apply(&self, name: &str, spec: &str) -> Result<FaultView, EngineError> {
        let (metadata, spec) = fault(name, spec);
        self.handle.apply(metadata, spec, WAIT).await
    }

    /// Applies a fault that must be in force everywhere, and says in which slot.
    pub(crate) async fn inject(&self, name: &str, spec: &str) -> Slot {
        let view = self.apply(name, spec).await.expect("accepted");
        assert_eq!(view.phase, Phase::Injected, "{}", view.message);
        view.slot.expect("a fault in force has a slot")
    }

    pub(crate) fn view(&self, name: &str) -> FaultView {
        self.handle.snapshot().faults[&fault_name(name)].clone()
    }

    pub(crate) async fn ledgers(&self, name: &str) -> Vec<crate::engine::handle::LedgerEntry> {
        self.handle
            .ledgers(Some(fault_name(name)))
            .await
            .expect("a known fault")
    }

    /// Matched packets of a fault, over all targets and both directions.
    pub(crate) async fn matched(&self, name: &str) -> u64 {
        let entries = self.ledgers(name).await;
        entries.iter().map(|entry| entry.ledger.matched.packets).sum()
    }

    pub(crate) fn target(&self, device: &str) -> TargetId {
        let state = self.kernel.state();
        let mut ids = state.equipped.iter().filter(|(_, (key, _))| key.device == device);
        *ids.next().unwrap_or_else(|| panic!("{device} isn't equipped")).0
    }

    /// The changes of faults so far, as `name:change`.
    pub(crate) fn changes(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.events.try_recv().ok())
            .filter_map(|event| match &event.kind {
                EventKind::Fault(fault) => Some(format!("{}:{}", fault.fault, fault.change)),
                _ => None,
            })
            .collect()
    }

    pub(crate) async fn stop(self) -> Result<(), LeftBehind> {
        self.control.stop();
        self.task.await.expect("the engine doesn't panic")
    }
}

/// Lets the engine do all that it can do now, and time pass.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

pub(crate) fn fault(name: &str, spec: &str) -> (Metadata, FaultSpec) {
    let text = format!(
        "{{apiVersion: sabot.dev/v1alpha1, kind: NetworkFault, metadata: {{name: {name}}}, spec: {spec}}}"
    );
    let mut manifests = sabot_core::parse_manifests(&text).expect("YAML");
    let manifest = manifests.remove(0);
    (manifest.metadata, manifest.spec)
}

pub(crate) fn fault_name(name: &str) -> FaultName {
    FaultName {
        namespace: String::new(),
        name: name.to_owned(),
    }
}

/// A device whose namespace is told by its number.
pub(crate) fn device(name: &str, ino: u64) -> TargetDevice {
    TargetDevice {
        key: TargetKey {
            netns: NetnsId { ino, serial: 1 },
            device: name.to_owned(),
            ifindex: 2,
        },
        netns_path: PathBuf::from(format!("/proc/{ino}/ns/net")),
        mac_header: true,
        node_device: false,
        identity: TargetIdentity::of(&format!("{ino}/{name}")),
    }
}

/// A pod of namespace `shop` with label `app`, whose device and address are told by its number.
pub(crate) fn pod(name: &str, app: &str, number: u8) -> Pod {
    Pod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        sandbox: format!("sandbox-{number}"),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        annotations: BTreeMap::new(),
        addresses: vec![[10, 0, 0, number].into()],
        host_network: false,
        workload: Default::default(),
        netns_path: None,
        process: None,
        devices: vec![device(&format!("eth{number}"), u64::from(number))],
    }
}

fn features(missing: &[&'static str]) -> Features {
    let names = ["bpf", "tcx", "clsact", "tun", "veth"];
    Features {
        kernel_release: "6.18.0".to_owned(),
        list: names
            .map(|name| Feature {
                name,
                available: !missing.contains(&name),
                detail: format!("{name} was looked for"),
                consequence: format!("nothing that needs {name} works"),
            })
            .into(),
    }
}
