//! Actions and their amounts.

use std::time::Duration;

use crate::delay::Distribution;
use crate::model::{Action, Corrupt, CorruptKind, Delay, Loss, LossModel, Percent};
use crate::spec;

use super::Limits;
use super::report::Report;

const FIELD: &str = "spec.action";

/// `None` only when a violation was reported.
pub(super) fn check(report: &mut Report, action: &spec::Action, limits: &Limits) -> Option<Action> {
    let given = [
        ("partition", action.partition.is_some()),
        ("drop", action.drop.is_some()),
        ("corrupt", action.corrupt.is_some()),
        ("delay", action.delay.is_some()),
    ];
    report.exactly_one(FIELD, &given);
    let drop = action.drop.as_ref().and_then(|drop| {
        let percent = percent(report, "spec.action.drop.percent", drop.percent.unwrap_or(100.0))?;
        Some(Action::Drop(Loss {
            model: LossModel::Percent(percent),
            only: None,
        }))
    });
    let corrupt = action.corrupt.as_ref().and_then(|c| corrupt(report, c));
    let delay = action.delay.as_ref().map(|d| delay(report, d, limits));
    let partition = action.partition.as_ref().map(|_| Action::Partition);
    partition.or(drop).or(corrupt).or(delay)
}

pub(super) fn percent(report: &mut Report, field: &str, value: f64) -> Option<Percent> {
    let percent = Percent::new(value);
    if percent.is_none() {
        report.add(field, value, "a number from 0 to 100");
    }
    percent
}

fn corrupt(report: &mut Report, corrupt: &spec::Corrupt) -> Option<Action> {
    if let Some(kind) = corrupt.kind.as_deref()
        && kind != "payload"
    {
        report.add("spec.action.corrupt.kind", kind, "payload");
    }
    let percent = percent(report, "spec.action.corrupt.percent", corrupt.percent)?;
    Some(Action::Corrupt(Corrupt {
        percent,
        kind: CorruptKind::Payload,
        bits: 1,
        offset: (0, u32::MAX),
    }))
}

fn delay(report: &mut Report, delay: &spec::Delay, limits: &Limits) -> Action {
    let spec::Delay {
        latency,
        jitter,
        distribution,
        ..
    } = delay;
    let latency = &latency.unwrap_or_default();
    let jitter = jitter.unwrap_or_default();
    let text = |d: Duration| humantime::format_duration(d).to_string();
    if latency.is_zero() || *latency > limits.max_latency {
        let allowed = format!("a duration above 0 and up to {}", text(limits.max_latency));
        report.add("spec.action.delay.latency", text(*latency), allowed);
    }
    if jitter > *latency {
        let allowed = format!("a duration up to the latency, {}", text(*latency));
        report.add("spec.action.delay.jitter", text(jitter), allowed);
    }
    if let Some(distribution) = distribution.as_deref()
        && distribution != "uniform"
    {
        report.add("spec.action.delay.distribution", distribution, "uniform");
    }
    Action::Delay(Delay {
        latency: *latency,
        jitter,
        distribution: Distribution::Uniform,
        correlation: 0.0,
        allow_reorder: false,
    })
}
