//! What an API server does with a document and a schema, as far as the definitions use it: types, bounds, patterns,
//! enumerations, required and unknown fields, defaults, and the rules in CEL.

use cel::{Context, Program, Value as Cel};
use serde_json::{Map, Value};

/// Fills in defaults, and says everything that is wrong, as `path: what`.
pub(crate) fn admit(schema: &Value, document: &mut Value) -> Vec<String> {
    let mut wrong = Vec::new();
    fill(schema, document);
    check(schema, document, "", &mut wrong);
    wrong
}

fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let known = schema["properties"].as_object().cloned().unwrap_or_default();
            for (name, inner) in &known {
                if let (None, Some(default)) = (fields.get(name), inner.get("default")) {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(value) = fields.get_mut(name) {
                    fill(inner, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(&schema["items"], item)),
        _ => {}
    }
}

fn check(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    let before = wrong.len();
    match (kind(schema, value), value) {
        ("object", Value::Object(fields)) => object(schema, fields, path, wrong),
        ("array", Value::Array(items)) => {
            bounds(schema, ["minItems", "maxItems"], items.len() as f64, path, wrong);
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{index}]"), wrong);
            }
        }
        ("string", Value::String(text)) => string(schema, text, path, wrong),
        ("boolean", Value::Bool(_)) => {}
        ("integer", Value::Number(number)) if number.is_i64() => {
            bounds(
                schema,
                ["minimum", "maximum"],
                number.as_f64().expect("a number"),
                path,
                wrong,
            );
        }
        ("number", Value::Number(number)) => {
            bounds(
                schema,
                ["minimum", "maximum"],
                number.as_f64().expect("a number"),
                path,
                wrong,
            );
        }
        (wanted, given) => wrong.push(format!("{path}: {given} is no {wanted}")),
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        wrong.push(format!("{path}: {value} is none of {allowed:?}"));
    }
    // A server evaluates no rule on what the schema refuses.
    if wrong.len() == before {
        rules(schema, value, path, wrong);
    }
}

/// What the value has to be.
fn kind<'a>(schema: &'a Value, value: &Value) -> &'a str {
    if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
        return if value.is_number() { "integer" } else { "string" };
    }
    schema["type"].as_str().expect("every schema has a type")
}

fn object(schema: &Value, fields: &Map<String, Value>, path: &str, wrong: &mut Vec<String>) {
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a field's name");
        if !fields.contains_key(name) {
            wrong.push(format!("{path}.{name}: is required"));
        }
    }
    bounds(
        schema,
        ["minProperties", "maxProperties"],
        fields.len() as f64,
        path,
        wrong,
    );
    for (name, value) in fields {
        let inner = schema["properties"]
            .get(name)
            .or(schema.get("additionalProperties"));
        match inner {
            Some(inner) => check(inner, value, &format!("{path}.{name}"), wrong),
            None => wrong.push(format!("{path}.{name}: unknown field")),
        }
    }
}

fn string(schema: &Value, text: &str, path: &str, wrong: &mut Vec<String>) {
    bounds(
        schema,
        ["minLength", "maxLength"],
        text.chars().count() as f64,
        path,
        wrong,
    );
    if let Some(pattern) = schema["pattern"].as_str() {
        let pattern = regex::Regex::new(pattern).expect("a pattern");
        if !pattern.is_match(text) {
            wrong.push(format!("{path}: {text} doesn't match {pattern}"));
        }
    }
}

fn bounds(schema: &Value, names: [&str; 2], given: f64, path: &str, wrong: &mut Vec<String>) {
    let [least, most] = names.map(|name| schema[name].as_f64());
    if least.is_some_and(|least| given < least) || most.is_some_and(|most| given > most) {
        wrong.push(format!("{path}: {given} is not in {least:?} to {most:?}"));
    }
}

fn rules(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let text = rule["rule"].as_str().expect("a rule");
        let program = Program::compile(text).unwrap_or_else(|e| panic!("{path}: {text}: {e}"));
        let mut context = Context::default();
        context
            .add_variable("self", escaped(value.clone()))
            .expect("a value that CEL knows");
        match program.execute(&context) {
            Ok(Cel::Bool(true)) => {}
            // What can't be evaluated is refused, too.
            Ok(Cel::Bool(false)) | Err(_) => {
                wrong.push(format!(
                    "{path}: {}",
                    rule["message"].as_str().expect("a message")
                ));
            }
            Ok(other) => panic!("{path}: {text} is {other:?}"),
        }
    }
}

/// Fields whose names CEL keeps for itself have others in rules.
fn escaped(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let renamed = fields.into_iter().map(|(name, value)| {
                let name = if name == "namespace" {
                    "__namespace__".to_owned()
                } else {
                    name
                };
                (name, escaped(value))
            });
            Value::Object(renamed.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(escaped).collect()),
        other => other,
    }
}
