//! One world out of what its sources say.

use std::collections::BTreeMap;
use std::sync::Arc;

use sabot_core::model::{ApiServer, Cluster, OwnNode, Pod, PodSet, World};

use super::Local;
use crate::targets::WorldUpdate;
use crate::targets::cri::CriState;
use crate::targets::kube::KubeState;
use crate::targets::names::Addresses;

/// How much the API server may be relied on to tell what isn't known yet.
///
/// One that was away counts as away until it has told all that is wanted. Otherwise a fault that did what it could without
/// would stop for as long as the lists take, and once more with every answer of a server that is overloaded.
pub(super) fn server(state: &KubeState, before: ApiServer, has_told_all: bool) -> ApiServer {
    match state {
        KubeState::Absent(_) => ApiServer::Absent,
        KubeState::Ready { .. } if before == ApiServer::Away && !has_told_all => ApiServer::Away,
        KubeState::Connecting | KubeState::Ready { .. } => ApiServer::Answers,
        KubeState::Down(_) => ApiServer::Away,
    }
}

/// Everything but the cluster.
pub(super) fn compose(
    node_name: &str,
    cri: &CriState,
    local: &Local,
    addresses: &Addresses,
    own: &PodSet,
    kubernetes: &KubeState,
) -> WorldUpdate {
    let (namespaces, netns_failures) = split(&local.namespaces);
    let (interfaces, interface_failures) = split(&local.node.interfaces);
    WorldUpdate {
        world: World {
            pods: cri
                .pods
                .iter()
                .map(|(id, pod)| (id.clone(), with_metadata(with_addresses(pod, local), own)))
                .collect(),
            namespaces,
            interfaces,
            node_addresses: local.node.addresses.clone(),
            names: addresses.clone(),
            node: OwnNode {
                name: node_name.to_owned(),
                devices: local.node.devices.clone(),
            },
            cluster: Cluster::default(),
            guarded: BTreeMap::new(),
            protections: Arc::default(),
            guarded_elsewhere: BTreeMap::new(),
        },
        runtime: cri.runtime.clone(),
        kubernetes: kubernetes.clone(),
        netns_failures,
        interface_failures,
    }
}

fn split<K: Clone + Ord, V: Clone>(
    results: &BTreeMap<K, Result<V, String>>,
) -> (BTreeMap<K, V>, BTreeMap<K, String>) {
    let (mut found, mut failed) = (BTreeMap::new(), BTreeMap::new());
    for (key, result) in results {
        match result {
            Ok(value) => {
                found.insert(key.clone(), value.clone());
            }
            Err(reason) => {
                failed.insert(key.clone(), reason.clone());
            }
        }
    }
    (found, failed)
}

/// A pod on the node's network sends from the node's addresses, whichever of them its runtime reports, if any.
fn with_addresses(pod: &Pod, local: &Local) -> Pod {
    let mut pod = pod.clone();
    if pod.host_network {
        let known = pod.addresses.clone();
        pod.addresses
            .extend(local.node.addresses.iter().filter(|a| !known.contains(a)));
    }
    pod
}

/// Labels and annotations may change while a pod lives: what the API server says is newer than what the sandbox was made
/// with.
fn with_metadata(mut pod: Pod, own: &PodSet) -> Pod {
    if let Some(known) = own.get(&pod.uid) {
        pod.labels.clone_from(&known.labels);
        pod.annotations.clone_from(&known.annotations);
        pod.workload.clone_from(&known.workload);
    }
    pod
}
