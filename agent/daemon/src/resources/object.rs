//! A resource as the API server has it.

use std::collections::BTreeSet;
use std::fmt;

use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use sabot_core::model::FaultName;
use sabot_core::spec::{FaultSpec, Metadata};
use sabot_resources::status::{FaultStatus, NodeStatus};
use sabot_resources::{GROUP, Kind, VERSION};
use serde_json::Value;

use crate::engine::handle::Origin;

/// Which resource is meant, whatever it holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    /// Empty for kinds of the cluster.
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn of(kind: Kind, object: &DynamicObject) -> Self {
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }

    /// The name of its fault.
    pub(super) fn fault(&self) -> FaultName {
        FaultName {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    pub(super) fn metadata(&self) -> Metadata {
        Metadata {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.fault())
    }
}

pub(super) fn api_resource(kind: Kind) -> ApiResource {
    let kinds = GroupVersionKind::gvk(GROUP, VERSION, kind.name());
    ApiResource::from_gvk_with_plural(&kinds, kind.plural())
}

/// What a resource says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resource {
    pub(super) key: Key,
    pub(super) uid: String,
    /// Tells a later state from an earlier one; `None` where the server's versions aren't numbers.
    pub(super) version: Option<u64>,
    pub(super) generation: Option<i64>,
    /// It is being deleted, and only waits for somebody's finalizer.
    pub(super) leaving: bool,
    /// Why it can't be read, where it can't.
    pub(super) spec: Result<FaultSpec, String>,
    /// Who wrote the spec last, where the server says.
    pub(super) manager: Option<String>,
    /// The action's field in the spec.
    pub(super) action: Option<String>,
    /// With those parts only that are about this resource.
    pub(super) status: FaultStatus,
    /// The nodes whose parts are about a former one of its name.
    pub(super) strays: BTreeSet<String>,
}

impl Resource {
    pub(super) fn read(kind: Kind, object: &DynamicObject) -> Self {
        let part = |name: &str| object.data.get(name).cloned().unwrap_or_default();
        let spec = part("spec");
        let actions = spec.get("action").and_then(Value::as_object);
        let action = actions.and_then(|fields| fields.keys().next().cloned());
        let uid = object.uid().unwrap_or_default();
        // A status that a later version of the daemon wrote is one of which nothing is known.
        let mut status: FaultStatus = serde_json::from_value(part("status")).unwrap_or_default();
        let is_stray = |part: &mut NodeStatus| !part.uid.is_empty() && part.uid != uid;
        let strays = status.nodes.extract_if(.., is_stray);
        let strays = strays.map(|part| part.node).collect();
        Self {
            key: Key::of(kind, object),
            uid,
            version: object.resource_version().and_then(|version| version.parse().ok()),
            generation: object.metadata.generation,
            manager: manager(object),
            leaving: object.metadata.deletion_timestamp.is_some(),
            spec: serde_json::from_value(spec).map_err(|error| error.to_string()),
            action,
            status,
            strays,
        }
    }

    pub(super) fn origin(&self) -> Origin {
        Origin::Resource {
            kind: self.key.kind.name(),
            uid: self.uid.clone(),
        }
    }

    /// What this node has written so far.
    pub(super) fn part(&self, node: &str) -> Option<&NodeStatus> {
        self.status.nodes.iter().find(|part| part.node == node)
    }

    /// It is an earlier state of the same resource than `other`.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        self.uid == other.uid
            && matches!((self.version, other.version), (Some(this), Some(other)) if this < other)
    }
}

fn manager(object: &DynamicObject) -> Option<String> {
    let of_spec = object.metadata.managed_fields.iter().flatten().filter(|entry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| fields.0.get("f:spec").is_some())
    });
    let last = of_spec.max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    last?.manager.clone()
}
