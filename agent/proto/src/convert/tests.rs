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
    assert_eq!(
        errors[0].description,
        "`pods` and `interface` are given; one of `pods`, `netns`, `interface` is allowed"
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
                latency: None,
                jitter: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 1_000_000_000,
                }),
                distribution: None,
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
    assert_eq!(errors[3].description, "is required");
}

#[test]
fn a_percent_that_is_absent_is_not_zero() {
    for (kind, field) in [
        (
            v1::action::Kind::Drop(v1::Drop { percent: None }),
            "spec.action.drop.percent",
        ),
        (
            v1::action::Kind::Corrupt(v1::Corrupt::default()),
            "spec.action.corrupt.percent",
        ),
    ] {
        let proto = v1::FaultSpec {
            action: Some(v1::Action { kind: Some(kind) }),
            ..v1::FaultSpec::default()
        };
        let errors = spec_from_proto(proto).expect_err("it is required");
        assert_eq!(fields(&errors), [field]);
    }
}
