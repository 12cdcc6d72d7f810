//! Pods, worlds and faults to test with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sabot_core::delay::Distribution;
use sabot_core::model::{
    Action, BootTime, Cluster, ClusterPod, Corrupt, CorruptKind, Delay, Direction, Duplicate, Endpoint,
    EndpointPort, Fault, FaultName, Handshake, LabelRequirement, LabelSelector, Loss, LossModel, NetnsId,
    PacketFilter, Peer, Percent, Pod, PodSelector, QueueBound, REORDER_PATIENCE, RateLimit, RejectCode,
    Reorder, ResetTo, Service, ServicePort, TargetDevice, TargetIdentity, TargetKey, TargetSelector, World,
};

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) fn percent(value: f64) -> Percent {
    Percent::new(value).expect("a percent from 0 to 100")
}

pub(crate) fn device(ino: u64, name: &str) -> TargetDevice {
    TargetDevice {
        key: TargetKey {
            netns: NetnsId { ino, serial: 1 },
            device: name.to_owned(),
            ifindex: 2,
        },
        netns_path: format!("/proc/{ino}/ns/net").into(),
        mac_header: true,
        node_device: false,
        identity: TargetIdentity::of(&format!("{ino}/{name}")),
    }
}

/// A pod in namespace `shop` with the label `app`; its sandbox and netns are told apart by `generation`.
pub(crate) fn pod(index: u8, app: &str, generation: u64) -> Pod {
    let ino = 1000 * generation + u64::from(index);
    Pod {
        namespace: "shop".to_owned(),
        name: format!("{app}-{index}"),
        uid: format!("uid-{index}"),
        sandbox: format!("sandbox-{index}-{generation}"),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        annotations: BTreeMap::new(),
        addresses: vec![format!("10.1.{generation}.{index}").parse().expect("an address")],
        host_network: false,
        workload: Default::default(),
        netns_path: None,
        process: None,
        devices: vec![device(ino, "eth0")],
    }
}

pub(crate) fn world(pods: impl IntoIterator<Item = Pod>) -> World {
    World {
        pods: pods.into_iter().map(|pod| (pod.sandbox.clone(), pod)).collect(),
        ..World::default()
    }
}

/// A pod of another node, told of because of this selector.
pub(crate) fn add_remote(cluster: &mut Cluster, selector: PodSelector, pod: ClusterPod) {
    let pods = Arc::make_mut(cluster.pods.entry(selector).or_default());
    pods.insert_mut(pod.uid.clone(), Arc::new(pod));
}

/// A Service that leads from a port of an address to the same port of its backends, of which it has none yet.
pub(crate) fn front(address: &str, port: u16) -> Service {
    Service {
        addresses: [address.parse().expect("an address")].into(),
        ports: vec![ServicePort {
            name: "main".to_owned(),
            protocol: 6,
            port,
            node_port: None,
        }],
        ..Service::default()
    }
}

/// A pod behind a Service's port, ready.
pub(crate) fn backend(pod: &Pod, port: u16) -> Endpoint {
    Endpoint {
        addresses: pod.addresses.iter().copied().collect(),
        ports: vec![EndpointPort {
            name: "main".to_owned(),
            protocol: 6,
            port: Some(port),
        }],
        pod: Some(pod.object_name()),
        node: None,
        ready: true,
        serving: true,
        terminating: false,
    }
}

pub(crate) fn labelled(app: &str) -> PodSelector {
    PodSelector {
        namespace: "shop".to_owned(),
        name: None,
        labels: LabelSelector {
            requirements: vec![LabelRequirement::In {
                key: "app".to_owned(),
                values: [app.to_owned()].into(),
            }],
        },
    }
}

pub(crate) fn pods_target(app: &str) -> TargetSelector {
    TargetSelector::Pods {
        selector: labelled(app),
        pick: None,
    }
}

pub(crate) fn cidr(net: &str, except: &[&str]) -> Peer {
    Peer::Cidr {
        net: net.parse().expect("a network"),
        except: except
            .iter()
            .map(|text| text.parse().expect("a network"))
            .collect(),
    }
}

/// A partition of `app=web`, both ways, from now on for a minute.
pub(crate) fn fault(name: &str, now: BootTime) -> Fault {
    let duration = Duration::from_secs(60);
    Fault {
        name: FaultName {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        },
        target: pods_target("web"),
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
        starts_at: now,
        expires_at: now.after(duration),
        created: SystemTime::UNIX_EPOCH,
        starts: SystemTime::UNIX_EPOCH,
        expires: SystemTime::UNIX_EPOCH + duration,
        sample_every: 0,
    }
}

pub(crate) fn delay() -> Action {
    Action::Delay(Delay {
        latency: Duration::from_millis(50),
        jitter: Duration::ZERO,
        distribution: Distribution::Uniform,
        correlation: 0.0,
        allow_reorder: false,
    })
}

pub(crate) fn drop(percent: f64) -> Action {
    Action::Drop(Loss {
        model: LossModel::Percent(self::percent(percent)),
        only: None,
    })
}

pub(crate) fn corrupt(percent: f64) -> Action {
    Action::Corrupt(Corrupt {
        percent: self::percent(percent),
        kind: CorruptKind::Payload,
        bits: 1,
        offset: (0, u32::MAX),
    })
}

/// All actions that there are, and each in the variants that differ in what they need of a target.
pub(crate) fn every_action() -> Vec<Action> {
    let tenth = percent(10.0);
    let lost = |model, only| Action::Drop(Loss { model, only });
    let duplicate = |delay| {
        Action::Duplicate(Duplicate {
            percent: tenth,
            copies: 2,
            delay,
        })
    };
    vec![
        Action::Partition,
        Action::Reject(RejectCode::PortUnreachable),
        Action::Reset(ResetTo::Both),
        drop(20.0),
        drop(100.0),
        lost(LossModel::EveryNth(3), None),
        lost(LossModel::Flows(tenth), None),
        lost(LossModel::Percent(percent(100.0)), Some(Handshake::Syn)),
        corrupt(10.0),
        duplicate(Duration::ZERO),
        duplicate(Duration::from_millis(10)),
        Action::RateLimit(RateLimit {
            rate: 1_000_000,
            burst: 3_028,
            queue: QueueBound::Bytes(64_000),
        }),
        delay(),
        Action::Delay(Delay {
            latency: Duration::from_millis(9),
            jitter: Duration::from_millis(3),
            distribution: Distribution::Normal,
            correlation: 0.25,
            allow_reorder: false,
        }),
        Action::Reorder(Reorder {
            percent: tenth,
            gap: Some(3),
            delay: REORDER_PATIENCE,
        }),
    ]
}
