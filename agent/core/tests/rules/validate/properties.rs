//! Arbitrary specs, most of them nonsense, and valid ones.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use sabot_core::model::BootTime;
use sabot_core::spec::{self, FaultSpec, Manifest, Metadata};
use sabot_core::{Instants, Limits, parse_manifests, to_yaml, validate};

use super::actions::{any_action, valid_action};
use super::{HEAD, minimal};

pub(super) fn text() -> BoxedStrategy<String> {
    prop_oneof![
        Just(String::new()),
        "[a-z]{1,6}",
        "\\PC{0,12}",
        "(10|fd00:)[.0-9:]{0,8}(/[0-9]{1,3})?",
        Just("10.0.0.0/8".to_owned()),
        Just("::ffff:0:0/97".to_owned()),
        Just("/run/netns/x".to_owned()),
        Just("In".to_owned()),
        Just("TCP".to_owned()),
    ]
    .boxed()
}

pub(super) fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), 0.0..=100.0_f64]
}

pub(super) fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..100_u64).prop_map(Duration::from_millis),
        (0..=u64::MAX / 2).prop_map(Duration::from_secs)
    ]
}

fn selector() -> BoxedStrategy<spec::LabelSelector> {
    let expression =
        (text(), text(), prop::collection::vec(text(), 0..3)).prop_map(|(key, operator, values)| {
            spec::LabelExpression {
                key,
                operator,
                values,
            }
        });
    (
        prop::collection::btree_map(text(), text(), 0..3),
        prop::collection::vec(expression, 0..3),
    )
        .prop_map(|(match_labels, match_expressions)| spec::LabelSelector {
            match_labels,
            match_expressions,
        })
        .boxed()
}

fn target() -> BoxedStrategy<spec::Target> {
    use prop::option::of;
    let pick = (of(any::<u32>()), of(number()), any::<u64>()).prop_map(|(count, percent, seed)| spec::Pick {
        count,
        percent,
        seed,
    });
    let pods =
        (of(text()), of(text()), of(selector()), of(pick)).prop_map(|(namespace, name, selector, pick)| {
            spec::TargetPods {
                namespace,
                name,
                selector,
                pick,
            }
        });
    let pick = (of(any::<u32>()), any::<u64>()).prop_map(|(count, seed)| spec::Pick {
        count,
        percent: None,
        seed,
    });
    let service = (of(text()), text(), of(pick)).prop_map(|(namespace, name, pick)| spec::TargetService {
        namespace,
        name,
        pick,
    });
    (of(pods), of(text()), of(text()), of(service), of(text()))
        .prop_map(|(pods, netns, interface, service, node)| spec::Target {
            pods,
            netns,
            interface,
            service,
            node,
        })
        .boxed()
}

fn peer() -> BoxedStrategy<spec::Peer> {
    use prop::option::of;
    let pods =
        (of(text()), of(text()), of(selector())).prop_map(|(namespace, name, selector)| spec::PeerPods {
            namespace,
            name,
            selector,
        });
    let port = prop_oneof![
        any::<u32>().prop_map(spec::PortRef::Number),
        text().prop_map(spec::PortRef::Name),
    ];
    let service = (of(text()), text(), of(port)).prop_map(|(namespace, name, port)| spec::ServiceRef {
        namespace,
        name,
        port,
    });
    (
        of(text()),
        of(text()),
        prop::collection::vec(text(), 0..3),
        of(pods),
        of(text()),
        of(service),
        of(text()),
    )
        .prop_map(|(ip, cidr, except, pods, host, service, node)| spec::Peer {
            ip,
            cidr,
            except,
            pods,
            host,
            service,
            node,
        })
        .boxed()
}

