//! Actions and their amounts.

mod delay;
mod loss;
mod rate;

use std::time::Duration;

use crate::model::{
    Action, Corrupt, CorruptKind, Duplicate, Percent, REORDER_PATIENCE, RejectCode, Reorder, ResetTo,
};
use crate::spec;

use super::Limits;
use super::report::{Report, duration_text};

pub(super) use rate::RATES;

const FIELD: &str = "spec.action";
const MAX_COPIES: u32 = 10;
const MAX_GAP: u32 = 1000;

/// `None` only when a violation was reported.
pub(super) fn check(report: &mut Report, action: &spec::Action, limits: &Limits) -> Option<Action> {
    let spec::Action {
        partition,
        drop,
        corrupt: changed,
        duplicate: copied,
        reorder: shuffled,
        rate_limit,
        reject: answered,
        reset: closed,
        delay,
    } = action;
    let given = [
        ("partition", partition.is_some()),
        ("drop", drop.is_some()),
        ("corrupt", changed.is_some()),
        ("duplicate", copied.is_some()),
        ("reorder", shuffled.is_some()),
        ("rateLimit", rate_limit.is_some()),
        ("reject", answered.is_some()),
        ("reset", closed.is_some()),
        ("delay", delay.is_some()),
    ];
    report.exactly_one(FIELD, &given);
    let checked = [
        partition.as_ref().map(|spec::Partition {}| Action::Partition),
        drop.as_ref()
            .and_then(|d| loss::check(report, d))
            .map(Action::Drop),
        changed
            .as_ref()
            .and_then(|c| corrupt(report, c))
            .map(Action::Corrupt),
        copied
            .as_ref()
            .and_then(|d| duplicate(report, d, limits))
            .map(Action::Duplicate),
        shuffled
            .as_ref()
            .and_then(|r| reorder(report, r, limits))
            .map(Action::Reorder),
        rate_limit
            .as_ref()
            .and_then(|r| rate::check(report, r, limits))
            .map(Action::RateLimit),
        answered
            .as_ref()
            .and_then(|r| reject(report, r))
            .map(Action::Reject),
        closed.as_ref().and_then(|r| reset(report, r)).map(Action::Reset),
        delay
            .as_ref()
            .and_then(|d| delay::check(report, d, limits))
            .map(Action::Delay),
    ];
    checked.into_iter().flatten().next()
}

pub(super) fn percent(report: &mut Report, field: &str, value: f64) -> Option<Percent> {
    let percent = Percent::new(value);
    if percent.is_none() {
        report.add(field, value, "a number from 0 to 100");
    }
    percent
}

fn corrupt(report: &mut Report, corrupt: &spec::Corrupt) -> Option<Corrupt> {
    let kinds = [("payload", CorruptKind::Payload), ("wire", CorruptKind::Wire)];
    let kind = report.choice("spec.action.corrupt.kind", corrupt.kind.as_deref(), &kinds);
    let percent = percent(report, "spec.action.corrupt.percent", corrupt.percent);
    let bits = corrupt.bits.unwrap_or(1);
    let narrow = u8::try_from(bits).ok().filter(|bits| (1..=8).contains(bits));
    if narrow.is_none() {
        let allowed = "a number of bits from 1 to 8, which are all in one byte";
        report.add("spec.action.corrupt.bits", bits, allowed);
    }
    let offset = corrupt.offset.as_ref().map_or((0, u32::MAX), |offset| {
        (offset.from.unwrap_or(0), offset.to.unwrap_or(u32::MAX))
    });
    let (from, to) = offset;
    if from >= to {
        let allowed = "a range of bytes of the payload whose `to`, the byte behind its last, is above `from`";
        report.add(
            "spec.action.corrupt.offset",
            format!("from {from} to {to}"),
            allowed,
        );
    }
    Some(Corrupt {
        percent: percent?,
        kind: kind?,
        bits: narrow?,
        offset,
    })
}

fn duplicate(report: &mut Report, duplicate: &spec::Duplicate, limits: &Limits) -> Option<Duplicate> {
    let percent = percent(report, "spec.action.duplicate.percent", duplicate.percent);
    let given = duplicate.copies.unwrap_or(1);
    let copies = u8::try_from(given)
        .ok()
        .filter(|_| (1..=MAX_COPIES).contains(&given));
    if copies.is_none() {
        let allowed = format!("a number of copies from 1 to {MAX_COPIES}");
        report.add("spec.action.duplicate.copies", given, allowed);
    }
    let delay = duplicate.delay.unwrap_or_default();
    if delay > limits.max_latency {
        let allowed = format!("a duration up to {}", duration_text(limits.max_latency));
        report.add("spec.action.duplicate.delay", duration_text(delay), allowed);
    }
    Some(Duplicate {
        percent: percent?,
        copies: copies?,
        delay,
    })
}

fn reorder(report: &mut Report, reorder: &spec::Reorder, limits: &Limits) -> Option<Reorder> {
    let percent = percent(report, "spec.action.reorder.percent", reorder.percent);
    if reorder.gap.is_none() && reorder.delay.is_none() {
        report.missing(
            "spec.action.reorder",
            "gap, delay or both, which say how far back a packet falls",
        );
    }
    if let Some(gap) = reorder.gap
        && !(1..=MAX_GAP).contains(&gap)
    {
        let allowed = format!("a number of packets from 1 to {MAX_GAP}");
        report.add("spec.action.reorder.gap", gap, allowed);
    }
    // A bound below the usual patience bounds that too.
    let delay = reorder.delay.unwrap_or(REORDER_PATIENCE.min(limits.max_latency));
    held(report, "spec.action.reorder.delay", delay, limits);
    Some(Reorder {
        percent: percent?,
        gap: reorder.gap,
        delay,
    })
}

/// Reports a time for which packets can't be held.
fn held(report: &mut Report, field: &str, time: Duration, limits: &Limits) {
    if time.is_zero() || time > limits.max_latency {
        let allowed = format!(
            "a duration above 0 and up to {}",
            duration_text(limits.max_latency)
        );
        report.add(field, duration_text(time), allowed);
    }
}

fn reject(report: &mut Report, reject: &spec::Reject) -> Option<RejectCode> {
    let codes = [
        ("port-unreachable", RejectCode::PortUnreachable),
        ("net-unreachable", RejectCode::NetUnreachable),
        ("host-unreachable", RejectCode::HostUnreachable),
        ("admin-prohibited", RejectCode::AdminProhibited),
    ];
    report.choice("spec.action.reject.code", reject.code.as_deref(), &codes)
}

fn reset(report: &mut Report, reset: &spec::Reset) -> Option<ResetTo> {
    let ends = [
        ("both", ResetTo::Both),
        ("target", ResetTo::Target),
        ("peer", ResetTo::Peer),
    ];
    report.choice("spec.action.reset.to", reset.to.as_deref(), &ends)
}
