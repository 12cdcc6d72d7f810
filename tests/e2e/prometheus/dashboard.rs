//! The dashboard as a document, and what its queries name.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::deploy;

/// `$__rate_interval`, as Grafana sets it to four scrapes and more; long enough for a machine that is late with some.
const RATE_INTERVAL: &str = "20s";

pub(crate) struct Dashboard {
    pub(crate) document: Value,
}

pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) document: Value,
    /// As they are written, with variables.
    pub(crate) queries: Vec<String>,
}

/// A metric in a query, with what its braces hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector<'a> {
    pub(crate) metric: &'a str,
    pub(crate) matchers: &'a str,
}

impl Dashboard {
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(deploy("grafana/sabot.json")).expect("the dashboard is there");
        let document = serde_json::from_str(&text).expect("it is a document");
        Self { document }
    }

    /// All panels that show something: not the rows' titles.
    pub(crate) fn panels(&self) -> Vec<Panel> {
        let shown = self.all_panels().iter().filter(|panel| panel["type"] != "row");
        let panel = |panel: &Value| Panel {
            title: text(&panel["title"]),
            queries: list(&panel["targets"])
                .iter()
                .map(|target| text(&target["expr"]))
                .collect(),
            document: panel.clone(),
        };
        shown.map(panel).collect()
    }

    pub(crate) fn panel(&self, title: &str) -> Panel {
        let mut found = self.panels().into_iter().filter(|panel| panel.title == title);
        let panel = found.next().unwrap_or_else(|| panic!("no panel {title}"));
        assert!(
            found.next().is_none(),
            "there are several panels {title} without their rows"
        );
        panel
    }

    pub(crate) fn all_panels(&self) -> &[Value] {
        list(&self.document["panels"])
    }

    pub(crate) fn variables(&self) -> &[Value] {
        list(&self.document["templating"]["list"])
    }

    pub(crate) fn annotations(&self) -> Vec<String> {
        let annotations = list(&self.document["annotations"]["list"]).iter();
        annotations.map(|annotation| text(&annotation["expr"])).collect()
    }

    /// The selector and the label of each variable that Prometheus fills: `label_values(SELECTOR, LABEL)`.
    pub(crate) fn label_queries(&self) -> Vec<(String, String)> {
        let queries = self
            .variables()
            .iter()
            .filter(|variable| variable["type"] == "query");
        let parts = queries.map(|variable| {
            let query = text(&variable["query"]["query"]);
            let inside = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'));
            let (selector, label) = inside
                .and_then(|inside| inside.rsplit_once(", "))
                .unwrap_or_else(|| panic!("{query} isn't label_values(SELECTOR, LABEL)"));
            (selector.to_owned(), label.to_owned())
        });
        parts.collect()
    }
}

/// A query as Grafana sends it when everything is selected.
pub(crate) fn concrete(query: &str) -> String {
    let query = query.replace("$__rate_interval", RATE_INTERVAL);
    variables_of(&query)
        .into_iter()
        .fold(query.clone(), |query, name| {
            query.replace(&format!("${name}"), ".*")
        })
}

/// The names behind a `$`.
pub(crate) fn variables_of(query: &str) -> BTreeSet<String> {
    let names = query.split('$').skip(1);
    names
        .map(|rest| {
            rest.chars()
                .take_while(|&c| c.is_alphanumeric() || c == '_')
                .collect()
        })
        .collect()
}

/// Every metric of ours in a query; recorded ones have a colon in their names.
pub(crate) fn selectors(query: &str) -> Vec<Selector<'_>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_name) {
        let word = &rest[start..];
        let end = word.find(|c| !is_name(c)).unwrap_or(word.len());
        let (name, after) = word.split_at(end);
        rest = after;
        if name.contains("sabot_") {
            let inside = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
            found.push(Selector {
                metric: name,
                matchers: inside.map_or("", |(matchers, _)| matchers),
            });
            rest = inside.map_or(after, |(_, rest)| rest);
        }
    }
    found
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

#[test]
fn metrics_are_found_with_their_matchers() {
    let query =
        r#"sum by (a) (rate(sabot_x_bucket{a=~"$node", b="c"}[1m])) / on () sabot_y > x:sabot_z:rate"#;
    let found: Vec<_> = selectors(query)
        .iter()
        .map(|found| (found.metric, found.matchers))
        .collect();
    let expected = [
        ("sabot_x_bucket", r#"a=~"$node", b="c""#),
        ("sabot_y", ""),
        ("x:sabot_z:rate", ""),
    ];
    assert_eq!(found, expected);
    assert_eq!(
        concrete(r#"x{a=~"$node"}[$__rate_interval]"#),
        r#"x{a=~".*"}[20s]"#
    );
}
