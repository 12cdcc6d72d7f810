//! Loss models.

use crate::loss::GilbertElliott;
use crate::model::{Handshake, Loss, LossModel, Percent};
use crate::spec;

use super::super::report::Report;
use super::percent;

const FIELD: &str = "spec.action.drop";
const LONGEST_BURST: f64 = 1e6;

/// `None` only when a violation was reported.
pub(super) fn check(report: &mut Report, drop: &spec::Drop) -> Option<Loss> {
    let given = [
        ("percent", drop.percent.is_some()),
        ("gilbertElliott", drop.gilbert_elliott.is_some()),
        ("burst", drop.burst.is_some()),
        ("nth", drop.nth.is_some()),
        ("flows", drop.flows.is_some()),
    ];
    let is_all = drop.only.is_some() && given.iter().all(|(_, given)| !given);
    if !is_all {
        report.exactly_one(FIELD, &given);
    }
    let models = [
        drop.percent
            .and_then(|value| percent(report, "spec.action.drop.percent", value))
            .map(LossModel::Percent),
        drop.gilbert_elliott
            .as_ref()
            .and_then(|g| gilbert_elliott(report, g)),
        drop.burst.as_ref().and_then(|b| burst(report, b)),
        drop.nth.as_ref().and_then(|n| nth(report, n)),
        drop.flows
            .as_ref()
            .and_then(|flows| percent(report, "spec.action.drop.flows.percent", flows.percent))
            .map(LossModel::Flows),
        is_all.then_some(LossModel::Percent(Percent(100.0))),
    ];
    let only = match drop.only.as_deref() {
        None => None,
        only => {
            let kinds = [("syn", Handshake::Syn), ("handshake", Handshake::Both)];
            Some(report.choice("spec.action.drop.only", only, &kinds)?)
        }
    };
    let model = models.into_iter().flatten().next()?;
    Some(Loss { model, only })
}

fn gilbert_elliott(report: &mut Report, given: &spec::GilbertElliott) -> Option<LossModel> {
    let mut share = |name: &str, value: f64| {
        let field = format!("{FIELD}.gilbertElliott.{name}");
        percent(report, &field, value).map(|percent| percent.value() / 100.0)
    };
    let p = share("p", given.p);
    let r = share("r", given.r);
    let loss_good = share("lossGood", given.loss_good.unwrap_or(0.0));
    let loss_bad = share("lossBad", given.loss_bad.unwrap_or(100.0));
    Some(LossModel::GilbertElliott(GilbertElliott {
        p: p?,
        r: r?,
        loss_good: loss_good?,
        loss_bad: loss_bad?,
    }))
}

fn burst(report: &mut Report, burst: &spec::Burst) -> Option<LossModel> {
    let spec::Burst {
        percent: given,
        length,
    } = *burst;
    let field = "spec.action.drop.burst.percent";
    let has_length = (1.0..=LONGEST_BURST).contains(&length);
    if !has_length {
        let allowed = format!("a mean number of packets from 1 to {LONGEST_BURST}");
        report.add("spec.action.drop.burst.length", length, allowed);
    }
    let loss = percent(report, field, given)?.value() / 100.0;
    if !has_length {
        return None;
    }
    let model = GilbertElliott::of_burst(loss, length);
    if model.is_none() {
        let most = (1e5 * length / (length + 1.0)).floor() / 1e3;
        let allowed = format!(
            "at most {most} with a mean length of {length}, since at least one packet passes between two bursts"
        );
        report.add(field, given, allowed);
    }
    model.map(LossModel::GilbertElliott)
}

fn nth(report: &mut Report, nth: &spec::Nth) -> Option<LossModel> {
    let field = "spec.action.drop.nth";
    report.exactly_one(
        field,
        &[("every", nth.every.is_some()), ("first", nth.first.is_some())],
    );
    for (name, value) in [("every", nth.every), ("first", nth.first)] {
        if value == Some(0) {
            report.add(format!("{field}.{name}"), 0, "a number of packets from 1 on");
        }
    }
    let every = nth.every.map(LossModel::EveryNth);
    every.or(nth.first.map(LossModel::FirstOfConnection))
}
