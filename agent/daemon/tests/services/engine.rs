//! The daemon's engine on the real datapath, with a world that the test tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sabot_core::guard::Guards;
use sabot_core::model::{
    Cluster as KnownCluster, Endpoint, EndpointPort, FaultName, ObjectName, Pod as KnownPod, Service,
    ServicePort, TargetDevice,
};
use sabot_core::plan::Policy;
use sabot_core::spec::Manifest;
use sabot_core::{Limits, parse_manifests};
use sabotd::engine::handle::{Handle, LedgerDirection, Phase};
use sabotd::engine::{Control, ControlPlane, Engine, LeftBehind, Options, Parts, WorldSource};
use sabotd::kernel::{Injector, InjectorOptions, probe};
use sabotd::observe::event::EventHub;
use sabotd::targets::netns::target_devices;
use sabotd::targets::{RuntimeEndpoint, TargetsConfig, Wanted, WorldUpdate, start};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, Front, Pod};

const PATIENCE: Duration = Duration::from_secs(15);

/// The world as the test has it.
struct Told {
    updates: watch::Sender<Arc<WorldUpdate>>,
}

impl WorldSource for Told {
    fn watch(&self) -> watch::Receiver<Arc<WorldUpdate>> {
        self.updates.subscribe()
    }

    fn is_current(&self, _: &Path, _: &[TargetDevice]) -> bool {
        true
    }

    fn want(&self, _: Wanted) {}

