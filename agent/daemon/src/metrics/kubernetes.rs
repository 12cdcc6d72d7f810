//! The cluster's API server.

use prometheus_client::registry::Registry;

use super::family::{Count, Family, Level};
use crate::targets::kube::{KubeState, KubeStatus};

pub(super) fn register(registry: &mut Registry, kubernetes: &KubeStatus) {
    let mut requests = Family::new(
        "kubernetes_requests",
        "Requests to the cluster's API server, by how they were answered; `none`: not at all",
        ["verb", "resource", "code"],
    );
    for ((verb, resource, code), count) in kubernetes.requests().counts() {
        requests.push([verb, resource, &code], Count(count));
    }
    requests.register(registry);
    let mut watches = Family::new(
        "kubernetes_watches",
        "Watches of the cluster's API server that are open",
        [],
    );
    watches.push([], Level(kubernetes.watches() as f64));
    watches.register(registry);
    let mut connected = Family::new(
        "kubernetes_connected",
        "Whether the cluster's API server answers; 0 also where there is none",
        [],
    );
    let answers = matches!(kubernetes.state(), KubeState::Ready { .. });
    connected.push([], Level(if answers { 1.0 } else { 0.0 }));
    connected.register(registry);
}
