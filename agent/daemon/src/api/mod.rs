//! The gRPC services: `sabot.v1` over the engine's handle, health and reflection.
//!
//! Nothing here touches the kernel: commands go to the engine, answers come from its snapshots.

mod caller;
mod changes;
mod events;
mod fault;
mod node;
mod observe;
mod roles;
mod server;
mod socket;
mod status;
mod stream;
mod targets;
mod tcp;
mod timeline;
mod tls;
mod traffic;
mod view;

pub use caller::Caller;
pub use events::WatchLoss;
pub use roles::Role;
pub use server::{ServeError, serve};
pub use socket::{BindError, SocketGuard, bind_socket};
pub use tls::{Remote, TlsError, bind_remote};

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::audit::AuditLog;
use crate::engine::handle::Handle;
use crate::kernel::features::Features;
use crate::observe::event::EventHub;
use crate::observe::source::ObserveSource;
use crate::observe::timeline::TimelineSource;
use crate::targets::kube::KubeStatus;

/// What the services are made of.
#[derive(Clone)]
pub struct Services {
    pub engine: Handle,
    pub events: EventHub,
    pub observe: Arc<dyn ObserveSource>,
    pub timelines: Arc<dyn TimelineSource>,
    pub node: Arc<NodeInfo>,
    pub audit: AuditLog,
    /// Counts the events that slow readers of streams lost.
    pub watch_loss: WatchLoss,
}

/// The daemon and its machine; but for the cluster, none of it changes while the daemon runs.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub version: String,
    pub name: String,
    pub started_at: SystemTime,
    /// The same instant, for the uptime.
    pub started: Instant,
    pub features: Features,
    pub kubernetes: KubeStatus,
    pub limits: Limits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_duration: Duration,
    /// Faults with targets on the node at once.
    pub max_faults: u32,
    /// Devices that can be attached at once.
    pub max_targets: u32,
    /// Faults in force on one device at once.
    pub max_faults_per_target: u32,
}

#[cfg(test)]
mod tests;
