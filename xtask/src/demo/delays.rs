//! The baseline, and delays against it.

use std::time::Duration;

use anyhow::{Context, Result};
use sabot_testkit::traffic::ping;

use super::report::Outcome;
use super::scene::{Scene, ms};
use super::stage::{BYSTANDER, CLIENT, SERVER};
use crate::ui::Step;

const PINGS: u32 = 40;
const PACE: Duration = Duration::from_millis(20);
const LATENCY: Duration = Duration::from_millis(50);
const TOLERANCE: Duration = Duration::from_millis(1);

pub(super) fn baseline(scene: &mut Scene<'_>, step: &Step) -> Result<Outcome> {
    step.note("ping without a fault");
    let report = ping(&scene.pod(CLIENT).netns, scene.pod(SERVER).ip, PINGS, PACE)?;
    let median = report.median().context("no ping was answered")?;
    let answered = report.round_trips.len();
    Ok(Outcome {
        asked: format!(
            "{PINGS} of {PINGS} pings answered, median below {}",
            ms(Duration::from_millis(5))
        ),
        measured: format!(
            "{answered} answered, median {:.3} ms",
            median.as_secs_f64() * 1000.0
        ),
        ok: answered == PINGS as usize && median < Duration::from_millis(5),
    })
}

pub(super) fn one_way(scene: &mut Scene<'_>, step: &Step) -> Result<Outcome> {
    delay(scene, step, "egress", LATENCY)
}

pub(super) fn both_ways(scene: &mut Scene<'_>, step: &Step) -> Result<Outcome> {
    delay(scene, step, "both", 2 * LATENCY)
}

fn delay(scene: &mut Scene<'_>, step: &Step, direction: &str, added: Duration) -> Result<Outcome> {
    let latency = format!("{}ms", LATENCY.as_millis());
    let before = median(scene, CLIENT)?;
    scene.apply(
        step,
        &format!("demo-delay-{direction}"),
        &["delay", &latency, "--direction", direction],
        "60s",
    )?;
    let during = median(scene, CLIENT)?;
    let bystander = median(scene, BYSTANDER)?;
    scene.delete(step)?;
    let after = median(scene, CLIENT)?;
    let off = during.abs_diff(before + added);
    let is_exact = off <= TOLERANCE;
    let others = before.abs_diff(after).max(before.abs_diff(bystander));
    Ok(Outcome {
        asked: format!(
            "{direction}: ping {} ± {}, the bystander and afterwards as before",
            ms(before + added),
            ms(TOLERANCE)
        ),
        measured: format!(
            "ping {}, bystander {}, afterwards {}",
            ms(during),
            ms(bystander),
            ms(after)
        ),
        ok: is_exact && others <= TOLERANCE,
    })
}

fn median(scene: &Scene<'_>, from: usize) -> Result<Duration> {
    ping(&scene.pod(from).netns, scene.pod(SERVER).ip, PINGS, PACE)?
        .median()
        .context("no ping was answered")
}
