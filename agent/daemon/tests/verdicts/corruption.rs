//! Corruption of the payload: one byte of it, and the checksum valid afterwards.

use std::collections::BTreeSet;

use sabot_abi::{Counters, Tally};
use sabotd::kernel::trial::Verdict;

use crate::frame::{Extension, Fragment, Frame, Transport, sctp, tcp, udp};
use crate::matching::FAMILIES;
use crate::rig::{BOTH, Egress, Ingress, Rig, SLOT, corrupt, rule, single};

/// Where the payload differs.
fn changed(frame: &Frame, before: &[u8], after: &[u8]) -> Vec<usize> {
    assert_eq!(before.len(), after.len());
    (frame.payload_at()..frame.end())
        .filter(|&at| before[at] != after[at])
        .collect()
}

/// Headers beside the checksum, and padding, are as they were.
fn assert_rest_untouched(frame: &Frame, before: &[u8], after: &[u8]) {
    let checksum = match frame.transport {
        Transport::Tcp { .. } => 16..18,
        Transport::Udp { .. } => 6..8,
        _ => 2..4,
    };
    let at = frame.transport_at();
    let checksum = at + checksum.start..at + checksum.end;
    for index in (0..before.len()).filter(|index| !checksum.contains(index)) {
        if !(frame.payload_at()..frame.end()).contains(&index) {
            assert_eq!(before[index], after[index], "byte {index} of {frame:?}");
        }
    }
}

/// Every protocol whose checksum can be mended, in both families.
fn mendable() -> Vec<Frame> {
    let mut frames = Vec::new();
    for (source, destination) in FAMILIES {
        let echo = if source.contains(':') {
            Transport::Icmpv6 { kind: 128 }
        } else {
            Transport::Icmp { kind: 8 }
        };
        let with_options = Transport::Tcp {
            source: 1,
            destination: 2,
            options: 3,
        };
        for transport in [tcp(1, 2), with_options, udp(1, 2), echo] {
            frames.push(Frame::new(source, destination, transport));
        }
    }
    frames
}

#[test]
fn one_byte_of_the_payload_changes_and_the_checksum_is_valid() {
    const ROUNDS: u64 = 40;
    let rig = Rig::with_rule(&rule(corrupt(100.0)));
    let mut expected = [Tally::default(); 2];
    for mut frame in mendable() {
        for (length, padding) in [
            (1, 0),
            (2, 0),
            (3, 0),
            (8, 6),
            (9, 5),
            (64, 0),
            (65, 0),
            (1400, 0),
        ] {
            frame.payload = (0..length).map(|at| (at * 7) as u8).collect();
            frame.padding = padding;
            let before = frame.bytes();
            for (total, direction) in expected.iter_mut().zip(BOTH) {
                for _ in 0..ROUNDS {
                    let outcome = rig.run(direction, &single(&before));
                    assert_eq!(outcome.verdict, Verdict::Pass);
                    assert_eq!(changed(&frame, &before, &outcome.bytes).len(), 1, "{frame:?}");
                    assert_rest_untouched(&frame, &before, &outcome.bytes);
                    assert!(frame.has_valid_checksum(&outcome.bytes), "{frame:?}");
                }
                total.packets += ROUNDS;
                total.bytes += ROUNDS * before.len() as u64;
            }
        }
    }
    for (total, direction) in expected.into_iter().zip(BOTH) {
        let counted = Counters {
            matched: total,
            passed: total,
            corrupted: total,
            ..Counters::default()
        };
        assert_eq!(rig.counters(direction), counted);
    }
}

