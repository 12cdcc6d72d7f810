//! Where the daemon learns what there is and what is asked for: the runtime, the cluster with its resources, and the
//! connections that keep the node reachable.

use sabot_core::Limits;
use tokio::sync::mpsc;

use super::AppError;
use crate::audit::AuditLog;
use crate::config::{Config, KubernetesMode};
use crate::engine::ControlPlane;
use crate::engine::handle::Handle;
use crate::guards;
use crate::resources;
use crate::targets::kube::{Connection, KubeConfig, KubeHandle};
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

/// Begins to follow the faults that the cluster has as resources, where there is one; ends with the engine.
pub(super) fn follow_resources(
    config: &Config,
    kube: Option<KubeHandle>,
    engine: &Handle,
    limits: Limits,
    audit: &AuditLog,
) {
    if let Some(kube) = kube {
        resources::start(resources::Parts {
            client: kube.client,
            state: kube.state,
            node: config.node_name.clone(),
            engine: engine.clone(),
            limits,
            audit: audit.clone(),
        });
    }
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
