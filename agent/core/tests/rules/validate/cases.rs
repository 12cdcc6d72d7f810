//! One line for each way to be wrong: the fields given, and how the violation begins.

const FAULTS: &[(&str, &str)] = &[
    (
        "action: {drop: {percent: 120}}",
        "spec.action.drop.percent: `120` given; allowed: a number from 0 to 100",
    ),
    (
        "action: {drop: {percent: .nan}}",
        "spec.action.drop.percent: `NaN` given; allowed: ",
    ),
    (
        "action: {corrupt: {percent: -1}}",
        "spec.action.corrupt.percent: `-1` given; allowed: ",
    ),
    (
        "action: {corrupt: {percent: 1, kind: header}}",
        "spec.action.corrupt.kind: `header` given; allowed: payload or wire",
    ),
    (
        "action: {}",
        "spec.action: nothing given; allowed: exactly one of partition, drop, corrupt, duplicate",
    ),
    (
        "action: {partition: {}, drop: {percent: 1}}",
        "spec.action: `partition, drop` given; allowed: exactly one",
    ),
    (
        "action: {delay: {latency: 0s}}",
        "spec.action.delay.latency: `0s` given; allowed: a duration above 0",
    ),
    (
        "action: {delay: {latency: 61s}}",
        "spec.action.delay.latency: `1m 1s` given; allowed: ",
    ),
    (
        "action: {delay: {latency: 1ms, jitter: 2ms}}",
        "spec.action.delay.jitter: `2ms` given; allowed: a duration up",
    ),
    (
        "action: {delay: {latency: 1ms, distribution: pareto}}",
        "spec.action.delay.distribution: `pareto` given",
    ),
    (
        "duration: 0s",
        "spec.duration: `0s` given; allowed: a duration above 0 and up to 1h",
    ),
    ("duration: 61m", "spec.duration: `1h 1m` given; allowed: "),
    ("duration: null", "spec.duration: nothing given; allowed: "),
    (
        "startsAt: 2001-01-01T00:00:00Z",
        "spec.startsAt: `2001-01-01T00:00:00Z` given; allowed: a time from now",
    ),
    (
        "startsAt: 9999-01-01T00:00:00Z",
        "spec.startsAt: `9999-01-01T00:00:00Z` given; allowed: ",
    ),
    (
        "target: {}",
        "spec.target: nothing given; allowed: exactly one of pods, netns, interface",
    ),
    (
        "target: {interface: eth0, netns: /x}",
        "spec.target: `netns, interface` given; allowed: exactly one of",
    ),
    (
        "target: {netns: x}",
        "spec.target.netns: `x` given; allowed: the absolute path",
    ),
    (
        "target: {interface: a/b}",
        "spec.target.interface: `a/b` given; allowed: a device name",
    ),
    (
        "target: {interface: ''}",
        "spec.target.interface: nothing given; allowed: a device name",
    ),
    (
        "target: {pods: {}}",
        "spec.target.pods: nothing given; allowed: exactly one of name, selector",
    ),
    (
        "target: {pods: {name: A}}",
        "spec.target.pods.name: `A` given; allowed: an RFC 1123 subdomain",
    ),
    (
        "target: {pods: {name: a, namespace: a.b}}",
        "spec.target.pods.namespace: `a.b` given; allowed: an RFC 1123",
    ),
    (
        "target: {pods: {name: a, pick: {}}}",
        "spec.target.pods.pick: nothing given; allowed: exactly one of count",
    ),
    (
        "target: {pods: {name: a, pick: {count: 0}}}",
        "spec.target.pods.pick.count: `0` given; allowed: a number",
    ),
    (
        "target: {service: {name: Pay.ments}}",
        "spec.target.service.name: `Pay.ments` given; allowed: an RFC 1123 label",
    ),
    (
        "target: {service: {name: payments, namespace: a.b}}",
        "spec.target.service.namespace: `a.b` given; allowed: an RFC 1123 label",
    ),
    (
        "target: {service: {name: payments, pick: {count: 0}}}",
        "spec.target.service.pick.count: `0` given; allowed: a number",
    ),
    (
        "target: {node: 'a b'}",
        "spec.target.node: `a b` given; allowed: an RFC 1123 subdomain",
    ),
    (
        "target: {node: a, service: {name: b}}",
        "spec.target: `service, node` given; allowed: exactly one of pods, netns, interface, service, node",
    ),
    (
        "peers: [{service: {name: ''}}]",
        "spec.peers[0].service.name: nothing given; allowed: an RFC 1123 label",
    ),
    (
        "peers: [{service: {name: a, port: 0}}]",
        "spec.peers[0].service.port: `0` given; allowed: a port of the Service: its number, from 1 to 65535",
    ),
    (
        "peers: [{service: {name: a, port: 65536}}]",
        "spec.peers[0].service.port: `65536` given; allowed: a port",
    ),
    (
        "peers: [{service: {name: a, port: '99999'}}]",
        "spec.peers[0].service.port: `99999` given; allowed: a port",
    ),
    (
        "peers: [{service: {name: a, port: HTTP}}]",
        "spec.peers[0].service.port: `HTTP` given; allowed: a port",
    ),
    (
        "peers: [{node: ''}]",
        "spec.peers[0].node: nothing given; allowed: an RFC 1123 subdomain",
    ),
    (
        "peers: [{node: a, ip: 10.0.0.1}]",
        "spec.peers[0]: `ip, node` given; allowed: exactly one of ip, cidr, pods, host, service, node",
    ),
    (
        "target: {pods: {name: a, pick: {percent: 101}}}",
        "spec.target.pods.pick.percent: `101` given; allowed: ",
    ),
];

