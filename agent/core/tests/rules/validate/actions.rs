//! Arbitrary actions, most of them nonsense, and valid ones.

use std::time::Duration;

use proptest::option::of;
use proptest::prelude::*;
use sabot_core::spec::{
    Action, Burst, Corrupt, Delay, Drop, Duplicate, Flows, GilbertElliott, Nth, Offset, Partition, RateLimit,
    Reject, Reorder, Reset,
};

use super::properties::{duration, number, text};

fn any_drop() -> BoxedStrategy<Drop> {
    let chain = (number(), number(), of(number()), of(number())).prop_map(|(p, r, loss_good, loss_bad)| {
        GilbertElliott {
            p,
            r,
            loss_good,
            loss_bad,
        }
    });
    let burst = (number(), number()).prop_map(|(percent, length)| Burst { percent, length });
    let nth = (of(any::<u32>()), of(any::<u32>())).prop_map(|(every, first)| Nth { every, first });
    let flows = number().prop_map(|percent| Flows { percent });
    let only = prop_oneof![text(), "syn|handshake"];
    (of(number()), of(chain), of(burst), of(nth), of(flows), of(only))
        .prop_map(|(percent, gilbert_elliott, burst, nth, flows, only)| Drop {
            percent,
            gilbert_elliott,
            burst,
            nth,
            flows,
            only,
        })
        .boxed()
}

fn any_delay() -> BoxedStrategy<Delay> {
    (
        of(duration()),
        of(duration()),
        of(text()),
        prop::collection::vec(duration(), 0..5),
        of(number()),
        of(any::<bool>()),
    )
        .prop_map(
            |(latency, jitter, distribution, quantiles, correlation, allow_reorder)| Delay {
                latency,
                jitter,
                distribution,
                quantiles,
                correlation,
                allow_reorder,
            },
        )
        .boxed()
}

fn amount() -> BoxedStrategy<String> {
    prop_oneof![text(), "[0-9]{0,12}(\\.[0-9]{0,3})?(k|M|g|)(bit|b|B|iB)?"].boxed()
}

fn any_rate_limit() -> BoxedStrategy<RateLimit> {
    (amount(), of(amount()), of(amount()), of(duration()))
        .prop_map(|(rate, burst, queue_bytes, queue_time)| RateLimit {
            rate,
            burst,
            queue_bytes,
            queue_time,
        })
        .boxed()
}

fn any_corrupt() -> BoxedStrategy<Corrupt> {
    let offset = (of(any::<u32>()), of(any::<u32>())).prop_map(|(from, to)| Offset { from, to });
    (of(text()), number(), of(any::<u32>()), of(offset))
        .prop_map(|(kind, percent, bits, offset)| Corrupt {
            kind,
            percent,
            bits,
            offset,
        })
        .boxed()
}

pub(super) fn any_action() -> BoxedStrategy<Action> {
    let duplicate =
        (number(), of(any::<u32>()), of(duration())).prop_map(|(percent, copies, delay)| Duplicate {
            percent,
            copies,
            delay,
        });
    let reorder = (number(), of(any::<u32>()), of(duration())).prop_map(|(percent, gap, delay)| Reorder {
        percent,
        gap,
        delay,
    });
    let reject = of(text()).prop_map(|code| Reject { code });
    let reset = of(text()).prop_map(|to| Reset { to });
    let one = prop_oneof![
        Just(Action {
            partition: Some(Partition {}),
            ..Action::default()
        }),
        any_drop().prop_map(|drop| Action {
            drop: Some(drop),
            ..Action::default()
        }),
        any_corrupt().prop_map(|corrupt| Action {
            corrupt: Some(corrupt),
            ..Action::default()
        }),
        duplicate.prop_map(|duplicate| Action {
            duplicate: Some(duplicate),
            ..Action::default()
        }),
        reorder.prop_map(|reorder| Action {
            reorder: Some(reorder),
            ..Action::default()
        }),
        any_rate_limit().prop_map(|rate_limit| Action {
            rate_limit: Some(rate_limit),
            ..Action::default()
        }),
        reject.prop_map(|reject| Action {
            reject: Some(reject),
            ..Action::default()
        }),
        reset.prop_map(|reset| Action {
            reset: Some(reset),
            ..Action::default()
        }),
        any_delay().prop_map(|delay| Action {
            delay: Some(delay),
            ..Action::default()
        }),
    ];
    (one, prop::bool::weighted(0.1)).prop_map(with_partition).boxed()
}

/// Two actions at once are as wrong as none.
fn with_partition((mut action, both): (Action, bool)) -> Action {
    if both {
        action.partition = Some(Partition {});
    }
    action
}

fn share() -> impl Strategy<Value = f64> {
    0.0..=100.0_f64
}