    fn refresh(&self, _: Wanted, _: BTreeSet<PathBuf>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

/// A process has one injector at a time.
static TURN: Mutex<()> = Mutex::new(());

/// An engine in force; [`Rig::end`] takes everything back.
pub(crate) struct Rig {
    runtime: Runtime,
    told: Arc<Told>,
    handle: Handle,
    control: Control,
    task: JoinHandle<Result<(), LeftBehind>>,
    // Dropped after everything else.
    _turn: MutexGuard<'static, ()>,
}

impl Rig {
    /// Pods are `shop/pod-PLACE`, those with a place of 2 or more labelled `app: backend`, the others `app: client`.
    pub(crate) fn new(cluster: &Cluster) -> Self {
        // A test that failed has left nothing behind that the next one meets.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = Runtime::new().expect("a runtime");
        let _inside = runtime.enter();
        let nobody = start(TargetsConfig {
            runtime_endpoint: RuntimeEndpoint::Disabled,
            ..TargetsConfig::default()
        });
        let mut update = WorldUpdate::clone(&nobody.current());
        for (place, pod) in cluster.pods.iter().enumerate() {
            let pod = known(place, pod);
            update.world.pods.insert(pod.sandbox.clone(), pod);
        }
        let told = Arc::new(Told {
            updates: watch::Sender::new(Arc::new(update)),
        });
        let options = InjectorOptions {
            hook: probe::best_hook(&probe::probe()).expect("programs can be attached"),
            line_bytes: 1 << 20,
            line_bytes_total: 1 << 22,
            line_real_time: false,
            departures: false,
        };
        let (injector, _taps) = Injector::load(&options).expect("the fault object loads (root is needed)");
        let parts = Parts {
            datapath: injector,
            source: told.clone(),
            features: Arc::new(probe::probe()),
            events: EventHub::new(16),
            control_plane: ControlPlane {
                ports: BTreeSet::new(),
                servers: watch::Sender::default().subscribe(),
            },
            on_reconcile: Box::new(|_| {}),
        };
        let policy = Policy {
            keep_warm: Duration::ZERO,
            attach_eagerly: false,
            max_slots: 8,
            max_targets: 16,
            max_slots_per_target: 4,
        };
        let options = Options {
            limits: Limits::default(),
            guards: Guards::none(),
            policy,
            max_faults: 8,
            keep_ended: PATIENCE,
        };
        let (engine, handle, control) = Engine::new(parts, options);
        let task = runtime.spawn(engine.run());
        Self {
            runtime,
            told,
            handle,
            control,
            task,
            _turn: turn,
        }
    }

    /// What the cluster's API says of its Services from now on.
    pub(crate) fn tell(&self, cluster: &Cluster, fronts: &[&Front]) {
        let services = fronts
            .iter()
            .map(|front| (named(front.name), Arc::new(service(cluster, front))));
        let known = KnownCluster {
            services: services.collect(),
            ..KnownCluster::default()
        };
        self.told
            .updates
            .send_modify(|update| Arc::make_mut(update).world.cluster = known);
    }

    /// Puts a partition into force. `spec` has its target and peers, as a manifest does.
    pub(crate) fn partition(&self, name: &str, spec: &str) {
        let manifest = format!(
            "{{apiVersion: sabot.dev/v1alpha1, kind: NetworkFault, metadata: {{name: {name}, namespace: shop}}, \
             spec: {{duration: 5m, action: {{partition: {{}}}}, {spec}}}}}"
        );
        let manifest = parse_manifests(&manifest).unwrap_or_else(|error| panic!("{manifest}: {error}"));
        let Manifest { metadata, spec, .. } = manifest.into_iter().next().expect("there is one");
        let applied = self.runtime.block_on(self.handle.apply(metadata, spec, PATIENCE));
        let view = applied.unwrap_or_else(|error| panic!("{name} is refused: {error}"));
        assert_eq!(view.phase, Phase::Injected, "{}", view.message);
    }

    pub(crate) fn delete(&self, name: &str) {
        let name = fault_name(name);
        self.runtime
            .block_on(self.handle.delete(name))
            .expect("it is known");
    }

    /// Packets that the fault has dropped on all its targets.
    pub(crate) fn dropped(&self, name: &str, direction: LedgerDirection) -> u64 {
        let ledgers = self
            .runtime
            .block_on(self.handle.ledgers(Some(fault_name(name))))
            .expect("it is known");
        let of_direction = ledgers.iter().filter(|entry| entry.direction == direction);
        of_direction.map(|entry| entry.ledger.dropped.packets).sum()
    }

    pub(crate) fn end(self) {
        self.control.stop();
        let ended = self
            .runtime
            .block_on(self.task)
            .expect("the engine doesn't panic");
        ended.expect("nothing is left behind");
    }
}

fn fault_name(name: &str) -> FaultName {
    FaultName {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

fn named(name: &str) -> ObjectName {
    ObjectName {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

fn known(place: usize, pod: &Pod) -> KnownPod {
    let app = if place < 2 { "client" } else { "backend" };
    let path = pod.netns.path();
    KnownPod {
        namespace: "shop".to_owned(),
        name: format!("pod-{place}"),
        uid: format!("uid-{place}"),
        sandbox: format!("sandbox-{place}"),
        labels: [("app".to_owned(), app.to_owned())].into(),
        annotations: BTreeMap::new(),
        addresses: vec![pod.ip()],
        host_network: false,
        workload: Default::default(),
        netns_path: Some(path.to_owned()),
        process: None,
        devices: target_devices(path).expect("it has a device"),
    }
}

fn service(cluster: &Cluster, front: &Front) -> Service {
    let endpoint = |place: &usize| Endpoint {
        addresses: [cluster.pods[*place].ip()].into(),
        ports: vec![EndpointPort {
            name: "main".to_owned(),
            protocol: 6,
            port: Some(front.target_port),
        }],
        pod: Some(named(&format!("pod-{place}"))),
        ready: true,
        serving: true,
        ..Endpoint::default()
    };
    Service {
        addresses: [front.address.into()].into(),
        ports: vec![ServicePort {
            name: "main".to_owned(),
            protocol: 6,
            port: front.port,
            node_port: None,
        }],
        publishes_not_ready: false,
        endpoints: front.backends.iter().map(endpoint).collect(),
    }
}
