//! From the types to a structural schema, the only kind that a CustomResourceDefinition may have.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// The schema of a type, without references.
pub(crate) fn structural<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        settings.transforms.clear();
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    simplify(&mut schema);
    schema
}

/// Leaves out what a structural schema can't say, and says the rest in its words.
fn simplify(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    for field in ["$schema", "title"] {
        fields.remove(field);
    }
    // The API server prunes unknown fields by itself, and clients ask it to refuse them.
    if fields.get("additionalProperties") == Some(&Value::Bool(false)) {
        fields.remove("additionalProperties");
    }
    unwrap_optional(fields);
    narrow(fields);
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(simplify);
    }
    for field in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(field) {
            simplify(inner);
        }
    }
}

/// What may be absent is absent, never null.
fn unwrap_optional(fields: &mut Map<String, Value>) {
    if let Some(Value::Array(variants)) = fields.remove("anyOf") {
        let given = variants
            .into_iter()
            .filter(|variant| variant.get("type") != Some(&Value::from("null")));
        for variant in given {
            if let Value::Object(variant) = variant {
                for (name, value) in variant {
                    fields.entry(name).or_insert(value);
                }
            }
        }
    }
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            fields.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(values)) = fields.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if fields.get("default") == Some(&Value::Null) {
        fields.remove("default");
    }
}

/// Kubernetes knows signed integers only; the bounds of the others become explicit.
fn narrow(fields: &mut Map<String, Value>) {
    let greatest = match fields.get("format").and_then(Value::as_str) {
        Some("uint32") => Some(Value::from(u32::MAX)),
        Some("uint64") => None,
        _ => return,
    };
    fields.insert("format".to_owned(), Value::from("int64"));
    fields.entry("minimum").or_insert(Value::from(0));
    if let Some(greatest) = greatest {
        fields.entry("maximum").or_insert(greatest);
    }
}
