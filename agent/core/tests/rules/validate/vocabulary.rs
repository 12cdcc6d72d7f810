//! The actions, the traffic filter and the times, each way to be wrong in a line.

const LOSSES: &[(&str, &str)] = &[
    (
        "action: {drop: {}}",
        "spec.action.drop: nothing given; allowed: exactly one of percent, gilbertElliott, burst, nth, flows",
    ),
    (
        "action: {drop: {percent: 1, flows: {percent: 2}, only: syn}}",
        "spec.action.drop: `percent, flows` given; allowed: exactly one of percent",
    ),
    (
        "action: {drop: {only: fin}}",
        "spec.action.drop.only: `fin` given; allowed: syn or handshake",
    ),
    (
        "action: {drop: {gilbertElliott: {p: 101, r: 1}}}",
        "spec.action.drop.gilbertElliott.p: `101` given; allowed: a number from 0 to 100",
    ),
    (
        "action: {drop: {gilbertElliott: {p: 1, r: -1}}}",
        "spec.action.drop.gilbertElliott.r: `-1` given; allowed: ",
    ),
    (
        "action: {drop: {gilbertElliott: {p: 1, r: 1, lossGood: .nan}}}",
        "spec.action.drop.gilbertElliott.lossGood: `NaN` given; allowed: ",
    ),
    (
        "action: {drop: {gilbertElliott: {p: 1, r: 1, lossBad: 200}}}",
        "spec.action.drop.gilbertElliott.lossBad: `200` given; allowed: ",
    ),
    (
        "action: {drop: {burst: {percent: 2, length: 0.5}}}",
        "spec.action.drop.burst.length: `0.5` given; allowed: a mean number of packets from 1 to 1000000",
    ),
    (
        "action: {drop: {burst: {percent: 2, length: .inf}}}",
        "spec.action.drop.burst.length: `inf` given; allowed: a mean number",
    ),
    (
        "action: {drop: {burst: {percent: 101, length: 8}}}",
        "spec.action.drop.burst.percent: `101` given; allowed: a number from 0 to 100",
    ),
    (
        "action: {drop: {burst: {percent: 90, length: 8}}}",
        "spec.action.drop.burst.percent: `90` given; allowed: at most 88.888 with a mean length of 8, since",
    ),
    (
        "action: {drop: {burst: {percent: 100, length: 8}}}",
        "spec.action.drop.burst.percent: `100` given; allowed: at most 88.888 ",
    ),
    (
        "action: {drop: {nth: {}}}",
        "spec.action.drop.nth: nothing given; allowed: exactly one of every, first",
    ),
    (
        "action: {drop: {nth: {every: 2, first: 2}}}",
        "spec.action.drop.nth: `every, first` given; allowed: exactly one",
    ),
    (
        "action: {drop: {nth: {every: 0}}}",
        "spec.action.drop.nth.every: `0` given; allowed: a number of packets from 1 on",
    ),
    (
        "action: {drop: {nth: {first: 0}}}",
        "spec.action.drop.nth.first: `0` given; allowed: ",
    ),
    (
        "action: {drop: {flows: {percent: 101}}}",
        "spec.action.drop.flows.percent: `101` given; allowed: ",
    ),
];

