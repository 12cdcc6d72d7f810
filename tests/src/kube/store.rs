//! The objects, their versions, and what has happened to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use axum::body::Bytes;
use serde_json::{Value, json};

use super::resources::{RESOURCES, Resource};
use super::select::Selector;

/// Events that are kept for those who watch from an older version.
const LOG: usize = 200_000;

/// Plural, namespace (empty for objects of the cluster), name.
pub(super) type Key = (&'static str, String, String);

/// One version of an object, as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) key: Key,
    pub(super) version: u64,
    pub(super) labels: BTreeMap<String, String>,
    /// What field selectors may ask for.
    fields: BTreeMap<String, String>,
    pub(super) json: Bytes,
}

impl Object {
    fn new(key: Key, version: u64, value: &Value) -> Self {
        let labels = value["metadata"]["labels"].as_object();
        let labels = labels.into_iter().flatten();
        let mut fields = BTreeMap::from([
            ("metadata.namespace".to_owned(), key.1.clone()),
            ("metadata.name".to_owned(), key.2.clone()),
        ]);
        if key.0 == "pods" {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            fields.insert("spec.nodeName".to_owned(), text(&value["spec"]["nodeName"]));
            fields.insert("status.phase".to_owned(), text(&value["status"]["phase"]));
        }
        Self {
            labels: labels
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
            fields,
            version,
            json: value.to_string().into(),
            key,
        }
    }

    pub(super) fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or_default()
    }
}

/// Which objects of a resource a list or a watch means.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) plural: &'static str,
    pub(super) namespace: Option<String>,
    pub(super) labels: Selector,
    pub(super) fields: Selector,
}

impl Scope {
    pub(super) fn holds(&self, object: &Object) -> bool {
        object.key.0 == self.plural
            && self.namespace.as_ref().is_none_or(|ns| *ns == object.key.1)
            && self.labels.matches(&object.labels)
            && self.fields.matches(&object.fields)
    }

    /// What those who watch this scope see of a change: an object that enters it is added, one that leaves it deleted.
    pub(super) fn sees(&self, change: &Change) -> Option<(&'static str, Bytes)> {
        let before = change.old.as_ref().is_some_and(|old| self.holds(old));
        let now = !change.deleted && self.holds(&change.new);
        let kind = match (before, now) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some((kind, change.new.json.clone()))
    }
}

/// One event of the log.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) old: Option<Arc<Object>>,
    /// With the version of the change; of a deletion, the last state.
    pub(super) new: Arc<Object>,
    pub(super) deleted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    version: u64,
    objects: BTreeMap<Key, Arc<Object>>,
    log: VecDeque<Change>,
    /// Watches from older versions are refused.
    oldest: u64,
}

impl Store {
    /// The version of the last change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// In the order of their keys.
    pub(super) fn list<'a>(&'a self, scope: &'a Scope) -> impl Iterator<Item = &'a Arc<Object>> {
        let from = (
            scope.plural,
            scope.namespace.clone().unwrap_or_default(),
            String::new(),
        );
        self.objects
            .range(from..)
            .take_while(|(key, _)| {
                key.0 == scope.plural && scope.namespace.as_ref().is_none_or(|ns| *ns == key.1)
            })
            .map(|(_, object)| object)
            .filter(|object| scope.holds(object))
    }

    /// What has happened after a version; `None`: it is forgotten.
    pub(super) fn since(&self, version: u64) -> Option<impl Iterator<Item = &Change>> {
        (version >= self.oldest).then(|| self.log.iter().filter(move |c| c.new.version > version))
    }

    /// Forgets what has happened up to now.
    pub(super) fn compact(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.log.clear();
    }

    /// Writes an object with the next version, unless it says the same as the one that is there.
    pub(super) fn put(&mut self, resource: &Resource, mut value: Value) -> Option<Change> {
        let key = key_of(resource, &value);
        let old = self.objects.get(&key).cloned();
        let before = old.as_ref().map(|old| old.value());
        self.complete(&mut value, resource, before.as_ref());
        if before.as_ref() == Some(&value) {
            return None;
        }
        self.version += 1;
        value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let new = Arc::new(Object::new(key.clone(), self.version, &value));
        self.objects.insert(key, new.clone());
        Some(self.record(Change {
            old,
            new,
            deleted: false,
        }))
    }

    pub(super) fn delete(&mut self, key: &Key) -> Option<Change> {
        let old = self.objects.remove(key)?;
        self.version += 1;
        let mut value = old.value();
        value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let new = Arc::new(Object::new(key.clone(), self.version, &value));
        Some(self.record(Change {
            old: Some(old),
            new,
            deleted: true,
        }))
    }

    fn record(&mut self, change: Change) -> Change {
        self.log.push_back(change.clone());
        if self.log.len() > LOG
            && let Some(first) = self.log.pop_front()
        {
            self.oldest = first.new.version;
        }
        change
    }

    /// Fills in what a server fills in; of an object that exists it stays, as does its version.
    fn complete(&self, value: &mut Value, resource: &Resource, before: Option<&Value>) {
        value["apiVersion"] = json!(resource.api_version());
        value["kind"] = json!(resource.kind);
        let number = self.version + 1;
        let fresh = json!({
            "uid": format!("00000000-0000-4000-8000-{number:012x}"),
            "creationTimestamp": humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            "generation": 1,
        });
        let kept = before.map_or(&fresh, |before| &before["metadata"]);
        for field in ["uid", "creationTimestamp", "generation"] {
            if before.is_some() || value["metadata"][field].is_null() {
                value["metadata"][field] = kept[field].clone();
            }
        }
        if let Some(before) = before {
            value["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            if before["spec"] != value["spec"] {
                let generation = before["metadata"]["generation"].as_u64().unwrap_or(0);
                value["metadata"]["generation"] = json!(generation + 1);
            }
        }
    }
}

pub(super) fn key_of(resource: &Resource, value: &Value) -> Key {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
    let namespace = if resource.namespaced {
        text("namespace")
    } else {
        String::new()
    };
    (resource.plural, namespace, text("name"))
}

/// By what an object says it is.
///
/// # Panics
///
/// The server doesn't know its kind.
pub(super) fn resource_of(value: &Value) -> &'static Resource {
    let said =
        |r: &&Resource| value["apiVersion"] == json!(r.api_version()) && value["kind"] == json!(r.kind);
    RESOURCES
        .iter()
        .find(said)
        .unwrap_or_else(|| panic!("no such kind: {} {}", value["apiVersion"], value["kind"]))
}
