//! Actions.

use sabot_core::spec;

use super::{duration_from_proto, keep, optional_duration, required};
use crate::convert::FieldError;
use crate::sabot::v1;

pub(super) fn action(proto: v1::Action, errors: &mut Vec<FieldError>) -> spec::Action {
    use v1::action::Kind;
    let mut action = spec::Action::default();
    match proto.kind {
        Some(Kind::Partition(v1::Partition {})) => action.partition = Some(spec::Partition {}),
        Some(Kind::Drop(proto)) => action.drop = Some(drop(proto, errors)),
        Some(Kind::Corrupt(proto)) => action.corrupt = Some(corrupt(proto, errors)),
        Some(Kind::Duplicate(proto)) => action.duplicate = Some(duplicate(proto, errors)),
        Some(Kind::Reorder(proto)) => action.reorder = Some(reorder(proto, errors)),
        Some(Kind::RateLimit(proto)) => action.rate_limit = Some(rate_limit(proto, errors)),
        Some(Kind::Reject(v1::Reject { code })) => action.reject = Some(spec::Reject { code }),
        Some(Kind::Reset(v1::Reset { to })) => action.reset = Some(spec::Reset { to }),
        Some(Kind::Delay(proto)) => action.delay = Some(delay(proto, errors)),
        None => {}
    }
    action
}

fn drop(proto: v1::Drop, errors: &mut Vec<FieldError>) -> spec::Drop {
    use v1::drop::Model;
    use v1::nth::Which;
    let mut need = |name: &str, value| keep(required(&format!("spec.action.drop.{name}"), value), errors);
    let mut drop = spec::Drop {
        only: proto.only,
        ..spec::Drop::default()
    };
    match proto.model {
        Some(Model::Percent(percent)) => drop.percent = Some(percent),
        Some(Model::GilbertElliott(chain)) => {
            drop.gilbert_elliott = Some(spec::GilbertElliott {
                p: need("gilbertElliott.p", chain.p),
                r: need("gilbertElliott.r", chain.r),
                loss_good: chain.loss_good,
                loss_bad: chain.loss_bad,
            });
        }
        Some(Model::Burst(burst)) => {
            drop.burst = Some(spec::Burst {
                percent: need("burst.percent", burst.percent),
                length: need("burst.length", burst.length),
            });
        }
        Some(Model::Nth(nth)) => {
            let (every, first) = match nth.which {
                Some(Which::Every(every)) => (Some(every), None),
                Some(Which::First(first)) => (None, Some(first)),
                None => (None, None),
            };
            drop.nth = Some(spec::Nth { every, first });
        }
        Some(Model::Flows(flows)) => {
            drop.flows = Some(spec::Flows {
                percent: need("flows.percent", flows.percent),
            });
        }
        None => {}
    }
    drop
}

fn corrupt(proto: v1::Corrupt, errors: &mut Vec<FieldError>) -> spec::Corrupt {
    spec::Corrupt {
        kind: proto.kind,
        percent: keep(required("spec.action.corrupt.percent", proto.percent), errors),
        bits: proto.bits,
        offset: proto.offset.map(|offset| spec::Offset {
            from: offset.from,
            to: offset.to,
        }),
    }
}

fn duplicate(proto: v1::Duplicate, errors: &mut Vec<FieldError>) -> spec::Duplicate {
    let delay = optional_duration("spec.action.duplicate.delay", proto.delay);
    spec::Duplicate {
        percent: keep(required("spec.action.duplicate.percent", proto.percent), errors),
        copies: proto.copies,
        delay: keep(delay, errors),
    }
}

fn reorder(proto: v1::Reorder, errors: &mut Vec<FieldError>) -> spec::Reorder {
    let delay = optional_duration("spec.action.reorder.delay", proto.delay);
    spec::Reorder {
        percent: keep(required("spec.action.reorder.percent", proto.percent), errors),
        gap: proto.gap,
        delay: keep(delay, errors),
    }
}

fn rate_limit(proto: v1::RateLimit, errors: &mut Vec<FieldError>) -> spec::RateLimit {
    use v1::rate_limit::Queue;
    let (bytes, time) = match proto.queue {
        Some(Queue::QueueBytes(bytes)) => (Some(bytes), None),
        Some(Queue::QueueTime(time)) => (None, Some(time)),
        None => (None, None),
    };
    spec::RateLimit {
        rate: proto.rate,
        burst: proto.burst,
        queue_bytes: bytes,
        queue_time: keep(optional_duration("spec.action.rateLimit.queueTime", time), errors),
    }
}

fn delay(proto: v1::Delay, errors: &mut Vec<FieldError>) -> spec::Delay {
    use v1::delay::Base;
    let mut delay = spec::Delay {
        distribution: proto.distribution,
        correlation: proto.correlation,
        allow_reorder: proto.allow_reorder,
        ..spec::Delay::default()
    };
    match proto.base {
        Some(Base::Latency(latency)) => {
            let latency = duration_from_proto("spec.action.delay.latency", latency).map(Some);
            delay.latency = keep(latency, errors);
        }
        Some(Base::Quantiles(quantiles)) => {
            let read = |(index, quantile)| {
                let field = format!("spec.action.delay.quantiles[{index}]");
                keep(duration_from_proto(&field, quantile), errors)
            };
            delay.quantiles = quantiles.values.into_iter().enumerate().map(read).collect();
        }
        None => {}
    }
    delay.jitter = keep(
        optional_duration("spec.action.delay.jitter", proto.jitter),
        errors,
    );
    delay
}
