//! `cargo xtask bench apply`: from the call over gRPC to the answer that says the fault is enforced.

mod fifty;
mod one;
mod peers;
mod witness;

use std::time::{Duration, Instant};

use anyhow::Result;
use sabot_proto::sabot::v1::FaultSpec;
use sabot_testkit::daemon::Client;
use sabot_testkit::{Lab, LabPod};

use self::witness::Witness;
use super::Plan;
use super::measure::{Samples, Spread};
use super::report::{Figure, Report, Statistic};
use super::spec;
use crate::interrupt;
use crate::ui::Step;

/// Targets of one fault.
const FIFTY: usize = 50;

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
}

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let step = Step::start("pods");
    // The first one is everybody's peer.
    let mut scene = Scene {
        plan,
        lab: Lab::new(1 + FIFTY)?,
        enforced: Enforced::default(),
    };
    step.done(&format!("{FIFTY} targets and their peer"));
    let one = one::measure(&mut scene)?;
    let fifty = fifty::measure(&mut scene)?;
    let peers = peers::measure(&scene)?;

    let (one_peer, fifty_peers) = (peers.one.spread(), peers.fifty.spread());
    let latency = |samples: &Samples, peer: Spread| {
        Figure::new("latency", "ms", samples.spread()).beside("ipset + iptables", peer)
    };
    let section = report.section("from the call to the answer \"injected\": one target");
    let warm = latency(&one.warm, one_peer)
        .at_most(Statistic::P99, 2.0)
        .at_least(Statistic::Advantage, 10.0);
    section.row("warm", vec![warm]);
    let cold = latency(&one.cold, one_peer)
        .at_most(Statistic::P50, 40.0)
        .at_least(Statistic::Advantage, 1.0);
    section.row("cold (fresh netns)", vec![cold]);
    section.row("warm, --hook clsact", vec![latency(&one.warm_clsact, one_peer)]);
    section.row("cold, --hook clsact", vec![latency(&one.cold_clsact, one_peer)]);
    let section = report.section("from the call to the answer \"injected\": 50 targets in one fault");
    let cold = latency(&fifty.cold, fifty_peers)
        .at_most(Statistic::P50, 300.0)
        .at_least(Statistic::Advantage, 4.0);
    section.row("cold (fresh daemon)", vec![cold]);
    for (name, samples) in [
        ("warm", &fifty.warm),
        ("cold, --hook clsact", &fifty.cold_clsact),
        ("warm, --hook clsact", &fifty.warm_clsact),
        ("never faulted before, --attach all", &fifty.attached_beforehand),
    ] {
        section.row(name, vec![latency(samples, fifty_peers)]);
    }
    let Enforced { targets, late } = scene.enforced;
    report.check(
        "enforced when answered",
        late == 0,
        format!("{late} of {targets} targets let a packet through that was sent after the answer"),
    );
    Ok(())
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
    enforced.targets += witness.targets();
    enforced.late += witness.passed()?;
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
