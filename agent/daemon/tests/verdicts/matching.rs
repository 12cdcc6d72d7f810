//! Which packets a rule names: protocols, ports, directions, headers on the way, times, order.

use std::thread;
use std::time::Duration;

use sabot_core::model::{BootTime, Direction, PortMatch, PortSide};
use sabot_core::plan::Slot;
use sabotd::kernel::boot_time;
use sabotd::kernel::trial::Verdict;

use crate::frame::{Extension, Fragment, Frame, Transport, sctp, tcp, udp};
use crate::rig::{BOTH, Egress, Ingress, Rig, SLOT, TARGET, cut, drop, partition, port, range, single};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

pub(crate) const FAMILIES: [(&str, &str); 2] = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")];

fn v4(transport: Transport) -> Frame {
    Frame::new(FAMILIES[0].0, FAMILIES[0].1, transport)
}

fn v6(transport: Transport) -> Frame {
    Frame::new(FAMILIES[1].0, FAMILIES[1].1, transport)
}

/// Everything that IP carries here, in both families.
fn all_transports() -> Vec<Frame> {
    let mut frames = Vec::new();
    for (source, destination) in FAMILIES {
        for transport in [
            tcp(1000, 2000),
            udp(1000, 2000),
            sctp(1000, 2000),
            Transport::Other(47),
        ] {
            frames.push(Frame::new(source, destination, transport));
        }
    }
    frames.push(v4(Transport::Icmp { kind: 8 }));
    frames.push(v6(Transport::Icmpv6 { kind: 128 }));
    frames
}

#[test]
fn a_rule_without_limits_names_every_ip_packet() {
    let rig = Rig::with_rule(&partition());
    for frame in all_transports() {
        for direction in BOTH {
            assert!(rig.cuts(direction, &frame), "{direction:?} {frame:?}");
        }
    }
}

#[test]
fn a_direction_is_one_direction() {
    for (direction, [egress, ingress]) in [
        (Direction::Egress, [true, false]),
        (Direction::Ingress, [false, true]),
        (Direction::Both, [true, true]),
    ] {
        let mut rule = partition();
        rule.direction = direction;
        let rig = Rig::with_rule(&rule);
        for frame in all_transports() {
            assert_eq!(rig.cuts(Egress, &frame), egress, "{direction:?} {frame:?}");
            assert_eq!(rig.cuts(Ingress, &frame), ingress, "{direction:?} {frame:?}");
        }
    }
}

/// The ports of a rule, and for each transport whether it is named.
fn check_ports(ports: &[PortMatch], cases: &[(Transport, bool)]) {
    let mut rule = partition();
    rule.ports = ports.to_vec();
    let rig = Rig::with_rule(&rule);
    for &(transport, named) in cases {
        let families = match transport {
            Transport::Icmp { .. } => vec![v4(transport)],
            Transport::Icmpv6 { .. } => vec![v6(transport)],
            _ => vec![v4(transport), v6(transport)],
        };
        for frame in families {
            for direction in BOTH {
                assert_eq!(
                    rig.cuts(direction, &frame),
                    named,
                    "{ports:?} {direction:?} {frame:?}"
                );
            }
        }
    }
}

#[test]
fn a_port_is_of_its_protocol_and_of_either_end() {
    for (protocol, transport) in [(TCP, tcp as fn(u16, u16) -> Transport), (UDP, udp), (SCTP, sctp)] {
        let other = if protocol == UDP { tcp } else { udp };
        check_ports(
            &[port(protocol, 443)],
            &[
                (transport(443, 50_000), true),
                (transport(50_000, 443), true),
                (transport(443, 443), true),
                (transport(50_000, 444), false),
                (transport(442, 50_000), false),
                (other(443, 443), false),
                (Transport::Icmp { kind: 8 }, false),
                (Transport::Icmpv6 { kind: 128 }, false),
                (Transport::Other(47), false),
            ],
        );
    }
    // The first and the last that there are.
    check_ports(
        &[port(TCP, 1), port(TCP, 65_535)],
        &[
            (tcp(1, 9), true),
            (tcp(9, 65_535), true),
            (tcp(0, 9), false),
            (tcp(65_534, 9), false),
        ],
    );
}

