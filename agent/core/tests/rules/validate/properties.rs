//! Arbitrary specs, most of them nonsense, and valid ones.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use sabot_core::model::BootTime;
use sabot_core::spec::{self, FaultSpec, Manifest, Metadata};
use sabot_core::{Instants, Limits, parse_manifests, to_yaml, validate};

use super::{HEAD, minimal};

fn text() -> impl Strategy<Value = String> {
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
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), 0.0..=100.0_f64]
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..100_u64).prop_map(Duration::from_millis),
        (0..=u64::MAX / 2).prop_map(Duration::from_secs)
    ]
}

fn selector() -> impl Strategy<Value = spec::LabelSelector> {
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
}

fn target() -> impl Strategy<Value = spec::Target> {
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
    (of(pods), of(text()), of(text())).prop_map(|(pods, netns, interface)| spec::Target {
        pods,
        netns,
        interface,
    })
}

fn peer() -> impl Strategy<Value = spec::Peer> {
    use prop::option::of;
    let pods =
        (of(text()), of(text()), of(selector())).prop_map(|(namespace, name, selector)| spec::PeerPods {
            namespace,
            name,
            selector,
        });
    (
        of(text()),
        of(text()),
        prop::collection::vec(text(), 0..3),
        of(pods),
    )
        .prop_map(|(ip, cidr, except, pods)| spec::Peer {
            ip,
            cidr,
            except,
            pods,
            host: None,
        })
}

fn action() -> impl Strategy<Value = spec::Action> {
    use prop::option::of;
    let corrupt = (of(text()), number()).prop_map(|(kind, percent)| spec::Corrupt {
        kind,
        percent,
        ..spec::Corrupt::default()
    });
    let delay =
        (duration(), of(duration()), of(text())).prop_map(|(latency, jitter, distribution)| spec::Delay {
            latency: Some(latency),
            jitter,
            distribution,
            ..spec::Delay::default()
        });
    (any::<bool>(), of(number()), of(corrupt), of(delay)).prop_map(|(partition, drop, corrupt, delay)| {
        spec::Action {
            partition: partition.then_some(spec::Partition {}),
            drop: drop.map(|percent| spec::Drop {
                percent: Some(percent),
                ..spec::Drop::default()
            }),
            corrupt,
            delay,
            ..spec::Action::default()
        }
    })
}

fn any_manifest() -> impl Strategy<Value = Manifest> {
    use prop::option::of;
    let port = (of(text()), of(any::<u32>())).prop_map(|(protocol, port)| spec::Port {
        protocol,
        port,
        ..spec::Port::default()
    });
    let start = of(prop_oneof![any::<SystemTime>(), Just(SystemTime::now())]);
    let traffic = (
        prop::collection::vec(peer(), 0..4),
        prop::collection::vec(port, 0..20),
    );
    (
        (text(), text()),
        of(duration()),
        start,
        target(),
        traffic,
        action(),
        of(any::<u32>()),
    )
        .prop_map(
            |((name, namespace), duration, starts_at, target, (peers, ports), action, sample_every)| {
                Manifest {
                    api_version: spec::API_VERSION.to_owned(),
                    kind: spec::KIND.to_owned(),
                    metadata: Metadata { name, namespace },
                    spec: FaultSpec {
                        duration,
                        starts_at,
                        target,
                        peers,
                        ports,
                        sample_every,
                        action,
                        ..FaultSpec::default()
                    },
                }
            },
        )
}

fn valid_manifest() -> impl Strategy<Value = Manifest> {
    let amount = 0.0..=100.0_f64;
    let action = prop_oneof![
        Just(spec::Action {
            partition: Some(spec::Partition {}),
            ..spec::Action::default()
        }),
        amount.clone().prop_map(|percent| spec::Action {
            drop: Some(spec::Drop {
                percent: Some(percent),
                ..spec::Drop::default()
            }),
            ..spec::Action::default()
        }),
        (amount, any::<bool>()).prop_map(|(percent, kind)| spec::Action {
            corrupt: Some(spec::Corrupt {
                kind: kind.then(|| "payload".to_owned()),
                percent,
                ..spec::Corrupt::default()
            }),
            ..spec::Action::default()
        }),
        (1..60_000_000_000_u64, any::<bool>()).prop_map(|(nanos, jitter)| spec::Action {
            delay: Some(spec::Delay {
                latency: Some(Duration::from_nanos(nanos)),
                jitter: jitter.then(|| Duration::from_nanos(nanos / 3)),
                ..spec::Delay::default()
            }),
            ..spec::Action::default()
        }),
    ];
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
        action,
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
