//! Server-side apply, as far as its users here can tell: each manager owns the fields that it last applied, shared lists
//! are merged by their items' keys, and a field that nobody applies any more is gone. Fields that were written in another
//! way can be taken over by anybody.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

/// Lists whose items have owners of their own, by the lists' names, with the field that tells the items apart.
const KEYED: [(&str, &str); 2] = [("conditions", "type"), ("nodes", "node")];
/// Nobody owns what names an object, nor what the server fills in.
const IDENTITY: [&str; 8] = [
    "creationTimestamp",
    "generateName",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "uid",
];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    /// The item whose key field has this value.
    Item(&'static str, String),
}

type Path = Vec<Step>;

/// One manager's fields, in one subresource.
#[derive(Clone, Debug)]
struct Applied {
    manager: String,
    subresource: Option<String>,
    leaves: Vec<(Path, Value)>,
    at: SystemTime,
}

/// What an object is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Managed {
    /// What was written in another way.
    base: Value,
    /// In the order of their first writes.
    applied: Vec<Applied>,
}

impl Managed {
    /// Replaces what isn't managed; a status that isn't given stays.
    pub(super) fn replace(&mut self, mut base: Value, has_status: bool) {
        if has_status && base["status"].is_null() && !self.base["status"].is_null() {
            base["status"] = self.base["status"].take();
        }
        self.base = base;
    }

    /// Applies a manager's fields.
    ///
    /// # Errors
    ///
    /// The other manager that owns one of the fields with another value, unless ownership is forced.
    pub(super) fn apply(
        &mut self,
        manager: &str,
        subresource: Option<&str>,
        fields: &Value,
        has_status: bool,
        force: bool,
    ) -> Result<(), String> {
        if self.base.is_null() {
            self.base = json!({"metadata": {}});
            for field in ["name", "namespace"]
                .iter()
                .filter(|f| !fields["metadata"][**f].is_null())
            {
                self.base["metadata"][*field] = fields["metadata"][*field].clone();
            }
        }
        let mut leaves = leaves_of(fields);
        if has_status {
            let of_status = |path: &Path| path.first() == Some(&Step::Field("status".to_owned()));
            leaves.retain(|(path, _)| of_status(path) == (subresource == Some("status")));
        }
        let is_own = |a: &Applied| a.manager == manager && a.subresource.as_deref() == subresource;
        let conflicts = |(path, value): &(Path, Value)| {
            let differs = leaves.iter().any(|(other, new)| other == path && new != value);
            differs && !is_key(path)
        };
        for other in self.applied.iter_mut().filter(|a| !is_own(a)) {
            if !force && other.leaves.iter().any(conflicts) {
                return Err(other.manager.clone());
            }
            other.leaves.retain(|leaf| !conflicts(leaf));
        }
        let at = SystemTime::now();
        match self.applied.iter_mut().find(|a| is_own(a)) {
            Some(own) => (own.leaves, own.at) = (leaves, at),
            None => self.applied.push(Applied {
                manager: manager.to_owned(),
                subresource: subresource.map(str::to_owned),
                leaves,
                at,
            }),
        }
        Ok(())
    }

    /// A merge patch (RFC 7386); what it names is nobody's any more.
    pub(super) fn patch(&mut self, patch: &Value) {
        let touched: BTreeSet<Path> = leaves_of(patch).into_iter().map(|(path, _)| path).collect();
        for applied in &mut self.applied {
            applied
                .leaves
                .retain(|(path, _)| !touched.iter().any(|t| path.starts_with(t)));
        }
        merge_patch(&mut self.base, patch);
    }

    /// The object as it is to be written.
    pub(super) fn value(&self) -> Value {
        let mut value = self.base.clone();
        for (path, leaf) in self.applied.iter().flat_map(|a| &a.leaves) {
            set(&mut value, path, leaf);
        }
        let entry = |a: &Applied| {
            let mut entry = json!({
                "manager": a.manager,
                "operation": "Apply",
                "time": humantime::format_rfc3339_seconds(a.at).to_string(),
                "fieldsType": "FieldsV1",
                "fieldsV1": {},
            });
            if let Some(subresource) = &a.subresource {
                entry["subresource"] = json!(subresource);
            }
            entry
        };
        if !self.applied.is_empty() {
            value["metadata"]["managedFields"] = self.applied.iter().map(entry).collect();
        }
        value
    }
}

/// The field that tells an item apart is the same for all who own the item.
fn is_key(path: &Path) -> bool {
    matches!(path.as_slice(), [.., Step::Item(key, _), Step::Field(field)] if key == field)
}

fn leaves_of(fields: &Value) -> Vec<(Path, Value)> {
    let mut leaves = Vec::new();
    for (name, value) in fields.as_object().into_iter().flatten() {
        if name == "metadata" {
            for (name, value) in value.as_object().into_iter().flatten() {
                if !IDENTITY.contains(&name.as_str()) {
                    let path = vec![Step::Field("metadata".to_owned()), Step::Field(name.clone())];
                    gather(value, &path, &mut leaves);
                }
            }
        } else if !["apiVersion", "kind"].contains(&name.as_str()) {
            gather(value, &vec![Step::Field(name.clone())], &mut leaves);
        }
    }
    leaves
}