#[test]
fn a_port_of_every_protocol_is_of_those_that_have_ports() {
    let every = PortMatch {
        protocol: None,
        what: range(53, 53, PortSide::Either),
    };
    check_ports(
        &[every],
        &[
            (tcp(53, 9), true),
            (udp(9, 53), true),
            (sctp(53, 9), true),
            (udp(9, 54), false),
            (Transport::Icmp { kind: 53 }, false),
            (Transport::Other(53), false),
        ],
    );
}

#[test]
fn a_protocol_alone_is_all_of_it() {
    let icmp = Transport::Icmp { kind: 8 };
    let icmpv6 = Transport::Icmpv6 { kind: 128 };
    let all = [
        (TCP, tcp(1, 2)),
        (UDP, udp(1, 2)),
        (SCTP, sctp(1, 2)),
        (ICMP, icmp),
        (ICMPV6, icmpv6),
    ];
    for (protocol, _) in all {
        let cases = all.map(|(other, transport)| (transport, other == protocol));
        check_ports(&[port(protocol, None)], &cases);
    }
}

#[test]
fn any_of_several_ports_and_protocols_is_enough() {
    check_ports(
        &[port(TCP, 80), port(TCP, 443), port(UDP, None), port(ICMP, None)],
        &[
            (tcp(9, 80), true),
            (tcp(443, 9), true),
            (tcp(9, 10), false),
            (udp(9, 10), true),
            (sctp(80, 443), false),
            (Transport::Icmp { kind: 8 }, true),
            (Transport::Icmpv6 { kind: 128 }, false),
        ],
    );
}

#[test]
fn ports_are_found_behind_whatever_comes_before() {
    let mut rule = partition();
    rule.ports = vec![port(UDP, 53)];
    let rig = Rig::with_rule(&rule);
    let check = |what: &str, change: &dyn Fn(&mut Frame)| {
        for (destination, named) in [(53, true), (54, false)] {
            for mut frame in [v4(udp(9, destination)), v6(udp(9, destination))] {
                change(&mut frame);
                for direction in BOTH {
                    assert_eq!(
                        rig.cuts(direction, &frame),
                        named,
                        "{what} {direction:?} {frame:?}"
                    );
                }
            }
        }
    };
    for vlans in [vec![0x8100], vec![0x88a8], vec![0x88a8, 0x8100]] {
        check("VLAN", &|frame| frame.vlans.clone_from(&vlans));
    }
    for options in 1..=10 {
        check("options", &|frame| frame.options = options);
    }
    use Extension::{Authentication, DestinationOptions, HopByHop, Routing};
    for words in [0, 1, 3] {
        for chain in [
            vec![HopByHop { words }],
            vec![Routing { words }],
            vec![DestinationOptions { words }],
            vec![Authentication { words }],
            vec![
                HopByHop { words },
                DestinationOptions { words },
                Routing { words },
                Extension::Fragment(Fragment {
                    offset: 0,
                    more: false,
                }),
                Authentication { words },
                DestinationOptions { words },
            ],
        ] {
            check("extension headers", &|frame| frame.extensions.clone_from(&chain));
        }
    }
    check("VLAN and options", &|frame| {
        frame.vlans = vec![0x8100];
        frame.options = 3;
        frame.extensions = vec![HopByHop { words: 1 }];
    });
}

/// A fragment in either family.
fn fragment(mut frame: Frame, offset: u16, more: bool) -> Frame {
    let fragment = Fragment { offset, more };
    if frame.source.is_ipv4() {
        frame.fragment = Some(fragment);
    } else {
        frame.extensions.push(Extension::Fragment(fragment));
    }
    frame
}

#[test]
fn a_datagrams_first_fragment_decides_by_port_for_all_of_it() {
    let mut by_port = partition();
    by_port.ports = vec![port(UDP, 53)];
    let mut by_protocol = partition();
    by_protocol.ports = vec![port(UDP, None)];
    for (rule, names_later) in [(partition(), true), (by_protocol, true), (by_port, false)] {
        let rig = Rig::with_rule(&rule);
        for whole in [v4(udp(9, 53)), v6(udp(9, 53))] {
            let mut look_alike = fragment(whole.clone(), 2, true);
            // What would be its ports if it had a transport header.
            look_alike.payload = [0, 53, 0, 53].repeat(8);
            let mut last = look_alike.clone();
            last.fragment = last.fragment.map(|fragment| Fragment {
                more: false,
                ..fragment
            });
            for (frame, named) in [
                (fragment(whole.clone(), 0, true), true),
                // Atomic: whole, although it has a fragment header.
                (fragment(whole.clone(), 0, false), true),
                (look_alike, names_later),
                (last, names_later),
            ] {
                for direction in BOTH {
                    assert_eq!(rig.cuts(direction, &frame), named, "{direction:?} {frame:?}");
                }
            }
        }
    }
}