const MATCHES: &[(&str, &str)] = &[
    (
        "target: {pods: {selector: {matchLabels: {-a: b}}}}",
        "spec.target.pods.selector.matchLabels: `-a` given; allowed: a label key",
    ),
    (
        "target: {pods: {selector: {matchLabels: {a: b c}}}}",
        "spec.target.pods.selector.matchLabels[a]: `b c` given; allowed: a label value",
    ),
    (
        "target: {pods: {selector: {matchExpressions: [{key: a, operator: in}]}}}",
        "spec.target.pods.selector.matchExpressions[0].operator: `in` given",
    ),
    (
        "target: {pods: {selector: {matchExpressions: [{key: a, operator: In}]}}}",
        "spec.target.pods.selector.matchExpressions[0].values: nothing given",
    ),
    (
        "target: {pods: {selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}}",
        "spec.target.pods.selector.matchExpressions[0].values: `b` given; allowed: no values",
    ),
    (
        "peers: [{}]",
        "spec.peers[0]: nothing given; allowed: exactly one of ip, cidr, pods",
    ),
    (
        "peers: [{ip: 1.2.3}]",
        "spec.peers[0].ip: `1.2.3` given; allowed: an IPv4 or IPv6 address",
    ),
    (
        "peers: [{cidr: 10.0.0.0}]",
        "spec.peers[0].cidr: `10.0.0.0` given; allowed: a network as",
    ),
    (
        "peers: [{cidr: 10.1.2.3/8}]",
        "spec.peers[0].cidr: `10.1.2.3/8` given; allowed: the network 10.0.0.0/8, or 10.1.2.3/32",
    ),
    (
        "peers: [{ip: 10.0.0.1, except: [10.0.0.0/8]}]",
        "spec.peers[0].except: `10.0.0.0/8` given; allowed: except only beside cidr",
    ),
    (
        "peers: [{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}]",
        "spec.peers[0].except[0]: `10.0.0.0/8` given; allowed: a network inside 10.0.0.0/8",
    ),
    (
        "peers: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16, 11.0.0.0/16]}]",
        "spec.peers[0].except[1]: `11.0.0.0/16` given; allowed: a network inside",
    ),
    (
        "peers: [{cidr: 10.0.0.0/8, except: ['fd00::/64']}]",
        "spec.peers[0].except[0]: `fd00::/64` given; allowed: a network inside",
    ),
    (
        "ports: [{port: 0}]",
        "spec.ports[0].port: `0` given; allowed: a port from 1 to 65535",
    ),
    (
        "ports: [{port: 65536}]",
        "spec.ports[0].port: `65536` given; allowed: a port",
    ),
    (
        "ports: [{protocol: GRE}]",
        "spec.ports[0].protocol: `GRE` given; allowed: TCP, UDP",
    ),
    (
        "ports: [{protocol: icmp, port: 1}]",
        "spec.ports[0].port: `1` given; allowed: no port, since ICMP",
    ),
];

#[test]
fn each_rule_names_field_value_and_what_is_allowed() {
    for (fields, expected) in FAULTS.iter().chain(MATCHES) {
        let found = super::violations(fields);
        assert_eq!(found.len(), 1, "{fields}: {found:?}");
        assert!(found[0].starts_with(expected), "{fields}: {found:?}");
    }
}

#[test]
fn a_rule_holds_16_port_matches() {
    let ports = |count| format!("ports: [{}]", "{port: 1}, ".repeat(count));
    assert!(super::check(&ports(16)).is_ok());
    assert_eq!(
        super::violations(&ports(17)),
        ["spec.ports: `17` given; allowed: at most 16 port matches"]
    );
}
