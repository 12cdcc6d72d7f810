//! Documents, and what both sides say of them.

use sabot_core::spec::{FaultSpec, Metadata};
use sabot_core::{Limits, validate_at};
use sabot_resources::Kind;
use serde_json::{Value, json};

use super::{root, schema, server};

fn document(kind: Kind, spec: &str) -> Value {
    let spec: Value = serde_norway::from_str(spec).unwrap_or_else(|e| panic!("{spec}: {e}"));
    json!({
        "apiVersion": "sabot.dev/v1alpha1",
        "kind": kind.name(),
        "metadata": {},
        "spec": spec,
    })
}

/// What a server says of the spec, and the spec with its defaults.
fn admitted(kind: Kind, spec: &str) -> (Vec<String>, Value) {
    let mut document = document(kind, spec);
    let wrong = server::admit(&schema(kind), &mut document);
    (wrong, document["spec"].take())
}

/// What the daemon says of it.
fn accepted(kind: Kind, spec: Value) -> Result<(), String> {
    let spec: FaultSpec = serde_json::from_value(spec).map_err(|e| e.to_string())?;
    let metadata = Metadata {
        name: "fault".to_owned(),
        namespace: if kind.is_namespaced() { "shop" } else { "" }.to_owned(),
    };
    let now = std::time::SystemTime::UNIX_EPOCH;
    let limits = Limits {
        max_duration: std::time::Duration::from_secs(24 * 3600),
        ..Limits::default()
    };
    match validate_at(&metadata, &spec, &limits, now) {
        Ok(_) => Ok(()),
        Err(violations) => Err(format!("{violations:?}")),
    }
}

const WEB: &str = "target: {pods: {selector: {matchLabels: {app: web}}}}";

/// A spec around this part; the rest of it is right.
fn with(part: &str) -> String {
    let mut spec = part.to_owned();
    for (field, line) in [
        ("duration:", "duration: 5m"),
        ("target:", WEB),
        ("action:", "action: {partition: {}}"),
    ] {
        let is_given = spec.lines().any(|line| line.starts_with(field));
        if !is_given {
            spec.push('\n');
            spec.push_str(line);
        }
    }
    spec
}

#[test]
fn what_is_right_is_admitted_and_accepted() {
    for part in [
        "",
        "duration: 1h30m",
        "duration: 24h",
        "duration: 100ms",
        "target: {pods: {name: web-0}}",
        "target: {pods: {selector: {}, pick: {percent: 50, seed: 7}}}",
        "target: {pods: {selector: {matchExpressions: [{key: app, operator: In, values: [a, b]}, {key: b, operator: Exists}]}}}",
        "peers: [{ip: 10.0.0.1}, {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {host: api.example.com}]",
        "peers: [{pods: {namespace: other, name: db-0}}]",
        "target: {service: {name: front}}",
        "target: {service: {name: front, pick: {count: 2, seed: 7}}}",
        "peers: [{service: {name: db}}, {service: {namespace: other, name: db, port: 5432}}, {service: {name: db, port: pg}}]",
        "peers: [{node: worker-1.example.com}]",
        "allowControlPlane: true",
        "direction: egress",
        "ports: [{port: 80}, {protocol: UDP, port: 1000, endPort: 2000, end: source}, {protocol: ICMP, icmpType: 3, icmpCode: 4}, {protocol: SCTP}]",
        "packets: {dscp: [0, 46], minLength: 20, maxLength: 1500}",
        "spareNode: false\nsampleEvery: 0\nseed: 7",
        "pulse: {on: 10s, off: 5s}",
        "ramp: {over: 5m, from: 10}\naction: {drop: {percent: 50}}",
        "action: {drop: {only: syn}}",
        "action: {drop: {flows: {percent: 20}, only: handshake}}",
        "action: {drop: {gilbertElliott: {p: 1, r: 25}}}",
        "action: {drop: {burst: {percent: 2, length: 8}}}",
        "action: {drop: {nth: {every: 10}}}",
        "action: {corrupt: {percent: 1, offset: {from: 10, to: 20}}}",
        "action: {duplicate: {percent: 5, copies: 2, delay: 10ms}}",
        "action: {reorder: {percent: 5, gap: 3, delay: 50ms}}",
        "action: {rateLimit: {rate: 10mbit, burst: 16KiB, queueTime: 50ms}}",
        "action: {reject: {}}",
        "action: {reset: {to: peer}}",
        "action: {delay: {latency: 100ms, jitter: 20ms, distribution: normal, correlation: 25}}",
        "action: {delay: {quantiles: [1ms, 2ms, 10ms], allowReorder: true}}",
    ] {
        let (wrong, spec) = admitted(Kind::NetworkFault, &with(part));
        assert!(wrong.is_empty(), "{part}: {wrong:?}");
        accepted(Kind::NetworkFault, spec).unwrap_or_else(|e| panic!("{part}: {e}"));
    }
}

