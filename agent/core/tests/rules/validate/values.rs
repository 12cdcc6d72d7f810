//! What valid actions, filters and times become.

use std::time::Duration;

use sabot_core::delay::Distribution;
use sabot_core::loss::GilbertElliott;
use sabot_core::model::{
    Action, Corrupt, CorruptKind, Delay, Duplicate, Handshake, Loss, LossModel, PacketFilter, Peer,
    PortMatch, PortRange, PortSide, Pulse, QueueBound, Ramp, RateLimit, RejectCode, Reorder, ResetTo,
};

use crate::fixtures::percent;

fn action(fields: &str) -> Action {
    let checked = super::check(&format!("action: {{{fields}}}"));
    checked
        .unwrap_or_else(|found| panic!("{fields}: {found:?}"))
        .action
}

fn lost(model: LossModel, only: Option<Handshake>) -> Action {
    Action::Drop(Loss { model, only })
}

fn chain(p: f64, r: f64, loss_good: f64, loss_bad: f64) -> LossModel {
    LossModel::GilbertElliott(GilbertElliott {
        p,
        r,
        loss_good,
        loss_bad,
    })
}

/// An action becomes what is expected, with this stationary loss.
fn assert_loss(fields: &str, expected: &Action, loss: Option<f64>) {
    let read = action(fields);
    assert_eq!(read, *expected, "{fields}");
    let got = read.expected_loss();
    let is_near = match (got, loss) {
        (Some(got), Some(loss)) => (got - loss).abs() < 1e-12,
        (got, loss) => got == loss,
    };
    assert!(is_near, "{fields}: {got:?} instead of {loss:?}");
}

#[test]
fn independent_losses_are_what_was_written_and_say_how_much_they_lose() {
    for (fields, expected, loss) in [
        (
            "drop: {percent: 5}",
            lost(LossModel::Percent(percent(5.0)), None),
            Some(0.05),
        ),
        (
            "drop: {only: syn}",
            lost(LossModel::Percent(percent(100.0)), Some(Handshake::Syn)),
            None,
        ),
        (
            "drop: {percent: 30, only: handshake}",
            lost(LossModel::Percent(percent(30.0)), Some(Handshake::Both)),
            None,
        ),
        (
            "drop: {nth: {every: 1}}",
            lost(LossModel::EveryNth(1), None),
            Some(1.0),
        ),
        (
            "drop: {nth: {every: 10}}",
            lost(LossModel::EveryNth(10), None),
            Some(0.1),
        ),
        (
            "drop: {nth: {first: 3}}",
            lost(LossModel::FirstOfConnection(3), None),
            None,
        ),
        (
            "drop: {flows: {percent: 20}}",
            lost(LossModel::Flows(percent(20.0)), None),
            Some(0.2),
        ),
        ("partition: {}", Action::Partition, None),
    ] {
        assert_loss(fields, &expected, loss);
    }
}

#[test]
fn bursts_are_chains_and_say_how_much_they_lose() {
    for (fields, expected, loss) in [
        (
            "drop: {gilbertElliott: {p: 25, r: 75}}",
            lost(chain(0.25, 0.75, 0.0, 1.0), None),
            Some(0.25),
        ),
        (
            "drop: {gilbertElliott: {p: 50, r: 50, lossGood: 25, lossBad: 75}}",
            lost(chain(0.5, 0.5, 0.25, 0.75), None),
            Some(0.5),
        ),
        (
            "drop: {burst: {percent: 20, length: 4}}",
            lost(chain(0.25 * 0.2 / 0.8, 0.25, 0.0, 1.0), None),
            Some(0.2),
        ),
        (
            "drop: {burst: {percent: 50, length: 1}}",
            lost(chain(1.0, 1.0, 0.0, 1.0), None),
            Some(0.5),
        ),
    ] {
        assert_loss(fields, &expected, loss);
    }
}

#[test]
fn the_loss_of_a_ramp_is_that_of_its_end() {
    let instants = sabot_core::Instants {
        boot: sabot_core::model::BootTime(0),
        wall: std::time::SystemTime::now(),
    };
    let fields = "ramp: {over: 1s, from: 10, to: 50}, action: {drop: {percent: 5}}";
    let fault = super::check(fields).expect("valid").fix(instants, 7);
    assert_eq!(fault.expected_loss(), Some(0.025));
}

#[test]
fn shares_of_packets_are_what_was_written() {
    let corrupt = |kind, bits, offset| {
        Action::Corrupt(Corrupt {
            percent: percent(1.0),
            kind,
            bits,
            offset,
        })
    };
    assert_eq!(
        action("corrupt: {percent: 1}"),
        corrupt(CorruptKind::Payload, 1, (0, u32::MAX))
    );
    assert_eq!(
        action("corrupt: {percent: 1, kind: wire, bits: 8, offset: {from: 4, to: 100}}"),
        corrupt(CorruptKind::Wire, 8, (4, 100))
    );
    let duplicate = |copies, delay| {
        Action::Duplicate(Duplicate {
            percent: percent(5.0),
            copies,
            delay: Duration::from_millis(delay),
        })
    };
    assert_eq!(action("duplicate: {percent: 5}"), duplicate(1, 0));
    assert_eq!(
        action("duplicate: {percent: 5, copies: 10, delay: 10ms}"),
        duplicate(10, 10)
    );
    let reorder = |gap, delay| {
        Action::Reorder(Reorder {
            percent: percent(5.0),
            gap,
            delay: Duration::from_millis(delay),
        })
    };
    assert_eq!(action("reorder: {percent: 5, gap: 3}"), reorder(Some(3), 100));
    assert_eq!(action("reorder: {percent: 5, delay: 10ms}"), reorder(None, 10));
}