fn port() -> BoxedStrategy<spec::Port> {
    use prop::option::of;
    let small = || of(prop_oneof![any::<u32>(), 0..70_000_u32]);
    let protocol = prop_oneof![text(), "TCP|UDP|ICMP"];
    let end = prop_oneof![text(), "source|destination"];
    (of(protocol), small(), small(), of(end), small(), small())
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

fn packets() -> impl Strategy<Value = spec::Packets> {
    use prop::option::of;
    (
        prop::collection::vec(prop_oneof![any::<u32>(), 0..70_u32], 0..4),
        of(any::<u32>()),
        of(0..70_000_u32),
    )
        .prop_map(|(dscp, min_length, max_length)| spec::Packets {
            dscp,
            min_length,
            max_length,
        })
}

fn pulse() -> impl Strategy<Value = spec::Pulse> {
    (duration(), duration()).prop_map(|(on_time, off_time)| spec::Pulse { on_time, off_time })
}

fn ramp() -> impl Strategy<Value = spec::Ramp> {
    use prop::option::of;
    (duration(), of(number()), of(number())).prop_map(|(over, from, to)| spec::Ramp { over, from, to })
}

fn any_manifest() -> impl Strategy<Value = Manifest> {
    use prop::option::of;
    let start = of(prop_oneof![any::<SystemTime>(), Just(SystemTime::now())]);
    let traffic = (
        prop::collection::vec(peer(), 0..4),
        prop::collection::vec(port(), 0..20),
        of(packets()),
    );
    let course = (of(pulse()), of(ramp()), of(any::<u64>()));
    (
        (text(), text()),
        of(duration()),
        start,
        target(),
        traffic,
        (any_action(), course),
        of(any::<u32>()),
    )
        .prop_map(
            |((name, namespace), duration, starts_at, target, traffic, (action, course), sample_every)| {
                let (peers, ports, packets) = traffic;
                let (pulse, ramp, seed) = course;
                Manifest {
                    api_version: spec::API_VERSION.to_owned(),
                    kind: spec::KIND.to_owned(),
                    metadata: Metadata { name, namespace },
                    spec: FaultSpec {
                        duration,
                        starts_at,
                        target,
                        peers,
                        direction: None,
                        ports,
                        packets,
                        spare_node: None,
                        allow_control_plane: None,
                        sample_every,
                        seed,
                        pulse,
                        ramp,
                        action,
                    },
                }
            },
        )
}

fn valid_manifest() -> impl Strategy<Value = Manifest> {
    let peer = (any::<u8>(), any::<bool>()).prop_map(|(second, range)| spec::Peer {
        ip: (!range).then(|| format!("10.{second}.0.1")),
        cidr: range.then(|| format!("10.{second}.0.0/16")),
        except: range.then(|| format!("10.{second}.7.0/24")).into_iter().collect(),
        ..spec::Peer::default()
    });
    let ahead = prop::option::of(0..3_000_000_000_000_u64);
    (
        "[a-z]{1,9}",
        1..3600_u64,
        ahead,
        prop::collection::vec(peer, 0..4),
        valid_action(),
    )
        .prop_map(|(name, seconds, ahead, peers, action)| Manifest {
            api_version: spec::API_VERSION.to_owned(),
            kind: spec::KIND.to_owned(),
            metadata: Metadata {
                name,
                namespace: "shop".to_owned(),
            },
            spec: FaultSpec {
                duration: Some(Duration::from_secs(seconds)),
                starts_at: ahead.map(|nanos| SystemTime::now() + Duration::from_nanos(nanos)),
                peers,
                action,
                ..minimal()
            },
        })
}

proptest! {
    #[test]
    fn no_spec_makes_validation_panic(manifest in any_manifest(), wide in any::<bool>()) {
        let max = if wide { Duration::MAX } else { Duration::from_secs(3600) };
        let limits = Limits { max_duration: max, max_latency: max, ..Limits::default() };
        match validate(&manifest.metadata, &manifest.spec, &limits) {
            Ok(valid) => {
                valid.fix(Instants { boot: BootTime(u64::MAX), wall: SystemTime::now() }, 7);
            }
            Err(violations) => {
                prop_assert!(!violations.is_empty());
                prop_assert!(violations.iter().all(|v| !v.field.is_empty() && !v.allowed.is_empty()));
            }
        }
    }

    #[test]
    fn valid_specs_round_trip_through_yaml(manifest in valid_manifest()) {
        let valid = validate(&manifest.metadata, &manifest.spec, &Limits::default());
        prop_assert!(valid.is_ok(), "{:?}", valid);
        let yaml = to_yaml(&manifest).expect("a time that can be written");
        prop_assert_eq!(parse_manifests(&yaml), Ok(vec![manifest]), "{}", yaml);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,60}", fields in "(\\PC|[\\n\\t]){0,60}") {
        let _ = (parse_manifests(&text), parse_manifests(&format!("{HEAD}{fields}}}")));
    }
}