/// Parts of a specification, and what is said of each.
const WRONG: &[(&str, &str)] = &[
    ("duration: 0s", ".duration: a duration above 0"),
    ("duration: 25h", ".duration: a duration above 0"),
    ("duration: 5", ".duration: 5 is no string"),
    ("duration: soon", ".duration: soon"),
    ("direction: up", ".direction"),
    ("target: {}", ".target: exactly one of"),
    (
        "target: {pods: {}}",
        ".target.pods: exactly one of name, selector",
    ),
    (
        "target: {pods: {name: a, selector: {}}}",
        ".target.pods: exactly one of",
    ),
    (
        "target: {pods: {name: a, pick: {seed: 1}}}",
        ".pick: exactly one of count, percent",
    ),
    (
        "target: {pods: {name: a, pick: {count: 1, percent: 5}}}",
        ".pick: exactly one of",
    ),
    ("target: {pods: {name: a, pick: {percent: 101}}}", ".pick.percent"),
    ("target: {service: {}}", ".target.service.name: is required"),
    (
        "target: {service: {name: a, pick: {seed: 1}}}",
        ".pick: exactly one of count, percent",
    ),
    (
        "peers: [{service: {name: a}, node: b}]",
        ".peers[0]: exactly one of",
    ),
    (
        "peers: [{service: {name: a, port: true}}]",
        ".peers[0].service.port: true is no",
    ),
    (
        "peers: [{service: {name: a, port: 1.5}}]",
        ".peers[0].service.port: 1.5 is no",
    ),
    (
        "target: {pods: {selector: {matchExpressions: [{key: a, operator: In}]}}}",
        "[0]: values are given with the operators In and NotIn",
    ),
    (
        "target: {pods: {selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}}",
        "[0]: values are given with the operators In and NotIn",
    ),
    ("peers: [{}]", ".peers[0]: exactly one of"),
    ("peers: [{ip: 10.0.0.1, host: a.b}]", ".peers[0]: exactly one of"),
    (
        "peers: [{ip: 10.0.0.1, except: [10.1.0.0/16]}]",
        ".peers[0]: except is given only",
    ),
    (
        "peers: [{pods: {namespace: a}}]",
        ".peers[0].pods: exactly one of",
    ),
    ("ports: [{port: 0}]", ".ports[0].port"),
    ("ports: [{port: 65536}]", ".ports[0].port"),
    (
        "ports: [{port: 80, endPort: 79}]",
        ".ports[0]: endPort is at least",
    ),
    (
        "ports: [{endPort: 79}]",
        ".ports[0]: endPort and end are given only",
    ),
    (
        "ports: [{protocol: ICMP, port: 80}]",
        ".ports[0]: port, endPort and end",
    ),
    (
        "ports: [{port: 80, icmpType: 3}]",
        ".ports[0]: icmpType and icmpCode",
    ),
    (
        "ports: [{protocol: ICMP, icmpCode: 3}]",
        ".ports[0]: icmpCode is given only",
    ),
    ("ports: [{protocol: tcp6}]", ".ports[0].protocol"),
    (
        "packets: {minLength: 100, maxLength: 50}",
        ".packets: minLength is at most",
    ),
    ("packets: {dscp: [64]}", ".packets.dscp[0]"),
    ("pulse: {on: 5m, off: 1s}", "pulse.on and pulse.off are below"),
    ("pulse: {on: 5us, off: 1s}", ".pulse.on: a duration from 1ms"),
    (
        "ramp: {over: 6m}\naction: {drop: {percent: 5}}",
        "ramp.over is at most",
    ),
    (
        "ramp: {over: 0s}\naction: {drop: {percent: 5}}",
        ".ramp.over: a duration above 0",
    ),
    ("action: {}", ".action: exactly one of"),
    ("action: {partition: {}, reject: {}}", ".action: exactly one of"),
    ("action: {explode: {}}", ".action.explode: unknown field"),
    ("action: {drop: {}}", ".action.drop: exactly one of"),
    (
        "action: {drop: {percent: 5, nth: {every: 2}}}",
        ".action.drop: exactly one of",
    ),
    (
        "action: {drop: {percent: 5, nth: {every: 2}, only: syn}}",
        ".action.drop: exactly one of",
    ),
    (
        "action: {drop: {nth: {}}}",
        ".action.drop.nth: exactly one of every, first",
    ),
    ("action: {drop: {percent: -1}}", ".action.drop.percent"),
    (
        "action: {corrupt: {percent: 1, offset: {from: 10, to: 10}}}",
        ".offset: to, the byte behind",
    ),
    ("action: {corrupt: {percent: 1, bits: 9}}", ".action.corrupt.bits"),
    ("action: {corrupt: {}}", ".action.corrupt.percent: is required"),
    (
        "action: {duplicate: {percent: 1, copies: 11}}",
        ".action.duplicate.copies",
    ),
    (
        "action: {reorder: {percent: 1}}",
        ".action.reorder: gap, delay or both",
    ),
    (
        "action: {rateLimit: {rate: 1mbit, queueBytes: 10KiB, queueTime: 1s}}",
        ".action.rateLimit: at most one of",
    ),
    (
        "action: {delay: {}}",
        ".action.delay: exactly one of latency, quantiles",
    ),
    (
        "action: {delay: {latency: 0s}}",
        ".action.delay: latency is above 0",
    ),
    (
        "action: {delay: {latency: 10ms, jitter: 11ms}}",
        ".action.delay: jitter is at most",
    ),
    (
        "action: {delay: {quantiles: [1ms, 2ms], jitter: 1ms}}",
        ".action.delay: nothing spreads",
    ),
    ("action: {reset: {to: all}}", ".action.reset.to"),
];