const ACTIONS: &[(&str, &str)] = &[
    (
        "action: {corrupt: {percent: 1, bits: 0}}",
        "spec.action.corrupt.bits: `0` given; allowed: a number of bits from 1 to 8",
    ),
    (
        "action: {corrupt: {percent: 1, bits: 264}}",
        "spec.action.corrupt.bits: `264` given",
    ),
    (
        "action: {corrupt: {percent: 1, offset: {from: 5, to: 5}}}",
        "spec.action.corrupt.offset: `from 5 to 5` given; allowed: a range",
    ),
    (
        "action: {duplicate: {percent: -1}}",
        "spec.action.duplicate.percent: `-1` given; allowed: ",
    ),
    (
        "action: {duplicate: {percent: 1, copies: 0}}",
        "spec.action.duplicate.copies: `0` given; allowed: a number of copies from 1 to 10",
    ),
    (
        "action: {duplicate: {percent: 1, copies: 257}}",
        "spec.action.duplicate.copies: `257`",
    ),
    (
        "action: {duplicate: {percent: 1, delay: 61s}}",
        "spec.action.duplicate.delay: `1m 1s` given; allowed: a duration up to 1m",
    ),
    (
        "action: {reorder: {percent: 5}}",
        "spec.action.reorder: nothing given; allowed: gap, delay or both",
    ),
    (
        "action: {reorder: {percent: 101, gap: 1}}",
        "spec.action.reorder.percent: `101` given",
    ),
    (
        "action: {reorder: {percent: 5, gap: 1001}}",
        "spec.action.reorder.gap: `1001` given; allowed: a number of packets from 1 to 1000",
    ),
    (
        "action: {reorder: {percent: 5, delay: 0s}}",
        "spec.action.reorder.delay: `0s` given; allowed: a duration above 0 and up to 1m",
    ),
    (
        "action: {rateLimit: {rate: 10mb}}",
        "spec.action.rateLimit.rate: `10mb` given; allowed: a bit rate from 1kbit to 100gbit",
    ),
    (
        "action: {rateLimit: {rate: 999bit}}",
        "spec.action.rateLimit.rate: `999bit` given",
    ),
    (
        "action: {rateLimit: {rate: 101gbit}}",
        "spec.action.rateLimit.rate: `101gbit` given",
    ),
    (
        "action: {rateLimit: {rate: 1mbit, burst: 1513}}",
        "spec.action.rateLimit.burst: `1513` given; allowed: bytes from 1514",
    ),
    (
        "action: {rateLimit: {rate: 1mbit, burst: 2GiB}}",
        "spec.action.rateLimit.burst: `2GiB` given",
    ),
    (
        "action: {rateLimit: {rate: 1mbit, queueBytes: 9kB, queueTime: 1s}}",
        "spec.action.rateLimit: `queueBytes, queueTime` given; allowed: at most one of",
    ),
    (
        "action: {rateLimit: {rate: 1mbit, queueTime: 61s}}",
        "spec.action.rateLimit.queueTime: `1m 1s` given; allowed: a duration up to 1m",
    ),
    (
        "action: {rateLimit: {rate: 1mbit, queueBytes: 8MB}}",
        "spec.action.rateLimit.queueBytes: `8MB` given; allowed: bytes from 1514, one packet, to 7500000, which wait for 1m",
    ),
    (
        "action: {rateLimit: {rate: 1mbit, queueBytes: 100}}",
        "spec.action.rateLimit.queueBytes: `100` given; allowed: bytes from 1514",
    ),
    (
        "action: {reject: {code: gone}}",
        "spec.action.reject.code: `gone` given; allowed: port-unreachable, net-unreachable, host-unreachable or admin",
    ),
    (
        "action: {reset: {to: all}}",
        "spec.action.reset.to: `all` given; allowed: both, target or peer",
    ),
    (
        "action: {delay: {}}",
        "spec.action.delay.latency: nothing given; allowed: a duration above 0 and up to 1m, or quantiles",
    ),
    (
        "action: {delay: {latency: 9ms, jitter: 1ms, distribution: gamma}}",
        "spec.action.delay.distribution: `gamma` given; allowed: uniform, normal, pareto or paretoNormal",
    ),
    (
        "action: {delay: {latency: 9ms, distribution: normal}}",
        "spec.action.delay.distribution: `normal` given; allowed: uniform, or a jitter",
    ),
    (
        "action: {delay: {latency: 9ms, jitter: 10ms, distribution: normal}}",
        "spec.action.delay.jitter: `10ms` given; allowed: a duration up to the latency, 9ms",
    ),
    (
        "action: {delay: {latency: 9ms, jitter: 1ms, correlation: 100}}",
        "spec.action.delay.correlation: `100` given; allowed: a number from 0 to below 100",
    ),
    (
        "action: {delay: {latency: 9ms, correlation: 5}}",
        "spec.action.delay.correlation: `5` given; allowed: nothing without jitter or quantiles",
    ),
    (
        "action: {delay: {latency: 9ms, allowReorder: true}}",
        "spec.action.delay.allowReorder: `true` given; allowed: false without jitter or quantiles",
    ),
    (
        "action: {delay: {quantiles: [1ms, 2ms], latency: 1ms}}",
        "spec.action.delay.latency: `1ms` given; allowed: nothing beside quantiles",
    ),
    (
        "action: {delay: {quantiles: [1ms, 2ms], jitter: 1ms}}",
        "spec.action.delay.jitter: `1ms` given; allowed: nothing beside quantiles",
    ),
    (
        "action: {delay: {quantiles: [1ms, 2ms], distribution: uniform}}",
        "spec.action.delay.distribution: `uniform` given; allowed: nothing beside quantiles",
    ),
    (
        "action: {delay: {quantiles: [1ms]}}",
        "spec.action.delay.quantiles: `1` given; allowed: 2 to 1024 durations",
    ),
    (
        "action: {delay: {quantiles: [1ms, 9ms, 5ms]}}",
        "spec.action.delay.quantiles[2]: `5ms` given; allowed: at least 9ms, as the one before it",
    ),
    (
        "action: {delay: {quantiles: [1ms, 61s]}}",
        "spec.action.delay.quantiles[1]: `1m 1s` given; allowed: a duration above 0 and up to 1m",
    ),
];

