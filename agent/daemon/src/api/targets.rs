//! What faults can mean on this node right now, and which do.

use std::collections::BTreeMap;

use sabot_core::guard::Guarded;
use sabot_core::model::{Pod, TargetDevice, TargetSelector};
use sabot_proto::convert::metadata_to_proto;
use sabot_proto::sabot::v1;
use sabot_proto::sabot::v1::target_info::Kind;

use super::view::is_active;
use crate::engine::handle::{FaultView, Snapshot};

/// What tells one target from another, in the order of lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TargetIdentity {
    Pod {
        namespace: String,
        name: String,
        sandbox: String,
    },
    Netns(String),
    Interface(String),
}

/// Every target of the snapshot, or the pods of one namespace.
pub(super) fn targets(
    snapshot: &Snapshot,
    namespace: Option<&str>,
) -> BTreeMap<TargetIdentity, v1::TargetInfo> {
    let faults = FaultIndex::new(snapshot);
    let pods = snapshot
        .world
        .pods
        .values()
        .filter(|pod| namespace.is_none_or(|n| n == pod.namespace))
        .map(|pod| {
            let identity = TargetIdentity::Pod {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                sandbox: pod.sandbox.clone(),
            };
            (
                identity,
                pod_target(pod, snapshot.world.guarded.get(&pod.sandbox), &faults),
            )
        });
    let mut all: BTreeMap<_, _> = pods.collect();
    if namespace.is_some() {
        return all;
    }
    for (path, devices) in &snapshot.world.namespaces {
        let path = path.display().to_string();
        let target = v1::TargetInfo {
            devices: devices.iter().map(device).collect(),
            refusal: refusal(devices.is_empty()),
            faults: faults.netns.get(&path).cloned().unwrap_or_default(),
            kind: Some(Kind::Netns(path.clone())),
        };
        all.insert(TargetIdentity::Netns(path), target);
    }
    for (name, found) in &snapshot.world.interfaces {
        let target = v1::TargetInfo {
            devices: vec![device(found)],
            refusal: String::new(),
            faults: faults.interface.get(name).cloned().unwrap_or_default(),
            kind: Some(Kind::Interface(name.clone())),
        };
        all.insert(TargetIdentity::Interface(name.clone()), target);
    }
    all
}

/// The active faults, by what they mean.
#[derive(Default)]
struct FaultIndex<'a> {
    /// By namespace and name.
    pods: BTreeMap<(&'a str, &'a str), Vec<v1::Metadata>>,
    netns: BTreeMap<String, Vec<v1::Metadata>>,
    interface: BTreeMap<String, Vec<v1::Metadata>>,
}

impl<'a> FaultIndex<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let mut index = Self::default();
        for fault in snapshot.faults.values().filter(|f| is_active(f)) {
            index.add(fault);
        }
        index
    }

    fn add(&mut self, fault: &'a FaultView) {
        let name = metadata_to_proto(&fault.metadata);
        match &fault.fault.target {
            TargetSelector::Pods { .. } | TargetSelector::Service { .. } => {
                for target in &fault.targets {
                    let faults = self
                        .pods
                        .entry((&target.pod_namespace, &target.pod_name))
                        .or_default();
                    // A pod with several devices is several targets.
                    if faults.last() != Some(&name) {
                        faults.push(name.clone());
                    }
                }
            }
            TargetSelector::Netns(path) => {
                self.netns
                    .entry(path.display().to_string())
                    .or_default()
                    .push(name);
            }
            TargetSelector::Interface(device) => {
                self.interface.entry(device.clone()).or_default().push(name);
            }
            TargetSelector::Node(_) => {
                for key in fault.targets.iter().filter_map(|target| target.key.as_ref()) {
                    let faults = self.interface.entry(key.device.clone()).or_default();
                    faults.push(name.clone());
                }
            }
        }
    }
}

fn pod_target(pod: &Pod, guarded: Option<&Guarded>, faults: &FaultIndex<'_>) -> v1::TargetInfo {
    let refusal = if pod.host_network {
        "it is on the node's own network, which a fault on a pod must not touch".to_owned()
    } else if let Some(guarded) = guarded {
        guarded.to_string()
    } else {
        refusal(pod.devices.is_empty())
    };
    v1::TargetInfo {
        kind: Some(Kind::Pod(v1::PodInfo {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            sandbox: pod.sandbox.clone(),
            labels: pod.labels.clone().into_iter().collect(),
            addresses: pod.addresses.iter().map(ToString::to_string).collect(),
            host_network: pod.host_network,
        })),
        devices: pod.devices.iter().map(device).collect(),
        refusal,
        faults: faults
            .pods
            .get(&(pod.namespace.as_str(), pod.name.as_str()))
            .cloned()
            .unwrap_or_default(),
    }
}

fn refusal(no_device: bool) -> String {
    if no_device {
        "no network device was found in it yet".to_owned()
    } else {
        String::new()
    }
}

fn device(device: &TargetDevice) -> v1::DeviceInfo {
    v1::DeviceInfo {
        name: device.key.device.clone(),
        ifindex: device.key.ifindex,
        netns: device.key.netns.ino,
        mac_header: device.mac_header,
    }
}
