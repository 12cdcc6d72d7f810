//! Every test of the workspace, built at once.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;

/// Suites whose tests look at nothing but their own daemons and namespaces, and measure no time: several run at once.
const SIDE_BY_SIDE: [&str; 18] = [
    "changes",
    "cli",
    "cluster",
    "counters",
    "cri_pods",
    "disorder",
    "endings",
    "faults",
    "fuzz",
    "grpc",
    "guards",
    "input",
    "kernels",
    "kube",
    "names",
    "partitions",
    "resources",
    "tcp",
];

/// One test harness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suite {
    /// Of the cargo target, such as `losses`.
    pub(super) name: String,
    pub(super) program: PathBuf,
    /// Where its package is, which is where cargo would run it.
    pub(super) folder: PathBuf,
    unit: bool,
}

impl Suite {
    /// Reads one of cargo's messages about what it has built; `None` for other things than test harnesses.
    fn read(message: &Value) -> Option<Self> {
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let manifest = Path::new(message["manifest_path"].as_str()?);
        Some(Self {
            name: message["target"]["name"].as_str()?.to_owned(),
            program: message["executable"].as_str()?.into(),
            folder: manifest.parent()?.to_path_buf(),
            unit: message["target"]["kind"][0] != "test",
        })
    }

    /// A program that stands in for one.
    #[cfg(test)]
    pub(super) fn script(program: &Path) -> Self {
        Self {
            name: "script".to_owned(),
            program: program.to_owned(),
            folder: program.parent().expect("a file is in a folder").to_owned(),
            unit: true,
        }
    }

    /// Whether it is a crate's own tests of its inner parts.
    pub(super) fn is_unit(&self) -> bool {
        self.unit
    }

    pub(super) fn runs_side_by_side(&self) -> bool {
        SIDE_BY_SIDE.contains(&self.name.as_str())
    }
}

/// What a build of the whole workspace has made.
pub(super) struct Built {
    /// In the order of their names.
    pub(super) suites: Vec<Suite>,
    /// Where `sabotd`, `sabot` and `xtask` are.
    pub(super) folder: PathBuf,
}

impl Built {
    /// Builds every program and every test in one go: builds of their own would ask for other features of the same
    /// dependencies, and compile most of them twice.
    pub(super) fn all() -> Result<Self> {
        let mut command = process::cargo();
        command
            .args(["build", "--workspace", "--all-targets"])
            .arg("--message-format=json-render-diagnostics")
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("`cargo build` can't be started")?;
        let output = child.stdout.take().context("`cargo build` has no output")?;
        let mut suites = Vec::new();
        for line in BufReader::new(output).lines() {
            let line = line.context("`cargo build` doesn't print text")?;
            let message: Value = serde_json::from_str(&line).context("`cargo build` doesn't print JSON")?;
            suites.extend(Suite::read(&message));
        }
        let status = child.wait().context("`cargo build` can't be waited for")?;
        ensure!(status.success(), "`cargo build` failed ({status})");
        suites.sort_by(|a, b| (&a.name, &a.program).cmp(&(&b.name, &b.program)));
        for name in SIDE_BY_SIDE {
            ensure!(
                suites.iter().any(|suite| suite.name == name),
                "there is no suite `{name}`"
            );
        }
        Ok(Self {
            suites,
            folder: process::target_dir()?.join("debug"),
        })
    }

    /// The suites of these names; all without one.
    pub(super) fn choose(&self, names: &[String]) -> Result<Vec<&Suite>> {
        for name in names {
            ensure!(
                self.suites.iter().any(|suite| suite.name == *name),
                "--suite {name}: there is no such suite; there are {}",
                self.names()
            );
        }
        let chosen = self.suites.iter();
        Ok(chosen
            .filter(|suite| names.is_empty() || names.contains(&suite.name))
            .collect())
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.suites.iter().map(|suite| suite.name.as_str()).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(kind: &str, test: bool) -> Value {
        json!({
            "reason": "compiler-artifact",
            "manifest_path": "/src/tests/Cargo.toml",
            "target": {"name": "losses", "kind": [kind]},
            "profile": {"test": test},
            "executable": "/out/losses-1",
        })
    }

    #[test]
    fn harnesses_are_told_from_other_artefacts() {
        let suite = Suite::read(&message("test", true)).expect("it is a harness");
        assert_eq!(suite.name, "losses");
        assert_eq!(suite.folder, Path::new("/src/tests"));
        assert!(!suite.is_unit());
        assert!(Suite::read(&message("lib", true)).expect("it is one").is_unit());
        assert_eq!(Suite::read(&message("bin", false)), None);
        assert_eq!(Suite::read(&json!({"reason": "build-finished"})), None);
    }

    #[test]
    fn an_unknown_suite_is_refused_with_those_that_there_are() {
        let suites = ["drops", "losses"].map(|name| Suite {
            name: name.to_owned(),
            program: PathBuf::new(),
            folder: PathBuf::new(),
            unit: false,
        });
        let built = Built {
            suites: suites.to_vec(),
            folder: PathBuf::new(),
        };
        assert_eq!(built.choose(&[]).expect("all").len(), 2);
        assert_eq!(built.choose(&["drops".to_owned()]).expect("one")[0].name, "drops");
        let error = built
            .choose(&["drop".to_owned()])
            .expect_err("there is none")
            .to_string();
        assert_eq!(
            error,
            "--suite drop: there is no such suite; there are drops, losses"
        );
    }
}
