//! What a metrics endpoint says, in Prometheus' text format.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// One line of values.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricSample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// One answer of the endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape {
    samples: Vec<MetricSample>,
    /// By the family's name, as `counter`.
    kinds: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads text format 0.0.4, and as much of OpenMetrics as is the same.
    ///
    /// # Errors
    ///
    /// Names the first line that is neither a comment nor a sample.
    pub fn parse(text: &str) -> Result<Self> {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (family, kind) = rest.split_once(' ').with_context(|| format!("no type: {line}"))?;
                scrape.kinds.insert(family.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                scrape
                    .samples
                    .push(sample(line).with_context(|| format!("not a sample: {line}"))?);
            }
        }
        Ok(scrape)
    }

    /// The kind that a family says it is; `None` where there is no such family.
    pub fn kind(&self, family: &str) -> Option<&str> {
        self.kinds.get(family).map(String::as_str)
    }

    /// The families that are there, even those without a series.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// The family that samples of this name belong to: itself, or the histogram that it is a part of.
    pub fn family_of(&self, name: &str) -> Option<&str> {
        let part = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            let family = name.strip_suffix(suffix)?;
            (self.kind(family) == Some("histogram")).then_some(family)
        });
        let family = part.or_else(|| self.kind(name).map(|_| name))?;
        self.kinds.get_key_value(family).map(|(key, _)| key.as_str())
    }

    /// The samples of this name that have these labels, whatever else they have.
    pub fn samples<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a MetricSample> {
        self.samples.iter().filter(move |sample| {
            let has = |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|own| own == value);
            sample.name == name && labels.iter().all(has)
        })
    }

    /// The value of the only such sample.
    ///
    /// # Panics
    ///
    /// There are several: the labels don't tell them apart.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.samples(name, labels);
        let first = found.next()?;
        assert!(found.next().is_none(), "{name}{labels:?} names several samples");
        Some(first.value)
    }

    /// The sum of all such samples; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).map(|sample| sample.value).sum()
    }
}

/// `name{key="value",…} 1.5`, or without labels.
fn sample(line: &str) -> Result<MetricSample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"").context("a label has no value")?;
            let (value, after) = unquote(after)?;
            ensure!(
                labels
                    .insert(key.trim_start_matches(',').to_owned(), value)
                    .is_none(),
                "the label {key} is there twice"
            );
            rest = after;
        }
        rest = &rest[1..];
    }
    Ok(MetricSample {
        name: name.to_owned(),
        labels,
        value: rest.trim().parse().context("the value is no number")?,
    })
}

/// A label's value up to its closing quote, and what follows.
fn unquote(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next().context("an escape has no end")?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    anyhow::bail!("a label's value has no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_their_labels() {
        let text = "# HELP a_total What.\n# TYPE a_total counter\na_total{x=\"1\",y=\"p\\\"q, {r}\"} 3\na_total{x=\"2\",y=\"\"} 4\nb 1.5e1\n";
        let scrape = Scrape::parse(text).expect("it is well formed");
        assert_eq!(scrape.kind("a_total"), Some("counter"));
        assert_eq!(scrape.families().collect::<Vec<_>>(), ["a_total"]);
        assert_eq!(scrape.value("a_total", &[("y", "p\"q, {r}")]), Some(3.0));
        assert_eq!(scrape.value("a_total", &[("x", "3")]), None);
        assert_eq!(scrape.sum("a_total", &[]), 7.0);
        assert_eq!(scrape.value("b", &[]), Some(15.0));
        assert!(Scrape::parse("a{x=\"1} 3").is_err());
        assert!(Scrape::parse("a").is_err());
    }

    #[test]
    fn parts_belong_to_their_histogram() {
        let scrape = Scrape::parse("# TYPE a histogram\n# TYPE b_count gauge\n").expect("it is well formed");
        let families =
            ["a_bucket", "a_sum", "a_count", "b_count", "b_sum", "a", "b"].map(|name| scrape.family_of(name));
        assert_eq!(
            families,
            [
                Some("a"),
                Some("a"),
                Some("a"),
                Some("b_count"),
                None,
                Some("a"),
                None
            ]
        );
    }
}