#[test]
fn what_is_wrong_is_refused_by_both_sides_for_its_field() {
    for &(part, said) in WRONG {
        let (wrong, spec) = admitted(Kind::NetworkFault, &with(part));
        assert!(
            wrong.iter().any(|wrong| wrong.contains(said)),
            "{part}: {wrong:?}"
        );
        assert!(accepted(Kind::NetworkFault, spec).is_err(), "{part} is accepted");
    }
}

const ELSEWHERE: &str = "target: {pods: {namespace: other, name: web-0}}";

/// Parts of a specification of either kind, and what is said of them, if anything is.
const PLACES: &[(Kind, &str, Option<&str>)] = &[
    (
        Kind::NetworkFault,
        ELSEWHERE,
        Some(".target.pods: a NetworkFault targets its own namespace"),
    ),
    (Kind::ClusterNetworkFault, ELSEWHERE, None),
    (Kind::NetworkFault, "", None),
    (
        Kind::ClusterNetworkFault,
        "",
        Some(".target.pods: namespace is given"),
    ),
    (
        Kind::NetworkFault,
        "target: {interface: eth0}",
        Some(".target: interface is a target of the node"),
    ),
    (Kind::ClusterNetworkFault, "target: {interface: eth0}", None),
    (
        Kind::NetworkFault,
        "target: {netns: /run/netns/a}",
        Some(".target: netns is a target of the node"),
    ),
    (Kind::ClusterNetworkFault, "target: {netns: /run/netns/a}", None),
    (
        Kind::ClusterNetworkFault,
        "target: {netns: run/netns/a}",
        Some(".target.netns"),
    ),
    (
        Kind::ClusterNetworkFault,
        "target: {interface: eth0}\npeers: [{pods: {name: a}}]",
        Some(".peers[0].pods: namespace is given"),
    ),
    (
        Kind::NetworkFault,
        "peers: [{pods: {namespace: other, name: a}}]",
        None,
    ),
    (
        Kind::NetworkFault,
        "target: {service: {namespace: other, name: front}}",
        Some(".target.service: a NetworkFault targets its own namespace"),
    ),
    (
        Kind::ClusterNetworkFault,
        "target: {service: {name: front}}",
        Some(".target.service: namespace is given"),
    ),
    (
        Kind::ClusterNetworkFault,
        "target: {service: {namespace: other, name: front}}",
        None,
    ),
    (
        Kind::NetworkFault,
        "target: {node: worker-1}",
        Some(".target: node is a target of the node"),
    ),
    (Kind::ClusterNetworkFault, "target: {node: worker-1}", None),
    (
        Kind::NetworkFault,
        "peers: [{service: {namespace: other, name: a}}]",
        None,
    ),
    (
        Kind::ClusterNetworkFault,
        "target: {node: worker-1}\npeers: [{service: {name: a}}]",
        Some(".peers[0].service: namespace is given"),
    ),
];

