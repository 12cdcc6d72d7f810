//! Ranges and sides of ports, ICMP types, code points, lengths.

use sabot_abi::{Counters, Tally};
use sabot_core::model::{PacketFilter, PortMatch, PortRange, PortSide};
use sabotd::kernel::trial::{Frame as Given, Verdict};

use crate::frame::{Frame, Transport, tcp, udp};
use crate::matching::FAMILIES;
use crate::rig::{BOTH, Egress, Rig, SEGMENTER_IFINDEX, partition, range};

fn with_ports(what: PortRange, protocol: u8) -> Rig {
    let mut rule = partition();
    rule.ports = vec![PortMatch {
        protocol: Some(protocol),
        what,
    }];
    Rig::with_rule(&rule)
}

#[test]
fn a_range_begins_and_ends_where_it_says() {
    for (first, last) in [(8000, 8099), (1, 65_535), (1023, 1025), (32_767, 32_768)] {
        let rig = with_ports(range(first, last, PortSide::Destination), 6);
        for port in [
            0,
            1,
            first - 1,
            first,
            first + 1,
            u16::midpoint(first, last),
            last - 1,
            last,
            last.saturating_add(1),
        ] {
            let frame = Frame::new("10.0.0.1", "10.0.0.2", tcp(0, port));
            let expected = (first..=last).contains(&port);
            assert_eq!(rig.cuts(Egress, &frame), expected, "{port} in {first} to {last}");
        }
    }
}

#[test]
fn a_side_is_one_end() {
    for (side, [source, destination]) in [
        (PortSide::Source, [true, false]),
        (PortSide::Destination, [false, true]),
        (PortSide::Either, [true, true]),
    ] {
        let rig = with_ports(range(50, 60, side), 17);
        for (one, other) in FAMILIES {
            for direction in BOTH {
                assert_eq!(rig.cuts(direction, &Frame::new(one, other, udp(55, 9))), source);
                assert_eq!(
                    rig.cuts(direction, &Frame::new(one, other, udp(9, 55))),
                    destination
                );
            }
        }
    }
}

#[test]
fn an_icmp_type_is_one_with_or_without_its_code() {
    for (protocol, (one, other)) in [(1, FAMILIES[0]), (58, FAMILIES[1])] {
        for (wanted, its, code, named) in [
            (None, 3, 0, true),
            (None, 3, 255, true),
            (None, 4, 3, false),
            (Some(4), 3, 4, true),
            (Some(4), 3, 5, false),
            (Some(4), 4, 4, false),
        ] {
            let rig = with_ports(
                PortRange::Icmp {
                    kind: 3,
                    code: wanted,
                },
                protocol,
            );
            let transport = if protocol == 1 {
                Transport::Icmp { kind: its }
            } else {
                Transport::Icmpv6 { kind: its }
            };
            let mut frame = Frame::new(one, other, transport);
            frame.code = code;
            assert_eq!(rig.cuts(Egress, &frame), named, "{wanted:?}: {its}/{code}");
            // The same bytes as a port.
            let number = u16::from_be_bytes([3, 4]);
            assert!(!rig.cuts(Egress, &Frame::new(one, other, tcp(number, number))));
        }
    }
}

#[test]
fn code_points_are_those_of_both_families() {
    for wanted in [0, 10, 46, 63] {
        let mut rule = partition();
        rule.packets.dscp = 1 << wanted;
        let rig = Rig::with_rule(&rule);
        for (one, other) in FAMILIES {
            for dscp in 0..64 {
                let mut frame = Frame::new(one, other, udp(1, 2));
                frame.dscp = dscp;
                assert_eq!(rig.cuts(Egress, &frame), dscp == wanted, "{dscp} of {wanted}");
            }
        }
    }
}

#[test]
fn a_length_is_the_ip_packets() {
    let mut rule = partition();
    (rule.packets.least_length, rule.packets.greatest_length) = (100, 200);
    let rig = Rig::with_rule(&rule);
    for ((one, other), headers) in FAMILIES.into_iter().zip([28, 48]) {
        for length in [headers, 99, 100, 101, 150, 199, 200, 201, 1400] {
            let mut frame = Frame::new(one, other, udp(1, 2));
            frame.payload = vec![0; length - headers];
            for padding in [0, 9] {
                frame.padding = padding;
                frame.vlans = vec![0x8100; padding % 2];
                assert_eq!(
                    rig.cuts(Egress, &frame),
                    (100..=200).contains(&length),
                    "{length}"
                );
            }
        }
    }
}

/// Three segments of 300 bytes and one of 100, each behind 20 + 8 bytes of headers.
#[test]
fn of_a_super_packet_the_lengths_are_its_wire_packets() {
    let mut frame = Frame::new("10.0.0.1", "10.0.0.2", udp(1, 2));
    frame.payload = vec![7; 1000];
    let bytes = frame.bytes();
    let [long, short] = [300, 100].map(|payload| 14 + 28 + payload);
    let tally = |packets, bytes| Tally { packets, bytes };
    let all = tally(4, 3 * long + short);
    for (lengths, named) in [
        ((0, 127), tally(0, 0)),
        ((0, 128), tally(1, short)),
        ((128, 327), tally(1, short)),
        ((128, 328), all),
        ((129, 328), tally(3, 3 * long)),
        ((328, 65_575), tally(3, 3 * long)),
        ((329, 65_575), tally(0, 0)),
        ((0, 1500), all),
    ] {
        for has_segmenter in [false, true] {
            let mut rule = partition();
            rule.packets = PacketFilter {
                least_length: lengths.0,
                greatest_length: lengths.1,
                ..PacketFilter::ALL
            };
            let mut rig = Rig::with_rule(&rule);
            rig.equip(|target| target.segmenter_ifindex = if has_segmenter { SEGMENTER_IFINDEX } else { 0 });
            let given = Given {
                bytes: &bytes,
                gso_size: 300,
                ..Given::default()
            };
            let expected = for_lengths(named, all, has_segmenter);
            let verdict = rig.run(Egress, &given).verdict;
            assert_eq!(
                (verdict, rig.counters(Egress)),
                expected,
                "{lengths:?} {has_segmenter}"
            );
        }
    }
}

/// What becomes of a super-packet of `all` when those `named` are to be cut: of a part of it only a segmenter can say
/// which; they are counted when they are back.
fn for_lengths(named: Tally, all: Tally, has_segmenter: bool) -> (Verdict, Counters) {
    let is_split = named != all && named.packets > 0;
    if is_split && has_segmenter {
        return (Verdict::Redirect, Counters::default());
    }
    let mut counted = Counters {
        matched: named,
        ..Counters::default()
    };
    if is_split {
        counted.bypassed = named;
    } else {
        counted.dropped = named;
    }
    let verdict = if named == all {
        crate::rig::cut(Egress)
    } else {
        Verdict::Pass
    };
    (verdict, counted)
}
