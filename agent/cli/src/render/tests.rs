mod events;

use std::time::Duration;

use sabot_core::spec;
use sabot_proto::convert::timestamp_to_proto;
use sabot_proto::sabot::v1;
use serde_json::json;

use super::fixtures::{self, fault, now, target_ref, wire_fault};
use super::*;
use crate::view::{LedgerDoc, Phase};

fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|l| l.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect())
        .collect()
}

#[test]
fn the_list_of_faults_shows_what_matters() {
    let text = fault_table([&fault()], now());
    assert_eq!(
        words(&text),
        [
            vec![
                "NAME",
                "ACTION",
                "TARGETS",
                "PHASE",
                "REMAINING",
                "MATCHED",
                "EFFECT",
                "MESSAGE"
            ],
            vec![
                "team-a/slow",
                "delay 100ms ±20ms",
                "1/2",
                "Partial",
                "42s",
                "27",
                "27 delayed, 2 lost",
                "1 target failed"
            ],
        ]
    );
    assert!(
        text.lines().all(|l| !l.ends_with(' ')),
        "no trailing blanks:\n{text}"
    );
    assert_eq!(fault_table([], now()), "no faults");
}

#[test]
fn the_detail_of_a_fault_shows_each_target_and_ledger() {
    let text = fault_detail(&fault(), now());
    for line in [
        "Name:        team-a/slow",
        "Target:      pods:team-a/app=web, 50% of them (seed 7)",
        "Peers:       cidr:10.0.0.0/8,except=10.1.0.0/16",
        "Traffic:     both directions, UDP:53, the node is spared",
        "Seed:        42",
        "Remaining:   42s",
        "Starts:      2030-03-17T17:46:22.000Z",
    ] {
        assert!(text.lines().any(|l| l == line), "`{line}` is missing in\n{text}");
    }
    assert!(!text.contains("Ended:"), "it hasn't ended:\n{text}");
    assert!(!text.contains("Course:") && !text.contains("Loss:"), "{text}");
    let rows = words(&text);
    assert!(
        rows.contains(&vec!["team-a/web-1 eth0", "Failed", "no memory"]),
        "{text}"
    );
    let egress = vec![
        "team-a/web-0 eth0",
        "egress",
        "7 (700 B)",
        "0",
        "0",
        "7 (700 B)",
        "0",
        "6 (600 B)",
        "0",
        "0",
        "0",
        "0",
        "0",
        "1 (100 B)",
    ];
    assert!(rows.contains(&egress), "{text}");
}

#[test]
fn the_effect_is_what_the_action_is_for_and_what_else_there_was() {
    let tally = |packets| Tally { packets, bytes: 0 };
    let total = LedgerDoc {
        dropped: tally(1),
        corrupted: tally(2),
        duplicated: tally(3),
        rejected: tally(4),
        delayed: tally(5),
        ..LedgerDoc::default()
    };
    for (action, none, some) in [
        ("partition: {}", "0 dropped", "1 dropped, 2 corrupted"),
        ("corrupt: {percent: 1}", "0 corrupted", "2 corrupted, 1 dropped"),
        (
            "duplicate: {percent: 1}",
            "0 duplicated",
            "3 duplicated, 1 dropped",
        ),
        ("reject: {}", "0 rejected", "4 rejected, 1 dropped"),
        ("reset: {}", "0 rejected", "4 rejected, 1 dropped"),
        ("rateLimit: {rate: 1mbit}", "0 delayed", "5 delayed, 1 dropped"),
        (
            "reorder: {percent: 1, gap: 1}",
            "0 delayed",
            "5 delayed, 1 dropped",
        ),
        ("delay: {latency: 1s}", "0 delayed", "5 delayed, 1 dropped"),
    ] {
        let spec = fixtures::action(action);
        assert_eq!(text::effect(&spec, &LedgerDoc::default()), none);
        let text = text::effect(&spec, &total);
        assert!(text.starts_with(some), "{action}: {text}");
    }
}

#[test]
fn the_detail_shows_the_course_the_filter_and_the_loss_where_there_are_some() {
    let mut wire = wire_fault();
    for (name, addresses) in [
        ("api.example.com", vec!["203.0.113.7", "2001:db8::7"]),
        ("gone.example.com", vec![]),
    ] {
        wire.status
            .as_mut()
            .expect("a status")
            .names
            .push(v1::LearntName {
                name: name.to_owned(),
                addresses: addresses.into_iter().map(str::to_owned).collect(),
            });
    }
    let mut doc = FaultDoc::try_from(wire).expect("it is understood");
    doc.spec.pulse = Some(spec::Pulse {
        on_time: Duration::from_secs(10),
        off_time: Duration::from_secs(5),
    });
    doc.spec.ramp = Some(spec::Ramp {
        over: Duration::from_secs(60),
        from: None,
        to: Some(50.0),
    });
    doc.spec.packets = Some(spec::Packets {
        dscp: vec![46, 0],
        min_length: Some(100),
        max_length: Some(1500),
    });
    doc.status.expected_loss = Some(0.01 / 0.26);
    let text = fault_detail(&doc, now());
    for line in [
        "Traffic:     both directions, UDP:53, DSCP 46 0, 100 to 1500 bytes, the node is spared",
        "Course:      10s on, 5s off; from 0% to 50% of its value over 1m",
        "Loss:        3.8462% expected while it is in force",
    ] {
        assert!(text.lines().any(|l| l == line), "`{line}` is missing in\n{text}");
    }
    let rows = words(&text);
    for row in [
        ["api.example.com", "203.0.113.7 2001:db8::7"],
        ["gone.example.com", "-"],
    ] {
        assert!(rows.contains(&row.to_vec()), "{text}");
    }
}