const TRAFFIC: &[(&str, &str)] = &[
    (
        "ports: [{port: 80, endPort: 79}]",
        "spec.ports[0].endPort: `79` given; allowed: a port from 80, which is `port`, to 65535",
    ),
    (
        "ports: [{port: 80, endPort: 65536}]",
        "spec.ports[0].endPort: `65536` given; allowed: ",
    ),
    (
        "ports: [{endPort: 80}]",
        "spec.ports[0].endPort: `80` given; allowed: an endPort only beside port",
    ),
    (
        "ports: [{protocol: UDP, end: source}]",
        "spec.ports[0].end: `source` given; allowed: an end only beside port",
    ),
    (
        "ports: [{port: 80, end: both}]",
        "spec.ports[0].end: `both` given; allowed: source or destination",
    ),
    (
        "ports: [{protocol: UDP, icmpType: 8}]",
        "spec.ports[0].icmpType: `8` given; allowed: nothing unless the protocol is ICMP or ICMPv6",
    ),
    (
        "ports: [{protocol: ICMP, icmpCode: 0}]",
        "spec.ports[0].icmpCode: `0` given; allowed: an icmpCode only beside icmpType",
    ),
    (
        "ports: [{protocol: ICMP, icmpType: 256}]",
        "spec.ports[0].icmpType: `256` given; allowed: a number from 0 to 255",
    ),
    (
        "ports: [{protocol: ICMPv6, icmpType: 1, icmpCode: 256}]",
        "spec.ports[0].icmpCode: `256` given; allowed: ",
    ),
    (
        "ports: [{protocol: ICMPv6, end: source}]",
        "spec.ports[0].end: `source` given; allowed: no port, since ICMPv6",
    ),
    (
        "packets: {dscp: [0, 64]}",
        "spec.packets.dscp[1]: `64` given; allowed: a code point from 0 to 63",
    ),
    (
        "packets: {minLength: 19}",
        "spec.packets.minLength: `19` given; allowed: bytes of an IP packet from 20 to 65575",
    ),
    (
        "packets: {maxLength: 65576}",
        "spec.packets.maxLength: `65576` given; allowed: ",
    ),
    (
        "packets: {minLength: 101, maxLength: 100}",
        "spec.packets.minLength: `101` given; allowed: at most maxLength, 100",
    ),
    (
        "peers: [{host: '*.example.com'}]",
        "spec.peers[0].host: `*.example.com` given; allowed: a DNS name, as api.example.com",
    ),
    (
        "peers: [{host: ''}]",
        "spec.peers[0].host: nothing given; allowed: a DNS name",
    ),
    (
        "peers: [{host: 10.0.0.1}]",
        "spec.peers[0].host: `10.0.0.1` given; allowed: a DNS name; an address is given as `ip`",
    ),
    (
        "peers: [{host: a.example, ip: 10.0.0.1}]",
        "spec.peers[0]: `ip, host` given; allowed: exactly one of ip, cidr, pods, host",
    ),
];

