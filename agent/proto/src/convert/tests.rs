mod properties;

use super::*;
use sabot_core::spec;

fn delay() -> spec::Action {
    spec::Action {
        delay: Some(spec::Delay {
            latency: Some(Duration::from_millis(100)),
            jitter: Some(Duration::from_micros(1_500)),
            distribution: Some("uniform".into()),
            ..spec::Delay::default()
        }),
        ..spec::Action::default()
    }
}

fn full_spec() -> spec::FaultSpec {
    let selector = spec::LabelSelector {
        match_labels: [("app".to_owned(), "web".to_owned())].into(),
        match_expressions: vec![spec::LabelExpression {
            key: "tier".into(),
            operator: "NotIn".into(),
            values: vec!["test".into()],
        }],
    };
    spec::FaultSpec {
        duration: Some(Duration::from_millis(90_500)),
        starts_at: Some(SystemTime::UNIX_EPOCH + Duration::new(1_900_000_000, 7)),
        target: spec::Target {
            pods: Some(spec::TargetPods {
                namespace: Some("team-a".into()),
                name: None,
                selector: Some(selector.clone()),
                pick: Some(spec::Pick {
                    count: None,
                    percent: Some(50.0),
                    seed: 7,
                }),
            }),
            ..spec::Target::default()
        },
        peers: vec![
            spec::Peer {
                cidr: Some("10.0.0.0/8".into()),
                except: vec!["10.1.0.0/16".into()],
                ..spec::Peer::default()
            },
            spec::Peer {
                ip: Some("fd00::1".into()),
                ..spec::Peer::default()
            },
            spec::Peer {
                pods: Some(spec::PeerPods {
                    namespace: None,
                    name: Some("cli".into()),
                    selector: Some(selector),
                }),
                ..spec::Peer::default()
            },
        ],
        direction: Some(spec::Direction::Ingress),
        ports: vec![
            spec::Port {
                protocol: Some("UDP".into()),
                port: Some(53),
                ..spec::Port::default()
            },
            spec::Port::default(),
        ],
        spare_node: Some(false),
        allow_control_plane: Some(true),
        sample_every: Some(0),
        action: delay(),
        ..spec::FaultSpec::default()
    }
}

fn empty_spec() -> spec::FaultSpec {
    spec::FaultSpec {
        peers: vec![spec::Peer::default()],
        ..spec::FaultSpec::default()
    }
}

fn fields(errors: &[FieldError]) -> Vec<&str> {
    errors.iter().map(|e| e.field.as_str()).collect()
}

#[test]
fn every_field_survives_the_round_trip() {
    let spec = full_spec();
    let proto = spec_to_proto(&spec).expect("a valid spec converts");
    assert_eq!(spec_from_proto(proto).expect("and comes back"), spec);
}

#[test]
fn every_kind_of_target_and_action_survives_the_round_trip() {
    let targets = [
        spec::Target {
            netns: Some("/run/netns/x".into()),
            ..spec::Target::default()
        },
        spec::Target {
            interface: Some("eth0".into()),
            ..spec::Target::default()
        },
        spec::Target {
            service: Some(spec::TargetService {
                namespace: None,
                name: "payments".into(),
                pick: Some(spec::Pick {
                    count: Some(2),
                    ..spec::Pick::default()
                }),
            }),
            ..spec::Target::default()
        },
        spec::Target {
            node: Some("worker-1".into()),
            ..spec::Target::default()
        },
    ];
    let actions = [
        spec::Action {
            partition: Some(spec::Partition {}),
            ..spec::Action::default()
        },
        spec::Action {
            drop: Some(spec::Drop {
                percent: Some(12.5),
                ..spec::Drop::default()
            }),
            ..spec::Action::default()
        },
        spec::Action {
            corrupt: Some(spec::Corrupt {
                kind: None,
                percent: 0.1,
                ..spec::Corrupt::default()
            }),
            ..spec::Action::default()
        },
        delay(),
    ];
    for target in targets {
        for action in actions.clone() {
            let spec = spec::FaultSpec {
                target: target.clone(),
                action,
                ..full_spec()
            };
            let proto = spec_to_proto(&spec).expect("a valid spec converts");
            assert_eq!(spec_from_proto(proto).expect("and comes back"), spec);
        }
    }
}