#[test]
fn neighbours_are_always_found() {
    let rig = Rig::with_rule(&partition());
    let mut arp = vec![0xff; 12];
    arp.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend([0; 20]);
    for direction in BOTH {
        assert!(!rig.cuts_bytes(direction, &arp), "ARP");
        for kind in 0..=255 {
            let frame = v6(Transport::Icmpv6 { kind });
            let mut behind = frame.clone();
            behind.extensions = vec![Extension::HopByHop { words: 0 }];
            for frame in [frame, behind] {
                let spared = (133..=137).contains(&kind);
                assert_eq!(rig.cuts(direction, &frame), !spared, "ICMPv6 {kind}");
            }
        }
        // The same numbers in ICMP are something else.
        for kind in 133..=137 {
            assert!(rig.cuts(direction, &v4(Transport::Icmp { kind })));
        }
    }
}

#[test]
fn other_protocols_than_ip_are_never_named() {
    let rig = Rig::with_rule(&partition());
    for ethertype in [0x0842_u16, 0x8847, 0x8863, 0x88cc, 0x86dc] {
        let mut bytes = v4(udp(1, 2)).bytes();
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        for direction in BOTH {
            assert!(!rig.cuts_bytes(direction, &bytes), "{ethertype:#x}");
        }
    }
}

#[test]
fn a_rule_is_in_force_from_its_start_to_its_end() {
    let now = boot_time();
    let hour = Duration::from_secs(3600);
    let long_ago = BootTime(now.0 / 2);
    for (starts_at, expires_at, in_force) in [
        (BootTime(0), now.after(hour), true),
        (long_ago, now.after(hour), true),
        (now.after(hour), now.after(2 * hour), false),
        (BootTime(0), long_ago, false),
        (BootTime(0), BootTime(0), false),
        (BootTime(0), BootTime(u64::MAX), true),
    ] {
        let mut rule = partition();
        (rule.starts_at, rule.expires_at) = (starts_at, expires_at);
        let rig = Rig::with_rule(&rule);
        for direction in BOTH {
            assert_eq!(
                rig.cuts(direction, &v4(udp(1, 2))),
                in_force,
                "{starts_at:?} to {expires_at:?}"
            );
        }
    }
}