fn valid_drop() -> BoxedStrategy<Drop> {
    let only = || of("syn|handshake");
    let model = prop_oneof![
        share().prop_map(|percent| Drop {
            percent: Some(percent),
            ..Drop::default()
        }),
        (share(), share(), of(share()), of(share())).prop_map(|(p, r, loss_good, loss_bad)| Drop {
            gilbert_elliott: Some(GilbertElliott {
                p,
                r,
                loss_good,
                loss_bad
            }),
            ..Drop::default()
        }),
        (0.0..=50.0_f64, 1.0..1000.0_f64).prop_map(|(percent, length)| Drop {
            burst: Some(Burst { percent, length }),
            ..Drop::default()
        }),
        (1..=u32::MAX, any::<bool>()).prop_map(|(count, every)| Drop {
            nth: Some(Nth {
                every: every.then_some(count),
                first: (!every).then_some(count),
            }),
            ..Drop::default()
        }),
        share().prop_map(|percent| Drop {
            flows: Some(Flows { percent }),
            ..Drop::default()
        }),
    ];
    prop_oneof![
        5 => (model, only()).prop_map(|(drop, only)| Drop { only, ..drop }),
        1 => "syn|handshake".prop_map(|only| Drop { only: Some(only), ..Drop::default() }),
    ]
    .boxed()
}

fn valid_corrupt() -> BoxedStrategy<Corrupt> {
    let offset = (0..100_u32, 100..200_u32).prop_map(|(from, to)| Offset {
        from: Some(from),
        to: Some(to),
    });
    (of("payload|wire"), share(), of(1..=8_u32), of(offset))
        .prop_map(|(kind, percent, bits, offset)| Corrupt {
            kind,
            percent,
            bits,
            offset,
        })
        .boxed()
}

fn valid_rate_limit() -> BoxedStrategy<RateLimit> {
    let hold = (1..60_000_000_000_u64).prop_map(Duration::from_nanos);
    let rate = "[1-9][0-9]{0,2}(\\.[0-9])?(kbit|Mbit|mbit)";
    (rate, of("(2|16|64)(KiB|kB)"), of(hold))
        .prop_map(|(rate, burst, queue_time)| RateLimit {
            rate,
            burst,
            queue_bytes: None,
            queue_time,
        })
        .boxed()
}

fn valid_delay() -> BoxedStrategy<Delay> {
    let name = of("uniform|normal|pareto|paretoNormal");
    let jittered = (3..60_000_000_000_u64, name).prop_map(|(nanos, distribution)| Delay {
        latency: Some(Duration::from_nanos(nanos)),
        jitter: Some(Duration::from_nanos(nanos / 3)),
        distribution,
        ..Delay::default()
    });
    let table = prop::collection::vec(1..60_000_000_000_u64, 2..20).prop_map(|mut nanos| {
        nanos.sort_unstable();
        Delay {
            quantiles: nanos.into_iter().map(Duration::from_nanos).collect(),
            ..Delay::default()
        }
    });
    let constant = (1..60_000_000_000_u64).prop_map(|nanos| Delay {
        latency: Some(Duration::from_nanos(nanos)),
        ..Delay::default()
    });
    let spread = prop_oneof![jittered, table];
    prop_oneof![
        1 => constant,
        3 => (spread, of(0.0..100.0_f64), of(any::<bool>())).prop_map(|(delay, correlation, allow_reorder)| Delay {
            correlation,
            allow_reorder,
            ..delay
        }),
    ]
    .boxed()
}

pub(super) fn valid_action() -> BoxedStrategy<Action> {
    let hold = || (1..60_000_000_000_u64).prop_map(Duration::from_nanos);
    prop_oneof![
        Just(Action {
            partition: Some(Partition {}),
            ..Action::default()
        }),
        valid_drop().prop_map(|drop| Action {
            drop: Some(drop),
            ..Action::default()
        }),
        valid_corrupt().prop_map(|corrupt| Action {
            corrupt: Some(corrupt),
            ..Action::default()
        }),
        (share(), of(1..=10_u32), of(hold())).prop_map(|(percent, copies, delay)| Action {
            duplicate: Some(Duplicate {
                percent,
                copies,
                delay
            }),
            ..Action::default()
        }),
        (share(), 1..=1000_u32, of(hold())).prop_map(|(percent, gap, delay)| Action {
            reorder: Some(Reorder {
                percent,
                gap: Some(gap),
                delay
            }),
            ..Action::default()
        }),
        valid_rate_limit().prop_map(|rate_limit| Action {
            rate_limit: Some(rate_limit),
            ..Action::default()
        }),
        of("(net|host|port)-unreachable|admin-prohibited").prop_map(|code| Action {
            reject: Some(Reject { code }),
            ..Action::default()
        }),
        of("target|peer|both").prop_map(|to| Action {
            reset: Some(Reset { to }),
            ..Action::default()
        }),
        valid_delay().prop_map(|delay| Action {
            delay: Some(delay),
            ..Action::default()
        }),
    ]
    .boxed()
}
