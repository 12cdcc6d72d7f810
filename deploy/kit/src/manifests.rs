//! The manifests that stand in the repository although the chart makes them: for those who use kustomize, or nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::chart::{Chart, Release};

/// Where the chart is in the repository.
pub const CHART: &str = "deploy/helm/sabot";
/// What the chart renders to with its own values.
pub const BASE: &str = "deploy/kustomize/base/sabot.yaml";

const HEADER: &str = "# Made from deploy/helm/sabot by `cargo xtask manifests`; change it there.\n";

/// The repository that this was built from.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The text of [`BASE`] as the chart has it now.
///
/// # Errors
///
/// The chart can't be read or rendered.
pub fn base(repository: &Path) -> Result<String> {
    let chart = Chart::load(&repository.join(CHART))?;
    let rendered = chart.render(&Release::standard("Kustomize"), &json!({}))?;
    let texts: Vec<_> = rendered.into_iter().map(|file| file.text).collect();
    Ok(format!("{HEADER}---\n{}", texts.join("---\n")))
}

/// Everything that an installation applies, its namespace first.
///
/// # Errors
///
/// The chart can't be read or rendered.
pub fn installation(repository: &Path, release: &Release, values: &Value) -> Result<Vec<Value>> {
    let chart = Chart::load(&repository.join(CHART))?;
    let rendered = chart.render(release, values)?;
    let documents = rendered.into_iter().flat_map(|file| file.documents);
    Ok([namespace(&release.namespace)]
        .into_iter()
        .chain(documents)
        .collect())
}

/// A namespace whose pods may be on the node's network and have capabilities: what Sabot's are refused without where pod
/// security is enforced.
pub fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {
                "pod-security.kubernetes.io/enforce": "privileged",
                "pod-security.kubernetes.io/audit": "privileged",
                "pod-security.kubernetes.io/warn": "privileged",
            },
        },
    })
}
