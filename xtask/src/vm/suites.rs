//! The suites that run in guests, and how they are built.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::initramfs::Job;
use crate::process;
use crate::ui::Step;

/// A test binary of the workspace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suite {
    pub(super) name: &'static str,
    /// After which it is ended; a guest is ten to twenty times as slow as its machine.
    pub(super) limit: Duration,
    /// Tests that have nothing to do with the kernel, or whose bounds hold on real machines only.
    skip: &'static [&'static str],
}

impl Suite {
    const fn new(name: &'static str, minutes: u64, skip: &'static [&'static str]) -> Self {
        Self {
            name,
            limit: Duration::from_secs(minutes * 60),
            skip,
        }
    }

    /// Where it stands in the guest, without a slash before it.
    pub(super) fn place(&self) -> String {
        format!("sabot/tests/{}", self.name)
    }

    fn job(&self, filter: Option<&str>) -> Job {
        let skips = self.skip.iter().map(|test| format!(" --skip {test}"));
        let arguments = skips.chain(filter.map(|filter| format!(" {filter}")));
        let arguments: String = arguments.collect();
        Job {
            name: self.name.to_owned(),
            limit: self.limit,
            command: format!("/{} --test-threads=1 --show-output{arguments}", self.place()),
        }
    }
}

/// What a guest runs of the suites.
pub(super) fn jobs(suites: &[Built], filter: Option<&str>) -> Vec<Job> {
    suites.iter().map(|built| built.suite.job(filter)).collect()
}

/// In the order in which they run.
pub(super) const SUITES: [Suite; 3] = [
    Suite::new("kernels", 30, &[]),
    Suite::new("verdicts", 15, &[]),
    // What iptables loads at run time isn't in the guest.
    Suite::new("services", 15, &["iptables"]),
];

/// A suite that is built.
pub(super) struct Built {
    pub(super) suite: Suite,
    pub(super) program: PathBuf,
}

/// What all guests run.
pub(super) struct Programs {
    pub(super) sabotd: PathBuf,
    pub(super) sabot: PathBuf,
    pub(super) suites: Vec<Built>,
}

impl Programs {
    /// All of them, with where they stand in the guest.
    pub(super) fn own(&self) -> Vec<(String, PathBuf)> {
        let daemon = ("sabot/sabotd".to_owned(), self.sabotd.clone());
        let client = ("sabot/sabot".to_owned(), self.sabot.clone());
        let suites = self.suites.iter();
        let suites = suites.map(|built| (built.suite.place(), built.program.clone()));
        [daemon, client].into_iter().chain(suites).collect()
    }
}

/// Builds the suites with the daemon and the client that they run, all by one call of cargo and so with the same features.
///
/// # Errors
///
/// They can't be built.
pub(super) fn build() -> Result<Programs> {
    let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
    let step = Step::start(&format!("build sabotd, sabot, {}", names.join(", ")));
    let mut cargo = process::cargo();
    cargo.args(["build", "--message-format", "json-render-diagnostics"]);
    cargo.args([
        "--package",
        "sabotd",
        "--package",
        "sabot",
        "--package",
        "sabot-testkit",
    ]);
    cargo.args(["--bin", "sabotd", "--bin", "sabot"]);
    cargo.args(names.iter().flat_map(|name| ["--test", name]));
    let output = cargo.stderr(Stdio::inherit()).output();
    let output = output.context("`cargo build` can't be started")?;
    ensure!(output.status.success(), "the suites can't be built");
    let messages = String::from_utf8(output.stdout).context("cargo doesn't print text")?;
    let programs: Vec<(String, PathBuf)> = messages.lines().filter_map(program).collect();
    let path = |name: &str| {
        let found = programs.iter().find(|(built, _)| built == name);
        let found = found.map(|(_, program)| program.clone());
        found.with_context(|| format!("cargo built no {name}"))
    };
    let suites = SUITES.iter().map(|suite| {
        Ok(Built {
            suite: *suite,
            program: path(suite.name)?,
        })
    });
    let programs = Programs {
        sabotd: path("sabotd")?,
        sabot: path("sabot")?,
        suites: suites.collect::<Result<_>>()?,
    };
    step.done("built");
    Ok(programs)
}

/// The name and the path of the program that a message of cargo's is about.
fn program(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let name = message["target"]["name"].as_str()?;
    Some((name.to_owned(), PathBuf::from(message["executable"].as_str()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_told_what_to_skip_and_what_to_run() {
        let suite = Suite::new("cycles", 2, &["five_hundred"]);
        let all = "/sabot/tests/cycles --test-threads=1 --show-output --skip five_hundred";
        assert_eq!(suite.job(None).command, all);
        assert_eq!(suite.job(Some("clsact")).command, format!("{all} clsact"));
    }

    #[test]
    fn programs_are_told_apart_from_what_they_are_made_of() {
        let test =
            r#"{"reason":"compiler-artifact","target":{"name":"verdicts"},"executable":"/t/verdicts-1"}"#;
        let found = program(test).expect("it is one");
        assert_eq!(found, ("verdicts".to_owned(), PathBuf::from("/t/verdicts-1")));
        let library = r#"{"reason":"compiler-artifact","target":{"name":"sabotd"},"executable":null}"#;
        assert_eq!(program(library), None);
        assert_eq!(program("warning: unused"), None);
    }
}
