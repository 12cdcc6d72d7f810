//! Delays: distribution, correlation, and how exact a constant one is.

use std::time::Duration;

use anyhow::{Result, ensure};
use sabot_core::delay::{DelayShape, Distribution};
use sabot_testkit::Spec;
use sabot_testkit::statistics::{autocorrelation, ks_distance};
use sabot_testkit::traffic::{Arrival, StampedLoad};

use super::{Scene, median};
use crate::bench::measure::{Samples, Spread, single};
use crate::bench::report::{Figure, Report, Statistic};
use crate::interrupt;
use crate::ui::Step;

const LATENCY: Duration = Duration::from_millis(40);
/// In milliseconds.
const CONSTANT: [u64; 4] = [1, 10, 40, 100];
const JITTER: Duration = Duration::from_millis(10);

struct Case {
    name: String,
    yaml: String,
    distribution: Distribution,
    correlation: f64,
    ordered: bool,
}

fn cases() -> Vec<Case> {
    let spread = |name: &str, distribution: Distribution, correlation: f64, ordered: bool| Case {
        name: format!(
            "{name}, correlation {correlation}{}",
            if ordered { ", order kept" } else { "" }
        ),
        yaml: format!(
            "delay: {{latency: 40ms, jitter: 10ms, distribution: {name}, correlation: {}, allowReorder: {}}}",
            correlation * 100.0,
            !ordered
        ),
        distribution,
        correlation,
        ordered,
    };
    let quantiles = [10, 12, 15, 30, 80].map(Duration::from_millis);
    vec![
        spread("uniform", Distribution::Uniform, 0.0, false),
        spread("normal", Distribution::Normal, 0.0, false),
        spread("pareto", Distribution::Pareto, 0.0, false),
        spread("paretoNormal", Distribution::ParetoNormal, 0.0, false),
        Case {
            name: "quantiles 10, 12, 15, 30, 80 ms".to_owned(),
            yaml: "delay: {quantiles: [10ms, 12ms, 15ms, 30ms, 80ms], allowReorder: true}".to_owned(),
            distribution: Distribution::Table(quantiles.into()),
            correlation: 0.0,
            ordered: false,
        },
        spread("uniform", Distribution::Uniform, 0.5, false),
        spread("normal", Distribution::Normal, 0.8, false),
        spread("uniform", Distribution::Uniform, 0.0, true),
        spread("normal", Distribution::Normal, 0.0, true),
    ]
}

pub(super) fn measure(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    spread(scene, report)?;
    constant(scene, report)
}

fn spread(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let load = StampedLoad {
        datagrams: scene.plan.repetitions(20_000, 4_000) as u64,
        payload: 64,
        per_second: 4_000,
    };
    let step = Step::start("distributions of delay");
    let path = median(&scene.send(load)?)?;
    let mut rows = Vec::new();
    for case in cases() {
        interrupt::check()?;
        step.note(&case.name);
        let shape = DelayShape::new(LATENCY, JITTER, &case.distribution, case.correlation)?;
        let fault = scene.action(&case.yaml).egress().port("UDP", None);
        let (mut arrivals, _) = scene.under(fault, || scene.send(load))?;
        ensure!(arrivals.len() as u64 == load.datagrams, "datagrams are missing");
        arrivals.sort_unstable_by_key(|arrival| arrival.number);
        let added = |arrival: &Arrival| arrival.delay.saturating_sub(path).as_nanos() as u64;
        let delays: Vec<u64> = arrivals.iter().map(added).collect();
        let distance = ks_distance(&delays, |ns| shape.cdf(ns));
        let values: Vec<f64> = delays.iter().map(|ns| *ns as f64).collect();
        rows.push((case, distance, autocorrelation(&values, 1)));
    }
    step.done(&format!("{} runs of {} datagrams", rows.len(), load.datagrams));
    let section =
        report.section("delay 40 ms, jitter 10 ms: Kolmogorov-Smirnov distance and autocorrelation");
    for (case, distance, correlation) in &rows {
        section.row(
            case.name.clone(),
            vec![
                Figure::new("distance to asked", "", single(*distance)),
                Figure::new("asked autocorrelation", "", single(case.correlation)),
                Figure::new("achieved", "", single(*correlation)),
            ],
        );
    }
    let free = || rows.iter().filter(|(case, ..)| !case.ordered);
    // Fewer independent values tell less of their distribution: those that are correlated aren't held against the goal.
    let independent = free().filter(|(case, ..)| case.correlation == 0.0);
    let distance = independent.map(|(_, distance, _)| *distance).fold(0.0, f64::max);
    report.at_most("distance, worst of independent delays", distance, 0.02, "");
    let off = free().map(|(case, _, achieved)| (achieved - case.correlation).abs());
    report.at_most(
        "autocorrelation, furthest from asked",
        off.fold(0.0, f64::max),
        0.05,
        "",
    );
    Ok(())
}

/// Constant delays at 10,000 packets per second, beside the path's own jitter.
fn constant(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let load = StampedLoad {
        datagrams: scene.plan.repetitions(50_000, 5_000) as u64,
        payload: 64,
        per_second: 10_000,
    };
    let step = Step::start("constant delays");
    let mut rows = Vec::new();
    for asked in CONSTANT.map(Duration::from_millis) {
        interrupt::check()?;
        let none = scene.send(load)?;
        let path = median(&none)?;
        let fault = Spec::delay(scene.target(), asked).egress().port("UDP", None);
        let (delayed, _) = scene.under(fault, || scene.send(load))?;
        rows.push((asked, errors(&none, path), errors(&delayed, asked + path)));
    }
    step.done(&format!("{} times {} datagrams", rows.len(), load.datagrams));
    let section = report.section("distance from the asked delay, 10,000 packets per second");
    for (asked, own, errors) in rows {
        let errors = Figure::new("error", "us", errors)
            .against("no fault: the path's own", own)
            .at_most(Statistic::P50, 100.0)
            .at_most(Statistic::P99, 1_000.0);
        section.row(format!("delay {} ms", asked.as_millis()), vec![errors]);
    }
    Ok(())
}

/// How far the delays of datagrams are from what is expected, in microseconds.
pub(super) fn errors(arrivals: &[Arrival], expected: Duration) -> Spread {
    let mut errors = Samples::default();
    for arrival in arrivals {
        errors.push(arrival.delay.abs_diff(expected).as_secs_f64() * 1e6);
    }
    errors.spread()
}
