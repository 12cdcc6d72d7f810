//! What knows of faults besides the code that reads and checks them: the schema that API servers are given.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use sabot_core::model::BootTime;
use sabot_core::spec::{FaultSpec, Metadata};
use sabot_core::validate::{Instants, Limits, ValidFault, validate_at};
use sabot_resources::{Kind, definition};
use serde_json::Value;

/// The schema of a fault's `spec`.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let definition = definition(Kind::ClusterNetworkFault);
    let spec = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
    spec.expect("a definition has a schema").clone()
});

/// Whether a fault has a field of this path, such as `spec.peers[0].cidr`.
pub fn has_field(path: &str) -> bool {
    if matches!(path, "metadata.name" | "metadata.namespace") {
        return true;
    }
    let Some(mut rest) = path.strip_prefix("spec") else {
        return false;
    };
    let mut schema = &*SCHEMA;
    while !rest.is_empty() {
        let next = if let Some(field) = rest.strip_prefix('.') {
            let end = field.find(['.', '[']).unwrap_or(field.len());
            rest = &field[end..];
            schema["properties"].get(&field[..end])
        } else if let (Some(list), Some((index, after))) = (schema.get("items"), place(rest)) {
            rest = after;
            index.parse::<usize>().ok().map(|_| list)
        } else {
            // A key of a mapping is whatever the user wrote.
            return schema.get("additionalProperties").is_some()
                && rest.starts_with('[')
                && rest.ends_with(']');
        };
        let Some(next) = next else { return false };
        schema = next;
    }
    true
}

/// What stands in the brackets that a path begins with, and what follows them.
fn place(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('[')?.split_once(']')
}

/// Checks a fault as the daemon does, and what is said of it against the schema.
///
/// # Panics
///
/// What is said of it doesn't hold.
pub fn check(metadata: &Metadata, spec: &FaultSpec) -> Option<ValidFault> {
    let limits = Limits::default();
    let now = spec.starts_at.unwrap_or(SystemTime::UNIX_EPOCH);
    let fault = match validate_at(metadata, spec, &limits, now) {
        Ok(fault) => fault,
        Err(violations) => {
            assert!(!violations.is_empty());
            for violation in violations {
                assert!(has_field(&violation.field), "there is no such field: {violation}");
                assert!(!violation.allowed.is_empty(), "{violation}");
            }
            return None;
        }
    };
    let given = serde_json::to_value(spec).expect("a valid fault can be written");
    if let Err(why) = conforms(&given, &SCHEMA) {
        panic!("valid, but {why}: {given}");
    }
    for one_of in ["target", "action"] {
        let fields = given[one_of].as_object().map_or(0, serde_json::Map::len);
        assert_eq!(fields, 1, "{one_of} of {given}");
    }
    assert_eq!(fault.peers.len(), spec.peers.len());
    ends(&fault, now, &limits);
    Some(fault)
}

/// A fault has an end, and it is neither sooner nor later than was asked.
fn ends(fault: &ValidFault, now: SystemTime, limits: &Limits) {
    let boot = BootTime(1_000_000_000_000);
    let fixed = fault.clone().fix(Instants { boot, wall: now }, 7);
    let length = Duration::from_nanos(fixed.expires_at.0 - fixed.starts_at.0);
    assert!(length == fault.duration && length <= limits.max_duration && !length.is_zero());
    assert!(fixed.starts_at >= boot);
}

/// Whether a schema allows a value. Lists may be longer here: their bounds are the API server's.
fn conforms(value: &Value, schema: &Value) -> Result<(), String> {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let is_within = |size: f64, least: &str, greatest: &str| {
        bound(least).is_none_or(|least| size >= least) && bound(greatest).is_none_or(|most| size <= most)
    };
    let is_allowed = match value {
        Value::Null => false,
        Value::Bool(_) => schema["type"] == "boolean",
        Value::Number(number) => is_within(number.as_f64().unwrap_or(f64::NAN), "minimum", "maximum"),
        Value::String(text) => {
            // Over gRPC a protocol may be written `udp` too.
            let is_it = |word: &Value| word.as_str().is_some_and(|word| word.eq_ignore_ascii_case(text));
            let words = schema.get("enum").and_then(Value::as_array);
            words.is_none_or(|words| words.iter().any(is_it))
                && is_within(text.chars().count() as f64, "minLength", "maxLength")
        }
        Value::Array(items) => return items.iter().try_for_each(|item| conforms(item, &schema["items"])),
        Value::Object(fields) => {
            return fields.iter().try_for_each(|(name, field)| {
                let properties = schema
                    .get("properties")
                    .and_then(|properties| properties.get(name));
                let schema = properties.or(schema.get("additionalProperties"));
                let schema = schema.ok_or_else(|| format!("the schema has no `{name}`"))?;
                conforms(field, schema).map_err(|why| format!("{name}: {why}"))
            });
        }
    };
    is_allowed
        .then_some(())
        .ok_or_else(|| format!("the schema doesn't allow {value}"))
}
