//! Label and field selectors, as a request's query gives them.

use std::collections::BTreeMap;

/// A requirement of a label or of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Requirement {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some((key, values)) = text.split_once(" notin ") {
            return Some(Self::NotIn(key.trim().to_owned(), set(values)?));
        }
        if let Some((key, values)) = text.split_once(" in ") {
            return Some(Self::In(key.trim().to_owned(), set(values)?));
        }
        if let Some((key, value)) = text.split_once("!=") {
            return Some(Self::NotIn(key.trim().to_owned(), vec![value.trim().to_owned()]));
        }
        if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return Some(Self::In(key.trim().to_owned(), vec![value.trim().to_owned()]));
        }
        if let Some(key) = text.strip_prefix('!') {
            return Some(Self::Missing(key.trim().to_owned()));
        }
        (!text.is_empty() && !text.contains([' ', '(', ')'])).then(|| Self::Exists(text.to_owned()))
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |key: &String, values: &Vec<String>| labels.get(key).is_some_and(|v| values.contains(v));
        match self {
            Self::In(key, values) => has(key, values),
            Self::NotIn(key, values) => !has(key, values),
            Self::Exists(key) => labels.contains_key(key),
            Self::Missing(key) => !labels.contains_key(key),
        }
    }
}

/// `(a,b)`.
fn set(text: &str) -> Option<Vec<String>> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
}

/// What a list or a watch is limited to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    /// In kubectl's syntax; empty for everything. `None`: it isn't one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self::default());
        }
        let mut parts = vec![String::new()];
        let mut depth = 0;
        for c in text.chars() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if c == ',' && depth == 0 {
                parts.push(String::new());
            } else if let Some(last) = parts.last_mut() {
                last.push(c);
            }
        }
        let requirements = parts
            .iter()
            .map(|part| Requirement::parse(part))
            .collect::<Option<_>>()?;
        Some(Self { requirements })
    }

    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|r| r.matches(labels))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Selector;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<_, _> = labels
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Selector::parse(selector).expect(selector).matches(&labels)
    }

    #[test]
    fn every_form_of_a_requirement() {
        let web: &[(&str, &str)] = &[("app", "web"), ("tier", "a")];
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=a", true),
            ("app=web,tier=b", false),
            ("app!=web", false),
            ("zone!=west", true),
            ("tier in (a,b),app", true),
            ("tier notin (a, b)", false),
            ("!zone", true),
            ("!app", false),
            ("zone", false),
        ] {
            assert_eq!(matches(selector, web), expected, "`{selector}`");
        }
        assert_eq!(Selector::parse("app in web"), None);
        assert_eq!(Selector::parse("a b"), None);
    }
}
