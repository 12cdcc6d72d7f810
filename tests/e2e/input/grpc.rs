//! What a client of its own sends, past everything that `sabot` checks.

use std::time::Duration;

use sabot_proto::sabot::v1::{
    Action, Corrupt, Delay, Drop, FaultSpec, Partition, Peer, Port, Target, action, delay as delay_kind,
    drop, peer, target,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::scene::Scene;

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn act(kind: action::Kind) -> Option<Action> {
    Some(Action { kind: Some(kind) })
}

fn percent(percent: Option<f64>) -> Option<Action> {
    act(action::Kind::Drop(Drop {
        model: percent.map(drop::Model::Percent),
        only: None,
    }))
}

fn delay(latency: Option<prost_types::Duration>, jitter: Option<prost_types::Duration>) -> Option<Action> {
    act(action::Kind::Delay(Delay {
        base: latency.map(delay_kind::Base::Latency),
        jitter,
        ..Delay::default()
    }))
}

fn to(kind: target::Kind) -> Option<Target> {
    Some(Target { kind: Some(kind) })
}

fn at(cidr: &str, except: &[&str]) -> Peer {
    Peer {
        kind: Some(peer::Kind::Cidr(cidr.to_owned())),
        except: except.iter().map(|&net| net.to_owned()).collect(),
    }
}

/// A fault that lacks only a target.
fn valid() -> FaultSpec {
    FaultSpec {
        duration: Some(seconds(5)),
        action: act(action::Kind::Partition(Partition {})),
        ..FaultSpec::default()
    }
}

/// A fault with one thing wrong, the field that is refused, and what is said.
type Case = (FaultSpec, &'static str, &'static str);

fn durations() -> Vec<Case> {
    let mut cases = Vec::new();
    for (duration, says) in [
        (None, "nothing given"),
        (Some(seconds(0)), "`0s` given"),
        (Some(seconds(-5)), "-5"),
        (Some(seconds(3601)), "up to 1h"),
        (Some(seconds(i64::MAX)), ""),
        (
            Some(prost_types::Duration {
                seconds: 1,
                nanos: -1,
            }),
            "",
        ),
    ] {
        let spec = FaultSpec { duration, ..valid() };
        cases.push((spec, "spec.duration", says));
    }
    cases
}

fn actions() -> Vec<Case> {
    let mut cases = Vec::new();
    for (action, field, says) in [
        (None, "spec.action", "exactly one of"),
        (Some(Action { kind: None }), "spec.action", "exactly one of"),
        (percent(None), "spec.action.drop", "exactly one of"),
        (percent(Some(100.1)), "spec.action.drop.percent", "`100.1` given"),
        (percent(Some(-0.1)), "spec.action.drop.percent", "`-0.1` given"),
        (percent(Some(f64::NAN)), "spec.action.drop.percent", "`NaN` given"),
        (
            percent(Some(f64::INFINITY)),
            "spec.action.drop.percent",
            "`inf` given",
        ),
        (
            act(action::Kind::Corrupt(Corrupt {
                percent: Some(5.0),
                kind: Some("header".to_owned()),
                ..Corrupt::default()
            })),
            "spec.action.corrupt.kind",
            "`header` given",
        ),
        (delay(None, None), "spec.action.delay.latency", "nothing given"),
        (
            delay(Some(seconds(61)), None),
            "spec.action.delay.latency",
            "up to 1m",
        ),
        (delay(Some(seconds(-1)), None), "spec.action.delay.latency", "-1"),
        (
            delay(Some(seconds(1)), Some(seconds(2))),
            "spec.action.delay.jitter",
            "up to the latency, 1s",
        ),
    ] {
        let spec = FaultSpec { action, ..valid() };
        cases.push((spec, field, says));
    }
    cases
}

fn peers_and_ports() -> Vec<Case> {
    let mut cases = Vec::new();
    for (peer, field, says) in [
        (Peer::default(), "spec.peers[0]", "exactly one of"),
        (
            at("10.0.0.0/99", &[]),
            "spec.peers[0].cidr",
            "`10.0.0.0/99` given",
        ),
        (
            at("10.0.0.1/8", &[]),
            "spec.peers[0].cidr",
            "the network 10.0.0.0/8",
        ),
        (
            at("10.0.0.0/8", &["11.0.0.0/16"]),
            "spec.peers[0].except[0]",
            "inside 10.0.0.0/8",
        ),
        (
            at("fd00::/16", &["10.0.0.0/16"]),
            "spec.peers[0].except[0]",
            "inside fd00::/16",
        ),
    ] {
        let spec = FaultSpec {
            peers: vec![peer],
            ..valid()
        };
        cases.push((spec, field, says));
    }
    for (port, says) in [
        (0, "`0` given"),
        (65_536, "`65536` given"),
        (u32::MAX, "1 to 65535"),
    ] {
        let port = Port {
            port: Some(port),
            ..Port::default()
        };
        let spec = FaultSpec {
            ports: vec![port],
            ..valid()
        };
        cases.push((spec, "spec.ports[0].port", says));
    }
    let direction = FaultSpec {
        direction: 77,
        ..valid()
    };
    cases.push((direction, "spec.direction", "77"));
    cases
}

#[test]
fn each_violation_names_its_field() {
    let scene = Scene::new();
    let client = scene.daemon.client().expect("it answers");
    let netns = scene.netns().path().display().to_string();
    let refused = |name: &str, spec: FaultSpec, field: &str, says: &str| {
        let what = format!("{spec:?}");
        scene.assert_no_effect(&what, || {
            let status = client.apply(name, spec, Duration::ZERO).expect_err(&what);
            assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
            let request = status.get_details_bad_request().expect("it says what is bad");
            let violations = request.field_violations;
            assert_eq!(violations.len(), 1, "{what}: {violations:?}");
            assert_eq!(violations[0].field, field, "{what}");
            assert!(violations[0].description.contains(says), "{what}: {violations:?}");
            assert!(status.message().contains(field), "{what}: {}", status.message());
        });
    };
    for (spec, field, says) in [durations(), actions(), peers_and_ports()].concat() {
        let target = to(target::Kind::Netns(netns.clone()));
        refused("bad", FaultSpec { target, ..spec }, field, says);
    }
    let valid = |target| FaultSpec { target, ..valid() };
    refused("bad", valid(None), "spec.target", "exactly one of");
    refused(
        "bad",
        valid(Some(Target { kind: None })),
        "spec.target",
        "exactly one of",
    );
    for (kind, field) in [
        (target::Kind::Netns("relative".to_owned()), "spec.target.netns"),
        (target::Kind::Netns("/run/\0".to_owned()), "spec.target.netns"),
        (target::Kind::Interface(String::new()), "spec.target.interface"),
        (target::Kind::Interface("a/b".to_owned()), "spec.target.interface"),
    ] {
        refused("bad", valid(to(kind)), field, "");
    }
    let here = || valid(to(target::Kind::Netns(netns.clone())));
    for name in ["", "Bad", "a_b", "-a", "a..b", "ä", &"a".repeat(254)] {
        refused(name, here(), "metadata.name", "RFC 1123 subdomain");
    }
    client
        .apply("good", here(), Duration::from_secs(5))
        .expect("the rest of it was valid");
}