#[test]
fn a_rule_begins_and_ends_by_itself() {
    let mut rule = partition();
    // Whatever takes long has been done before the clock is read.
    let mut rig = Rig::with_rule(&rule);
    let now = boot_time();
    rule.starts_at = now.after(Duration::from_millis(500));
    rule.expires_at = now.after(Duration::from_millis(1000));
    rig.put(SLOT, &rule);
    let mut cut = Vec::new();
    while boot_time() < now.after(Duration::from_millis(1200)) {
        let before = boot_time();
        let was_cut = rig.cuts(Egress, &v4(udp(1, 2)));
        let after = boot_time();
        // A frame at the very edge may fall on either side.
        if before >= rule.starts_at && after < rule.expires_at {
            assert!(was_cut, "at {before:?}");
            cut.push(before);
        } else if after < rule.starts_at || before >= rule.expires_at {
            assert!(!was_cut, "at {before:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert!(!cut.is_empty(), "nobody looked while it was in force");
}

#[test]
fn slots_are_met_in_the_order_of_the_list() {
    let mut rig = Rig::new();
    let slots = [Slot(9), Slot(2), Slot(40), Slot(4095)];
    let [first, second, third, fourth] = slots;
    let mut not_this = partition();
    not_this.ports = vec![port(TCP, None)];
    let pass = crate::rig::rule(drop(0.0));
    rig.put(first, &pass);
    rig.put(second, &not_this);
    rig.put(third, &pass);
    rig.put(fourth, &partition());
    let frame = v4(udp(1, 2)).bytes();
    let matched = |rig: &Rig| {
        slots.map(|slot| {
            let counters = rig.trial().counters(slot, TARGET, Egress);
            assert_eq!(
                counters.matched.packets,
                counters.passed.packets + counters.dropped.packets
            );
            (counters.passed.packets, counters.dropped.packets)
        })
    };
    rig.list(&slots);
    assert_eq!(rig.run(Egress, &single(&frame)).verdict, cut(Egress));
    assert_eq!(matched(&rig), [(1, 0), (0, 0), (1, 0), (0, 1)]);
    // What cuts first keeps the others from seeing the packet.
    rig.list(&[first, fourth, third]);
    assert_eq!(rig.run(Egress, &single(&frame)).verdict, cut(Egress));
    assert_eq!(matched(&rig), [(2, 0), (0, 0), (1, 0), (0, 2)]);
    rig.list(&[third, second]);
    assert_eq!(rig.run(Egress, &single(&frame)).verdict, Verdict::Pass);
    assert_eq!(matched(&rig), [(2, 0), (0, 0), (2, 0), (0, 2)]);
}

#[test]
fn a_target_has_room_for_all_its_slots() {
    let mut rig = Rig::new();
    let slots: Vec<Slot> = (100..).map(Slot).take(sabot_abi::MAX_TARGET_SLOTS).collect();
    let last = slots[slots.len() - 1];
    for slot in &slots {
        rig.put(*slot, &crate::rig::rule(drop(0.0)));
    }
    rig.put(last, &partition());
    rig.list(&slots);
    let frame = v6(tcp(1, 2)).bytes();
    assert_eq!(rig.run(Ingress, &single(&frame)).verdict, cut(Ingress));
    for slot in slots {
        let counters = rig.trial().counters(slot, TARGET, Ingress);
        assert_eq!(counters.matched.packets, 1, "{slot:?}");
        assert_eq!(counters.dropped.packets, u64::from(slot == last), "{slot:?}");
    }
}

#[test]
fn an_edit_replaces_a_rule_and_its_ports() {
    let mut rig = Rig::with_rule(&partition());
    // Often enough that each of the two bodies was written before.
    for round in 0..6 {
        let number = 100 + round;
        let mut rule = partition();
        rule.ports = vec![port(TCP, number)];
        rig.put(SLOT, &rule);
        assert!(rig.cuts(Egress, &v4(tcp(9, number))));
        assert!(
            !rig.cuts(Egress, &v4(tcp(9, number - 1))),
            "the port of the rule before"
        );
        assert!(!rig.cuts(Egress, &v4(udp(9, number))));
    }
    rig.trial().clear_rule(SLOT).expect("it is cleared");
    assert!(!rig.cuts(Egress, &v4(tcp(9, 105))));
}

#[test]
fn without_target_list_rule_or_gate_everything_passes() {
    let mut rig = Rig::with_rule(&partition());
    let frame = v4(udp(1, 2));
    let bytes = frame.bytes();
    let nobody = sabot_core::plan::TargetId(6);
    for direction in BOTH {
        let outcome = rig
            .trial()
            .run(nobody, direction, &single(&bytes))
            .expect("it runs");
        assert_eq!(outcome.verdict, Verdict::Pass);
    }
    rig.list(&[]);
    assert!(!rig.cuts(Egress, &frame));
    rig.list(&[Slot(8)]);
    assert!(!rig.cuts(Egress, &frame), "no rule was written for it");
    rig.list(&[SLOT]);
    assert!(rig.cuts(Egress, &frame));
    rig.close_gate();
    for direction in BOTH {
        assert!(!rig.cuts(direction, &frame), "the gate is closed");
    }
}

#[test]
fn a_device_without_a_mac_header_begins_with_ip() {
    let mut rig = Rig::with_rule(&partition());
    rig.equip(|target| target.flags = 0);
    // The kernel reads an EtherType even so: here it is the first half of the source address.
    let frame = Frame::new("8.0.0.1", "10.0.0.2", udp(1, 2));
    let bytes = &frame.bytes()[14..];
    for direction in BOTH {
        assert!(rig.cuts_bytes(direction, bytes));
    }
}
