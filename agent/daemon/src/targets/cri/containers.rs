//! The containers of the sandboxes, by which what is observed gets its names. Pods don't depend on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use sabot_proto::runtime::v1::{Container, ListContainersRequest};
use tokio::sync::watch;

use super::endpoint::Client;
use super::{Pace, call};

/// A container as the runtime lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeContainer {
    /// As its pod's specification has it: the same in all the containers that follow each other there.
    pub name: String,
    /// The id of its sandbox.
    pub sandbox: String,
}

/// By id, which no other container ever gets.
pub type RuntimeContainers = BTreeMap<String, RuntimeContainer>;

/// Lists them all, also those that were made and not started. Where the runtime doesn't answer, the last ones stay.
pub(super) async fn look(
    client: &mut Client,
    pace: Pace,
    containers: &watch::Sender<Arc<RuntimeContainers>>,
) {
    let request = ListContainersRequest::default();
    let listed = match call(pace, "ListContainers", client.list_containers(request)).await {
        Ok(listed) => listed.containers,
        Err(reason) => {
            tracing::debug!(reason, "containers keep the names that were known last");
            return;
        }
    };
    let listed: RuntimeContainers = listed.into_iter().filter_map(described).collect();
    containers.send_if_modified(|current| {
        let changed = **current != listed;
        if changed {
            *current = Arc::new(listed);
        }
        changed
    });
}

/// `None` for one that has no name.
fn described(container: Container) -> Option<(String, RuntimeContainer)> {
    let name = container.metadata?.name;
    let known = RuntimeContainer {
        name,
        sandbox: container.pod_sandbox_id,
    };
    (!container.id.is_empty() && !known.name.is_empty()).then_some((container.id, known))
}