#[test]
fn every_place_is_hit_the_last_byte_among_them() {
    let rig = Rig::with_rule(&rule(corrupt(100.0)));
    for mut frame in mendable() {
        for length in [7, 8] {
            frame.payload = vec![0; length];
            frame.padding = 10;
            let before = frame.bytes();
            let mut places = BTreeSet::new();
            // To miss one of 8 places in 400 rounds has a probability below 1e-22.
            for _ in 0..400 {
                let after = rig.run(Egress, &single(&before)).bytes;
                places.extend(changed(&frame, &before, &after));
            }
            assert_eq!(
                places.into_iter().collect::<Vec<_>>(),
                (frame.payload_at()..frame.end()).collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn behind_tags_options_and_extension_headers_too() {
    let rig = Rig::with_rule(&rule(corrupt(100.0)));
    for mut frame in mendable() {
        frame.vlans = vec![0x88a8, 0x8100];
        frame.options = 5;
        if !frame.source.is_ipv4() {
            frame.extensions = vec![
                Extension::HopByHop { words: 1 },
                Extension::Fragment(Fragment {
                    offset: 0,
                    more: false,
                }),
                Extension::Authentication { words: 3 },
            ];
        }
        let before = frame.bytes();
        for _ in 0..50 {
            let after = rig.run(Ingress, &single(&before)).bytes;
            assert_eq!(changed(&frame, &before, &after).len(), 1);
            assert_rest_untouched(&frame, &before, &after);
            assert!(frame.has_valid_checksum(&after), "{frame:?}");
        }
    }
}

#[test]
fn no_udp_checksum_stays_none_and_a_mended_one_is_never_none() {
    let rig = Rig::with_rule(&rule(corrupt(100.0)));
    for (source, destination) in FAMILIES {
        let without = Transport::Udp {
            source: 1,
            destination: 2,
            checksum: false,
        };
        let frame = Frame::new(source, destination, without);
        let before = frame.bytes();
        for _ in 0..200 {
            let after = rig.run(Egress, &single(&before)).bytes;
            assert_eq!(changed(&frame, &before, &after).len(), 1);
            assert_rest_untouched(&frame, &before, &after);
            assert!(frame.has_valid_checksum(&after), "it is 0 no more");
        }
        // With this payload one change of the first byte makes the sum 0, which UDP writes as 0xffff.
        let mut frame = Frame::new(source, destination, udp(1, 2));
        frame.payload = vec![0, 0];
        let at = frame.transport_at() + 6;
        let [high, low] = [frame.bytes()[at], frame.bytes()[at + 1]];
        frame.payload = vec![high ^ 1, low];
        let before = frame.bytes();
        let mut written_as_ones = false;
        // Missed with a probability of (509/510)^20000, below 1e-17.
        for _ in 0..20_000 {
            let after = rig.run(Egress, &single(&before)).bytes;
            assert_ne!(after[at..at + 2], [0, 0], "the checksum became none");
            assert!(frame.has_valid_checksum(&after));
            written_as_ones |= after[at..at + 2] == [0xff, 0xff];
        }
        assert!(written_as_ones, "the case that this is about never came");
    }
}

/// Matched, but nothing in it can be changed unnoticed: passed and not counted as corrupted.
fn assert_left_alone(rig: &Rig, bytes: &[u8], what: &str) {
    let before = rig.counters(Egress);
    let outcome = rig.run(Egress, &single(bytes));
    assert_eq!(outcome.verdict, Verdict::Pass, "{what}");
    assert_eq!(outcome.bytes, bytes, "{what}: it was changed");
    let one = Tally {
        packets: 1,
        bytes: bytes.len() as u64,
    };
    let mut expected = before;
    Counters {
        matched: one,
        passed: one,
        ..Counters::default()
    }
    .add_to(&mut expected);
    assert_eq!(rig.counters(Egress), expected, "{what}");
}

#[test]
fn what_cannot_be_mended_is_left_alone() {
    let rig = Rig::with_rule(&rule(corrupt(100.0)));
    for mut frame in mendable() {
        frame.payload.clear();
        frame.padding = 20;
        assert_left_alone(&rig, &frame.bytes(), "no payload");
    }
    for (source, destination) in FAMILIES {
        for transport in [sctp(1, 2), Transport::Other(47), Transport::Other(132)] {
            assert_left_alone(
                &rig,
                &Frame::new(source, destination, transport).bytes(),
                "no checksum that can be mended",
            );
        }
        for (offset, more) in [(0, true), (3, true), (3, false)] {
            let mut frame = Frame::new(source, destination, udp(1, 2));
            let fragment = Fragment { offset, more };
            if frame.source.is_ipv4() {
                frame.fragment = Some(fragment);
            } else {
                frame.extensions = vec![Extension::Fragment(fragment)];
            }
            assert_left_alone(&rig, &frame.bytes(), "a fragment");
        }
    }
}

#[test]
fn lengths_that_lie_never_lead_outside_the_payload() {
    let rig = Rig::with_rule(&rule(corrupt(100.0)));
    let tcp_frame = Frame::new("10.0.0.1", "10.0.0.2", tcp(1, 2));
    let at = tcp_frame.transport_at();
    for words in 0..5 {
        let mut bytes = tcp_frame.bytes();
        bytes[at + 12] = words << 4;
        assert_left_alone(&rig, &bytes, "a TCP header shorter than any");
    }
    let mut bytes = tcp_frame.bytes();
    bytes[at + 12] = 15 << 4;
    assert_left_alone(&rig, &bytes, "a TCP header beyond the packet's end");
    for total in 0..40 {
        let mut bytes = tcp_frame.bytes();
        bytes[16..18].copy_from_slice(&(total as u16).to_be_bytes());
        if total == 0 {
            // The length of a super-packet beyond 64 KiB: the frame's own counts.
            rig.run(Egress, &single(&bytes));
        } else {
            assert_left_alone(&rig, &bytes, "an IP packet that ends before its headers do");
        }
    }
    // A datagram that ends before its IP packet: what follows is no part of the checksum.
    let mut frame = Frame::new("10.0.0.1", "10.0.0.2", udp(1, 2));
    frame.payload = vec![7; 4];
    let inner = frame.bytes();
    let mut bytes = inner.clone();
    bytes.extend([9; 60]);
    let total = (bytes.len() - 14) as u16;
    bytes[16..18].copy_from_slice(&total.to_be_bytes());
    for _ in 0..100 {
        let after = rig.run(Egress, &single(&bytes)).bytes;
        assert_eq!(changed(&frame, &inner, &after[..inner.len()]).len(), 1);
        assert_eq!(after[inner.len()..], bytes[inner.len()..], "behind the datagram");
        assert!(frame.has_valid_checksum(&after));
    }
}

#[test]
fn two_corruptions_leave_a_valid_checksum() {
    let mut rig = Rig::new();
    let other = sabot_core::plan::Slot(8);
    rig.put(SLOT, &rule(corrupt(100.0)));
    rig.put(other, &rule(corrupt(100.0)));
    rig.list(&[SLOT, other]);
    for frame in mendable() {
        let before = frame.bytes();
        for _ in 0..50 {
            let after = rig.run(Ingress, &single(&before)).bytes;
            assert!(changed(&frame, &before, &after).len() <= 2);
            assert_rest_untouched(&frame, &before, &after);
            assert!(frame.has_valid_checksum(&after), "{frame:?}");
        }
    }
}
