//! Writing this node's part of a status, by server-side apply: every node owns its own entry and nothing else.

use std::time::Duration;

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use sabot_core::model::TargetIdentity;
use sabot_resources::status::{FaultStatus, NodeStatus, Summary};
use sabot_resources::{GROUP, VERSION};
use serde_json::{Value, json};

use super::object::{Key, Resource, api_resource};
use crate::targets::kube::reason;

/// The longest name that a field manager may have.
const LONGEST_MANAGER: usize = 128;
/// A server that doesn't answer is tried again.
const PATIENCE: Duration = Duration::from_secs(20);

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    pub(super) key: Key,
    /// Of the resource that is meant. A server ignores it here, and writes to another one that has the name by now: that the
    /// part isn't about that one is seen by the part's own uid.
    pub(super) uid: String,
    pub(super) part: NodeStatus,
    /// The sum, where this node writes that too.
    pub(super) summary: Option<Summary>,
}

/// How a write ended.
#[derive(Debug)]
pub(super) enum Written {
    /// The resource as it is now.
    Done(Box<Resource>),
    /// The resource is gone.
    Gone,
    /// It is to be tried again, not before the time that the server asks for.
    Failed { error: String, after: Option<Duration> },
}

/// The name under which this node owns its entries.
pub(super) fn manager(node: &str) -> String {
    let name = format!("sabot-{node}");
    if name.len() <= LONGEST_MANAGER {
        return name;
    }
    // What is cut off goes into a number, so that two nodes don't share a name.
    let number = TargetIdentity::of(node).0;
    let mut end = LONGEST_MANAGER - 17;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{number:016x}", &name[..end])
}

pub(super) async fn write(client: Client, manager: String, write: Write) -> Written {
    let key = &write.key;
    let resource = api_resource(key.kind);
    let api: Api<DynamicObject> = if key.kind.is_namespaced() {
        Api::namespaced_with(client, &key.namespace, &resource)
    } else {
        Api::all_with(client, &resource)
    };
    let parameters = PatchParams::apply(&manager).force();
    let patch = Patch::Apply(body(&write));
    let answer = api.patch_status(&key.name, &parameters, &patch);
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(object)) => Written::Done(Box::new(Resource::read(key.kind, &object))),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Written::Gone,
        // A conflict may also be one with many other nodes' writes, which the server has given up on.
        Ok(Err(error)) => Written::Failed {
            after: retry_after(&error),
            error: reason(&error),
        },
        Err(_) => Written::Failed {
            error: format!("no answer within {} s", PATIENCE.as_secs()),
            after: None,
        },
    }
}

fn body(write: &Write) -> Value {
    let status = FaultStatus {
        summary: write.summary.clone().unwrap_or_default(),
        nodes: vec![write.part.clone()],
    };
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": write.key.kind.name(),
        "metadata": {"name": write.key.name, "uid": write.uid},
        "status": status,
    })
}

/// What a server that is too busy asks for.
fn retry_after(error: &kube::Error) -> Option<Duration> {
    let kube::Error::Api(status) = error else {
        return None;
    };
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_are_short_enough_and_each_nodes_own() {
        assert_eq!(manager("node-1"), "sabot-node-1");
        let (one, two) = (format!("{}1", "n".repeat(200)), format!("{}2", "n".repeat(200)));
        assert_ne!(manager(&one), manager(&two));
        assert!(manager(&one).len() <= LONGEST_MANAGER);
    }
}