#[test]
fn a_fault_of_a_namespace_stays_in_it_and_one_of_the_cluster_says_where() {
    for &(kind, part, said) in PLACES {
        let spec = with(part);
        let (wrong, _) = admitted(kind, &spec);
        match said {
            None => assert!(wrong.is_empty(), "{kind}: {spec}: {wrong:?}"),
            Some(said) => assert!(
                wrong.iter().any(|wrong| wrong.contains(said)),
                "{kind}: {spec}: {wrong:?}"
            ),
        }
    }
}

#[test]
fn defaults_are_what_the_daemon_takes_for_absent() {
    let (_, spec) = admitted(Kind::NetworkFault, &with("ports: [{port: 80}]"));
    assert_eq!(spec["direction"], "both");
    assert_eq!(spec["spareNode"], true);
    assert_eq!(spec["allowControlPlane"], false);
    assert_eq!(spec["ports"][0]["protocol"], "TCP");
    for part in [
        "ports: [{port: 80}]",
        "action: {corrupt: {percent: 5}}",
        "action: {duplicate: {percent: 5}}",
        "action: {reject: {}}",
        "action: {reset: {}}",
        "action: {drop: {gilbertElliott: {p: 1, r: 25}}}",
        "ramp: {over: 1m}\naction: {drop: {percent: 5}}",
        "target: {pods: {selector: {}, pick: {count: 1}}}",
    ] {
        let written: FaultSpec = serde_norway::from_str(&with(part)).expect("a spec");
        let (wrong, filled) = admitted(Kind::NetworkFault, &with(part));
        assert!(wrong.is_empty(), "{part}: {wrong:?}");
        let filled: FaultSpec = serde_json::from_value(filled).expect("a spec");
        let metadata = Metadata {
            name: "fault".to_owned(),
            namespace: "shop".to_owned(),
        };
        let valid = |spec| {
            validate_at(
                &metadata,
                spec,
                &Limits::default(),
                std::time::SystemTime::UNIX_EPOCH,
            )
        };
        assert_eq!(
            valid(&written).expect("valid"),
            valid(&filled).expect("valid"),
            "{part}"
        );
    }
}

#[test]
fn the_scenarios_are_admitted() {
    let folder = root().join("deploy/scenarios");
    let mut count = 0;
    for folder in [folder.join("cluster"), folder] {
        for file in std::fs::read_dir(folder).expect("scenarios") {
            let path = file.expect("a file").path();
            if path.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            for manifest in sabot_core::parse_manifests(&text).expect("a manifest") {
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == manifest.kind);
                // As the client would write it, too.
                let mut document = serde_json::to_value(&manifest).expect("JSON");
                // The server has its own idea of that part.
                document["metadata"] = json!({});
                let wrong = server::admit(&schema(kind.expect("a kind")), &mut document);
                assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
                count += 1;
            }
        }
    }
    assert!(count >= 20, "only {count} scenarios");
}
