//! `cargo xtask bench apply`: from the call over gRPC to the answer that says the fault is enforced.

mod many;
mod one;
mod peers;

use std::time::{Duration, Instant};

use anyhow::Result;
use sabot_proto::sabot::v1::FaultSpec;
use sabot_testkit::daemon::Client;
use sabot_testkit::{Lab, LabPod};

use super::Plan;
use super::measure::{Samples, Spread};
use super::report::{Figure, Report, Statistic};
use super::rules;
use super::spec;
use super::witness::Witness;
use crate::interrupt;
use crate::ui::Step;

/// Targets of one fault.
const FIFTY: usize = 50;
const COUNTS: [usize; 3] = [FIFTY, 110, 250];

/// What both parts measure on.
struct Scene<'a> {
    plan: &'a Plan,
    lab: Lab,
    enforced: Enforced,
}

/// How many targets weren't cut off when the answer said so.
#[derive(Default)]
struct Enforced {
    targets: usize,
    late: usize,
    /// What is being measured.
    step: String,
    /// In which step and of which fault how many were late.
    where_late: String,
}

impl Enforced {
    fn begin(&mut self, step: String) -> Step {
        self.step = step;
        Step::start(&self.step)
    }

    fn add(&mut self, fault: &str, targets: usize, late: usize) {
        self.targets += targets;
        self.late += late;
        if late > 0 {
            self.where_late += &format!("; {late} of {fault} in {}", self.step);
        }
    }
}

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let counts = if plan.quick { &COUNTS[..2] } else { &COUNTS };
    let most = counts.iter().max().copied().unwrap_or(FIFTY);
    let step = Step::start("pods");
    // The first one is everybody's peer.
    let mut scene = Scene {
        plan,
        lab: Lab::new(1 + most)?,
        enforced: Enforced::default(),
    };
    step.done(&format!("{most} targets and their peer"));
    let one = one::measure(&mut scene)?;
    let peer = peers::measure(&scene, 1, plan.repetitions(30, 5))?;
    say_one(report, &one, peer.spread());
    let (many, hooks) = many::measure(&mut scene, counts)?;
    for latencies in &many {
        let peer = peers::measure(&scene, latencies.count, plan.repetitions(3, 1))?;
        say_many(report, latencies, &hooks, peer.spread());
    }
    let Enforced {
        targets,
        late,
        where_late,
        ..
    } = scene.enforced;
    report.check(
        "enforced when answered",
        late == 0,
        format!(
            "{late} of {targets} targets let a packet through that was sent after the answer{where_late}"
        ),
    );
    Ok(())
}

fn latency(samples: &Samples, peer: Spread) -> Figure {
    Figure::new("latency", "ms", samples.spread()).beside(rules::NAME, peer)
}

fn say_one(report: &mut Report, one: &one::Latencies, peer: Spread) {
    let section = report.section("from the call to the answer \"injected\": one target");
    let warm = latency(&one.warm, peer)
        .at_most(Statistic::P99, 2.0)
        .at_least(Statistic::Advantage, 10.0);
    section.row("warm", vec![warm]);
    let cold = latency(&one.cold, peer)
        .at_most(Statistic::P50, 40.0)
        .at_least(Statistic::Advantage, 1.0);
    section.row("cold (fresh netns)", vec![cold]);
    section.row("warm, --hook clsact", vec![latency(&one.warm_clsact, peer)]);
    section.row("cold, --hook clsact", vec![latency(&one.cold_clsact, peer)]);
}

fn say_many(report: &mut Report, many: &many::Latencies, hooks: &many::Hooks, peer: Spread) {
    let title = format!(
        "from the call to the answer \"injected\": {} targets in one fault",
        many.count
    );
    let section = report.section(&title);
    let mut cold = latency(&many.cold, peer);
    if many.count == FIFTY {
        cold = cold
            .at_most(Statistic::P50, 300.0)
            .at_least(Statistic::Advantage, 4.0);
    }
    section.row("cold (fresh daemon)", vec![cold]);
    section.row("warm", vec![latency(&many.warm, peer)]);
    if many.count == FIFTY {
        for (name, samples) in [
            ("cold, --hook clsact", &hooks.cold_clsact),
            ("warm, --hook clsact", &hooks.warm_clsact),
            ("never faulted before, --attach all", &hooks.attached_beforehand),
        ] {
            section.row(name, vec![latency(samples, peer)]);
        }
    }
}

/// Applies a fault, times the answer, has the witness look at once, and deletes the fault.
fn trial(
    client: &Client,
    witness: &mut Witness,
    name: &str,
    fault: &FaultSpec,
    enforced: &mut Enforced,
) -> Result<Duration> {
    interrupt::check()?;
    let fault = fault.clone();
    let started = Instant::now();
    let answer = client.apply(name, fault, spec::PATIENCE)?;
    let took = started.elapsed();
    witness.mark()?;
    spec::ensure_injected(&answer, witness.targets())?;
    client.delete("", name)?;
    enforced.add(name, witness.targets(), witness.passed()?);
    Ok(took)
}

/// A partition between a target and the lab's first pod.
fn cut(lab: &Lab, target: &LabPod) -> FaultSpec {
    spec::fault(
        spec::netns(target),
        vec![spec::address(lab.pod(0).ipv4())],
        spec::partition(),
    )
}
