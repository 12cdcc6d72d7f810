//! `kubectl`, as the run uses it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::process;

/// The client with its cluster.
pub(super) struct Kubectl {
    kubeconfig: Option<PathBuf>,
}

impl Kubectl {
    /// For the cluster of a kubeconfig, or of the one that KUBECONFIG or the home folder has.
    ///
    /// # Errors
    ///
    /// There is no kubectl, or none of them.
    pub(super) fn new(kubeconfig: Option<PathBuf>) -> Result<Self> {
        ensure!(
            process::find_program("kubectl").is_some(),
            "`kubectl` isn't on the PATH (Debian's package is kubernetes-client)"
        );
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
        ensure!(
            kubeconfig.is_some()
                || std::env::var_os("KUBECONFIG").is_some()
                || home.is_some_and(|config| config.is_file()),
            "no cluster is named: set KUBECONFIG, or make one with --kind"
        );
        Ok(Self { kubeconfig })
    }

    /// Runs it and returns what it printed.
    ///
    /// # Errors
    ///
    /// It didn't succeed; with what it said.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, None)
    }

    /// The document that it prints.
    ///
    /// # Errors
    ///
    /// It didn't succeed, or printed none.
    pub(super) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let all: Vec<_> = arguments.iter().copied().chain(["--output=json"]).collect();
        let text = self.run(&all)?;
        serde_json::from_str(&text).with_context(|| format!("`kubectl {}` printed no JSON", all.join(" ")))
    }

    /// Creates or changes these; the definitions of resources come first, and are waited for.
    ///
    /// # Errors
    ///
    /// The API server refuses one.
    pub(super) fn apply(&self, manifests: &[Value]) -> Result<()> {
        let apply = ["apply", "--server-side", "--force-conflicts", "--filename=-"];
        let (definitions, others): (Vec<_>, Vec<_>) = manifests
            .iter()
            .cloned()
            .partition(|manifest| manifest["kind"] == "CustomResourceDefinition");
        if !definitions.is_empty() {
            let list = list(&definitions);
            self.run_with(&apply, Some(&list))?;
            let wait = [
                "wait",
                "--for=condition=Established",
                "--timeout=60s",
                "--filename=-",
            ];
            self.run_with(&wait, Some(&list))?;
        }
        self.run_with(&apply, Some(&list(&others))).map(drop)
    }

    /// Deletes these and waits until they are gone; those that aren't there are no error.
    ///
    /// # Errors
    ///
    /// The API server refuses, or it takes too long.
    pub(super) fn delete(&self, manifests: &[Value]) -> Result<()> {
        let delete = ["delete", "--ignore-not-found", "--timeout=180s", "--filename=-"];
        self.run_with(&delete, Some(&list(manifests))).map(drop)
    }

    /// The major and minor version of the API server.
    ///
    /// # Errors
    ///
    /// It can't be reached.
    pub(super) fn server_version(&self) -> Result<(u64, u64)> {
        let version = self.json(&["version"])?;
        parse_version(&version["serverVersion"])
            .with_context(|| format!("the API server tells no version: {version}"))
    }

    fn run_with(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = Command::new("kubectl");
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let shown = arguments.join(" ");
        let mut child = command
            .args(arguments)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("`kubectl` can't be started")?;
        if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
            // One that ends early says why.
            let _ = pipe.write_all(input.as_bytes());
        }
        let output = child
            .wait_with_output()
            .context("`kubectl` can't be waited for")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`kubectl {shown}` failed ({}): {}", output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn list(manifests: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": manifests}).to_string()
}

/// Some providers add a sign to the minor version, as `28+`.
fn parse_version(version: &Value) -> Option<(u64, u64)> {
    let number = |field: &str| {
        let text = version[field].as_str()?;
        text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
    };
    Some((number("major")?, number("minor")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_a_providers_sign() {
        let version = json!({"major": "1", "minor": "28+", "gitVersion": "v1.28.5-eks-5e0fdde"});
        assert_eq!(parse_version(&version), Some((1, 28)));
        assert_eq!(parse_version(&Value::Null), None);
        assert!((1, 26) < super::super::OLDEST && (2, 0) >= super::super::OLDEST);
    }
}
