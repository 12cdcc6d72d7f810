use std::collections::BTreeSet;

use sabot_core::delay::Distribution;
use sabot_core::loss::GilbertElliott;
use sabot_core::model::{
    BootTime, Corrupt, Delay, Duplicate, QueueBound, RateLimit, RejectCode, Reorder, ResetTo,
};
use sabot_core::plan::PeerSetId;

use super::*;

const BOTH: u32 = abi::RULE_EGRESS | abi::RULE_INGRESS;

fn body(action: Action) -> RuleBody {
    RuleBody {
        action,
        direction: Direction::Both,
        ports: Vec::new(),
        packets: PacketFilter::ALL,
        peers: None,
        peers_exact: false,
        peers_prefix: false,
        spare_node: false,
        allow_control_plane: false,
        watches_dns: false,
        pulse: None,
        ramp: None,
        seed: 11,
        starts_at: BootTime(1),
        expires_at: BootTime(2),
        sample_every: 3,
    }
}

fn percent(value: f64) -> Percent {
    Percent::new(value).unwrap()
}

fn loss(model: LossModel) -> Action {
    Action::Drop(Loss { model, only: None })
}

fn encoded(action: Action) -> abi::Rule {
    encode_rule(&body(action), 0)
}

#[test]
fn a_constant_delay_can_be_told_as_a_departure() {
    let delay = |millis, jitter| {
        Action::Delay(Delay {
            latency: Duration::from_millis(millis),
            jitter: Duration::from_millis(jitter),
            distribution: Distribution::Uniform,
            correlation: 0.0,
            allow_reorder: false,
        })
    };
    assert_eq!(encoded(delay(40, 0)).latency, 40_000_000);
    assert_eq!(encoded(delay(200, 0)).latency, 200_000_000);
    assert_eq!(
        encoded(delay(201, 0)).latency,
        0,
        "the delay line can let it go early"
    );
    assert_eq!(encoded(delay(40, 1)).latency, 0);
    assert_eq!(encoded(Action::Partition).latency, 0);
}

#[test]
fn every_field_of_the_filter_arrives() {
    let mut rule = body(loss(LossModel::Percent(percent(50.0))));
    rule.peers = Some(PeerSetId(9));
    rule.peers_exact = true;
    rule.ports = vec![
        PortMatch {
            protocol: Some(6),
            what: PortRange::Ports {
                first: 443,
                last: 443,
                side: PortSide::Either,
            },
        },
        PortMatch {
            protocol: Some(1),
            what: PortRange::All,
        },
    ];
    rule.packets = PacketFilter {
        dscp: 1 << 46,
        least_length: 100,
        greatest_length: 1500,
    };
    let encoded = encode_rule(&rule, 5);
    let flags = [
        BOTH,
        abi::RULE_PEERS,
        abi::RULE_PEERS_EXACT,
        abi::RULE_PORTS,
        abi::RULE_PROTOCOLS,
        abi::RULE_DSCP,
        abi::RULE_LENGTHS,
        abi::RULE_SEGMENT,
    ];
    let expected = abi::Rule {
        action: abi::ACTION_DROP,
        flags: flags.iter().sum(),
        starts_at: 1,
        expires_at: 2,
        peer_set: 9,
        port_set: 5,
        dscp: 1 << 46,
        least_length: 100,
        greatest_length: 1500,
        seed: 11,
        threshold: 1 << 31,
        choice: abi::CHOICE_SHARE,
        sample_every: 3,
        ..abi::Rule::default()
    };
    assert_eq!(encoded, expected);
}

#[test]
fn a_rule_without_limits_has_no_flag_for_them() {
    assert_eq!(encoded(Action::Partition).flags, BOTH);
}

#[test]
fn a_pulse_is_a_time_in_a_period_and_a_ramp_two_factors() {
    let mut rule = body(Action::Partition);
    rule.pulse = Some(Pulse {
        on: Duration::from_secs(10),
        off: Duration::from_secs(5),
    });
    rule.ramp = Some(Ramp {
        over: Duration::from_secs(60),
        from: 0.5,
        to: 1.0,
    });
    let encoded = encode_rule(&rule, 0);
    assert_eq!(
        (encoded.pulse_on, encoded.pulse_period),
        (10_000_000_000, 15_000_000_000)
    );
    assert_eq!(
        (encoded.ramp_over, encoded.ramp_from, encoded.ramp_to),
        (60_000_000_000, 1 << 15, 1 << 16)
    );
}

