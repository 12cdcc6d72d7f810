//! Faults that are custom resources: every node's daemon watches them, injects its own part and writes how that stands.
//!
//! The way of a resource: [`watch`] brings it, [`decide`] says what it means for this node now, the [`reconciler`] gives it
//! to the engine or takes it back, [`part`] says how it stands here, and [`write`] tells the API server, each node its own
//! entry. A fault begins with a write: the engine puts it in place, the begin is written, and only what the API server has
//! taken comes into force. A daemon that is killed at any moment thus never forgets that a fault's time has begun. Nothing
//! but the resource and the engine is asked, again and again, so that a restart of either side, a missed event and a resource
//! that was edited meanwhile are the same case.

mod account;
mod decide;
mod entry;
mod events;
mod object;
mod part;
mod reconciler;
mod watch;
mod write;

#[cfg(test)]
mod tests;

use kube::Client;
use sabot_core::Limits;
use tokio::sync::watch as watch_channel;
use tokio::task::JoinHandle;

use crate::audit::AuditLog;
use crate::engine::handle::Handle;
use crate::targets::kube::{KubeState, Lacks};

/// What this room works with.
pub struct Parts {
    pub client: Client,
    /// Whether the API server answers.
    pub state: watch_channel::Receiver<KubeState>,
    /// Where it is said that the resources can't be watched.
    pub lacks: Lacks,
    /// The node's name in the cluster.
    pub node: String,
    pub engine: Handle,
    /// What the engine's validation allows.
    pub limits: Limits,
    pub audit: AuditLog,
}

/// Begins to follow the resources; ends with the engine. Must be called inside a tokio runtime.
pub fn start(parts: Parts) -> JoinHandle<()> {
    tokio::spawn(reconciler::Reconciler::new(parts).run())
}
