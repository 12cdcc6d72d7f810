//! `cargo xtask bench`: how fast faults are applied and gone, how near they come to what was asked, and what they cost,
//! beside what peers do.
//!
//! Everything is measured with release builds, in namespaces of our own, and against baselines of the same run.

mod apply;
mod cluster;
mod datapath;
mod fidelity;
mod footprint;
mod measure;
mod observe;
mod parts;
mod pods;
mod recovery;
mod report;
mod rules;
mod spec;
mod usage;
mod verifier;
mod vm;
mod witness;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use sabot_testkit::DaemonOptions;

use self::parts::{Job, Part};
use self::report::Document;
use crate::setup::{self, Purpose};
use crate::{build, interrupt, process, ui};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One part with all that it can show; without it, all parts in one report.
    #[command(subcommand)]
    bench: Option<Bench>,
    /// Of the whole report these parts only.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
    /// Measure beside netem too, in a guest with a kernel that has it.
    #[arg(long)]
    vm: bool,
    /// Print one JSON document on standard output instead of the tables.
    #[arg(long, global = true)]
    json: bool,
    /// Also write a page with plots, which needs no network, into this file.
    #[arg(long, global = true, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Fewer repetitions: shows that everything runs, not how fast.
    #[arg(long, global = true)]
    quick: bool,
    /// Measure the sabotd and sabot in this folder instead of building them.
    #[arg(long, global = true, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
    /// Only this part of `fidelity` or `observe`; may be given several times.
    #[arg(long = "scene", global = true, value_name = "NAME")]
    scenes: Vec<String>,
}

#[derive(Clone, Copy, Subcommand)]
enum Bench {
    /// From the call over gRPC to the answer that says the fault is enforced, beside ipset and iptables.
    Apply,
    /// What a node's daemon takes from a cluster of 500 and of 5,000 nodes, and asks of its API server.
    Cluster,
    /// Throughput and time per packet with faults in force, beside ipset and iptables.
    Datapath,
    /// How near to what was asked each fault comes: loss, delay, rate, answers, and the delay line's throughput.
    Fidelity,
    /// What it costs to be observed, beside bpftrace and strace.
    Observe,
    /// From the end of faults until packets of the last target pass, and until nothing is left.
    Recovery,
    /// Binaries, memory and CPU at rest, and what one more target and one more fault take.
    Footprint,
    /// What the verifier goes through for each program, and how long loading takes.
    Verifier,
}

impl Bench {
    fn job(self) -> Job {
        match self {
            Self::Apply => Part::Apply.job(),
            Self::Cluster => Part::Cluster.job(),
            Self::Datapath => Part::Datapath.job(),
            Self::Fidelity => Job::fidelity(),
            Self::Observe => Part::Observe.job(),
            Self::Recovery => Part::Recovery.job(),
            Self::Footprint => Part::Footprint.job(),
            Self::Verifier => Part::Verifier.job(),
        }
    }
}

/// What all benches are given.
struct Plan {
    options: DaemonOptions,
    quick: bool,
    scenes: Vec<String>,
}

impl Plan {
    /// The usual number of repetitions, or the one of a quick run.
    fn repetitions(&self, usual: usize, quick: usize) -> usize {
        if self.quick { quick } else { usual }
    }

    /// The scenes that were asked for; all of them when none was named.
    ///
    /// # Errors
    ///
    /// A name that none of them has.
    fn chosen<T: Copy>(&self, scenes: &[(&str, T)]) -> Result<Vec<T>> {
        if let Some(unknown) = self
            .scenes
            .iter()
            .find(|name| !scenes.iter().any(|(known, _)| known == name))
        {
            let allowed: Vec<&str> = scenes.iter().map(|(name, _)| *name).collect();
            let allowed = if allowed.is_empty() {
                "none".to_owned()
            } else {
                allowed.join(", ")
            };
            bail!("--scene: `{unknown}` was given; allowed here: {allowed}");
        }
        let is_chosen =
            |name: &str| self.scenes.is_empty() || self.scenes.iter().any(|chosen| chosen == name);
        Ok(scenes
            .iter()
            .filter(|(name, _)| is_chosen(name))
            .map(|(_, scene)| *scene)
            .collect())
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let jobs = jobs(arguments)?;
    ensure!(
        process::is_root(),
        "the benches make network namespaces and load eBPF programs, which needs root"
    );
    if let Some(path) = &arguments.html {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        ensure!(folder.is_dir(), "--html: there is no folder {}", folder.display());
    }
    let options = binaries(arguments)?;
    interrupt::catch()?;
    let mut document = Document::begin(arguments.quick)?;
    document.note_versions(&options.sabotd);
    let plan = Plan {
        options,
        quick: arguments.quick,
        scenes: arguments.scenes.clone(),
    };
    for job in jobs {
        document.push(job.run(&plan)?);
    }
    document.end()?;
    if let Some(path) = &arguments.html {
        fs::write(path, report::page(&document))
            .with_context(|| format!("--html: {} can't be written", path.display()))?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&document)?);
    } else {
        println!("{document}");
    }
    // A missed time is for people to judge, on their machine; a wrong effect is an error.
    if !document.is_correct() {
        bail!("a fault didn't have the effect that it was asked for");
    }
    let failed = document.failed();
    ensure!(
        failed.is_empty(),
        "measured to no end: {}; the report says why",
        failed.join(", ")
    );
    Ok(())
}

