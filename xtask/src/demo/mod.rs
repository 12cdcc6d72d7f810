//! `cargo xtask demo`: every fault on real packets, shown against what was asked.

mod corruption;
mod delays;
mod endings;
mod losses;
mod partitions;
mod report;
mod scene;
mod stage;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use sabot_testkit::DaemonOptions;

use self::report::Report;
use self::scene::Scene;
use self::stage::{ContainerdStage, NetnsStage, Stage};
use crate::setup::{self, Purpose};
use crate::{build, interrupt, process, ui};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON document on standard output when it is over; everything else goes to standard error.
    #[arg(long)]
    json: bool,
    /// What the pods are.
    #[arg(long, value_enum, default_value_t = Pods::Netns)]
    pods: Pods,
    /// Use `sabotd` and `sabot` of this folder instead of building them.
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pods {
    /// Network namespaces on a bridge in a private namespace.
    Netns,
    /// Pods that a private containerd made through CRI.
    Containerd,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        process::is_root(),
        "the demo makes network namespaces and loads eBPF programs, which needs root"
    );
    setup::ensure(Purpose::Demo)?;
    let binaries = build::find_or_build(arguments.binaries.as_deref(), false)?;
    interrupt::catch()?;
    let mut report = Report::default();
    let options = DaemonOptions::new(binaries.sabotd, binaries.sabot);
    // The stage is taken down before the report is printed: a document that says ok is the last thing that happens.
    let played = {
        let stage = set_up(arguments.pods)?;
        play(stage.as_ref(), options, &mut report)
    };
    if played.is_err() {
        report.cut_short();
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    }
    played?;
    if !report.is_ok() {
        bail!("some steps didn't do what was asked");
    }
    ui::heading("everything did what was asked");
    Ok(())
}

fn set_up(pods: Pods) -> Result<Box<dyn Stage>> {
    let step = ui::Step::start("pods client, server and bystander");
    let stage: Box<dyn Stage> = match pods {
        Pods::Netns => Box::new(NetnsStage::new()?),
        Pods::Containerd => Box::new(ContainerdStage::new()?),
    };
    step.done(stage.description());
    Ok(stage)
}

/// Every step in its order; a step that fails doesn't keep the others from being shown.
fn play(stage: &dyn Stage, options: DaemonOptions, report: &mut Report) -> Result<()> {
    let step = ui::Step::start("sabotd");
    let mut scene = Scene::open(stage, options)?;
    step.done(&format!("ready, pid {}", scene.daemon.pid()));
    let steps: [(&str, report::Act<'_>); 11] = [
        ("baseline", delays::baseline),
        ("delay one way", delays::one_way),
        ("delay both ways", delays::both_ways),
        ("drop", losses::drop_share),
        ("corrupt", corruption::corrupt),
        ("partition one way", partitions::one_way),
        ("partition both ways", partitions::both_ways),
        ("expiry", endings::expiry),
        ("delete", endings::delete),
        ("kill -9", endings::kill),
        ("nothing is left", endings::nothing_left),
    ];
    ui::heading("demo:");
    for (name, act) in steps {
        interrupt::check()?;
        report.run(name, act, &mut scene);
    }
    Ok(())
}
