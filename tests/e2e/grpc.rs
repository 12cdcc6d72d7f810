//! The API as a client sees it that shares no code with the daemon.

use std::net::IpAddr;
use std::process::Command;

use sabot_testkit::{Daemon, DaemonOptions, Lab};
use serde_json::{Value, json};

const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/reflect.py");

const SERVICES: [&str; 3] = [
    "sabot.v1.FaultService",
    "sabot.v1.NodeService",
    "sabot.v1.ObserveService",
];
const METHODS: [&str; 16] = [
    "ApplyFault",
    "DeleteAllFaults",
    "DeleteFault",
    "GetFault",
    "GetNode",
    "GetSnapshot",
    "GetTimeline",
    "GetTracing",
    "ListFaults",
    "ListFlows",
    "ListTargets",
    "PreviewFault",
    "SetTracing",
    "WatchEvents",
    "WatchFaults",
    "WatchTargets",
];

struct Seen {
    /// What the foreign client saw.
    document: Value,
    peer: IpAddr,
}

impl Seen {
    /// # Panics
    ///
    /// The client failed.
    fn collect() -> Self {
        let lab = Lab::new(2).expect("a lab can be made (root is needed)");
        let options = DaemonOptions::built().expect("the daemon is built");
        let daemon = Daemon::start(options.netns(lab.node())).expect("the daemon starts");
        let peer = lab.pod(1).ipv4();
        let output = Command::new(PYTHON)
            .arg(SCRIPT)
            .arg(daemon.socket())
            .arg(lab.pod(0).netns().path())
            .arg(peer.to_string())
            .output()
            .expect("Debian's Python runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the foreign client failed: {said}");
        let document = serde_json::from_slice(&output.stdout).expect("it prints one document");
        Self { document, peer }
    }
}

fn texts(value: &Value) -> Vec<&str> {
    let list = value
        .as_array()
        .unwrap_or_else(|| panic!("a list, and not {value}"));
    list.iter().filter_map(Value::as_str).collect()
}

#[test]
fn a_foreign_client_finds_its_way_by_reflection() {
    let seen = Seen::collect();
    let document = &seen.document;
    for version in ["v1", "v1alpha"] {
        let services = texts(&document["services"][version]);
        for service in SERVICES.iter().chain(&["grpc.health.v1.Health"]) {
            assert!(services.contains(service), "{version}: {services:?}");
        }
    }
    assert_eq!(texts(&document["older"]), METHODS);
    let methods = texts(&document["methods"]);
    assert!(
        METHODS.iter().all(|method| methods.contains(method)),
        "{methods:?}"
    );
    for service in SERVICES.iter().chain(&[""]) {
        assert_eq!(document["health"][service]["status"], "SERVING", "{service}");
    }
    assert_eq!(document["health"]["nobody"]["code"], "NOT_FOUND");
    assert_node(&document["node"]["node"]);
    assert_life(document, seen.peer);
    assert_errors(&document["errors"]);
}

fn assert_node(node: &Value) {
    assert_eq!(node["name"], "node-a", "{node:#}");
    assert_eq!(node["limits"]["maxDuration"], "3600s", "{node:#}");
    let features = node["features"].as_array().expect("features are listed");
    assert!(
        features
            .iter()
            .any(|f| f["name"] == "bpf" && f["available"] == true),
        "{node:#}"
    );
}

/// One fault from its preview to its end.
fn assert_life(document: &Value, peer: IpAddr) {
    let preview = &document["preview"];
    assert_eq!(preview["peers"], json!([peer.to_string()]), "{preview:#}");
    assert_eq!(
        preview["targets"].as_array().map(Vec::len),
        Some(1),
        "{preview:#}"
    );
    assert_eq!(document["before"], json!({}), "a preview applies nothing");

    for answer in ["applied", "again", "got"] {
        let fault = &document[answer]["fault"];
        assert_eq!(
            fault["metadata"],
            json!({"name": "cut", "namespace": "foreign"}),
            "{answer}"
        );
        assert_eq!(fault["status"]["phase"], "PHASE_INJECTED", "{answer}: {fault:#}");
        assert_eq!(fault["spec"]["duration"], "60s", "{answer}");
    }
    assert_eq!(
        document["applied"]["fault"]["status"]["expiresAt"],
        document["again"]["fault"]["status"]["expiresAt"],
        "applying the same again changes nothing"
    );
    assert_eq!(document["listed"]["faults"][0]["metadata"]["name"], "cut");
    assert_eq!(
        document["got"]["fault"]["status"]["ledgers"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(document["deleted"]["fault"]["status"]["phase"], "PHASE_DELETED");
    assert_eq!(document["after"], json!({}), "nothing is active after it");

    let changes: Vec<_> = document["changes"]
        .as_array()
        .expect("changes are streamed")
        .iter()
        .map(|change| change["change"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(&changes[..2], ["CHANGE_SYNCED", "CHANGE_ADDED"], "{changes:?}");
    assert_eq!(changes.last(), Some(&"CHANGE_DELETED"), "{changes:?}");
}

/// Each refusal has its code, and names each wrong field with what was given and what is allowed.
fn assert_errors(errors: &Value) {
    for (case, fields) in [
        ("no duration", vec!["spec.duration"]),
        ("endless", vec!["spec.duration"]),
        ("percent", vec!["spec.action.drop.percent"]),
        ("jitter", vec!["spec.action.delay.jitter"]),
        ("cidr", vec!["spec.peers[0].cidr"]),
        ("except", vec!["spec.peers[0].except[0]"]),
        ("port", vec!["spec.ports[0].port"]),
        ("no action", vec!["spec.action"]),
        ("several", vec!["spec.action.drop.percent", "spec.duration"]),
        ("no name", vec!["metadata.name"]),
        ("preview", vec!["spec.target"]),
        ("get nothing", vec!["name"]),
    ] {
        let error = &errors[case];
        assert_eq!(error["code"], "INVALID_ARGUMENT", "{case}: {error:#}");
        let violations = error["violations"].as_array().expect("violations are listed");
        let mut named: Vec<_> = violations.iter().filter_map(|v| v[0].as_str()).collect();
        named.sort_unstable();
        assert_eq!(named, fields, "{case}: {error:#}");
        for violation in violations {
            let (field, description) = (&violation[0], violation[1].as_str().unwrap_or_default());
            assert!(!description.is_empty(), "{case}: nothing is said about {field}");
            let message = error["message"].as_str().unwrap_or_default();
            assert!(message.contains(description), "{case}: {message}");
        }
    }
    for case in ["get unknown", "delete unknown"] {
        assert_eq!(errors[case]["code"], "NOT_FOUND", "{case}");
        let message = errors[case]["message"].as_str().unwrap_or_default();
        assert!(message.contains("nobody"), "{case}: {message}");
    }
}
