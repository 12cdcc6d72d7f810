//! Whatever a spec has that the wire can say comes back as it was.

use proptest::option::of;
use proptest::prelude::*;

use super::*;

fn text() -> BoxedStrategy<String> {
    "\\PC{0,8}".boxed()
}

fn number() -> BoxedStrategy<f64> {
    (-1e9..1e9_f64).boxed()
}

/// As long as the wire can say.
fn duration() -> BoxedStrategy<Duration> {
    (0..=i64::MAX as u64, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
        .boxed()
}

fn time() -> BoxedStrategy<SystemTime> {
    (0..253_402_300_799_u64, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
        .boxed()
}

fn lost() -> BoxedStrategy<spec::Drop> {
    let none = spec::Drop::default;
    let chain = (number(), number(), of(number()), of(number())).prop_map(|(p, r, loss_good, loss_bad)| {
        spec::GilbertElliott {
            p,
            r,
            loss_good,
            loss_bad,
        }
    });
    let nth = prop_oneof![
        Just((None, None)),
        any::<u32>().prop_map(|every| (Some(every), None)),
        any::<u32>().prop_map(|first| (None, Some(first))),
    ];
    let model = prop_oneof![
        Just(none()),
        number().prop_map(move |percent| spec::Drop {
            percent: Some(percent),
            ..none()
        }),
        chain.prop_map(move |chain| spec::Drop {
            gilbert_elliott: Some(chain),
            ..none()
        }),
        (number(), number()).prop_map(move |(percent, length)| spec::Drop {
            burst: Some(spec::Burst { percent, length }),
            ..none()
        }),
        nth.prop_map(move |(every, first)| spec::Drop {
            nth: Some(spec::Nth { every, first }),
            ..none()
        }),
        number().prop_map(move |percent| spec::Drop {
            flows: Some(spec::Flows { percent }),
            ..none()
        }),
    ];
    (model, of(text()))
        .prop_map(|(drop, only)| spec::Drop { only, ..drop })
        .boxed()
}

fn delay() -> BoxedStrategy<spec::Delay> {
    let base = prop_oneof![
        of(duration()).prop_map(|latency| (latency, Vec::new())),
        prop::collection::vec(duration(), 1..5).prop_map(|quantiles| (None, quantiles)),
    ];
    (base, of(duration()), of(text()), of(number()), of(any::<bool>()))
        .prop_map(
            |((latency, quantiles), jitter, distribution, correlation, allow_reorder)| spec::Delay {
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

fn rate_limit() -> BoxedStrategy<spec::RateLimit> {
    let queue = prop_oneof![
        Just((None, None)),
        text().prop_map(|bytes| (Some(bytes), None)),
        duration().prop_map(|time| (None, Some(time))),
    ];
    (text(), of(text()), queue)
        .prop_map(|(rate, burst, (queue_bytes, queue_time))| spec::RateLimit {
            rate,
            burst,
            queue_bytes,
            queue_time,
        })
        .boxed()
}

fn corrupt() -> BoxedStrategy<spec::Corrupt> {
    let offset = (of(any::<u32>()), of(any::<u32>())).prop_map(|(from, to)| spec::Offset { from, to });
    (of(text()), number(), of(any::<u32>()), of(offset))
        .prop_map(|(kind, percent, bits, offset)| spec::Corrupt {
            kind,
            percent,
            bits,
            offset,
        })
        .boxed()
}

fn action() -> BoxedStrategy<spec::Action> {
    let none = spec::Action::default;
    let counted = || (number(), of(any::<u32>()), of(duration()));
    prop_oneof![
        Just(none()),
        Just(spec::Action {
            partition: Some(spec::Partition {}),
            ..none()
        }),
        lost().prop_map(move |drop| spec::Action {
            drop: Some(drop),
            ..none()
        }),
        corrupt().prop_map(move |corrupt| spec::Action {
            corrupt: Some(corrupt),
            ..none()
        }),
        counted().prop_map(move |(percent, copies, delay)| spec::Action {
            duplicate: Some(spec::Duplicate {
                percent,
                copies,
                delay
            }),
            ..none()
        }),
        counted().prop_map(move |(percent, gap, delay)| spec::Action {
            reorder: Some(spec::Reorder { percent, gap, delay }),
            ..none()
        }),
        rate_limit().prop_map(move |limit| spec::Action {
            rate_limit: Some(limit),
            ..none()
        }),
        of(text()).prop_map(move |code| spec::Action {
            reject: Some(spec::Reject { code }),
            ..none()
        }),
        of(text()).prop_map(move |to| spec::Action {
            reset: Some(spec::Reset { to }),
            ..none()
        }),
        delay().prop_map(move |delay| spec::Action {
            delay: Some(delay),
            ..none()
        }),
    ]
    .boxed()
}

fn service_port() -> BoxedStrategy<spec::PortRef> {
    prop_oneof![
        any::<u32>().prop_map(spec::PortRef::Number),
        text().prop_map(spec::PortRef::Name),
    ]
    .boxed()
}

fn peer() -> BoxedStrategy<spec::Peer> {
    let none = spec::Peer::default;
    prop_oneof![
        Just(none()),
        text().prop_map(move |ip| spec::Peer {
            ip: Some(ip),
            ..none()
        }),
        (text(), prop::collection::vec(text(), 0..3)).prop_map(move |(cidr, except)| spec::Peer {
            cidr: Some(cidr),
            except,
            ..none()
        }),
        text().prop_map(move |host| spec::Peer {
            host: Some(host),
            ..none()
        }),
        (of(text()), text(), of(service_port())).prop_map(move |(namespace, name, port)| spec::Peer {
            service: Some(spec::ServiceRef {
                namespace,
                name,
                port
            }),
            ..none()
        }),
        text().prop_map(move |node| spec::Peer {
            node: Some(node),
            ..none()
        }),
    ]
    .boxed()
}

fn port() -> BoxedStrategy<spec::Port> {
    let number = || of(any::<u32>());
    (of(text()), number(), number(), of(text()), number(), number())
        .prop_map(
            |(protocol, port, end_port, end, icmp_type, icmp_code)| spec::Port {
                protocol,
                port,
                end_port,
                end,
                icmp_type,
                icmp_code,
            },
        )
        .boxed()
}

fn packets() -> BoxedStrategy<spec::Packets> {
    let points = prop::collection::vec(any::<u32>(), 0..4);
    (points, of(any::<u32>()), of(any::<u32>()))
        .prop_map(|(dscp, min_length, max_length)| spec::Packets {
            dscp,
            min_length,
            max_length,
        })
        .boxed()
}

fn any_spec() -> impl Strategy<Value = spec::FaultSpec> {
    let pulse = (duration(), duration()).prop_map(|(on_time, off_time)| spec::Pulse { on_time, off_time });
    let ramp =
        (duration(), of(number()), of(number())).prop_map(|(over, from, to)| spec::Ramp { over, from, to });
    (
        (of(duration()), of(time())),
        prop::collection::vec(peer(), 0..4),
        prop::collection::vec(port(), 0..4),
        of(packets()),
        (of(any::<u64>()), of(any::<u32>())),
        (of(pulse), of(ramp)),
        action(),
    )
        .prop_map(
            |((duration, starts_at), peers, ports, packets, (seed, sample_every), (pulse, ramp), action)| {
                spec::FaultSpec {
                    duration,
                    starts_at,
                    peers,
                    ports,
                    packets,
                    seed,
                    sample_every,
                    pulse,
                    ramp,
                    action,
                    ..spec::FaultSpec::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn any_spec_survives_the_round_trip_in_bytes(spec in any_spec()) {
        use prost::Message as _;
        let bytes = spec_to_proto(&spec).expect("one kind of each").encode_to_vec();
        let proto = v1::FaultSpec::decode(bytes.as_slice()).expect("what was encoded");
        prop_assert_eq!(spec_from_proto(proto), Ok(spec));
    }
}