#[test]
fn all_packets_need_no_choice_unless_they_become_fewer() {
    let all = loss(LossModel::Percent(percent(100.0)));
    let rule = encoded(all.clone());
    assert_eq!((rule.choice, rule.threshold), (abi::CHOICE_ALL, 1 << 32));
    assert_eq!(rule.flags, BOTH, "whole");
    let mut ramped = body(all);
    ramped.ramp = Some(Ramp {
        over: Duration::from_secs(1),
        from: 0.0,
        to: 1.0,
    });
    let rule = encode_rule(&ramped, 0);
    assert_eq!(
        (rule.choice, rule.flags),
        (abi::CHOICE_SHARE, BOTH | abi::RULE_SEGMENT)
    );
}

#[test]
fn each_model_of_loss_is_a_choice() {
    let segment = BOTH | abi::RULE_SEGMENT;
    let chain = GilbertElliott {
        p: 0.25,
        r: 0.5,
        loss_good: 0.125,
        loss_bad: 1.0,
    };
    let rule = encoded(loss(LossModel::GilbertElliott(chain)));
    assert_eq!((rule.choice, rule.flags), (abi::CHOICE_GILBERT_ELLIOTT, segment));
    assert_eq!((rule.to_bad, rule.to_good), (1 << 30, 1 << 31));
    assert_eq!((rule.threshold, rule.threshold_bad), (1 << 29, 1 << 32));

    let rule = encoded(loss(LossModel::EveryNth(7)));
    assert_eq!(
        (rule.choice, rule.count, rule.flags),
        (abi::CHOICE_EVERY, 7, segment)
    );
    let rule = encoded(loss(LossModel::FirstOfConnection(3)));
    assert_eq!(
        (rule.choice, rule.count, rule.flags),
        (abi::CHOICE_FIRST, 3, segment)
    );
    // A connection's packets all fare alike.
    let rule = encoded(loss(LossModel::Flows(percent(25.0))));
    assert_eq!(
        (rule.choice, rule.threshold, rule.flags),
        (abi::CHOICE_FLOWS, 1 << 30, BOTH)
    );
}

#[test]
fn handshakes_are_flags() {
    for (only, flag) in [
        (Handshake::Syn, abi::RULE_SYN),
        (Handshake::Both, abi::RULE_HANDSHAKE),
    ] {
        let rule = encoded(Action::Drop(Loss {
            model: LossModel::Percent(percent(100.0)),
            only: Some(only),
        }));
        assert_eq!(rule.flags, BOTH | abi::RULE_SEGMENT | flag);
        assert_eq!(rule.choice, abi::CHOICE_ALL);
    }
}

#[test]
fn corruption_is_drawn_even_where_it_is_total() {
    for (kind, action) in [
        (CorruptKind::Payload, abi::ACTION_CORRUPT_PAYLOAD),
        (CorruptKind::Wire, abi::ACTION_CORRUPT_WIRE),
    ] {
        let rule = encoded(Action::Corrupt(Corrupt {
            percent: percent(100.0),
            kind,
            bits: 3,
            offset: (10, 20),
        }));
        assert_eq!((rule.action, rule.choice), (action, abi::CHOICE_SHARE));
        assert_eq!(rule.threshold, 1 << 32);
        assert_eq!(
            (rule.corrupt_bits, rule.corrupt_from, rule.corrupt_to),
            (3, 10, 20)
        );
        assert_eq!(rule.flags, BOTH | abi::RULE_SEGMENT);
    }
}

#[test]
fn duplicates_with_a_delay_of_their_own_go_to_the_line() {
    for (delay, line) in [(Duration::ZERO, 0), (Duration::from_millis(1), abi::RULE_LINE)] {
        let rule = encoded(Action::Duplicate(Duplicate {
            percent: percent(50.0),
            copies: 2,
            delay,
        }));
        assert_eq!((rule.action, rule.copies), (abi::ACTION_DUPLICATE, 2));
        assert_eq!(rule.flags, BOTH | abi::RULE_SEGMENT | line);
    }
}

