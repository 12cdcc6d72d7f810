//! The Helm chart as manifests, where there is no Helm: for the kustomize base, the end-to-end run and the tests.
//!
//! Templates are Go's; of Helm's own functions there are those that the chart uses, and a template that calls another one
//! is an error.

mod functions;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use gtmpl::Template;
use serde_json::{Map, Value, json};

/// A chart as it was read.
pub struct Chart {
    about: Value,
    values: Value,
    /// What all templates may include.
    helpers: String,
    /// By their names, in order.
    templates: Vec<(String, String)>,
}

/// What `helm install NAME --namespace NAMESPACE` says.
#[derive(Clone, Debug)]
pub struct Release {
    pub name: String,
    pub namespace: String,
    /// Who manages it: `Helm`, or whoever stands in for it.
    pub service: String,
}

impl Release {
    /// What everything here calls itself unless told otherwise: `sabot` in the namespace `sabot`.
    pub fn standard(service: &str) -> Self {
        Self {
            name: "sabot".to_owned(),
            namespace: "sabot".to_owned(),
            service: service.to_owned(),
        }
    }
}

/// One template's manifests.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The template's name.
    pub template: String,
    pub text: String,
    pub documents: Vec<Value>,
}

impl Chart {
    /// Reads the chart in a folder.
    ///
    /// # Errors
    ///
    /// A file that can't be read, or isn't YAML where it should be; named.
    pub fn load(folder: &Path) -> Result<Self> {
        let templates = folder.join("templates");
        let mut helpers = String::new();
        let mut found = Vec::new();
        for path in files_below(&templates)? {
            let name = path
                .strip_prefix(&templates)
                .unwrap_or(&path)
                .display()
                .to_string();
            let text = read(&path)?;
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("tpl") => helpers.push_str(&text),
                Some("yaml") => found.push((name, text)),
                _ => {}
            }
        }
        ensure!(!found.is_empty(), "{} has no templates", templates.display());
        Ok(Self {
            about: read_yaml(&folder.join("Chart.yaml"))?,
            values: read_yaml(&folder.join("values.yaml"))?,
            helpers,
            templates: found,
        })
    }

    /// The chart's own values.
    pub fn values(&self) -> &Value {
        &self.values
    }

    /// Renders every template with the chart's values and `overrides` over them. Templates that render to nothing are
    /// left out.
    ///
    /// # Errors
    ///
    /// A template that can't be parsed or rendered, or whose text isn't YAML; named.
    pub fn render(&self, release: &Release, overrides: &Value) -> Result<Vec<Rendered>> {
        let context = self.context(release, overrides)?;
        let _helpers = functions::provide(&self.helpers);
        let mut rendered = Vec::new();
        for (name, text) in &self.templates {
            let text = render(&format!("{}{text}", self.helpers), &context)
                .with_context(|| format!("the template {name}"))?;
            let documents = documents(&text)
                .with_context(|| format!("the template {name} doesn't make YAML:\n{text}"))?;
            if !documents.is_empty() {
                rendered.push(Rendered {
                    template: name.clone(),
                    text: text.trim().to_owned() + "\n",
                    documents,
                });
            }
        }
        Ok(rendered)
    }

    fn context(&self, release: &Release, overrides: &Value) -> Result<gtmpl::Value> {
        let mut values = self.values.clone();
        merge(&mut values, overrides);
        let field = |name: &str| {
            let value = self.about[name].as_str();
            value.with_context(|| format!("Chart.yaml: `{name}` is missing, or no text"))
        };
        functions::to_template(&json!({
            "Values": values,
            "Chart": {
                "Name": field("name")?,
                "Version": field("version")?,
                "AppVersion": field("appVersion")?,
            },
            "Release": {
                "Name": release.name,
                "Namespace": release.namespace,
                "Service": release.service,
            },
        }))
    }
}

/// Renders one text.
fn render(text: &str, context: &gtmpl::Value) -> Result<String> {
    let mut template = Template::default();
    template.add_funcs(functions::ALL);
    template.parse(text).map_err(|error| anyhow::anyhow!("{error}"))?;
    template
        .render(&gtmpl::Context::from(context.clone()))
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// The documents of a YAML text; empty ones are none.
///
/// # Errors
///
/// The text isn't YAML.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    use serde::Deserialize;
    let mut all = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        let value = Value::deserialize(document)?;
        if !value.is_null() {
            all.push(value);
        }
    }
    Ok(all)
}

/// As Helm merges values: maps by their keys, anything else is replaced, and null takes a key away.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => merge_maps(into, from),
        (into, from) => *into = from.clone(),
    }
}

fn merge_maps(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        if value.is_null() {
            into.remove(key);
        } else {
            merge(into.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// The files in a folder and those below it, links followed, sorted by their paths.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    let mut entries = list().with_context(|| format!("listing {}", folder.display()))?;
    entries.sort();
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else if path.is_file() {
            files.push(path);
        } else {
            bail!("{} leads nowhere", path.display());
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn read_yaml(path: &Path) -> Result<Value> {
    serde_norway::from_str(&read(path)?).with_context(|| format!("{} isn't YAML", path.display()))
}

#[cfg(test)]
mod tests;