#[test]
fn of_very_many_peers_the_first_are_shown() {
    let mut doc = fault();
    let peer = doc.spec.peers[0].clone();
    doc.spec.peers = vec![peer; 150_000];
    let text = text::peers(&doc.spec);
    assert!(
        text.len() < 1000 && text.ends_with("10.1.0.0/16 and 149984 more"),
        "{text}"
    );
}

#[test]
fn remaining_time_follows_the_phase() {
    let mut doc = fault();
    doc.status.starts_at = Some(Time(now() + Duration::from_secs(5)));
    assert_eq!(text::remaining(&doc, now()), "starts in 5s");
    doc.status.starts_at = None;
    doc.status.expires_at = Some(Time(now()));
    assert_eq!(text::remaining(&doc, now()), "0s");
    doc.status.phase = Phase::Expired;
    assert_eq!(text::remaining(&doc, now()), "-");
}

#[test]
fn an_applied_fault_is_told_with_what_stands_in_the_way() {
    assert_eq!(
        applied(&fault(), now()),
        "fault team-a/slow applied: Partial on 1/2 targets, 42s left (1 target failed)\n  \
         team-a/web-1 eth0: Failed: no memory"
    );
    assert_eq!(
        deleted(&fault()),
        "fault team-a/slow deleted: 27 matched, 27 delayed, 2 lost"
    );
}

fn json_spec() -> serde_json::Value {
    json!({
        "duration": "1m",
        "target": {"pods": {
            "namespace": "team-a",
            "selector": {"matchLabels": {"app": "web"}},
            "pick": {"percent": 50.0, "seed": 7},
        }},
        "peers": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}],
        "ports": [{"protocol": "UDP", "port": 53}],
        "action": {"delay": {"latency": "100ms", "jitter": "20ms"}},
    })
}

fn json_ledger() -> serde_json::Value {
    let tally = |packets: u64| json!({"packets": packets, "bytes": packets * 100});
    json!({
        "podNamespace": "team-a",
        "podName": "web-0",
        "device": "eth0",
        "ifindex": 2,
        "netns": 4_026_532_281_u64,
        "direction": "egress",
        "matched": tally(7),
        "passed": tally(0),
        "dropped": tally(0),
        "bypassed": tally(0),
        "rejected": tally(0),
        "released": tally(6),
        "duplicated": tally(0),
        "replied": tally(0),
        "corrupted": tally(0),
        "delayed": tally(7),
        "held": tally(0),
        "lostSegmenter": tally(0),
        "lostQueue": tally(0),
        "lostBound": tally(0),
        "lostWrite": tally(0),
        "lostLate": tally(1),
    })
}

#[test]
fn the_json_of_a_fault_is_its_manifest_and_its_status() {
    let mut wire = wire_fault();
    let status = wire.status.as_mut().expect("a status");
    status.targets.truncate(1);
    status.ledgers.truncate(1);
    status.injected_at = Some(timestamp_to_proto(now()));
    let doc = FaultDoc::try_from(wire).expect("it is understood");
    let expected = json!({
        "apiVersion": "sabot.dev/v1alpha1",
        "kind": "NetworkFault",
        "metadata": {"name": "slow", "namespace": "team-a"},
        "spec": json_spec(),
        "status": {
            "phase": "Partial",
            "message": "1 target failed",
            "createdAt": "2030-03-17T17:46:22.000Z",
            "startsAt": "2030-03-17T17:46:22.000Z",
            "expiresAt": "2030-03-17T17:47:21.500Z",
            "injectedAt": "2030-03-17T17:46:40.000Z",
            "endedAt": null,
            "seed": 42,
            "targets": [{
                "podNamespace": "team-a",
                "podName": "web-0",
                "device": "eth0",
                "ifindex": 2,
                "netns": 4_026_532_281_u64,
                "phase": "Injected",
            }],
            "ledgers": [json_ledger()],
        },
    });
    assert_eq!(serde_json::to_value(&doc).expect("JSON"), expected);
}

