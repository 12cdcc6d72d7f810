//! Label selectors in kubectl's syntax.

use crate::spec::{LabelExpression, LabelSelector};
use crate::validate::names;

use super::FormError;

const SYNTAX: &str = "key=value, key!=value, `key in (a,b)`, `key notin (a,b)`, key and !key, joined by commas; * for every pod";

/// Reads `app=web,tier!=db,env in (a,b),zone notin (c),key,!key`; `*` selects everything.
///
/// # Errors
/// A requirement that isn't one of these, or a key or value that no label can have.
pub fn parse_selector(text: &str) -> Result<LabelSelector, FormError> {
    let mut selector = LabelSelector::default();
    if text.trim() == "*" {
        return Ok(selector);
    }
    for part in split_requirements(text) {
        requirement(&mut selector, part.trim())
            .map_err(|reason| FormError::new("label selector", text, reason, SYNTAX))?;
    }
    Ok(selector)
}

/// The text that [`parse_selector`] reads back as the same selector.
pub fn format_selector(selector: &LabelSelector) -> String {
    let labels = selector
        .match_labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let expressions = selector.match_expressions.iter().map(|e| {
        let LabelExpression {
            key,
            operator,
            values,
        } = e;
        match operator.as_str() {
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            operator => format!("{key} {} ({})", operator.to_lowercase(), values.join(",")),
        }
    });
    let parts: Vec<String> = labels.chain(expressions).collect();
    if parts.is_empty() {
        "*".to_owned()
    } else {
        parts.join(",")
    }
}

/// Splits at the commas that aren't inside parentheses.
fn split_requirements(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn requirement(selector: &mut LabelSelector, part: &str) -> Result<(), String> {
    if part.is_empty() {
        return Err("a requirement is empty".to_owned());
    }
    if let Some(inner) = part.strip_suffix(')') {
        let (head, list) = inner
            .split_once('(')
            .ok_or_else(|| format!("`{part}` has no '('"))?;
        return set_requirement(selector, part, head, list);
    }
    if let Some((key, value)) = part.split_once("!=") {
        return expression(selector, key, "NotIn", vec![value]);
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return equality(selector, key, value);
    }
    match part.strip_prefix('!') {
        Some(key) => expression(selector, key, "DoesNotExist", Vec::new()),
        None => expression(selector, part, "Exists", Vec::new()),
    }
}

fn set_requirement(selector: &mut LabelSelector, part: &str, head: &str, list: &str) -> Result<(), String> {
    let words: Vec<&str> = head.split_whitespace().collect();
    let operator = match words.as_slice() {
        [_, "in"] => "In",
        [_, "notin"] => "NotIn",
        _ => return Err(format!("`{part}` is neither `key in (…)` nor `key notin (…)`")),
    };
    expression(selector, words[0], operator, list.split(',').collect())
}

/// A second value for one key doesn't fit into `matchLabels`; as an expression it means what it says.
fn equality(selector: &mut LabelSelector, key: &str, value: &str) -> Result<(), String> {
    let (key, value) = (label_key(key)?, label_value(value)?);
    if selector.match_labels.contains_key(&key) {
        return expression(selector, &key, "In", vec![&value]);
    }
    selector.match_labels.insert(key, value);
    Ok(())
}

fn expression(
    selector: &mut LabelSelector,
    key: &str,
    operator: &str,
    values: Vec<&str>,
) -> Result<(), String> {
    selector.match_expressions.push(LabelExpression {
        key: label_key(key)?,
        operator: operator.to_owned(),
        values: values.into_iter().map(label_value).collect::<Result<_, _>>()?,
    });
    Ok(())
}

fn label_key(text: &str) -> Result<String, String> {
    let key = text.trim();
    if names::is_label_key(key) {
        Ok(key.to_owned())
    } else {
        Err(format!("`{key}` is not {}", names::LABEL_KEY_RULE))
    }
}

fn label_value(text: &str) -> Result<String, String> {
    let value = text.trim();
    if names::is_label_value(value) {
        Ok(value.to_owned())
    } else {
        Err(format!("`{value}` is not {}", names::LABEL_VALUE_RULE))
    }
}