#[test]
fn rates_have_a_burst_and_a_queue() {
    let limit = |rate, burst, queue| Action::RateLimit(RateLimit { rate, burst, queue });
    let time = |milliseconds| QueueBound::Time(Duration::from_millis(milliseconds));
    for (fields, expected) in [
        ("rate: 10mbit", limit(10_000_000, 3_028, time(100))),
        ("rate: 1gbit", limit(1_000_000_000, 125_000, time(100))),
        ("rate: 100Gbit", limit(100_000_000_000, 12_500_000, time(100))),
        ("rate: 1mbit, queueTime: 0s", limit(1_000_000, 3_028, time(0))),
        (
            "rate: 1mbit, burst: 16KiB, queueTime: 1s",
            limit(1_000_000, 16_384, time(1000)),
        ),
        (
            "rate: 1mbit, queueBytes: 256kB",
            limit(1_000_000, 3_028, QueueBound::Bytes(256_000)),
        ),
    ] {
        assert_eq!(action(&format!("rateLimit: {{{fields}}}")), expected, "{fields}");
    }
}

#[test]
fn answers_go_out_as_written() {
    for (code, expected) in [
        ("{}", RejectCode::PortUnreachable),
        ("{code: net-unreachable}", RejectCode::NetUnreachable),
        ("{code: host-unreachable}", RejectCode::HostUnreachable),
        ("{code: port-unreachable}", RejectCode::PortUnreachable),
        ("{code: admin-prohibited}", RejectCode::AdminProhibited),
    ] {
        assert_eq!(
            action(&format!("reject: {code}")),
            Action::Reject(expected),
            "{code}"
        );
    }
    for (to, expected) in [
        ("{}", ResetTo::Both),
        ("{to: both}", ResetTo::Both),
        ("{to: target}", ResetTo::Target),
        ("{to: peer}", ResetTo::Peer),
    ] {
        assert_eq!(action(&format!("reset: {to}")), Action::Reset(expected), "{to}");
    }
}

#[test]
fn delays_are_what_was_written() {
    let ms = Duration::from_millis;
    let jittered = |distribution, correlation, allow_reorder| {
        Action::Delay(Delay {
            latency: ms(100),
            jitter: ms(100),
            distribution,
            correlation,
            allow_reorder,
        })
    };
    for (rest, expected) in [
        ("", jittered(Distribution::Uniform, 0.0, false)),
        (
            ", distribution: normal",
            jittered(Distribution::Normal, 0.0, false),
        ),
        (
            ", distribution: pareto, correlation: 25",
            jittered(Distribution::Pareto, 0.25, false),
        ),
        (
            ", distribution: paretoNormal, allowReorder: true",
            jittered(Distribution::ParetoNormal, 0.0, true),
        ),
    ] {
        let fields = format!("delay: {{latency: 100ms, jitter: 100ms{rest}}}");
        assert_eq!(action(&fields), expected, "{fields}");
    }
    let table = Delay {
        latency: Duration::ZERO,
        jitter: Duration::ZERO,
        distribution: Distribution::Table([ms(0), ms(9), ms(9), ms(40)].into()),
        correlation: 0.5,
        allow_reorder: true,
    };
    assert_eq!(
        action("delay: {quantiles: [0ms, 9ms, 9ms, 40ms], correlation: 50, allowReorder: true}"),
        Action::Delay(table)
    );
}

#[test]
fn the_filter_and_the_course_are_what_was_written() {
    let fault = super::check(
        "ports: [{port: 8000, endPort: 8099, end: destination}, {protocol: icmp, icmpType: 8, icmpCode: 0}, \
         {protocol: ICMPv6, icmpType: 128}, {protocol: UDP, port: 53, end: source}, {protocol: ICMP}], \
         packets: {dscp: [0, 46, 63], minLength: 100, maxLength: 1500}, peers: [{host: API.Example.com.}], \
         pulse: {onTime: 10s, offTime: 5s}, ramp: {over: 1m, from: 50, to: 200}, seed: 18446744073709551615, \
         action: {drop: {percent: 50}}",
    )
    .expect("valid");
    let one = |protocol, what| PortMatch {
        protocol: Some(protocol),
        what,
    };
    let ports = |first, last, side| PortRange::Ports { first, last, side };
    assert_eq!(
        fault.ports,
        [
            one(6, ports(8000, 8099, PortSide::Destination)),
            one(
                1,
                PortRange::Icmp {
                    kind: 8,
                    code: Some(0)
                }
            ),
            one(
                58,
                PortRange::Icmp {
                    kind: 128,
                    code: None
                }
            ),
            one(17, ports(53, 53, PortSide::Source)),
            one(1, PortRange::All),
        ]
    );
    let packets = PacketFilter {
        dscp: 1 | 1 << 46 | 1 << 63,
        least_length: 100,
        greatest_length: 1500,
    };
    assert_eq!(fault.packets, packets);
    assert_eq!(fault.peers, [Peer::Host("api.example.com".to_owned())]);
    let pulse = Pulse {
        on: Duration::from_secs(10),
        off: Duration::from_secs(5),
    };
    let ramp = Ramp {
        over: Duration::from_secs(60),
        from: 0.5,
        to: 2.0,
    };
    assert_eq!(
        (fault.pulse, fault.ramp, fault.seed),
        (Some(pulse), Some(ramp), Some(u64::MAX))
    );
    let plain = super::check("packets: {}").expect("valid");
    assert_eq!((plain.packets, plain.seed), (PacketFilter::ALL, None));
}
