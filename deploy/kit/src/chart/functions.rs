//! The functions that Helm has beside Go's own, as far as the chart uses them.

use std::cell::RefCell;
use std::collections::HashMap;

use anyhow::{Result, bail};
use gtmpl::{Func, FuncError, Value};

pub(super) const ALL: &[(&str, Func)] = &[
    ("default", default),
    ("include", include),
    ("nindent", nindent),
    ("quote", quote),
    ("toYaml", to_yaml),
];

thread_local! {
    /// Functions have no context of their own; `include` needs the texts that define what it includes.
    static HELPERS: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The helpers are known to `include` on this thread while this lives.
pub(super) struct Provided;

pub(super) fn provide(helpers: &str) -> Provided {
    HELPERS.set(helpers.to_owned());
    Provided
}

impl Drop for Provided {
    fn drop(&mut self) {
        HELPERS.set(String::new());
    }
}

/// `include NAME CONTEXT`: a defined template's text, for a pipeline.
fn include(arguments: &[Value]) -> Result<Value, FuncError> {
    let [Value::String(name), context] = arguments else {
        return Err(wrong("include", "a name and a context", arguments));
    };
    let helpers = HELPERS.with_borrow(Clone::clone);
    let text = format!("{helpers}{{{{ template {name:?} . }}}}");
    let text = super::render(&text, context)
        .map_err(|error| FuncError::Generic(format!("include {name:?}: {error}")))?;
    // What stands between the definitions.
    Ok(Value::from(text.trim_start().to_owned()))
}

/// `nindent COUNT TEXT`: on a line of its own, every line indented.
fn nindent(arguments: &[Value]) -> Result<Value, FuncError> {
    let [Value::Number(count), Value::String(text)] = arguments else {
        return Err(wrong("nindent", "a number and a text", arguments));
    };
    let Some(count) = count.as_u64().and_then(|count| usize::try_from(count).ok()) else {
        return Err(wrong("nindent", "a number and a text", arguments));
    };
    let indent = " ".repeat(count);
    let lines: Vec<_> = text.lines().map(|line| format!("{indent}{line}")).collect();
    Ok(Value::from(format!("\n{}", lines.join("\n"))))
}

fn quote(arguments: &[Value]) -> Result<Value, FuncError> {
    let [value] = arguments else {
        return Err(wrong("quote", "one value", arguments));
    };
    // JSON's strings are YAML's.
    let text = serde_json::Value::from(value.to_string()).to_string();
    Ok(Value::from(text))
}

/// `default FALLBACK VALUE`: the fallback where the value is empty.
fn default(arguments: &[Value]) -> Result<Value, FuncError> {
    let [fallback, value] = arguments else {
        return Err(wrong("default", "a fallback and a value", arguments));
    };
    let is_empty = match value {
        Value::NoValue | Value::Nil => true,
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Map(map) | Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Function(_) => false,
    };
    Ok(if is_empty { fallback } else { value }.clone())
}

fn to_yaml(arguments: &[Value]) -> Result<Value, FuncError> {
    let [value] = arguments else {
        return Err(wrong("toYaml", "one value", arguments));
    };
    let text = from_template(value).and_then(|value| Ok(serde_norway::to_string(&value)?));
    let text = text.map_err(|error| FuncError::Generic(format!("toYaml: {error}")))?;
    Ok(Value::from(text.trim_end().to_owned()))
}

fn wrong(function: &str, needs: &str, given: &[Value]) -> FuncError {
    FuncError::Generic(format!("{function} takes {needs}, and not {given:?}"))
}

/// A value as templates see it.
pub(super) fn to_template(value: &serde_json::Value) -> Result<Value> {
    use serde_json::Value as Json;
    Ok(match value {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::from(*value),
        Json::String(text) => Value::from(text.clone()),
        Json::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (None, Some(number), _) => Value::from(number),
            (None, None, Some(number)) => Value::from(number),
            _ => bail!("{number} is no number that a template knows"),
        },
        Json::Array(list) => Value::Array(list.iter().map(to_template).collect::<Result<_>>()?),
        Json::Object(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| Ok((key.clone(), to_template(value)?)));
            Value::Map(entries.collect::<Result<HashMap<_, _>>>()?)
        }
    })
}

/// And back; keys are sorted, as Helm writes them.
fn from_template(value: &Value) -> Result<serde_json::Value> {
    use serde_json::Value as Json;
    Ok(match value {
        Value::NoValue | Value::Nil => Json::Null,
        Value::Bool(value) => Json::from(*value),
        Value::String(text) => Json::from(text.clone()),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Json::from(number),
            (None, Some(number)) => Json::from(number),
            (None, None) => Json::from(number.as_f64()),
        },
        Value::Array(list) => Json::Array(list.iter().map(from_template).collect::<Result<_>>()?),
        Value::Map(map) | Value::Object(map) => {
            let entries = map
                .iter()
                .map(|(key, value)| Ok((key.clone(), from_template(value)?)));
            Json::Object(entries.collect::<Result<_>>()?)
        }
        Value::Function(_) => bail!("a function is no value"),
    })
}