#[test]
fn a_gap_takes_every_packet_to_the_line() {
    for (gap, share, flags) in [
        (None, 50.0, abi::RULE_SEGMENT),
        (Some(3), 50.0, abi::RULE_SEGMENT | abi::RULE_LINE_ALL),
        (Some(3), 0.0, 0),
    ] {
        let rule = encoded(Action::Reorder(Reorder {
            percent: percent(share),
            gap,
            delay: Duration::from_millis(10),
        }));
        assert_eq!((rule.action, rule.flags), (abi::ACTION_REORDER, BOTH | flags));
    }
}

#[test]
fn what_the_line_does_says_when_to_segment() {
    let rule = encoded(Action::RateLimit(RateLimit {
        rate: 1_000_000,
        burst: 3028,
        queue: QueueBound::Bytes(1),
    }));
    assert_eq!((rule.action, rule.segment_above), (abi::ACTION_RATE_LIMIT, 3028));
    let delay = |jitter| {
        encoded(Action::Delay(Delay {
            latency: Duration::from_millis(5),
            jitter,
            distribution: Distribution::Uniform,
            correlation: 0.0,
            allow_reorder: false,
        }))
    };
    assert_eq!(delay(Duration::ZERO).flags, BOTH);
    assert_eq!(delay(Duration::from_millis(1)).flags, BOTH | abi::RULE_SEGMENT);
    let reject = encoded(Action::Reject(RejectCode::PortUnreachable));
    assert_eq!((reject.action, reject.flags), (abi::ACTION_REJECT, BOTH));
    let reset = encoded(Action::Reset(ResetTo::Both));
    assert_eq!((reset.action, reset.flags), (abi::ACTION_RESET, BOTH));
}

fn ports(first: u16, last: u16, side: PortSide) -> PortMatch {
    PortMatch {
        protocol: Some(6),
        what: PortRange::Ports { first, last, side },
    }
}

#[test]
fn a_port_of_every_protocol_is_one_of_each_that_has_ports() {
    let every = PortMatch {
        protocol: None,
        ..ports(53, 53, PortSide::Source)
    };
    let expected = [6, 17, 132].map(|protocol| PortBlock {
        prefix: 64,
        key: abi::PortKey::new(1, protocol, abi::SIDE_SOURCE, 53),
    });
    assert_eq!(encode_ports(&[every], 1), expected);
}

#[test]
fn an_icmp_type_without_a_code_is_a_block_of_all_its_codes() {
    let icmp = |code| PortMatch {
        protocol: Some(1),
        what: PortRange::Icmp { kind: 8, code },
    };
    for (code, prefix, number) in [(None, 56, 0x800), (Some(0), 64, 0x800), (Some(7), 64, 0x807)] {
        let key = abi::PortKey::new(1, 1, abi::SIDE_DESTINATION, number);
        assert_eq!(encode_ports(&[icmp(code)], 1), [PortBlock { prefix, key }]);
    }
}

/// The ports in the blocks, which don't overlap.
fn covered(first: u16, last: u16) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    let mut count = 0;
    for (port, bits) in aligned_blocks(first, last) {
        assert_eq!(u32::from(port) % (1 << bits), 0, "{port} and {bits} bits");
        all.extend(u32::from(port)..u32::from(port) + (1 << bits));
        count += 1;
    }
    assert!(count <= 30, "{count} blocks for {first} to {last}");
    all
}

#[test]
fn a_range_is_exactly_its_blocks() {
    for (first, last) in [
        (0, 65_535),
        (1, 65_534),
        (1, 65_535),
        (0, 0),
        (65_535, 65_535),
        (8000, 8099),
        (1024, 2047),
        (1023, 2048),
        (7, 8),
    ] {
        let expected: BTreeSet<u32> = (u32::from(first)..=u32::from(last)).collect();
        assert_eq!(covered(first, last), expected, "{first} to {last}");
    }
    assert_eq!(aligned_blocks(0, 65_535).collect::<Vec<_>>(), [(0, 16)]);
    assert_eq!(aligned_blocks(1024, 2047).collect::<Vec<_>>(), [(1024, 10)]);
    assert_eq!(encode_ports(&[ports(8, 15, PortSide::Either)], 1).len(), 2);
}