#[test]
fn absence_stays_absence_for_validation_to_report() {
    let spec = empty_spec();
    let proto = spec_to_proto(&spec).expect("absent parts convert");
    assert_eq!(spec_from_proto(proto).expect("and come back"), spec);
    let mut bare = spec_from_proto(v1::FaultSpec::default()).expect("an empty message converts");
    bare.peers.push(spec::Peer::default());
    assert_eq!(bare, spec);
}

#[test]
fn two_kinds_of_one_thing_are_refused_towards_the_wire() {
    let mut spec = full_spec();
    spec.target.interface = Some("eth0".into());
    spec.peers[1].cidr = Some("10.0.0.0/8".into());
    spec.action.partition = Some(spec::Partition {});
    let errors = spec_to_proto(&spec).expect_err("the wire has room for one");
    assert_eq!(fields(&errors), ["spec.target", "spec.peers[1]", "spec.action"]);
    let mut spec = full_spec();
    spec.action = spec::Action {
        drop: Some(spec::Drop {
            percent: Some(1.0),
            nth: Some(spec::Nth {
                every: Some(1),
                first: Some(1),
            }),
            ..spec::Drop::default()
        }),
        ..spec::Action::default()
    };
    let inner = spec_to_proto(&spec).expect_err("the wire has room for one");
    assert_eq!(fields(&inner), ["spec.action.drop.nth", "spec.action.drop"]);
    assert_eq!(
        errors[0].description,
        "`pods` and `interface` are given; one of `pods`, `netns`, `interface`, `service`, `node` is allowed"
    );
}

#[test]
fn values_without_a_counterpart_are_all_named() {
    let negative = prost_types::Duration {
        seconds: -1,
        nanos: 0,
    };
    let proto = v1::FaultSpec {
        duration: Some(negative),
        starts_at: Some(prost_types::Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
        direction: 9,
        action: Some(v1::Action {
            kind: Some(v1::action::Kind::Delay(v1::Delay {
                base: Some(v1::delay::Base::Latency(negative)),
                jitter: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 1_000_000_000,
                }),
                ..v1::Delay::default()
            })),
        }),
        ..v1::FaultSpec::default()
    };
    let errors = spec_from_proto(proto).expect_err("nothing of it has a counterpart");
    assert_eq!(
        fields(&errors),
        [
            "spec.duration",
            "spec.startsAt",
            "spec.direction",
            "spec.action.delay.latency",
            "spec.action.delay.jitter",
        ]
    );
    assert_eq!(
        errors[3].description,
        "-1 s and 0 ns is not a duration of zero or more with 0 to 999999999 ns"
    );
}

#[test]
fn what_is_required_and_absent_is_not_zero() {
    use v1::action::Kind;
    let lost = |model| {
        Kind::Drop(v1::Drop {
            model: Some(model),
            only: None,
        })
    };
    let chain = v1::drop::Model::GilbertElliott(v1::GilbertElliott::default());
    let burst = v1::drop::Model::Burst(v1::Burst::default());
    let cases: [(Kind, &[&str]); 6] = [
        (Kind::Corrupt(v1::Corrupt::default()), &["corrupt.percent"]),
        (Kind::Duplicate(v1::Duplicate::default()), &["duplicate.percent"]),
        (Kind::Reorder(v1::Reorder::default()), &["reorder.percent"]),
        (lost(chain), &["drop.gilbertElliott.p", "drop.gilbertElliott.r"]),
        (lost(burst), &["drop.burst.percent", "drop.burst.length"]),
        (
            lost(v1::drop::Model::Flows(v1::Flows::default())),
            &["drop.flows.percent"],
        ),
    ];
    for (kind, missing) in cases {
        let proto = v1::FaultSpec {
            action: Some(v1::Action { kind: Some(kind) }),
            ..v1::FaultSpec::default()
        };
        let errors = spec_from_proto(proto).expect_err("it is required");
        let missing: Vec<_> = missing.iter().map(|name| format!("spec.action.{name}")).collect();
        assert_eq!(fields(&errors), missing);
    }
    let proto = v1::FaultSpec {
        pulse: Some(v1::Pulse::default()),
        ramp: Some(v1::Ramp::default()),
        ..v1::FaultSpec::default()
    };
    let errors = spec_from_proto(proto).expect_err("they are required");
    assert_eq!(
        fields(&errors),
        ["spec.pulse.onTime", "spec.pulse.offTime", "spec.ramp.over"]
    );
}

