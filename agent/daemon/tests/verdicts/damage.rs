//! Frames that are cut short or make no sense: they pass, and are counted where nothing can be read from them.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sabot_abi::{INCIDENT_COUNT, INCIDENT_UNPARSED};
use sabotd::kernel::trial::Verdict;

use crate::frame::{Extension, Fragment, Frame, tcp, udp};
use crate::matching::FAMILIES;
use crate::rig::{BOTH, Egress, Rig, corrupt, cut, partition, rule, single};

/// Whether the one rule, which cuts everything, cut it; otherwise it passed, and was counted as unparsed.
fn is_cut(rig: &Rig, bytes: &[u8]) -> bool {
    let before = rig.trial().incidents();
    let matched = rig.counters(Egress).matched.packets;
    let outcome = rig.run(Egress, &single(bytes));
    assert_eq!(outcome.bytes, bytes, "it was changed");
    let mut expected = before;
    let is_cut = rig.counters(Egress).matched.packets > matched;
    if !is_cut {
        expected[INCIDENT_UNPARSED as usize] += 1;
    }
    assert_eq!(rig.trial().incidents(), expected, "{bytes:x?}");
    assert_eq!(outcome.verdict, if is_cut { cut(Egress) } else { Verdict::Pass });
    is_cut
}

#[test]
fn a_frame_cut_short_is_named_once_its_addresses_are_there() {
    let rig = Rig::with_rule(&partition());
    for (source, destination) in FAMILIES {
        for vlans in [vec![], vec![0x8100]] {
            let mut frame = Frame::new(source, destination, udp(1, 2));
            frame.vlans = vlans;
            let bytes = frame.bytes();
            let addresses_end = frame.transport_at();
            // A trial takes no frame without a whole MAC header and, where no tag hides it, IP header.
            let least = if frame.vlans.is_empty() { addresses_end } else { 14 };
            for length in least..=bytes.len() {
                assert_eq!(
                    is_cut(&rig, &bytes[..length]),
                    length >= addresses_end,
                    "{length} bytes of {frame:?}"
                );
            }
        }
    }
}

#[test]
fn ports_that_are_cut_off_are_no_ports() {
    let mut rule = partition();
    rule.ports = vec![crate::rig::port(17, 2)];
    let rig = Rig::with_rule(&rule);
    for (source, destination) in FAMILIES {
        let frame = Frame::new(source, destination, udp(1, 2));
        let bytes = frame.bytes();
        for length in frame.transport_at()..bytes.len() {
            let there = length >= frame.transport_at() + 4;
            assert_eq!(rig.cuts_bytes(Egress, &bytes[..length]), there, "{length} bytes");
        }
    }
}

#[test]
fn headers_that_make_no_sense_pass() {
    let rig = Rig::with_rule(&partition());
    let v4 = Frame::new("10.0.0.1", "10.0.0.2", tcp(1, 2)).bytes();
    let v6 = Frame::new("fd00::1", "fd00::2", tcp(1, 2)).bytes();
    for version in 0..16 {
        for (bytes, right, low) in [(&v4, 4, 5), (&v6, 6, 0)] {
            let mut bytes = bytes.clone();
            bytes[14] = version << 4 | low;
            assert_eq!(is_cut(&rig, &bytes), version == right, "version {version}");
        }
    }
    for words in 0..16 {
        let mut bytes = v4.clone();
        bytes[14] = 0x40 | words;
        assert_eq!(is_cut(&rig, &bytes), words >= 5, "a header of {words} words");
    }
}

