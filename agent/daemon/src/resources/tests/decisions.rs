//! What resources mean, by their times and by what they say.

use std::time::{Duration, SystemTime};

use kube::api::DynamicObject;
use sabot_core::Limits;
use sabot_resources::Kind;
use sabot_resources::status::Timestamp;
use serde_json::{Value, json};

use crate::resources::decide::{Decision, decide};
use crate::resources::object::Resource;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn at(offset: i64) -> SystemTime {
    let apart = Duration::from_secs(offset.unsigned_abs());
    if offset < 0 { now() - apart } else { now() + apart }
}

fn text(time: SystemTime) -> Value {
    serde_json::to_value(Timestamp::new(time)).expect("JSON")
}

fn resource(kind: Kind, change: impl FnOnce(&mut Value)) -> Resource {
    let mut value = json!({
        "apiVersion": "sabot.dev/v1alpha1",
        "kind": kind.name(),
        "metadata": {"name": "cut", "uid": "1"},
        "spec": {
            "duration": "5m",
            "target": {"pods": {"selector": {"matchLabels": {"app": "web"}}}},
            "action": {"partition": {}},
        },
    });
    if kind.is_namespaced() {
        value["metadata"]["namespace"] = json!("shop");
    }
    change(&mut value);
    let object: DynamicObject = serde_json::from_value(value).expect("an object");
    Resource::read(kind, &object)
}

fn own(change: impl FnOnce(&mut Value)) -> Decision {
    let resource = resource(Kind::NetworkFault, change);
    decide(&resource, None, &Limits::default(), now())
}

fn injected(offsets: &[i64]) -> impl FnOnce(&mut Value) {
    let parts: Vec<_> = offsets
        .iter()
        .enumerate()
        .map(|(index, offset)| {
            json!({"node": format!("node-{index}"), "phase": "Injected", "injectedAt": text(at(*offset))})
        })
        .collect();
    move |value| value["status"] = json!({"nodes": parts})
}

#[test]
fn time_counts_from_the_earliest_injection() {
    let Decision::Hold { since, .. } = own(|_| {}) else {
        panic!("it isn't held")
    };
    assert_eq!(since, None);
    let Decision::Hold { since, .. } = own(injected(&[-10, -200, -100])) else {
        panic!("it isn't held")
    };
    assert_eq!(since, Some(at(-200)));
    assert_eq!(own(injected(&[-10, -300])), Decision::Over);
    // What the daemon itself knows counts as well, before anybody has written it.
    let fresh = resource(Kind::NetworkFault, |_| {});
    let decision = decide(&fresh, Some(at(-301)), &Limits::default(), now());
    assert_eq!(decision, Decision::Over);
}

#[test]
fn what_was_written_of_a_former_resource_says_nothing() {
    let with_uid = |uid: &'static str| {
        move |value: &mut Value| {
            injected(&[-200, -100])(value);
            value["status"]["nodes"][0]["uid"] = json!(uid);
            value["status"]["nodes"][1]["uid"] = json!("1");
        }
    };
    for (uid, begin) in [("1", -200), ("the former's", -100)] {
        let Decision::Hold { since, .. } = own(with_uid(uid)) else {
            panic!("it isn't held")
        };
        assert_eq!(since, Some(at(begin)), "{uid}");
    }
    let resource = resource(Kind::NetworkFault, with_uid("the former's"));
    assert_eq!(resource.part("node-0"), None);
    assert_eq!(resource.strays, ["node-0".to_owned()].into());
}

#[test]
fn a_start_is_the_same_instant_for_every_node() {
    let start = |offset: i64| move |value: &mut Value| value["spec"]["startsAt"] = text(at(offset));
    // Far ahead, also farther than the daemon lets faults start.
    assert_eq!(own(start(7200)), Decision::Wait { until: at(7170) });
    let Decision::Hold { spec, since } = own(start(20)) else {
        panic!("it isn't held")
    };
    assert_eq!((spec.starts_at, since), (Some(at(20)), None));
    let Decision::Hold { spec, since } = own(start(-100)) else {
        panic!("it isn't held")
    };
    assert_eq!((spec.starts_at, since), (None, Some(at(-100))));
    // One that was missed is not made up for.
    assert_eq!(own(start(-301)), Decision::Over);
}

/// Makes a resource's manifest wrong.
type Spoil = fn(&mut Value);

#[test]
fn what_no_node_can_do_is_refused_with_its_field() {
    let cases: [(Spoil, &str); 9] = [
        (|v| v["spec"] = json!({}), "target"),
        (
            |v| v["spec"]["action"] = json!({"drop": {"percent": 101}}),
            "spec.action.drop.percent",
        ),
        (|v| v["spec"]["duration"] = json!("2h"), "spec.duration"),
        (
            |v| v["spec"]["target"]["pods"]["namespace"] = json!("other"),
            "spec.target.pods.namespace: `other`",
        ),
        (
            |v| v["spec"]["target"] = json!({"interface": "eth0"}),
            "spec.target.interface: `eth0`",
        ),
        (
            |v| v["spec"]["target"] = json!({"netns": "/run/netns/a"}),
            "spec.target.netns: `/run/netns/a`",
        ),
        (
            |v| v["spec"]["target"] = json!({"service": {"namespace": "other", "name": "front"}}),
            "spec.target.service.namespace: `other`",
        ),
        (
            |v| v["spec"]["target"] = json!({"node": "worker-1"}),
            "spec.target.node: `worker-1`",
        ),
        (|v| v["spec"]["duration"] = json!("5 parsecs"), "5 parsecs"),
    ];
    for (change, said) in cases {
        match own(change) {
            Decision::Refuse { message } => assert!(message.contains(said), "{said}: {message}"),
            other => panic!("{said}: {other:?}"),
        }
    }
    let service = own(|v| v["spec"]["target"] = json!({"service": {"name": "front"}}));
    assert!(matches!(service, Decision::Hold { .. }));
    let repeated = own(|v| v["spec"]["target"]["pods"]["namespace"] = json!("shop"));
    assert!(matches!(repeated, Decision::Hold { .. }));
}

#[test]
fn a_fault_of_the_cluster_goes_anywhere() {
    for target in [
        json!({"pods": {"namespace": "other", "name": "web-0"}}),
        json!({"interface": "eth0"}),
        json!({"netns": "/run/netns/a"}),
        json!({"service": {"namespace": "other", "name": "front"}}),
        json!({"node": "worker-1"}),
    ] {
        let resource = resource(Kind::ClusterNetworkFault, |v| {
            v["spec"]["target"] = target.clone();
        });
        let decision = decide(&resource, None, &Limits::default(), now());
        assert!(
            matches!(decision, Decision::Hold { .. }),
            "{target}: {decision:?}"
        );
    }
    // Its pods are somewhere, and it says where.
    let nowhere = resource(Kind::ClusterNetworkFault, |_| {});
    let decision = decide(&nowhere, None, &Limits::default(), now());
    assert!(matches!(decision, Decision::Refuse { .. }), "{decision:?}");
}
