//! `cargo xtask test`: everything that can tell whether Sabot works.

mod harness;
mod suites;
mod watch;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use sabot_ebpf_build::Objects;
use serde_json::Value;

use self::harness::Outcome;
use self::suites::{Built, Suite};
use crate::setup::{self, Purpose};
use crate::{lint, process, ui};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only tests whose name contains this, and not the demo.
    #[arg(long)]
    filter: Option<String>,
    /// Run only these suites, and not the demo.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    suite: Vec<String>,
    /// Don't run the linter first.
    #[arg(long)]
    skip_lint: bool,
}

/// How many tests run at once of the suites that allow it; most of their time they wait for a daemon.
const AT_ONCE: u32 = 3;

/// Lints, builds and tests, cheapest first; ends with a line `N passed, N failed` on standard output.
///
/// # Errors
///
/// Something failed, also when it was tried again.
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
    ui::heading("build: eBPF objects, sabotd, sabot, every test");
    // First, because cargo hides the progress of sabotd's build script, and the first build of `core` takes minutes.
    process::run(&mut Objects::new(&process::root())?.build_command())?;
    let built = Built::all()?;
    let chosen = built.choose(&arguments.suite)?;

    let mut total = Outcome::default();
    for (title, suites, threads) in phases(chosen) {
        ui::heading(title);
        for suite in suites {
            total.add(harness::run(
                suite,
                &built.folder,
                threads,
                arguments.filter.as_deref(),
            ));
        }
    }
    if arguments.filter.is_none() && arguments.suite.is_empty() {
        ui::heading("test 4/4: the demo");
        for pods in ["netns", "containerd"] {
            total.add(demo(&built.folder, pods));
        }
    }
    ui::heading(&format!("tests took {:.0} s", started.elapsed().as_secs_f64()));
    report(&total)
}

/// What runs in which order, under which title, on how many threads.
fn phases(suites: Vec<&Suite>) -> [(&'static str, Vec<&Suite>, Option<u32>); 3] {
    let (units, others): (Vec<_>, Vec<_>) = suites.into_iter().partition(|suite| suite.is_unit());
    let (beside, alone): (Vec<_>, Vec<_>) = others.into_iter().partition(|suite| suite.runs_side_by_side());
    [
        ("test 1/4: unit and property tests", units, None),
        (
            "test 2/4: integration and end-to-end tests, some tests of a suite at once",
            beside,
            Some(AT_ONCE),
        ),
        // They share the machine's kernel, and some measure time.
        (
            "test 3/4: integration and end-to-end tests, one after the other",
            alone,
            Some(1),
        ),
    ]
}

/// Says what failed, and what failed at first; the counts are the last line.
fn report(total: &Outcome) -> Result<()> {
    for name in &total.unsteady {
        ui::missing(name, "failed, and passed when it was run again by itself");
    }
    for name in &total.failed {
        ui::missing(name, "failed");
    }
    println!("{} passed, {} failed", total.passed, total.failed.len());
    ensure!(
        total.passed + total.failed.len() as u64 > 0,
        "there is no such test"
    );
    if !total.failed.is_empty() {
        bail!("{} tests failed", total.failed.len());
    }
    Ok(())
}

/// Each of the demo's steps is a test.
fn demo(folder: &Path, pods: &str) -> Outcome {
    let title = format!("demo on {pods}");
    play_demo(folder, pods).unwrap_or_else(|error| Outcome::broken(&title, &error))
}

fn play_demo(folder: &Path, pods: &str) -> Result<Outcome> {
    let output = Command::new(folder.join("xtask"))
        .args(["demo", "--json", "--pods", pods, "--binaries"])
        .arg(folder)
        .stderr(Stdio::inherit())
        .output()
        .context("the demo can't be started")?;
    let document: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the demo ended with {} and without a document", output.status))?;
    let steps = document["steps"]
        .as_array()
        .context("the demo's document has no steps")?;
    let (passed, failed): (Vec<_>, Vec<_>) = steps.iter().partition(|step| step["ok"] == true);
    let says_ok = document["ok"] == true && output.status.success();
    ensure!(
        says_ok == (failed.is_empty() && !passed.is_empty()),
        "the demo ended with {}, which isn't what its steps say",
        output.status
    );
    let name = |step: &&Value| format!("demo on {pods}: {}", step["name"].as_str().unwrap_or_default());
    Ok(Outcome {
        passed: passed.len() as u64,
        failed: failed.iter().map(name).collect(),
        unsteady: Vec::new(),
    })
}
