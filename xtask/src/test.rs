//! `cargo xtask test`: everything that can tell whether Sabot works.

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::setup::{self, Purpose};
use crate::{build, lint, process, ui};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only tests whose name contains this, and not the demo.
    #[arg(long)]
    filter: Option<String>,
    /// Don't run the linter first.
    #[arg(long)]
    skip_lint: bool,
}

/// Suites whose tests look at nothing but their own daemons and namespaces, and measure no time: several run at once.
const SIDE_BY_SIDE: [&str; 7] = ["cli", "cluster", "guards", "grpc", "input", "kube", "resources"];

/// How many of their tests do; most of their time they wait for a daemon.
const AT_ONCE: u32 = 3;

/// What test harnesses have reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

/// Lints, builds and tests, cheapest first; ends with a line `N passed, N failed` on standard output.
///
/// # Errors
///
/// Something failed.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        process::is_root(),
        "the end-to-end tests make network namespaces and load eBPF programs, which needs root"
    );
    let started = Instant::now();
    setup::ensure(Purpose::Test)?;
    if !arguments.skip_lint {
        lint::run()?;
    }
    ui::heading("build: eBPF objects, sabotd, sabot");
    let binaries = build::build(false)?;
    let filter = arguments.filter.as_deref();

    let mut total = Tally::default();
    let mut phase = |title: &str, tally: Result<Tally>| {
        match tally {
            Ok(tally) => {
                total.passed += tally.passed;
                total.failed += tally.failed;
                ui::found(
                    title,
                    &format!("{} passed, {} failed", tally.passed, tally.failed),
                );
            }
            // A harness that can't be run has tested nothing, which isn't a success.
            Err(error) => {
                total.failed += 1;
                ui::missing(title, &format!("{error:#}"));
            }
        }
    };
    ui::heading("test 1/3: unit and property tests");
    phase(
        "unit and property tests",
        harness(&["--lib", "--bins"].map(str::to_owned), None, filter, &binaries),
    );
    let (beside, alone) = suites()?;
    ui::heading(&format!(
        "test 2/3: integration and end-to-end tests, those of some suites {AT_ONCE} at once"
    ));
    phase(
        "integration tests",
        harness(&beside, Some(AT_ONCE), filter, &binaries),
    );
    ui::heading("test 2/3: integration and end-to-end tests, the others one after the other");
    phase("integration tests", harness(&alone, Some(1), filter, &binaries));
    if filter.is_none() {
        ui::heading("test 3/3: the demo");
        phase("demo on namespaces", demo("netns"));
        phase("demo on containerd", demo("containerd"));
    }
    ui::heading(&format!("tests took {:.0} s", started.elapsed().as_secs_f64()));
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("{} tests failed", total.failed);
    }
    Ok(())
}

/// The arguments that name the integration tests of [`SIDE_BY_SIDE`], and those that name all others.
fn suites() -> Result<(Vec<String>, Vec<String>)> {
    let output = process::cargo()
        .args(["metadata", "--format-version=1", "--no-deps"])
        .output()
        .context("`cargo metadata` can't be started")?;
    ensure!(
        output.status.success(),
        "`cargo metadata` failed ({})",
        output.status
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).context("`cargo metadata` isn't JSON")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let names = targets
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| target["name"].as_str());
    let names: BTreeSet<&str> = names.collect();
    for name in SIDE_BY_SIDE {
        ensure!(names.contains(name), "there is no suite `{name}`");
    }
    let (beside, alone): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| SIDE_BY_SIDE.contains(name));
    let arguments = |names: Vec<&str>| {
        let pairs = names
            .into_iter()
            .flat_map(|name| ["--test".to_owned(), name.to_owned()]);
        pairs.collect()
    };
    Ok((arguments(beside), arguments(alone)))
}

/// Runs `cargo test` over the workspace, shows what it prints, and adds up the results of its harnesses.
fn harness(
    targets: &[String],
    threads: Option<u32>,
    filter: Option<&str>,
    binaries: &build::Binaries,
) -> Result<Tally> {
    let mut command = process::cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(targets)
        .arg("--")
        .args(filter);
    if let Some(threads) = threads {
        // They share the machine's kernel, and some measure time.
        command.arg(format!("--test-threads={threads}"));
    }
    if let Some(folder) = binaries.sabotd.parent() {
        command.env("SABOT_BIN_DIR", folder);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("`cargo test` can't be started")?;
    let output = child.stdout.take().context("`cargo test` has no output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("`cargo test` doesn't print text")?;
        println!("{line}");
        if let Some(result) = parse_result(&line) {
            tally.passed += result.passed;
            tally.failed += result.failed;
        }
    }
    let status = child.wait().context("`cargo test` can't be waited for")?;
    if !status.success() && tally.failed == 0 {
        bail!(
            "`cargo test` failed ({status}) without a failed test: it didn't build, or a test ended its process"
        );
    }
    Ok(tally)
}

/// The numbers in a line like `test result: ok. 8 passed; 0 failed; 0 ignored; …`.
fn parse_result(line: &str) -> Option<Tally> {
    let (_, rest) = line.split_once("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    let number = |what: &str| {
        let mut parts = counts.split("; ");
        parts.find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
    };
    Some(Tally {
        passed: number(" passed")?,
        failed: number(" failed")?,
    })
}

/// Each of the demo's steps is a test.
fn demo(pods: &str) -> Result<Tally> {
    let this = env::current_exe().context("xtask has no path")?;
    let output = Command::new(this)
        .args(["demo", "--json", "--pods", pods])
        .stderr(Stdio::inherit())
        .output()
        .context("the demo can't be started")?;
    let document: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the demo ended with {} and without a document", output.status))?;
    let steps = document["steps"]
        .as_array()
        .context("the demo's document has no steps")?;
    let passed = steps.iter().filter(|step| step["ok"] == true).count() as u64;
    let failed = steps.len() as u64 - passed;
    let says_ok = document["ok"] == true && output.status.success();
    ensure!(
        says_ok == (failed == 0 && passed > 0),
        "the demo ended with {}, which isn't what its steps say",
        output.status
    );
    Ok(Tally { passed, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_harnesses_are_read() {
        let line = "test result: FAILED. 13 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.32s";
        assert_eq!(
            parse_result(line),
            Some(Tally {
                passed: 13,
                failed: 2
            })
        );
        assert_eq!(parse_result("test core::plan ... ok"), None);
        assert_eq!(parse_result("test result: what is this"), None);
    }
}
