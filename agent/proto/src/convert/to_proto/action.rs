//! Actions.

use sabot_core::spec;

use super::{keep, one_of};
use crate::convert::{FieldError, duration_to_proto};
use crate::sabot::v1;

const FIELD: &str = "spec.action";

pub(super) fn action(action: &spec::Action, errors: &mut Vec<FieldError>) -> Option<v1::action::Kind> {
    use v1::action::Kind;
    let partition = action
        .partition
        .as_ref()
        .map(|spec::Partition {}| Kind::Partition(v1::Partition {}));
    let drop = action.drop.as_ref().map(|d| Kind::Drop(drop(d, errors)));
    let duplicate = action.duplicate.as_ref().map(|duplicate| {
        Kind::Duplicate(v1::Duplicate {
            percent: Some(duplicate.percent),
            copies: duplicate.copies,
            delay: duplicate.delay.map(duration_to_proto),
        })
    });
    let reorder = action.reorder.as_ref().map(|reorder| {
        Kind::Reorder(v1::Reorder {
            percent: Some(reorder.percent),
            gap: reorder.gap,
            delay: reorder.delay.map(duration_to_proto),
        })
    });
    let rate_limit = action
        .rate_limit
        .as_ref()
        .map(|limit| Kind::RateLimit(rate_limit(limit, errors)));
    let reject = action.reject.as_ref().map(|reject| {
        Kind::Reject(v1::Reject {
            code: reject.code.clone(),
        })
    });
    let reset = action
        .reset
        .as_ref()
        .map(|reset| Kind::Reset(v1::Reset { to: reset.to.clone() }));
    let delay = action.delay.as_ref().map(|d| Kind::Delay(delay(d, errors)));
    let kinds = [
        ("partition", partition),
        ("drop", drop),
        (
            "corrupt",
            action.corrupt.as_ref().map(|c| Kind::Corrupt(corrupt(c))),
        ),
        ("duplicate", duplicate),
        ("reorder", reorder),
        ("rateLimit", rate_limit),
        ("reject", reject),
        ("reset", reset),
        ("delay", delay),
    ];
    keep(one_of(FIELD, kinds), errors)
}

fn drop(drop: &spec::Drop, errors: &mut Vec<FieldError>) -> v1::Drop {
    use v1::drop::Model;
    let gilbert_elliott = drop.gilbert_elliott.as_ref().map(|chain| {
        Model::GilbertElliott(v1::GilbertElliott {
            p: Some(chain.p),
            r: Some(chain.r),
            loss_good: chain.loss_good,
            loss_bad: chain.loss_bad,
        })
    });
    let burst = drop.burst.as_ref().map(|burst| {
        Model::Burst(v1::Burst {
            percent: Some(burst.percent),
            length: Some(burst.length),
        })
    });
    let nth = drop.nth.as_ref().map(|n| Model::Nth(nth(n, errors)));
    let flows = drop.flows.as_ref().map(|flows| {
        Model::Flows(v1::Flows {
            percent: Some(flows.percent),
        })
    });
    let models = [
        ("percent", drop.percent.map(Model::Percent)),
        ("gilbertElliott", gilbert_elliott),
        ("burst", burst),
        ("nth", nth),
        ("flows", flows),
    ];
    v1::Drop {
        model: keep(one_of("spec.action.drop", models), errors),
        only: drop.only.clone(),
    }
}

fn nth(nth: &spec::Nth, errors: &mut Vec<FieldError>) -> v1::Nth {
    use v1::nth::Which;
    let which = [
        ("every", nth.every.map(Which::Every)),
        ("first", nth.first.map(Which::First)),
    ];
    v1::Nth {
        which: keep(one_of("spec.action.drop.nth", which), errors),
    }
}

fn corrupt(corrupt: &spec::Corrupt) -> v1::Corrupt {
    v1::Corrupt {
        kind: corrupt.kind.clone(),
        percent: Some(corrupt.percent),
        bits: corrupt.bits,
        offset: corrupt.offset.as_ref().map(|offset| v1::Offset {
            from: offset.from,
            to: offset.to,
        }),
    }
}

fn rate_limit(limit: &spec::RateLimit, errors: &mut Vec<FieldError>) -> v1::RateLimit {
    use v1::rate_limit::Queue;
    let queue = [
        ("queueBytes", limit.queue_bytes.clone().map(Queue::QueueBytes)),
        (
            "queueTime",
            limit.queue_time.map(duration_to_proto).map(Queue::QueueTime),
        ),
    ];
    v1::RateLimit {
        rate: limit.rate.clone(),
        burst: limit.burst.clone(),
        queue: keep(one_of("spec.action.rateLimit", queue), errors),
    }
}

fn delay(delay: &spec::Delay, errors: &mut Vec<FieldError>) -> v1::Delay {
    use v1::delay::Base;
    let quantiles = (!delay.quantiles.is_empty()).then(|| {
        Base::Quantiles(v1::Quantiles {
            values: delay.quantiles.iter().copied().map(duration_to_proto).collect(),
        })
    });
    let bases = [
        ("latency", delay.latency.map(duration_to_proto).map(Base::Latency)),
        ("quantiles", quantiles),
    ];
    v1::Delay {
        base: keep(one_of("spec.action.delay", bases), errors),
        jitter: delay.jitter.map(duration_to_proto),
        distribution: delay.distribution.clone(),
        correlation: delay.correlation,
        allow_reorder: delay.allow_reorder,
    }
}