/// Bytes as a client of the first version writes them: what became a oneof since then has kept its numbers.
#[test]
fn the_first_versions_messages_are_still_read() {
    use prost::Message as _;
    // percent = 1 (double): 12.5
    let drop = v1::Drop::decode([9, 0, 0, 0, 0, 0, 0, 41, 64].as_slice()).expect("a drop");
    assert_eq!(drop.model, Some(v1::drop::Model::Percent(12.5)));
    // kind = 1, percent = 2
    let bytes = [
        b"\x0a\x07payload\x11".as_slice(),
        0.5_f64.to_le_bytes().as_slice(),
    ]
    .concat();
    let corrupt = v1::Corrupt::decode(bytes.as_slice()).expect("a corruption");
    assert_eq!(
        (corrupt.kind.as_deref(), corrupt.percent),
        (Some("payload"), Some(0.5))
    );
    // latency = 1 {nanos = 2: 7}, jitter = 2 {seconds = 1: 1}, distribution = 3
    let bytes = b"\x0a\x02\x10\x07\x12\x02\x08\x01\x1a\x07uniform";
    let delay = v1::Delay::decode(bytes.as_slice()).expect("a delay");
    let latency = prost_types::Duration { seconds: 0, nanos: 7 };
    let jitter = prost_types::Duration { seconds: 1, nanos: 0 };
    assert_eq!(delay.base, Some(v1::delay::Base::Latency(latency)));
    assert_eq!(
        (delay.jitter, delay.distribution.as_deref()),
        (Some(jitter), Some("uniform"))
    );
}

/// What an apply of this many addresses takes, without the network and the kernel: decoding, converting, validating.
fn read_and_validate(peers: &[String]) -> Duration {
    use prost::Message as _;
    let spec = spec::FaultSpec {
        peers: peers
            .iter()
            .map(|ip| spec::Peer {
                ip: Some(ip.clone()),
                ..spec::Peer::default()
            })
            .collect(),
        target: spec::Target {
            interface: Some("eth0".into()),
            ..spec::Target::default()
        },
        ..full_spec()
    };
    let bytes = spec_to_proto(&spec)
        .expect("a valid spec converts")
        .encode_to_vec();
    assert!(
        bytes.len() < crate::MAX_MESSAGE_BYTES / 4,
        "a list of faults has some room left: {} bytes",
        bytes.len()
    );
    let metadata = Metadata {
        name: "many".into(),
        namespace: String::new(),
    };
    let now = spec.starts_at.expect("it has a start");
    let start = std::time::Instant::now();
    let proto = v1::FaultSpec::decode(bytes.as_slice()).expect("what was encoded");
    let read = spec_from_proto(proto).expect("it comes back");
    let limits = sabot_core::Limits::default();
    let valid = sabot_core::validate_at(&metadata, &read, &limits, now).expect("it is valid");
    assert_eq!(valid.peers.len(), peers.len());
    start.elapsed()
}

#[test]
fn peers_of_a_large_fault_are_read_in_linear_time() {
    let addresses: Vec<String> = (0..150_000_u32)
        .map(|n| match n % 2 {
            0 => std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string(),
            _ => std::net::Ipv6Addr::from(u128::MAX - u128::from(n)).to_string(),
        })
        .collect();
    let best = |peers| {
        (0..3)
            .map(|_| read_and_validate(peers))
            .min()
            .expect("three runs")
    };
    let (few, all) = (best(&addresses[..15_000]), best(&addresses));
    println!("15,000 peers: {few:?}, 150,000: {all:?}");
    // Ten times as many; a hundred times as long would be quadratic.
    assert!(all < few * 40, "15,000 peers take {few:?}, and 150,000 {all:?}");
    assert!(all < Duration::from_secs(5), "{all:?}");
}