#[test]
fn extension_headers_end_somewhere() {
    let rig = Rig::with_rule(&partition());
    let mut frame = Frame::new("fd00::1", "fd00::2", tcp(1, 2));
    frame.extensions = vec![Extension::HopByHop { words: 0 }];
    let whole = frame.bytes();
    for length in 54..whole.len() {
        // Its first four bytes say what follows and where.
        assert_eq!(is_cut(&rig, &whole[..length]), length >= 58, "{length} bytes");
    }
    let mut beyond = whole.clone();
    beyond[55] = 255;
    assert!(is_cut(&rig, &beyond), "TCP would be behind the frame's end");
    let mut chained = whole;
    chained[54] = 60;
    chained[55] = 255;
    assert!(
        !is_cut(&rig, &chained),
        "the next header is behind the frame's end"
    );
    for (count, read) in [(7, true), (8, false), (9, false), (60, false)] {
        frame.extensions = vec![Extension::DestinationOptions { words: 0 }; count];
        assert_eq!(is_cut(&rig, &frame.bytes()), read, "{count} extension headers");
    }
    // Behind a later fragment's header there is data, whatever it looks like.
    frame.extensions = vec![
        Extension::Fragment(Fragment {
            offset: 1,
            more: true,
        }),
        Extension::HopByHop { words: 200 },
    ];
    assert!(is_cut(&rig, &frame.bytes()));
}

/// A well-formed frame with some bytes changed and its end cut off.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop_oneof![
        Just(Frame::new("10.0.0.1", "10.0.0.2", tcp(1, 2))),
        Just(Frame::new("10.0.0.1", "10.0.0.2", udp(1, 2))),
        Just(Frame::new("fd00::1", "fd00::2", tcp(1, 2))),
        Just(Frame::new("fd00::1", "fd00::2", udp(1, 2))),
        Just(Frame {
            extensions: vec![
                Extension::HopByHop { words: 0 },
                Extension::Routing { words: 1 },
                Extension::Fragment(Fragment {
                    offset: 0,
                    more: false
                }),
                Extension::DestinationOptions { words: 0 },
            ],
            ..Frame::new("fd00::1", "fd00::2", udp(1, 2))
        }),
    ];
    let changes = prop::collection::vec((0..110_usize, any::<u8>()), 0..6);
    (whole, any::<bool>(), changes, 0..140_usize).prop_map(|(mut frame, is_tagged, changes, length)| {
        // A trial takes the shortest frames only where a tag hides their IP header from it.
        frame.vlans = if is_tagged { vec![0x8100] } else { Vec::new() };
        let least = if is_tagged { 14 } else { frame.transport_at() };
        let mut bytes = frame.bytes();
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(14 + at) {
                *byte = value;
            }
        }
        bytes.truncate(least + length);
        bytes
    })
}

#[test]
fn whatever_a_frame_says_it_is_accounted_for_and_stays_in_shape() {
    let rig = Rig::with_rule(&rule(corrupt(100.0)));
    let mut runner = TestRunner::new(Config::with_cases(20_000));
    let result = runner.run(&damaged(), |bytes| {
        for direction in BOTH {
            let before = (rig.counters(direction), rig.trial().incidents());
            let outcome = rig.run(direction, &single(&bytes));
            let (counters, incidents) = (rig.counters(direction), rig.trial().incidents());
            prop_assert_eq!(outcome.verdict, Verdict::Pass);
            prop_assert_eq!(outcome.bytes.len(), bytes.len());
            let differing = outcome.bytes.iter().zip(&bytes).filter(|(a, b)| a != b).count();
            let corrupted = counters.corrupted.packets - before.0.corrupted.packets;
            let matched = counters.matched.packets - before.0.matched.packets;
            let passed = counters.passed.packets - before.0.passed.packets;
            let bypassed = counters.bypassed.packets - before.0.bypassed.packets;
            let mut new_incidents = [0; INCIDENT_COUNT as usize];
            for (new, (now, then)) in new_incidents.iter_mut().zip(incidents.iter().zip(before.1)) {
                *new = now - then;
            }
            let unparsed = new_incidents[INCIDENT_UNPARSED as usize];
            prop_assert_eq!(matched, passed);
            prop_assert_eq!(bypassed, 0);
            prop_assert_eq!(new_incidents.iter().sum::<u64>(), unparsed, "no helper fails");
            prop_assert!(matched + unparsed <= 1);
            // One byte of the payload and the two of the checksum.
            prop_assert!(differing as u64 <= 3 * corrupted);
            prop_assert!(differing > 0 || corrupted == 0);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
