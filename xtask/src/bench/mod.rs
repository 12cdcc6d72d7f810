//! `cargo xtask bench`: how fast faults are applied, and what they cost each packet, beside what peers do.
//!
//! Everything is measured with release builds, in namespaces of our own, and against baselines of the same run.

mod apply;
mod cluster;
mod datapath;
mod fidelity;
mod measure;
mod observe;
mod report;
mod spec;
mod usage;

use anyhow::{Result, bail, ensure};
use clap::Subcommand;
use sabot_testkit::DaemonOptions;

use self::report::Report;
use crate::setup::{self, Purpose};
use crate::{build, interrupt, process, ui};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    bench: Bench,
    /// Print one JSON document on standard output instead of the tables.
    #[arg(long, global = true)]
    json: bool,
    /// Fewer repetitions: shows that everything runs, not how fast.
    #[arg(long, global = true)]
    quick: bool,
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
    ensure!(
        process::is_root(),
        "the benches make network namespaces and load eBPF programs, which needs root"
    );
    setup::ensure(Purpose::Test)?;
    ui::heading("build: eBPF objects, sabotd, sabot, with the release profile");
    let binaries = build::build(true)?;
    interrupt::catch()?;
    let plan = Plan {
        options: DaemonOptions::new(binaries.sabotd, binaries.sabot),
        quick: arguments.quick,
        scenes: arguments.scenes.clone(),
    };
    if matches!(arguments.bench, Bench::Apply | Bench::Datapath) {
        plan.chosen::<()>(&[])?;
    }
    let mut report = match arguments.bench {
        Bench::Apply => Report::begin("apply", plan.quick)?,
        Bench::Cluster => Report::begin("cluster", plan.quick)?,
        Bench::Datapath => Report::begin("datapath", plan.quick)?,
        Bench::Fidelity => Report::begin("fidelity", plan.quick)?,
        Bench::Observe => Report::begin("observe", plan.quick)?,
    };
    ui::heading(&format!("bench {}:", report.bench));
    match arguments.bench {
        Bench::Apply => apply::run(&plan, &mut report)?,
        Bench::Cluster => cluster::run(&plan, &mut report)?,
        Bench::Datapath => datapath::run(&plan, &mut report)?,
        Bench::Fidelity => fidelity::run(&plan, &mut report)?,
        Bench::Observe => observe::run(&plan, &mut report)?,
    }
    report.end()?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    // A missed time is for people to judge, on their machine; a wrong effect is an error.
    if !report.is_correct() {
        bail!("a fault didn't have the effect that it was asked for");
    }
    Ok(())
}
