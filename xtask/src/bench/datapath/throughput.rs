//! TCP throughput from pod to pod.

use std::time::Duration;

use anyhow::{Context, Result};
use sabot_proto::sabot::v1::{FaultSpec, Peer, action};

use super::Scene;
use super::iperf;
use crate::bench::measure::Samples;
use crate::bench::report::{Figure, Report, Statistic};
use crate::bench::spec;
use crate::interrupt;
use crate::ui::Step;

/// An address that nobody sends to (TEST-NET-3).
const STRANGER: &str = "203.0.113.1";
/// The case that the goal is about.
const UNMATCHED: &str = "unmatched fault (partition of another peer)";
const GOAL: f64 = 0.98;

/// One way of treating the sender.
struct Case {
    name: &'static str,
    kind: Kind,
    seconds: u32,
    gbits: Samples,
    /// To the untouched pod in the same round.
    ratios: Samples,
}

enum Kind {
    /// Nothing is attached to the sender.
    Untouched,
    /// The same with another pod: how much two runs of the same differ.
    Control,
    Faulted(Box<FaultSpec>),
}

impl Case {
    fn new(name: &'static str, seconds: u32, kind: Kind) -> Self {
        Self {
            name,
            kind,
            seconds,
            gbits: Samples::default(),
            ratios: Samples::default(),
        }
    }
}

pub(super) fn measure(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let rounds = scene.plan.repetitions(9, 1);
    let mut cases = cases(scene);
    let step = Step::start("throughput, all cases in turn");
    let mut unmatched = 0;
    for round in 0..rounds {
        step.note(&format!("round {} of {rounds}", round + 1));
        let mut gbits = Vec::new();
        // Every other round runs backwards, so that a machine that gets slower or faster favours nobody.
        let mut order: Vec<usize> = (0..cases.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            interrupt::check()?;
            let case = &cases[index];
            let (bits, matched) = run(scene, case).context(case.name)?;
            gbits.push((index, bits / 1e9));
            if case.name == UNMATCHED {
                unmatched += matched;
            }
        }
        let base = gbits
            .iter()
            .find(|(index, _)| *index == 0)
            .map_or(f64::NAN, |(_, gbits)| *gbits);
        for (index, gbits) in gbits {
            cases[index].gbits.push(gbits);
            cases[index].ratios.push(gbits / base);
        }
    }
    step.done(&format!("{rounds} rounds of {} cases", cases.len()));
    let section = report.section("TCP throughput from pod to pod (iperf3, one stream)");
    let nothing = cases[0].gbits.spread();
    for case in &cases[1..] {
        let throughput = Figure::new("throughput", "Gbit/s", case.gbits.spread())
            .more_is_better()
            .against("nothing attached", nothing);
        let ratio = Figure::new("to nothing attached", "", case.ratios.spread()).more_is_better();
        let ratio = if case.name == UNMATCHED {
            ratio.at_least(Statistic::P50, GOAL)
        } else {
            ratio
        };
        section.row(case.name, vec![throughput, ratio]);
    }
    report.check(
        "the unmatched fault matched nothing",
        unmatched == 0,
        format!("{unmatched} packets"),
    );
    Ok(())
}

/// The untouched sender first, and beside it what is compared most closely.
fn cases(scene: &Scene<'_>) -> Vec<Case> {
    let server = || vec![spec::address(scene.server().ipv4())];
    let stranger = vec![spec::network(format!("{STRANGER}/32"))];
    let fault = |peers: Vec<Peer>, action: action::Kind| {
        let fault = spec::fault(spec::netns(scene.faulted()), peers, action);
        Kind::Faulted(Box::new(fault))
    };
    let long = if scene.plan.quick { 1 } else { 2 };
    vec![
        Case::new("nothing attached", long, Kind::Untouched),
        Case::new(UNMATCHED, long, fault(stranger, spec::partition())),
        Case::new("control: nothing attached, another pod", long, Kind::Control),
        Case::new(
            "matched and passed (drop 0 %)",
            1,
            fault(server(), spec::drop_share(0.0)),
        ),
        Case::new(
            "all segmented, next to none lost (drop 0.001 %)",
            1,
            fault(server(), spec::drop_share(0.001)),
        ),
        Case::new("drop 1 %", 1, fault(server(), spec::drop_share(1.0))),
        Case::new(
            "delay 5 ms",
            1,
            fault(server(), spec::delay(Duration::from_millis(5))),
        ),
    ]
}

/// Bits per second, and how many packets a fault matched.
fn run(scene: &Scene<'_>, case: &Case) -> Result<(f64, u64)> {
    let stream = |from| iperf::stream(from, scene.server(), case.seconds);
    match &case.kind {
        Kind::Untouched => Ok((stream(scene.untouched())?, 0)),
        Kind::Control => Ok((stream(scene.filtered())?, 0)),
        Kind::Faulted(fault) => scene.under("throughput", (**fault).clone(), || stream(scene.faulted())),
    }
}
