mod actions;
mod cases;
mod properties;
mod values;
mod vocabulary;

use std::time::{Duration, SystemTime};

use sabot_core::model::{BootTime, Direction, Peer, PortRange, PortSide, TargetSelector};
use sabot_core::spec::{self, FaultSpec, Metadata};
use sabot_core::{Instants, Limits, ValidFault, Violation, parse_manifests, validate, validate_at};

const HEAD: &str =
    "{apiVersion: sabot.dev/v1alpha1, kind: NetworkFault, metadata: {name: cut, namespace: shop}, spec: ";

/// A valid spec: a partition of an interface for a minute.
pub(crate) fn minimal() -> FaultSpec {
    FaultSpec {
        duration: Some(Duration::from_secs(60)),
        target: spec::Target {
            interface: Some("eth0".to_owned()),
            ..spec::Target::default()
        },
        action: spec::Action {
            partition: Some(spec::Partition {}),
            ..spec::Action::default()
        },
        ..FaultSpec::default()
    }
}

/// Parses the fields of a spec in flow style, over those of a valid one.
fn check(fields: &str) -> Result<ValidFault, Vec<Violation>> {
    let mut text = fields.to_owned();
    for (field, value) in [
        ("duration", "1m"),
        ("target", "{interface: eth0}"),
        ("action", "{partition: {}}"),
    ] {
        if !text.contains(&format!("{field}:")) {
            text = format!("{text}, {field}: {value}");
        }
    }
    let text = text.trim_start_matches(", ");
    let manifests = parse_manifests(&format!("{HEAD}{{{text}}}}}")).unwrap_or_else(|e| panic!("{text}: {e}"));
    validate(&manifests[0].metadata, &manifests[0].spec, &Limits::default())
}

fn violations(fields: &str) -> Vec<String> {
    let found = check(fields).expect_err(fields);
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn all_violations_are_reported_at_once() {
    let found = violations(
        "duration: null, target: {interface: a b}, peers: [{ip: x}, {cidr: y}], ports: [{port: 0, protocol: z}], \
         action: {drop: {percent: 101}}",
    );
    let fields: Vec<&str> = found.iter().filter_map(|text| text.split(": ").next()).collect();
    let expected = [
        "spec.duration",
        "spec.target.interface",
        "spec.peers[0].ip",
        "spec.peers[1].cidr",
        "spec.ports[0].protocol",
        "spec.ports[0].port",
        "spec.action.drop.percent",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn names_are_checked_and_long_values_are_cut() {
    let check = |name: &str, namespace: &str| {
        let metadata = Metadata {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        };
        validate(&metadata, &minimal(), &Limits::default())
    };
    assert!(check("cut.payments-1", "").is_ok());
    assert_eq!(check("", "A").expect_err("two").len(), 2);
    let long = check(&"é".repeat(1000), "").expect_err("too long").remove(0);
    assert!(long.value.len() < 130 && long.value.ends_with('…'), "{long}");
}

#[test]
fn a_valid_fault_is_what_was_written() {
    let fault = check(
        "target: {pods: {selector: {matchLabels: {app: web}}}}, direction: ingress, \
         peers: [{ip: '::ffff:10.0.0.1'}, {cidr: '::ffff:10.0.0.0/104'}, {pods: {name: db}}], ports: [{protocol: udp}, {port: 80}], \
         action: {drop: {percent: 0}}",
    )
    .expect("valid");
    let TargetSelector::Pods { selector, pick: None } = &fault.target else {
        panic!("{:?}", fault.target);
    };
    assert_eq!(selector.labels.to_string(), "app=web");
    assert_eq!(
        (selector.namespace.as_str(), fault.direction),
        ("shop", Direction::Ingress)
    );
    assert_eq!(
        fault.peers[0],
        Peer::Address("10.0.0.1".parse().expect("an address"))
    );
    assert_eq!(fault.peers[1], crate::fixtures::cidr("10.0.0.0/8", &[]));
    let port = PortRange::Ports {
        first: 80,
        last: 80,
        side: PortSide::Either,
    };
    let ports: Vec<_> = fault
        .ports
        .iter()
        .map(|port| (port.protocol, port.what.clone()))
        .collect();
    assert_eq!(ports, [(Some(17), PortRange::All), (Some(6), port)]);
    assert_eq!(fault.action, crate::fixtures::drop(0.0));
    assert!(
        fault.spare_node,
        "the node is spared unless the user says otherwise"
    );
    assert_eq!(fault.sample_every, Limits::default().default_sample_every);
}

#[test]
fn pods_need_a_namespace_from_somewhere() {
    let metadata = Metadata {
        name: "cut".to_owned(),
        ..Metadata::default()
    };
    let mut spec = minimal();
    spec.target = spec::Target {
        pods: Some(spec::TargetPods {
            name: Some("web-0".to_owned()),
            ..spec::TargetPods::default()
        }),
        ..spec::Target::default()
    };
    let found = validate(&metadata, &spec, &Limits::default()).expect_err("no namespace");
    assert_eq!(found[0].field, "spec.target.pods.namespace");
}

#[test]
fn times_are_fixed_on_both_clocks() {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let clock = Instants {
        boot: BootTime(500),
        wall,
    };
    let metadata = Metadata {
        name: "cut".to_owned(),
        ..Metadata::default()
    };
    let fix = |starts_at| {
        let spec = FaultSpec {
            starts_at,
            ..minimal()
        };
        validate_at(&metadata, &spec, &Limits::default(), wall).map(|valid| valid.fix(clock, 7))
    };
    let minute = Duration::from_secs(60);
    let at_once = fix(None).expect("valid");
    assert_eq!(
        (at_once.starts_at, at_once.expires_at),
        (BootTime(500), BootTime(500).after(minute))
    );
    assert_eq!(
        (at_once.created, at_once.starts, at_once.expires),
        (wall, wall, wall + minute)
    );
    let skewed = fix(Some(wall - Duration::from_secs(4))).expect("within the skew");
    assert_eq!((skewed.starts_at, skewed.starts), (BootTime(500), wall));
    let later = fix(Some(wall + minute)).expect("valid");
    assert_eq!(
        (later.starts_at, later.starts),
        (BootTime(500).after(minute), wall + minute)
    );
    assert_eq!((later.created, later.expires), (wall, wall + 2 * minute));
    assert!(fix(Some(wall - Duration::from_secs(6))).is_err());
    assert!(fix(Some(wall + Duration::from_secs(3601))).is_err());
}
