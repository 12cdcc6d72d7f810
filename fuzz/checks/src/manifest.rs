//! Manifests in YAML: what is read is written so that it reads back the same, and nothing of what was written is left out.

use crate::fault;
use sabot_core::manifest::{parse_manifests, to_yaml};
use sabot_core::spec::Manifest;
use sabot_proto::convert::{spec_from_proto, spec_to_proto};
use serde::Deserialize;
use serde_norway::{Deserializer, Value};

/// Text up to the first byte that isn't.
///
/// # Panics
///
/// Something of it is lost, or an error is where there is nothing.
pub fn check(bytes: &[u8]) {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&bytes[..error.valid_up_to()]).expect("so far it is text"),
    };
    let manifests = match parse_manifests(text) {
        Ok(manifests) => manifests,
        Err(error) => {
            assert!(!error.message.is_empty());
            // Behind what isn't YAML it gives errors without an end.
            let documents = Deserializer::from_str(text).take(text.len() + 1).count();
            assert!(error.document <= documents, "{error}");
            // To YAML a carriage return ends a line too.
            let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
            assert!(error.position.is_none_or(|(line, _)| line <= lines), "{error}");
            return;
        }
    };
    let documents: Result<Vec<Value>, _> = Deserializer::from_str(text).map(Value::deserialize).collect();
    if let Ok(documents) = documents {
        let given: Vec<_> = documents.iter().filter(|document| !document.is_null()).collect();
        assert_eq!(given.len(), manifests.len());
        for (given, manifest) in given.into_iter().zip(&manifests) {
            stands(given, manifest);
        }
    }
    for manifest in &manifests {
        // A start before 1970 can be read, and not written.
        if let Ok(yaml) = to_yaml(manifest) {
            let again = parse_manifests(&yaml).expect("what was written can be read");
            // NaN is unequal to itself.
            assert_eq!(format!("{again:?}"), format!("{:?}", [manifest]), "{yaml}");
        }
        if fault::check(&manifest.metadata, &manifest.spec).is_some() {
            let sent = spec_to_proto(&manifest.spec).expect("a valid fault can be sent");
            assert_eq!(spec_from_proto(sent).as_ref(), Ok(&manifest.spec));
        }
    }
}

/// Every field that was given is in what was read.
fn stands(given: &Value, manifest: &Manifest) {
    if let Ok(read) = serde_norway::to_value(manifest)
        && let Some(missing) = missing(given, &read)
    {
        panic!("{missing} was left out: {manifest:?}");
    }
}

/// The path of something that is given and wasn't read.
fn missing(given: &Value, read: &Value) -> Option<String> {
    match (given, read) {
        (Value::Tagged(given), read) => missing(&given.value, read),
        (Value::Mapping(given), Value::Mapping(read)) => given.iter().find_map(|(name, value)| {
            let name = name.as_str()?;
            match read.get(name) {
                Some(read) => missing(value, read).map(|path| format!("{name}.{path}")),
                None => (!is_nothing(value)).then(|| name.to_owned()),
            }
        }),
        (Value::Sequence(given), Value::Sequence(read)) if given.len() == read.len() => given
            .iter()
            .zip(read)
            .find_map(|(given, read)| missing(given, read)),
        (Value::Mapping(_) | Value::Sequence(_), _) => Some(format!("{given:?}")),
        _ => None,
    }
}

/// What is written as good as not at all.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Sequence(list) => list.is_empty(),
        Value::Mapping(fields) => fields.is_empty(),
        Value::Tagged(tagged) => is_nothing(&tagged.value),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