#[test]
fn the_node_says_what_works_and_what_does_not() {
    let node_doc = NodeDoc::try_from(v1::Node {
        version: "0.1.0".into(),
        name: "node-1".into(),
        kernel_release: "6.18.0".into(),
        features: vec![v1::Feature {
            name: "tun".into(),
            available: false,
            detail: "/dev/net/tun is missing".into(),
            consequence: "delay is refused".into(),
        }],
        runtime: Some(v1::RuntimeStatus {
            state: v1::RuntimeState::Down.into(),
            message: "connection refused".into(),
            sources: vec![v1::RuntimeSource {
                name: "events".into(),
                in_use: true,
                detail: "the runtime tells".into(),
                blind_spots: "who asked".into(),
            }],
            ..v1::RuntimeStatus::default()
        }),
        limits: Some(v1::Limits {
            max_duration: Some(prost_types::Duration {
                seconds: 3600,
                nanos: 0,
            }),
            max_faults: 4096,
            max_targets: 1024,
            max_faults_per_target: 64,
        }),
        ..v1::Node::default()
    })
    .expect("it is understood");
    let text = node(&node_doc);
    for line in [
        "Runtime:     down: connection refused",
        "Limits:      1h a fault, 4096 faults, 1024 targets, 64 faults a target",
    ] {
        assert!(text.lines().any(|l| l == line), "`{line}` is missing in\n{text}");
    }
    let feature = vec!["tun", "no", "/dev/net/tun is missing", "delay is refused"];
    assert!(words(&text).contains(&feature), "{text}");
    let source = vec!["events", "yes", "the runtime tells", "who asked"];
    assert!(words(&text).contains(&source), "{text}");
}

#[test]
fn targets_are_shown_with_their_faults_and_what_speaks_against_them() {
    let pod = v1::PodInfo {
        namespace: "team-a".into(),
        name: "agent".into(),
        labels: [
            ("app".to_owned(), "agent".to_owned()),
            ("io.kubernetes.pod.name".to_owned(), "agent".to_owned()),
        ]
        .into(),
        addresses: vec!["10.0.0.9".into()],
        host_network: true,
        ..v1::PodInfo::default()
    };
    let infos = [
        v1::TargetInfo {
            kind: Some(v1::target_info::Kind::Pod(pod)),
            refusal: "it is on the node's own network".into(),
            ..v1::TargetInfo::default()
        },
        v1::TargetInfo {
            kind: Some(v1::target_info::Kind::Interface("eth1".into())),
            devices: vec![v1::DeviceInfo {
                name: "eth1".into(),
                ifindex: target_ref().ifindex,
                netns: target_ref().netns,
                mac_header: true,
            }],
            faults: vec![v1::Metadata {
                name: "cut".into(),
                namespace: String::new(),
            }],
            ..v1::TargetInfo::default()
        },
    ];
    let docs = TargetsDoc {
        targets: infos.into_iter().map(TargetDoc::from).collect(),
    };
    let text = targets(&docs);
    let rows = words(&text);
    assert_eq!(
        rows[1],
        [
            "pod:team-a/agent",
            "-",
            "10.0.0.9",
            "app=agent",
            "-",
            "it is on the node's own network"
        ]
    );
    assert_eq!(rows[2], ["interface:eth1", "eth1", "-", "-", "cut"]);
    let value = serde_json::to_value(&docs).expect("JSON");
    assert_eq!(value["targets"][0]["pod"]["hostNetwork"], true);
    assert_eq!(value["targets"][1]["interface"], "eth1");
}

#[test]
fn bytes_are_shown_in_units() {
    for (count, text) in [
        (0, "0 B"),
        (999, "999 B"),
        (1_500, "1.5 kB"),
        (20_100_000, "20.1 MB"),
        (u64::MAX, "18446.7 PB"),
    ] {
        assert_eq!(bytes(count), text);
    }
}

#[test]
fn a_watch_without_a_terminal_is_one_line_a_change() {
    let item = WatchDoc {
        change: ChangeDoc::Counters,
        fault: Some(fault()),
    };
    assert_eq!(
        watch_line(&item, now()),
        "2030-03-17T17:46:40.000Z counters team-a/slow delay 100ms ±20ms Partial targets=1/2 matched=27 27 delayed, 2 \
         lost (1 target failed)"
    );
}

#[test]
fn a_preview_says_what_would_be_touched() {
    let manifest = fault();
    let doc = PreviewDoc::new(
        manifest.metadata,
        manifest.spec,
        v1::PreviewFaultResponse {
            warnings: vec!["the node is spared".into()],
            peers: vec!["10.0.0.0/8".into()],
            ..v1::PreviewFaultResponse::default()
        },
    )
    .expect("it is understood");
    let text = preview(&doc);
    assert!(text.starts_with("Would apply: team-a/slow\n"), "{text}");
    assert!(text.contains("nothing matches now"), "{text}");
    assert!(text.ends_with("warning: the node is spared"), "{text}");
}