/// What is measured, in its order.
///
/// # Errors
///
/// Names the option that doesn't go with the others.
fn jobs(arguments: &Arguments) -> Result<Vec<Job>> {
    let Some(bench) = arguments.bench else {
        ensure!(
            arguments.scenes.is_empty(),
            "--scene: only `fidelity` and `observe` have scenes; of the whole report, choose parts with --only"
        );
        let chosen = if arguments.only.is_empty() {
            &Part::USUAL[..]
        } else {
            &arguments.only
        };
        let mut once: Vec<Part> = Vec::new();
        for part in chosen.iter().chain(arguments.vm.then_some(&Part::Vm)) {
            if !once.contains(part) {
                once.push(*part);
            }
        }
        return Ok(once.into_iter().map(Part::job).collect());
    };
    ensure!(
        arguments.only.is_empty(),
        "--only: chooses parts of the whole report and doesn't go with a sub-command"
    );
    ensure!(
        !arguments.vm,
        "--vm: adds a part to the whole report and doesn't go with a sub-command"
    );
    ensure!(
        arguments.scenes.is_empty() || matches!(bench, Bench::Fidelity | Bench::Observe),
        "--scene: only `fidelity` and `observe` have scenes"
    );
    Ok(vec![bench.job()])
}

/// The daemon and the client that are measured: built now, or those of a folder.
fn binaries(arguments: &Arguments) -> Result<DaemonOptions> {
    let given = arguments.binaries.as_deref();
    if given.is_none() {
        match setup::ensure(Purpose::Test) {
            Err(error) if arguments.bench.is_none() => {
                ui::missing("setup", &format!("{error:#}; parts that need more are left out"));
            }
            other => other?,
        }
    }
    let binaries = build::find_or_build(given, true);
    let binaries = match given {
        Some(_) => binaries.context("--binaries")?,
        None => binaries?,
    };
    Ok(DaemonOptions::new(binaries.sabotd, binaries.sabot))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn names(words: &[&str]) -> Result<Vec<&'static str>> {
        let cli = Cli::try_parse_from([&["bench"], words].concat())?;
        Ok(jobs(&cli.arguments)?.into_iter().map(|job| job.name).collect())
    }

    #[test]
    fn parts_are_chosen_by_name_in_the_order_given() {
        let all = names(&["--quick"]).expect("all parts");
        assert_eq!(all.len(), Part::USUAL.len());
        assert!(!all.contains(&"cluster"), "it takes half an hour");
        assert!(!all.contains(&"vm"), "it boots a guest");
        let two = names(&["--only", "loss,apply,loss"]).expect("two parts");
        assert_eq!(two, ["loss", "apply"]);
        let added = names(&["--only", "loss", "--vm"]).expect("two parts");
        assert_eq!(added, ["loss", "vm"]);
        let only = names(&["--only", "vm", "--vm", "--quick"]).expect("one part");
        assert_eq!(only, ["vm"]);
        let all = names(&["--vm"]).expect("one part more than usually");
        assert_eq!((all.len(), all.last()), (Part::USUAL.len() + 1, Some(&"vm")));
        let one = names(&["fidelity", "--scene", "idle"]).expect("one part");
        assert_eq!(one, ["fidelity"]);
    }

    #[test]
    fn what_doesnt_go_together_is_refused_by_name() {
        for (words, said) in [
            (&["--only", "recover"][..], "--only"),
            (&["--scene", "idle"], "--scene"),
            (&["apply", "--scene", "idle"], "--scene"),
            (&["--only", "loss", "apply"], "--only"),
            (&["--vm", "fidelity"], "--vm"),
            (&["fidelity", "--vm"], "--vm"),
            (&["--vm", "--scene", "idle"], "--scene"),
        ] {
            let error = names(words).expect_err("it is refused");
            assert!(error.to_string().contains(said), "{words:?}: {error}");
        }
    }
}
