//! What the manifests of the corpus have in them: a field that none has is one that no mutation of them reaches.

use std::collections::BTreeSet;

use sabot_core::manifest::parse_manifests;
use sabot_fuzz_checks::fault;
use sabot_resources::{Kind, definition};
use serde_json::Value;

#[test]
fn valid_manifests_of_the_corpus_have_every_field() {
    let definition = definition(Kind::ClusterNetworkFault);
    let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
    let mut missing = BTreeSet::new();
    fields(schema.expect("a definition has a schema"), "spec", &mut missing);
    assert!(missing.len() > 50, "{missing:?}");
    for (_, bytes) in super::read(&super::folder("corpus").join("manifest")) {
        let manifests = str::from_utf8(&bytes).ok().map(parse_manifests);
        for manifest in manifests.into_iter().flatten().flatten() {
            if fault::check(&manifest.metadata, &manifest.spec).is_some() {
                let given = serde_json::to_value(&manifest.spec).expect("a valid fault can be written");
                strike(&given, "spec", &mut missing);
            }
        }
    }
    assert!(missing.is_empty(), "no valid manifest has {missing:?}");
}

/// The paths of a schema's fields; of a list's items that of the list.
fn fields(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(items) = schema.get("items") {
        return fields(items, path, found);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        fields(field, &path, found);
        found.insert(path);
    }
}

/// Takes out the paths that a value has.
fn strike(value: &Value, path: &str, paths: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = format!("{path}.{name}");
                strike(field, &path, paths);
                paths.remove(&path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strike(item, path, paths)),
        _ => {}
    }
}
