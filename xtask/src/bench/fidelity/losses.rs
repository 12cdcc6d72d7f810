//! Loss models: achieved against asked, and how long bursts are.

use std::time::Duration;

use anyhow::{Result, ensure};
use sabot_core::loss::GilbertElliott;
use sabot_testkit::statistics::{Bins, ChiSquare, bursts, geometric};
use sabot_testkit::traffic::{Bulk, StampedLoad};

use super::Scene;
use crate::bench::measure::single;
use crate::bench::report::{Figure, Report};
use crate::interrupt;
use crate::ui::Step;

const PATIENCE: Duration = Duration::from_secs(60);
const SIGMA: f64 = 4.0;
const PROBABILITY: f64 = 0.001;

/// A model, with its stationary loss, how much its variance exceeds that of independent losses, and the mean burst.
struct Model {
    name: &'static str,
    yaml: &'static str,
    share: f64,
    spread: f64,
    burst: Option<f64>,
}

fn models() -> Vec<Model> {
    let independent = |name, yaml, share: f64| Model {
        name,
        yaml,
        share,
        spread: 1.0,
        burst: Some(1.0 / (1.0 - share)),
    };
    let chain = GilbertElliott {
        p: 0.01,
        r: 0.2,
        loss_good: 0.005,
        loss_bad: 0.7,
    };
    let turns = chain.p + chain.r;
    vec![
        independent("percent 1", "drop: {percent: 1}", 0.01),
        independent("percent 10", "drop: {percent: 10}", 0.1),
        Model {
            name: "burst, 2 %, mean length 8",
            yaml: "drop: {burst: {percent: 2, length: 8}}",
            share: 0.02,
            // r is 1/8 and p is r * 0.02 / 0.98.
            spread: (2.0 - 0.125 / 0.98) / (0.125 / 0.98),
            burst: Some(8.0),
        },
        Model {
            name: "Gilbert-Elliott, p 1, r 20, 0.5 and 70 %",
            yaml: "drop: {gilbertElliott: {p: 1, r: 20, lossGood: 0.5, lossBad: 70}}",
            share: chain.stationary_loss(),
            spread: (2.0 - turns) / turns,
            burst: None,
        },
        Model {
            name: "every 10th",
            yaml: "drop: {nth: {every: 10}}",
            share: 0.1,
            spread: 0.0,
            burst: None,
        },
    ]
}

pub(super) fn measure(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let step = Step::start("loss models");
    let mut rows = Vec::new();
    let mut verdicts = Vec::new();
    for model in models() {
        interrupt::check()?;
        step.note(model.name);
        let (share, packets, fit) = datagrams(scene, &model)?;
        rows.push((format!("{}, UDP", model.name), model.share, share, fit));
        verdicts.push((model.name, sigmas(share, packets, &model), fit));
        let (share, packets) = stream(scene, &model)?;
        rows.push((format!("{}, bulk TCP", model.name), model.share, share, None));
        verdicts.push((model.name, sigmas(share, packets, &model), None));
    }
    step.done(&format!("{} runs", rows.len()));
    let section = report.section("wire packets lost");
    for (name, asked, achieved, fit) in rows {
        section.row(
            name,
            vec![
                Figure::new("asked", "%", single(asked * 100.0)),
                Figure::new("achieved", "%", single(achieved * 100.0)),
                Figure::new("bursts' fit", "p of chi-square", single(fit.unwrap_or(f64::NAN))),
            ],
        );
    }
    let worst = verdicts
        .iter()
        .map(|(_, sigmas, _)| sigmas.abs())
        .fold(0.0, f64::max);
    report.at_most("loss, furthest from asked", worst, SIGMA, "sigma");
    let least = verdicts.iter().filter_map(|(_, _, fit)| *fit).fold(1.0, f64::min);
    report.at_least(
        "burst lengths, least probability of chi-square",
        least,
        PROBABILITY,
    );
    Ok(())
}

fn sigmas(share: f64, packets: u64, model: &Model) -> f64 {
    let off = share - model.share;
    if model.spread == 0.0 {
        // At most one packet of an incomplete period.
        return if off.abs() * packets as f64 <= 1.0 {
            0.0
        } else {
            f64::INFINITY
        };
    }
    off / (model.share * (1.0 - model.share) * model.spread / packets as f64).sqrt()
}

/// The share that is lost of numbered datagrams, how many they were, and how well the bursts fit.
fn datagrams(scene: &Scene<'_>, model: &Model) -> Result<(f64, u64, Option<f64>)> {
    let load = StampedLoad {
        datagrams: scene.plan.repetitions(100_000, 10_000) as u64,
        payload: 64,
        per_second: 40_000,
    };
    let fault = scene.action(model.yaml).egress().port("UDP", None);
    let (arrivals, [egress, _]) = scene.under(fault, || scene.send(load))?;
    let mut lost = vec![true; load.datagrams as usize];
    for arrival in &arrivals {
        lost[arrival.number as usize] = false;
    }
    let missing = lost.iter().filter(|lost| **lost).count() as u64;
    ensure!(
        missing == egress.dropped.packets && egress.matched.packets == load.datagrams,
        "{missing} datagrams are missing, counted are {egress:?}"
    );
    let fit = model.burst.and_then(|length| {
        let bins = Bins::of(&bursts(lost), geometric(length));
        // A quick run has too few bursts of most lengths, and all of them stand together.
        let compares = bins.observed.len() > 1;
        compares.then(|| ChiSquare::of(&bins.observed, &bins.expected).probability())
    });
    Ok((missing as f64 / load.datagrams as f64, load.datagrams, fit))
}

/// The share of the wire packets of a bulk stream, which the kernel hands over as super-packets.
fn stream(scene: &Scene<'_>, model: &Model) -> Result<(f64, u64)> {
    let bytes = scene.plan.repetitions(150_000_000, 15_000_000) as u64;
    let fault = scene.action(model.yaml).egress().port("TCP", None);
    let ((), [egress, _]) = scene.under(fault, || {
        let (from, to) = (scene.target(), scene.peer());
        let sink = Bulk::listen(to.netns(), to.ipv4(), PATIENCE)?;
        let (sent, received) = sink.send_from(from.netns(), bytes, PATIENCE)?;
        ensure!(sent.sha256 == received.sha256, "the stream was altered");
        Ok(())
    })?;
    let share = egress.dropped.packets as f64 / egress.matched.packets as f64;
    Ok((share, egress.matched.packets))
}
