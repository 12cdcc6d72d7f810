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
use super::measure::Samples;
use super::report::{Figure, Report, Section};
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

    let section = report.section("from the call to the answer \"injected\": one target");
    row(section, "warm target", &one.warm);
    row(section, "cold target (fresh netns)", &one.cold);
    row(section, "warm target, --hook clsact", &one.warm_clsact);
    row(section, "cold target, --hook clsact", &one.cold_clsact);
    row(
        section,
        "beside: ipset + iptables, one process a command",
        &peers.one,
    );
    let section = report.section("from the call to the answer \"injected\": 50 targets in one fault");
    row(section, "cold targets (fresh daemon)", &fifty.cold);
    row(section, "warm targets", &fifty.warm);
    row(section, "cold targets, --hook clsact", &fifty.cold_clsact);
    row(section, "warm targets, --hook clsact", &fifty.warm_clsact);
    row(
        section,
        "never faulted before, --attach all",
        &fifty.attached_beforehand,
    );
    row(section, "beside: ipset + iptables, pod after pod", &peers.fifty);

    let p50 = |samples: &Samples| samples.spread().p50;
    report.compare("ipset + iptables / warm target", p50(&peers.one), p50(&one.warm));
    report.compare("ipset + iptables / cold target", p50(&peers.one), p50(&one.cold));
    let fifty_peers = p50(&peers.fifty);
    report.compare(
        "ipset + iptables on 50 / 50 warm targets",
        fifty_peers,
        p50(&fifty.warm),
    );
    report.compare(
        "ipset + iptables on 50 / 50 cold targets",
        fifty_peers,
        p50(&fifty.cold),
    );
    report.at_most("warm target, p99", one.warm.spread().p99, 2.0, "ms");
    report.at_most("cold target, p50", p50(&one.cold), 40.0, "ms");
    report.at_most("50 cold targets, p50", p50(&fifty.cold), 300.0, "ms");
    let Enforced { targets, late } = scene.enforced;
    report.check(
        "enforced when answered",
        late == 0,
        format!("{late} of {targets} targets let a packet through that was sent after the answer"),
    );
    Ok(())
}

fn row(section: &mut Section, name: &str, samples: &Samples) {
    section.row(name, vec![Figure::new("latency", "ms", samples.spread())]);
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