const TIMES: &[(&str, &str)] = &[
    (
        "pulse: {onTime: 999us, offTime: 1s}",
        "spec.pulse.onTime: `999us` given; allowed: a duration from 1ms to below the fault's, 1m",
    ),
    (
        "pulse: {onTime: 1s, offTime: 0s}",
        "spec.pulse.offTime: `0s` given; allowed: a duration from 1ms",
    ),
    (
        "pulse: {onTime: 1m, offTime: 1s}",
        "spec.pulse.onTime: `1m` given; allowed: ",
    ),
    (
        "ramp: {over: 0s}, action: {drop: {percent: 1}}",
        "spec.ramp.over: `0s` given; allowed: a duration above 0 and up to the fault's, 1m",
    ),
    (
        "ramp: {over: 61s}, action: {drop: {percent: 1}}",
        "spec.ramp.over: `1m 1s` given; allowed: ",
    ),
    (
        "ramp: {over: 1s}",
        "spec.ramp: `a ramp` given; allowed: no ramp with this partition; one goes with drop",
    ),
    (
        "ramp: {over: 1s}, action: {drop: {nth: {every: 2}}}",
        "spec.ramp: `a ramp` given; allowed: no ramp with this drop; one",
    ),
    (
        "ramp: {over: 1s}, action: {reset: {}}",
        "spec.ramp: `a ramp` given; allowed: no ramp with this reset",
    ),
    (
        "ramp: {over: 1s, from: -1}, action: {delay: {latency: 1s}}",
        "spec.ramp.from: `-1` given; allowed: a percent of the action's value from 0 to 1000",
    ),
    (
        "ramp: {over: 1s, to: 1001}, action: {delay: {latency: 1s}}",
        "spec.ramp.to: `1001` given; allowed: a percent of the action's value from 0 to 1000",
    ),
    (
        "ramp: {over: 1s, to: 301}, action: {delay: {latency: 20s}}",
        "spec.ramp.to: `301` given; allowed: a percent of the action's value from 0 to 300",
    ),
    (
        "ramp: {over: 1s, to: 334}, action: {duplicate: {percent: 30}}",
        "spec.ramp.to: `334` given; allowed: a percent of the action's value from 0 to 333.333",
    ),
    (
        "ramp: {over: 1s}, action: {rateLimit: {rate: 1mbit}}",
        "spec.ramp.from: `0` given; allowed: a percent of the action's value from 1 to 1000",
    ),
    (
        "ramp: {over: 1s, from: 1, to: 201}, action: {rateLimit: {rate: 50gbit}}",
        "spec.ramp.to: `201` given; allowed: a percent of the action's value from 1 to 200",
    ),
];

#[test]
fn each_rule_names_field_value_and_what_is_allowed() {
    for (fields, expected) in [LOSSES, ACTIONS, TRAFFIC, TIMES].into_iter().flatten() {
        let found = super::violations(fields);
        assert_eq!(found.len(), 1, "{fields}: {found:?}");
        assert!(found[0].starts_with(expected), "{fields}: {found:?}");
    }
}
