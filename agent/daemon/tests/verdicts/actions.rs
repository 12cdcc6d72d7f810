//! What is done with a packet that is named, and how it is counted.

use std::time::Duration;

use sabot_abi::{Counters, Tally};
use sabot_core::model::BootTime;
use sabot_testkit::features::lacks;
use sabotd::kernel::boot_time;
use sabotd::kernel::trial::{Frame as Given, Verdict};

use crate::frame::{Frame, tcp, udp};
use crate::rig::{
    BOTH, Egress, HEARTBEAT_BOUND, Ingress, LINE_IFINDEX, Rig, SEGMENTER_IFINDEX, TARGET, corrupt, cut,
    delay, drop, partition, rule, single,
};

fn frame() -> Vec<u8> {
    Frame::new("10.0.0.1", "10.0.0.2", tcp(1, 2)).bytes()
}

fn tally(packets: u64, frame: &[u8]) -> Tally {
    Tally {
        packets,
        bytes: packets * frame.len() as u64,
    }
}

#[test]
fn all_and_nothing_are_exact() {
    const ROUNDS: u64 = 1000;
    let frame = frame();
    for (percent, all) in [(0.0, false), (100.0, true)] {
        let rig = Rig::with_rule(&rule(drop(percent)));
        for direction in BOTH {
            let expected = if all { cut(direction) } else { Verdict::Pass };
            for _ in 0..ROUNDS {
                assert_eq!(rig.run(direction, &single(&frame)).verdict, expected);
            }
            let matched = tally(ROUNDS, &frame);
            let (passed, dropped) = if all {
                (Tally::default(), matched)
            } else {
                (matched, Tally::default())
            };
            let counted = Counters {
                matched,
                passed,
                dropped,
                ..Counters::default()
            };
            assert_eq!(rig.counters(direction), counted);
        }
    }
}

#[test]
fn a_share_is_the_share_and_every_verdict_is_counted() {
    const ROUNDS: u64 = 20_000;
    let frame = frame();
    for percent in [50.0, 20.0, 1.0] {
        let rig = Rig::with_rule(&rule(drop(percent)));
        let mut dropped = 0;
        for _ in 0..ROUNDS {
            let verdict = rig.run(Ingress, &single(&frame)).verdict;
            assert!(matches!(verdict, Verdict::Pass | Verdict::Drop), "{verdict:?}");
            dropped += u64::from(verdict == Verdict::Drop);
        }
        let counted = Counters {
            matched: tally(ROUNDS, &frame),
            passed: tally(ROUNDS - dropped, &frame),
            dropped: tally(dropped, &frame),
            ..Counters::default()
        };
        assert_eq!(rig.counters(Ingress), counted);
        let share = percent / 100.0;
        let mean = ROUNDS as f64 * share;
        let deviation = (mean * (1.0 - share)).sqrt();
        assert!(
            (dropped as f64 - mean).abs() < 4.0 * deviation,
            "{dropped} of {ROUNDS} dropped at {percent} %: more than 4 x {deviation:.0} from {mean}"
        );
    }
}

#[test]
fn a_delay_needs_a_line_that_is_alive() {
    let now = boot_time();
    let bound = HEARTBEAT_BOUND.as_nanos() as u64;
    for (what, line, beat, delayed) in [
        ("no line", 0, now, false),
        ("no heartbeat", LINE_IFINDEX, BootTime(0), false),
        (
            "a stale heartbeat",
            LINE_IFINDEX,
            BootTime(now.0.saturating_sub(bound)),
            false,
        ),
        (
            "a recent heartbeat",
            LINE_IFINDEX,
            now.after(Duration::from_secs(60)),
            true,
        ),
        // What the sum of it and the bound would wrap to lies in the past.
        ("the end of time", LINE_IFINDEX, BootTime(u64::MAX), true),
    ] {
        let mut rig = Rig::with_rule(&rule(delay()));
        rig.equip(|target| target.line_ifindex = line);
        rig.beat(beat);
        let frame = frame();
        for direction in BOTH {
            let before = boot_time().0;
            let outcome = rig.run(direction, &single(&frame));
            let one = tally(1, &frame);
            let mut expected = Counters {
                matched: one,
                ..Counters::default()
            };
            if delayed {
                assert_eq!(outcome.verdict, Verdict::Redirect, "{what}");
                let stamp = outcome.stamp.expect("it says when it was sent away");
                let after = boot_time().0;
                assert!((before..=after).contains(&stamp.time(after)), "{what}: {stamp:?}");
                expected.delayed = one;
            } else {
                assert_eq!(outcome.verdict, Verdict::Pass, "{what}");
                assert_eq!(outcome.bytes, frame, "{what}: it was changed");
                expected.bypassed = one;
            }
            assert_eq!(rig.counters(direction), expected, "{what}");
        }
    }
}

