//! Super-packets: counted as the wire packets that they are, and never decided on as a whole by a share.

use sabot_abi::{Counters, Tally};
use sabot_core::model::Action;
use sabotd::kernel::boot_time;
use sabotd::kernel::trial::{Frame as Given, Verdict};

use crate::frame::{Extension, Frame, tcp, udp};
use crate::matching::FAMILIES;
use crate::rig::{BOTH, LINE_IFINDEX, Rig, SEGMENTER_IFINDEX, corrupt, cut, delay, drop, rule};

const SEGMENT: u32 = 300;

/// Super-packets of `payload` bytes behind all kinds of headers.
fn frames(payload: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (source, destination) in FAMILIES {
        for transport in [tcp(1, 2), udp(1, 2)] {
            let mut frame = Frame::new(source, destination, transport);
            frame.payload = vec![0xa5; payload];
            frames.push(frame.clone());
            frame.options = 4;
            frame.vlans = vec![0x8100];
            if !frame.source.is_ipv4() {
                frame.extensions = vec![Extension::DestinationOptions { words: 1 }];
            }
            frames.push(frame);
        }
        let mut options = Frame::new(
            source,
            destination,
            crate::frame::Transport::Tcp {
                source: 1,
                destination: 2,
                options: 3,
            },
        );
        options.payload = vec![0xa5; payload];
        frames.push(options);
    }
    frames
}

/// What a network card would send: the headers once for each segment.
fn on_the_wire(frame: &Frame) -> Tally {
    let mut wire = Tally::default();
    for segment in frame.payload.chunks(SEGMENT as usize) {
        wire.packets += 1;
        wire.bytes += (frame.payload_at() + segment.len()) as u64;
    }
    wire
}

/// Applies an action to super-packets of several lengths, with detours or without.
fn check(action: Action, detours: bool, verdict: impl Fn(bool) -> Verdict, counted: fn(Tally) -> Counters) {
    for payload in [301, 600, 601, 3000] {
        for frame in frames(payload) {
            let mut rig = Rig::with_rule(&rule(action.clone()));
            if detours {
                rig.equip(|target| {
                    target.line_ifindex = LINE_IFINDEX;
                    target.segmenter_ifindex = SEGMENTER_IFINDEX;
                });
                rig.beat(boot_time());
            }
            let bytes = frame.bytes();
            for direction in BOTH {
                let given = Given {
                    bytes: &bytes,
                    gso_size: SEGMENT,
                    ..Given::default()
                };
                let outcome = rig.run(direction, &given);
                let is_egress = direction == crate::rig::Egress;
                assert_eq!(outcome.verdict, verdict(is_egress), "{action:?} {frame:?}");
                let wire = on_the_wire(&frame);
                assert!(wire.packets > 1);
                let expected = counted(wire);
                assert_eq!(expected.matched, wire);
                assert_eq!(rig.counters(direction), expected, "{action:?} {frame:?}");
            }
        }
    }
}

fn dropped(is_egress: bool) -> Verdict {
    cut(if is_egress {
        crate::rig::Egress
    } else {
        crate::rig::Ingress
    })
}

#[test]
fn partition_counts_wire_packets() {
    check(Action::Partition, true, dropped, |wire| Counters {
        matched: wire,
        dropped: wire,
        ..Counters::default()
    });
}

#[test]
fn all_or_nothing_needs_no_segmenter() {
    check(drop(100.0), true, dropped, |wire| Counters {
        matched: wire,
        dropped: wire,
        ..Counters::default()
    });
    for action in [drop(0.0), corrupt(0.0)] {
        check(
            action,
            true,
            |_| Verdict::Pass,
            |wire| Counters {
                matched: wire,
                passed: wire,
                ..Counters::default()
            },
        );
    }
}

#[test]
fn a_share_goes_to_the_segmenter() {
    for action in [drop(50.0), drop(0.01), corrupt(50.0), corrupt(100.0)] {
        check(
            action,
            true,
            |_| Verdict::Redirect,
            |wire| Counters {
                matched: wire,
                segmenting: wire,
                ..Counters::default()
            },
        );
    }
}

#[test]
fn without_segmenter_or_line_it_is_let_on_whole() {
    for action in [drop(50.0), corrupt(100.0), delay()] {
        check(
            action,
            false,
            |_| Verdict::Pass,
            |wire| Counters {
                matched: wire,
                bypassed: wire,
                ..Counters::default()
            },
        );
    }
}

#[test]
fn a_delay_keeps_it_whole() {
    check(
        delay(),
        true,
        |_| Verdict::Redirect,
        |wire| Counters {
            matched: wire,
            delayed: wire,
            ..Counters::default()
        },
    );
}

#[test]
fn one_segment_is_one_packet() {
    for payload in [1, 299, 300] {
        for frame in frames(payload) {
            let rig = Rig::with_rule(&rule(corrupt(100.0)));
            let bytes = frame.bytes();
            let given = Given {
                bytes: &bytes,
                gso_size: SEGMENT,
                ..Given::default()
            };
            let outcome = rig.run(crate::rig::Egress, &given);
            assert_eq!(outcome.verdict, Verdict::Pass);
            assert!(frame.has_valid_checksum(&outcome.bytes));
            let one = Tally {
                packets: 1,
                bytes: bytes.len() as u64,
            };
            let expected = Counters {
                matched: one,
                passed: one,
                corrupted: one,
                ..Counters::default()
            };
            assert_eq!(rig.counters(crate::rig::Egress), expected, "{frame:?}");
        }
    }
}
