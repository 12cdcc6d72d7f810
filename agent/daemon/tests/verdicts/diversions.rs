//! What goes to the delay line or the segmenter, and what doesn't.

use std::time::Duration;

use sabot_abi::{Counters, Tally};
use sabot_core::model::{
    Action, CorruptKind, Duplicate, QueueBound, RateLimit, RejectCode, Reorder, ResetTo,
};
use sabotd::kernel::boot_time;
use sabotd::kernel::trial::{Frame as Given, Verdict};

use crate::frame::{ACK, Fragment, Frame, RST, SYN, tcp, udp};
use crate::rig::{
    BOTH, LINE_IFINDEX, LOOPBACK_IFINDEX, Rig, SEGMENTER_IFINDEX, corruption, in_private_netns, jittering,
    rule, share, single,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    On,
    Line,
    Segmenter,
}

/// With all devices a packet goes its way; without them what would have gone away is bypassed.
fn check(action: &Action, frame: &Frame, gso_size: u32, way: Way) {
    let bytes = frame.bytes();
    let given = Given {
        bytes: &bytes,
        gso_size,
        ..Given::default()
    };
    for has_devices in [true, false] {
        let mut rig = Rig::with_rule(&rule(action.clone()));
        if has_devices {
            rig.equip(|target| {
                target.line_ifindex = LINE_IFINDEX;
                target.segmenter_ifindex = SEGMENTER_IFINDEX;
            });
            rig.beat(boot_time());
        }
        for direction in BOTH {
            let verdict = rig.run(direction, &given).verdict;
            let wire = rig.counters(direction).matched;
            assert!(wire.packets > 0);
            let mut counted = Counters {
                matched: wire,
                ..Counters::default()
            };
            let expected = match (way, has_devices) {
                (Way::On, _) => {
                    counted.passed = wire;
                    Verdict::Pass
                }
                (_, false) => {
                    counted.bypassed = wire;
                    Verdict::Pass
                }
                (Way::Line, true) => {
                    counted.delayed = wire;
                    Verdict::Redirect
                }
                (Way::Segmenter, true) => {
                    counted.segmenting = wire;
                    Verdict::Redirect
                }
            };
            assert_eq!(verdict, expected, "{action:?} {frame:?}");
            assert_eq!(rig.counters(direction), counted, "{action:?} {frame:?}");
        }
    }
}

fn one() -> Frame {
    Frame::new("10.0.0.1", "10.0.0.2", udp(1, 2))
}

/// Ten segments of 100 bytes.
fn many() -> Frame {
    let mut frame = Frame::new("fd00::1", "fd00::2", tcp(1, 2));
    frame.payload = vec![1; 1000];
    frame
}

fn reorder(percent: f64, gap: Option<u32>) -> Action {
    Action::Reorder(Reorder {
        percent: share(percent),
        gap,
        delay: Duration::from_millis(10),
    })
}

fn limit(burst: u32) -> Action {
    Action::RateLimit(RateLimit {
        rate: 1_000_000,
        burst,
        queue: QueueBound::Bytes(1),
    })
}

#[test]
fn each_action_has_its_way() {
    let wire = |percent| Action::Corrupt(corruption(percent, CorruptKind::Wire));
    let bytes_of_many = 10 * (14 + 40 + 20) + 1000;
    for (action, of_one, of_many) in [
        (Action::Reject(RejectCode::AdminProhibited), Way::Line, Way::Line),
        (jittering(Duration::ZERO), Way::Line, Way::Line),
        (jittering(Duration::from_millis(1)), Way::Line, Way::Segmenter),
        (limit(bytes_of_many), Way::Line, Way::Line),
        (limit(bytes_of_many - 1), Way::Line, Way::Segmenter),
        (wire(0.0), Way::On, Way::On),
        (wire(0.001), Way::Segmenter, Way::Segmenter),
        (wire(100.0), Way::Segmenter, Way::Segmenter),
        (reorder(100.0, None), Way::Line, Way::Segmenter),
        (reorder(100.0, Some(3)), Way::Line, Way::Segmenter),
        // None is chosen, and yet each has to be counted.
        (reorder(1e-9, Some(3)), Way::Line, Way::Segmenter),
        (reorder(1e-9, None), Way::On, Way::Segmenter),
        (reorder(0.0, Some(3)), Way::On, Way::On),
    ] {
        check(&action, &one(), 0, of_one);
        check(&action, &many(), 100, of_many);
    }
}

#[test]
fn a_reset_is_for_tcp_that_is_none_itself() {
    let reset = Action::Reset(ResetTo::Both);
    for (flags, way) in [
        (SYN, Way::Line),
        (SYN | ACK, Way::Line),
        (ACK, Way::Line),
        (0, Way::Line),
        (RST, Way::On),
        (RST | ACK, Way::On),
    ] {
        for (source, destination) in crate::matching::FAMILIES {
            let mut frame = Frame::new(source, destination, tcp(1, 2));
            frame.flags = flags;
            check(&reset, &frame, 0, way);
        }
    }
    check(&reset, &many(), 100, Way::Line);
    check(&reset, &one(), 0, Way::On);
    let mut later = Frame::new("10.0.0.1", "10.0.0.2", tcp(1, 2));
    later.fragment = Some(Fragment {
        offset: 3,
        more: true,
    });
    check(&reset, &later, 0, Way::On);
}

#[test]
fn duplicates_are_counted_as_they_are_made() {
    in_private_netns(|| {
        for (copies, delay) in [
            (1, Duration::ZERO),
            (10, Duration::ZERO),
            (3, Duration::from_millis(1)),
        ] {
            let mut rig = Rig::with_rule(&rule(Action::Duplicate(Duplicate {
                percent: share(100.0),
                copies,
                delay,
            })));
            rig.equip(|target| {
                target.line_ifindex = LOOPBACK_IFINDEX;
                target.segmenter_ifindex = LOOPBACK_IFINDEX;
            });
            rig.beat(boot_time());
            let bytes = one().bytes();
            let packets = |packets| Tally {
                packets,
                bytes: packets * bytes.len() as u64,
            };
            let clones = packets(u64::from(copies));
            let (delayed, segmenting) = if delay.is_zero() {
                (Tally::default(), clones)
            } else {
                (clones, Tally::default())
            };
            for direction in BOTH {
                let outcome = rig.run(direction, &single(&bytes));
                assert_eq!((outcome.verdict, &outcome.bytes), (Verdict::Pass, &bytes));
                let expected = Counters {
                    matched: packets(1),
                    passed: packets(1),
                    duplicated: clones,
                    delayed,
                    segmenting,
                    ..Counters::default()
                };
                assert_eq!(rig.counters(direction), expected, "{copies} {delay:?}");
            }
        }
    });
}
