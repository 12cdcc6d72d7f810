//! `cargo xtask fuzz`: bytes that nobody thought of, into everything that reads what others write.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sabot_ebpf_build::Objects;
use serde_json::Value;

use crate::setup::{self, Purpose};
use crate::{process, ui};

/// What `cargo fuzz` builds with as well: the compiler's own coverage for libFuzzer, and the address sanitizer.
const FLAGS: [&str; 8] = [
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
];
/// Separates flags in an environment variable of cargo's.
const FLAG_SEPARATOR: &str = "\u{1f}";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this one, which may be repeated; all of `fuzz/targets` otherwise.
    #[arg(long = "target")]
    targets: Vec<String>,
    /// How long, each.
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    length: Duration,
}

/// Builds the targets and runs them one after the other, also after one has found something.
///
/// # Errors
///
/// Something was found; its input is kept, and named.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let known = targets()?;
    for wanted in &arguments.targets {
        ensure!(
            known.contains(wanted),
            "`{wanted}` given; there are {}",
            known.join(", ")
        );
    }
    let wanted = if arguments.targets.is_empty() {
        &known
    } else {
        &arguments.targets
    };
    setup::ensure(Purpose::Test)?;
    let scratch = process::target_dir()?.join("fuzz");
    build(&scratch, wanted)?;
    ui::heading(&format!(
        "fuzz: {} each",
        humantime::format_duration(arguments.length)
    ));
    let mut failed = Vec::new();
    for target in wanted {
        if !fuzz(&scratch, target, arguments.length)? {
            failed.push(target.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("something was found by {}", failed.join(", "));
    }
    Ok(())
}

/// The names of the targets, as fuzz/Cargo.toml has them.
fn targets() -> Result<Vec<String>> {
    let output = process::cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .args(["--manifest-path", "fuzz/Cargo.toml"])
        .stderr(Stdio::inherit())
        .output()
        .context("cargo can't be started")?;
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("`cargo metadata` printed no JSON")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let programs = targets.filter(|target| target["kind"][0] == "bin");
    let mut names: Vec<String> = programs
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// The daemon and all that it is made of are built once more; the first time takes minutes.
fn build(scratch: &Path, targets: &[String]) -> Result<()> {
    ui::heading("build: the fuzz targets");
    process::run(&mut Objects::new(&process::root())?.build_command())?;
    let mut cargo = process::cargo();
    cargo
        .args(["build", "--manifest-path", "fuzz/Cargo.toml", "--release"])
        // So that what runs at build time isn't instrumented.
        .args(["--target", &triple()])
        .arg("--target-dir")
        .arg(scratch)
        .args(targets.iter().flat_map(|target| ["--bin", target]))
        // The sanitizer is there in stable compilers too, and not yet stable.
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join(FLAG_SEPARATOR));
    process::run(&mut cargo)
}

/// Runs one target from its committed corpus and from what earlier runs have found; whether it found nothing wrong.
fn fuzz(scratch: &Path, target: &str, length: Duration) -> Result<bool> {
    let found = scratch.join("corpus").join(target);
    let artifacts = scratch.join("artifacts").join(target);
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
    }
    let log = artifacts.join("log");
    let file = fs::File::create(&log).with_context(|| format!("{} can't be written", log.display()))?;
    let step = ui::Step::start(target);
    let seconds = length.as_secs().max(1);
    let status = Command::new(program(scratch, target))
        .args([&found, &process::root().join("fuzz/corpus").join(target)])
        .arg(format!("-dict={}", dictionary(target).display()))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args([
            "-max_len=4096",
            "-timeout=30",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ])
        // The runtime leaves what lives as long as the process.
        .env("ASAN_OPTIONS", "detect_leaks=0:detect_odr_violation=0")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("the target `{target}` can't be started"))?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if status.success() {
        let units = statistic(&said, "stat::number_of_executed_units:");
        let covered = said.lines().rev().find_map(|line| line.split_once(" cov: "));
        let covered = covered.and_then(|(_, rest)| rest.split_whitespace().next());
        step.done(&format!(
            "{units} inputs, {} places covered",
            covered.unwrap_or("?")
        ));
    } else {
        step.failed(&format!("see {} and the input beside it", log.display()));
        let from = said.find("panicked at").or_else(|| said.find("ERROR:"));
        eprintln!(
            "{}",
            said[from.unwrap_or(0)..]
                .lines()
                .take(12)
                .collect::<Vec<_>>()
                .join("\n")
        );
    }
    Ok(status.success())
}

/// Words that are put into inputs.
fn dictionary(target: &str) -> PathBuf {
    process::root().join("fuzz/dictionaries").join(target)
}

fn program(scratch: &Path, target: &str) -> PathBuf {
    scratch.join(triple()).join("release").join(target)
}

/// This machine's, as compilers call it.
fn triple() -> String {
    format!("{ARCH}-unknown-linux-gnu")
}

fn statistic<'a>(said: &'a str, name: &str) -> &'a str {
    let line = said.lines().find_map(|line| line.strip_prefix(name));
    line.map_or("?", str::trim)
}
