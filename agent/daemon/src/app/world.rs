//! Where the daemon learns what there is: the runtime, the cluster, and the connections that keep the node reachable.

use tokio::sync::mpsc;

use super::AppError;
use crate::config::{Config, KubernetesMode};
use crate::engine::ControlPlane;
use crate::guards;
use crate::targets::kube::{Connection, KubeConfig};
use crate::targets::{self, TargetsConfig, TargetsHandle, Told};

/// Finds the cluster that this node belongs to; asks nothing of it yet.
pub(super) async fn cluster(config: &Config) -> Result<Connection, AppError> {
    let found = match config.kubernetes {
        KubernetesMode::Off => KubeConfig::Absent("--kubernetes is off".to_owned()),
        KubernetesMode::Auto => KubeConfig::find(config.kubeconfig.as_deref()).await?,
    };
    Ok(Connection::new(found, &config.node_name)?)
}

/// Begins to watch the world, and to hear what the container runtime tells by itself.
pub(super) fn watch_targets(config: &Config, cluster: Connection) -> (TargetsHandle, mpsc::Receiver<Told>) {
    /// That may wait to be counted.
    const QUEUE: usize = 1024;
    let (listener, told) = mpsc::channel(QUEUE);
    let settings = TargetsConfig {
        node_name: config.node_name.clone(),
        runtime_endpoint: config.runtime_endpoint.clone(),
        runtime_poll: config.runtime_poll,
        ..TargetsConfig::default()
    };
    (targets::start_in(settings, cluster, Some(listener)), told)
}

/// The connections that keep this node reachable: what the configuration names, and the daemon's own.
pub(super) fn control_plane(config: &Config) -> ControlPlane {
    let own = [
        config.metrics_address,
        config.remote.as_ref().map(|remote| remote.address),
    ];
    let own = own.into_iter().flatten().map(|address| address.port());
    ControlPlane {
        ports: config.guards.ports.iter().copied().chain(own).collect(),
        servers: guards::watch_api_servers(config.guards.api_servers.clone(), config.kubeconfig.clone()),
    }
}
