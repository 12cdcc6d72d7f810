//! The definitions as an API server reads them: structural, complete, and of the same mind as the daemon.

mod cases;
mod server;

use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use sabot_resources::{Kind, definition, to_yaml};
use serde_json::Value;

fn schema(kind: Kind) -> Value {
    definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What apiextensions/v1 knows; anything else would be dropped without a word.
#[test]
fn definitions_are_made_of_known_fields_only() {
    for kind in Kind::ALL {
        let written = definition(kind);
        let read: CustomResourceDefinition = serde_json::from_value(written.clone()).expect("a definition");
        let back = serde_json::to_value(read).expect("JSON");
        assert_eq!(without_floats(back), without_floats(written), "{kind}");
    }
}

/// `1` and `1.0` are the same bound.
fn without_floats(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::String(format!("{}", number.as_f64().expect("a number"))),
        Value::Array(items) => Value::Array(items.into_iter().map(without_floats).collect()),
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| (name, without_floats(value)))
                .collect(),
        ),
        other => other,
    }
}

#[test]
fn schemas_are_structural_and_bounded() {
    for kind in Kind::ALL {
        let schema = schema(kind);
        walk(&schema, &mut format!("{kind}"));
    }
}

/// Every value has one type, or is a number or a text as Kubernetes says that; nothing refers elsewhere, and what a rule looks at is bounded, so that its cost is.
fn walk(schema: &Value, path: &mut String) {
    let fields = schema
        .as_object()
        .unwrap_or_else(|| panic!("{path} is no schema"));
    for name in [
        "$ref", "anyOf", "oneOf", "allOf", "not", "const", "title", "nullable",
    ] {
        assert!(!fields.contains_key(name), "{path} has {name}");
    }
    assert!(!fields.values().any(Value::is_null), "{path} has a null");
    if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        assert!(!fields.contains_key("type"), "{path} has one type and two");
        assert!(fields.contains_key("maxLength"), "{path} has no bound");
        return;
    }
    let kind = fields.get("type").and_then(Value::as_str);
    let is_status = path.contains(".status");
    match kind.unwrap_or_else(|| panic!("{path} has no type")) {
        "object" => {
            let properties = fields.get("properties").and_then(Value::as_object);
            assert!(
                !(properties.is_some() && fields.contains_key("additionalProperties")),
                "{path} has both kinds of properties"
            );
            for (name, inner) in properties.into_iter().flatten() {
                let described = inner.get("description").is_some() || path.matches('.').count() == 0;
                assert!(described, "{path}.{name} is not described");
                let length = path.len();
                path.push('.');
                path.push_str(name);
                walk(inner, path);
                path.truncate(length);
            }
        }
        "array" => {
            assert!(
                is_status || fields.contains_key("maxItems"),
                "{path} has no bound"
            );
            walk(&fields["items"], &mut format!("{path}[]"));
        }
        "string" => {
            let bounded = ["maxLength", "enum", "format"]
                .iter()
                .any(|name| fields.contains_key(*name));
            let outside = is_status || path.matches('.').count() == 1;
            assert!(outside || bounded, "{path} has no bound");
        }
        "integer" => assert_eq!(fields["format"], "int64", "{path}"),
        "number" => assert_eq!(fields["format"], "double", "{path}"),
        "boolean" => {}
        other => panic!("{path} is of type {other}"),
    }
}

#[test]
fn printer_columns_show_what_there_is() {
    for kind in Kind::ALL {
        let definition = definition(kind);
        let schema = schema(kind);
        for column in definition["spec"]["versions"][0]["additionalPrinterColumns"]
            .as_array()
            .expect("columns")
        {
            let path = column["jsonPath"].as_str().expect("a path");
            if path == ".metadata.creationTimestamp" {
                continue;
            }
            let found = path
                .split('.')
                .skip(1)
                .fold(&schema, |schema, name| &schema["properties"][name]);
            assert_eq!(found["type"], column["type"], "{kind}: {path}");
        }
    }
}

#[test]
fn nodes_and_conditions_are_lists_that_many_can_write() {
    let status = &schema(Kind::NetworkFault)["properties"]["status"]["properties"];
    for (list, key) in [("nodes", "node"), ("conditions", "type")] {
        let list = &status[list];
        assert_eq!(list["x-kubernetes-list-type"], "map");
        assert_eq!(list["x-kubernetes-list-map-keys"], serde_json::json!([key]));
        let required = list["items"]["required"].as_array().expect("required fields");
        assert!(required.contains(&Value::from(key)), "{key} is required");
    }
}

#[test]
fn the_files_in_the_repository_are_up_to_date() {
    for kind in Kind::ALL {
        let path = root().join(format!("deploy/crds/{}.yaml", kind.plural()));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            text == to_yaml(kind),
            "{} is not up to date: run `cargo xtask crds`",
            path.display()
        );
    }
}