fn gather(value: &Value, path: &Path, leaves: &mut Vec<(Path, Value)>) {
    let below = |step: Step| [path.as_slice(), &[step]].concat();
    match (value, list_key(path)) {
        (Value::Object(fields), _) if !fields.is_empty() => {
            for (name, value) in fields {
                gather(value, &below(Step::Field(name.clone())), leaves);
            }
        }
        (Value::Array(items), Some(key)) if !items.is_empty() => {
            for item in items {
                let name = item[key].as_str().unwrap_or_default().to_owned();
                gather(item, &below(Step::Item(key, name)), leaves);
            }
        }
        _ => leaves.push((path.clone(), value.clone())),
    }
}

fn list_key(path: &Path) -> Option<&'static str> {
    let Some(Step::Field(name)) = path.last() else {
        return None;
    };
    let of_status = path.first() == Some(&Step::Field("status".to_owned()));
    let keyed = KEYED.iter().find(|(list, _)| of_status && list == name);
    keyed.map(|&(_, key)| key)
}

fn set(value: &mut Value, path: &[Step], leaf: &Value) {
    match path.split_first() {
        None => {
            if !(value.is_object() && leaf.as_object().is_some_and(Map::is_empty)) {
                *value = leaf.clone();
            }
        }
        Some((Step::Field(name), rest)) => {
            if !value.is_object() {
                *value = json!({});
            }
            set(&mut value[name], rest, leaf);
        }
        Some((Step::Item(key, name), rest)) => {
            if !value.is_array() {
                *value = json!([]);
            }
            let Some(items) = value.as_array_mut() else { return };
            let found = items.iter().position(|item| item[*key] == json!(name));
            let index = found.unwrap_or_else(|| {
                items.push(json!({ *key: name }));
                items.len() - 1
            });
            set(&mut items[index], rest, leaf);
        }
    }
}

fn merge_patch(value: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    let Some(object) = value.as_object_mut() else {
        return;
    };
    for (name, field) in fields {
        if field.is_null() {
            object.remove(name);
        } else {
            merge_patch(object.entry(name.clone()).or_insert(Value::Null), field);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Managed;

    fn status_of(node: &str, phase: &str) -> Value {
        json!({"status": {"nodes": [{"node": node, "phase": phase}]}})
    }

    fn fault() -> Managed {
        let mut managed = Managed::default();
        managed.replace(
            json!({"metadata": {"name": "cut"}, "spec": {"duration": "1m"}}),
            true,
        );
        managed
    }

    #[test]
    fn each_manager_owns_its_item() {
        let mut fault = fault();
        let apply = |fault: &mut Managed, manager: &str, fields: &Value| {
            fault.apply(manager, Some("status"), fields, true, false).unwrap();
        };
        apply(&mut fault, "sabot-a", &status_of("a", "Injected"));
        apply(&mut fault, "sabot-b", &status_of("b", "Injected"));
        apply(&mut fault, "sabot-a", &status_of("a", "Expired"));
        let nodes = json!([{"node": "a", "phase": "Expired"}, {"node": "b", "phase": "Injected"}]);
        assert_eq!(fault.value()["status"]["nodes"], nodes);
        // What isn't applied any more is gone; the rest is as it was.
        apply(&mut fault, "sabot-b", &json!({"status": {}}));
        assert_eq!(
            fault.value()["status"]["nodes"],
            json!([{"node": "a", "phase": "Expired"}])
        );
        assert_eq!(fault.value()["spec"], json!({"duration": "1m"}));
        // A status can't write the spec, and another spec leaves the status alone.
        apply(&mut fault, "sabot-b", &json!({"spec": {"duration": "1h"}}));
        fault.replace(
            json!({"metadata": {"name": "cut"}, "spec": {"duration": "2m"}}),
            true,
        );
        assert_eq!(fault.value()["spec"], json!({"duration": "2m"}));
        assert_eq!(
            fault.value()["status"]["nodes"],
            json!([{"node": "a", "phase": "Expired"}])
        );
    }

    #[test]
    fn a_field_of_two_managers_is_a_conflict_or_taken() {
        let mut fault = fault();
        let phase = |phase: &str| json!({"status": {"phase": phase}});
        let mut apply =
            |manager: &str, phase: &Value, force| fault.apply(manager, Some("status"), phase, true, force);
        apply("a", &phase("Injected"), false).unwrap();
        apply("b", &phase("Injected"), false).expect("they agree");
        assert_eq!(apply("b", &phase("Expired"), false), Err("a".to_owned()));
        apply("b", &phase("Expired"), true).unwrap();
        assert_eq!(apply("a", &phase("Injected"), false), Err("b".to_owned()));
        assert_eq!(fault.value()["status"]["phase"], "Expired");
    }

    #[test]
    fn a_merge_patch_takes_fields_from_their_owners() {
        let mut fault = fault();
        fault
            .apply(
                "a",
                Some("status"),
                &json!({"status": {"phase": "Injected", "n": 1}}),
                true,
                false,
            )
            .unwrap();
        fault.patch(&json!({"status": {"phase": "Expired"}, "spec": {"duration": null}}));
        assert_eq!(fault.value()["status"], json!({"phase": "Expired", "n": 1}));
        assert_eq!(fault.value()["spec"], json!({}));
    }
}
