//! Pulses and ramps.

use std::time::Duration;

use crate::model::{Action, Delay, LossModel, Percent, Pulse, Ramp};
use crate::spec;

use super::Limits;
use super::action::RATES;
use super::report::{Report, duration_text};

/// What the kernel's clock can tell apart from none.
const SHORTEST: Duration = Duration::from_millis(1);
/// Percent of the action's value that a ramp may reach.
const STEEPEST: f64 = 1000.0;

/// `duration` is the fault's, where it has one.
pub(super) fn pulse(report: &mut Report, pulse: &spec::Pulse, duration: Option<Duration>) -> Pulse {
    for (name, given) in [("onTime", pulse.on_time), ("offTime", pulse.off_time)] {
        if given < SHORTEST || duration.is_some_and(|duration| given >= duration) {
            let below = duration.map_or_else(
                || " on".to_owned(),
                |duration| format!(" to below the fault's, {}", duration_text(duration)),
            );
            let allowed = format!("a duration from {}{below}", duration_text(SHORTEST));
            report.add(format!("spec.pulse.{name}"), duration_text(given), allowed);
        }
    }
    Pulse {
        on: pulse.on_time,
        off: pulse.off_time,
    }
}

/// `None` only when a violation was reported. `action` is absent where it has violations of its own.
pub(super) fn ramp(
    report: &mut Report,
    ramp: &spec::Ramp,
    duration: Option<Duration>,
    action: Option<&Action>,
    limits: &Limits,
) -> Option<Ramp> {
    if ramp.over.is_zero() || duration.is_some_and(|duration| ramp.over > duration) {
        let most = duration.map(|duration| format!(" and up to the fault's, {}", duration_text(duration)));
        let allowed = format!("a duration above 0{}", most.unwrap_or_default());
        report.add("spec.ramp.over", duration_text(ramp.over), allowed);
    }
    let (least, most) = match action.map(|action| (action, bounds(action, limits))) {
        Some((_, Some(bounds))) => bounds,
        Some((action, None)) => {
            let allowed = format!(
                "no ramp with this {}; one goes with drop (percent, flows, or only alone), corrupt, duplicate, reorder, \
                 delay and rateLimit",
                action.name()
            );
            report.add("spec.ramp", "a ramp", allowed);
            return None;
        }
        None => (0.0, STEEPEST),
    };
    // The bound is shown so that what is shown is allowed.
    let shown = (most * 1000.0).floor() / 1000.0;
    for (name, value) in [
        ("from", ramp.from.unwrap_or(0.0)),
        ("to", ramp.to.unwrap_or(100.0)),
    ] {
        if !(least..=most).contains(&value) {
            let allowed = format!("a percent of the action's value from {least} to {shown}");
            report.add(format!("spec.ramp.{name}"), value, allowed);
        }
    }
    Some(Ramp {
        over: ramp.over,
        from: ramp.from.unwrap_or(0.0) / 100.0,
        to: ramp.to.unwrap_or(100.0) / 100.0,
    })
}

/// From which percent of its value to which an action can go: a share stays a share, a delay within the daemon's limit,
/// and a rate within those that there are. `None`: it has no value that could move.
fn bounds(action: &Action, limits: &Limits) -> Option<(f64, f64)> {
    let up_to = |value: f64, bound: f64| {
        let most = if value > 0.0 {
            100.0 * bound / value
        } else {
            STEEPEST
        };
        (0.0, most.min(STEEPEST))
    };
    let share = |percent: Percent| up_to(percent.value(), 100.0);
    match action {
        Action::Drop(loss) => match loss.model {
            LossModel::Percent(percent) | LossModel::Flows(percent) => Some(share(percent)),
            LossModel::GilbertElliott(_) | LossModel::EveryNth(_) | LossModel::FirstOfConnection(_) => None,
        },
        Action::Corrupt(corrupt) => Some(share(corrupt.percent)),
        Action::Duplicate(duplicate) => Some(share(duplicate.percent)),
        Action::Reorder(reorder) => Some(share(reorder.percent)),
        Action::Delay(delay) => Some(up_to(height(delay), limits.max_latency.as_secs_f64())),
        // A rate of 0 would be a partition, and a slow one.
        Action::RateLimit(limit) => Some((1.0, up_to(limit.rate as f64, *RATES.end() as f64).1)),
        Action::Partition | Action::Reject(_) | Action::Reset(_) => None,
    }
}

/// The seconds that the daemon's limit is about: the latency or the last quantile.
fn height(delay: &Delay) -> f64 {
    let height = match &delay.distribution {
        crate::delay::Distribution::Table(quantiles) => quantiles.last().copied().unwrap_or_default(),
        _ => delay.latency,
    };
    height.as_secs_f64()
}
