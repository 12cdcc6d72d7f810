//! Delays.

use std::time::Duration;

use crate::delay::Distribution;
use crate::model::Delay;
use crate::spec;

use super::super::Limits;
use super::super::report::{Report, duration_text};
use super::held;

/// How many quantiles describe a distribution.
const QUANTILES: std::ops::RangeInclusive<usize> = 2..=1024;

/// `None` only when a violation was reported.
pub(super) fn check(report: &mut Report, delay: &spec::Delay, limits: &Limits) -> Option<Delay> {
    let (latency, jitter, distribution) = if delay.quantiles.is_empty() {
        spread(report, delay, limits)?
    } else {
        let table = table(report, delay, limits);
        (Duration::ZERO, Duration::ZERO, table)
    };
    let checked = Delay {
        latency,
        jitter,
        distribution,
        correlation: delay.correlation.unwrap_or(0.0) / 100.0,
        allow_reorder: delay.allow_reorder.unwrap_or(false),
    };
    if let Some(correlation) = delay.correlation {
        let field = "spec.action.delay.correlation";
        if !(0.0..100.0).contains(&correlation) {
            report.add(field, correlation, "a number from 0 to below 100");
        } else if checked.is_constant() {
            report.add(
                field,
                correlation,
                "nothing without jitter or quantiles: the delays are all the same",
            );
        }
    }
    if checked.allow_reorder && checked.is_constant() {
        let allowed = "false without jitter or quantiles: delays that are all the same reorder nothing";
        report.add("spec.action.delay.allowReorder", true, allowed);
    }
    Some(checked)
}

/// Latency, jitter and distribution.
///
/// The jitter is at most the latency for every distribution: a delay can't be below zero, and what would be becomes zero.
/// No uniform delay then is, and of normal ones a sixth at most; with more jitter the mean and the spread would no longer
/// be those asked for.
fn spread(
    report: &mut Report,
    delay: &spec::Delay,
    limits: &Limits,
) -> Option<(Duration, Duration, Distribution)> {
    let kinds = [
        ("uniform", Distribution::Uniform),
        ("normal", Distribution::Normal),
        ("pareto", Distribution::Pareto),
        ("paretoNormal", Distribution::ParetoNormal),
    ];
    let field = "spec.action.delay.distribution";
    let distribution = report.choice(field, delay.distribution.as_deref(), &kinds);
    let Some(latency) = delay.latency else {
        let max = duration_text(limits.max_latency);
        let allowed = format!("a duration above 0 and up to {max}, or quantiles in its place");
        report.missing("spec.action.delay.latency", allowed);
        return None;
    };
    held(report, "spec.action.delay.latency", latency, limits);
    let jitter = delay.jitter.unwrap_or_default();
    if jitter > latency {
        let allowed = format!("a duration up to the latency, {}", duration_text(latency));
        report.add("spec.action.delay.jitter", duration_text(jitter), allowed);
    }
    let distribution = distribution?;
    if jitter.is_zero() && distribution != Distribution::Uniform {
        let given = delay.distribution.as_deref().unwrap_or_default();
        report.add(field, given, "uniform, or a jitter above 0 beside it");
    }
    Some((latency, jitter, distribution))
}

fn table(report: &mut Report, delay: &spec::Delay, limits: &Limits) -> Distribution {
    let beside = [
        ("latency", delay.latency.map(duration_text)),
        ("jitter", delay.jitter.map(duration_text)),
        ("distribution", delay.distribution.clone()),
    ];
    for (name, given) in beside {
        if let Some(given) = given {
            report.add(
                format!("spec.action.delay.{name}"),
                given,
                "nothing beside quantiles",
            );
        }
    }
    let field = "spec.action.delay.quantiles";
    let quantiles = &delay.quantiles;
    if !QUANTILES.contains(&quantiles.len()) {
        let (least, most) = (QUANTILES.start(), QUANTILES.end());
        let allowed = format!("{least} to {most} durations, at equally spaced probabilities from 0 to 1");
        report.add(field, quantiles.len(), allowed);
    }
    if let Some(before) = quantiles.windows(2).position(|pair| pair[1] < pair[0]) {
        let allowed = format!(
            "at least {}, as the one before it",
            duration_text(quantiles[before])
        );
        let given = duration_text(quantiles[before + 1]);
        report.add(format!("{field}[{}]", before + 1), given, allowed);
    }
    if let Some(last) = quantiles.last() {
        held(
            report,
            &format!("{field}[{}]", quantiles.len() - 1),
            *last,
            limits,
        );
    }
    Distribution::Table(quantiles.as_slice().into())
}