#[test]
fn on_the_nodes_own_devices_a_mark_is_never_lost() {
    let frame = frame();
    for (node_device, mark, delayed) in [
        (false, 0, true),
        (false, 7, true),
        (true, 0, true),
        (true, 7, false),
    ] {
        let mut rig = Rig::with_rule(&rule(delay()));
        rig.equip(|target| {
            target.line_ifindex = LINE_IFINDEX;
            if node_device {
                target.flags |= sabot_abi::TARGET_NODE_DEVICE;
            }
        });
        rig.beat(boot_time());
        let given = Given {
            mark,
            ..single(&frame)
        };
        let expected = if delayed { Verdict::Redirect } else { Verdict::Pass };
        assert_eq!(rig.run(Egress, &given).verdict, expected, "{node_device} {mark}");
        let counters = rig.counters(Egress);
        assert_eq!(
            (counters.delayed.packets, counters.bypassed.packets),
            (u64::from(delayed), u64::from(!delayed))
        );
    }
}

#[test]
fn what_comes_back_from_a_detour_is_not_met_again() {
    let mut rig = Rig::with_rule(&partition());
    rig.equip(|target| {
        target.line_ifindex = LINE_IFINDEX;
        target.segmenter_ifindex = SEGMENTER_IFINDEX;
    });
    let frame = frame();
    let from_line = Given {
        ingress_ifindex: LINE_IFINDEX,
        ..single(&frame)
    };
    if let Err(error) = rig.trial().run(TARGET, Egress, &from_line) {
        return lacks("ingress_ifindex", &error.to_string());
    }
    for (ingress_ifindex, verdict) in [
        (0, cut(Egress)),
        (LINE_IFINDEX, Verdict::Pass),
        (SEGMENTER_IFINDEX, Verdict::Pass),
        (900, cut(Egress)),
    ] {
        let given = Given {
            ingress_ifindex,
            ..single(&frame)
        };
        assert_eq!(rig.run(Egress, &given).verdict, verdict, "{ingress_ifindex}");
    }
    assert_eq!(rig.counters(Egress).matched.packets, 2);
    // On ingress the device says nothing: every packet comes in on one. Nor does a mark that somebody guessed.
    for mark in [1, 7, u32::MAX] {
        let given = Given { mark, ..from_line };
        assert_eq!(rig.run(Ingress, &given).verdict, cut(Ingress));
    }
}

#[test]
fn detours_do_not_matter_to_what_needs_none() {
    let frame = Frame::new("fd00::1", "fd00::2", udp(1, 2)).bytes();
    for action in [drop(0.0), corrupt(0.0)] {
        let mut rig = Rig::with_rule(&rule(action));
        rig.equip(|target| {
            target.line_ifindex = LINE_IFINDEX;
            target.segmenter_ifindex = SEGMENTER_IFINDEX;
        });
        let outcome = rig.run(Egress, &single(&frame));
        assert_eq!((outcome.verdict, outcome.bytes), (Verdict::Pass, frame.clone()));
        assert_eq!(rig.counters(Egress).passed.packets, 1);
    }
}
