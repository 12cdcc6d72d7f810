//! What the kernel's departure queue holds, and what is left to the delay line.

use std::time::Duration;

use sabot_abi::{Counters, HOLDING_OVERHEAD, Tally};
use sabot_core::model::{Action, Ramp};
use sabot_core::plan::RuleBody;
use sabot_testkit::features::lacks;
use sabotd::kernel::boot_time;
use sabotd::kernel::trial::{Verdict, Words};

use crate::frame::{Frame, udp};
use crate::rig::{BOTH, Egress, LINE_IFINDEX, Rig, delaying, jittering, rule, single};

const DEPARTURES_IFINDEX: u32 = 903;

fn one() -> Frame {
    Frame::new("10.0.0.1", "10.0.0.2", udp(1, 2))
}

/// Kernels for which the programs are built with locks have no departures.
fn has_departures() -> bool {
    let has_them = Words::of_this_kernel() == Words::Atomic;
    if !has_them {
        lacks("departures", "the programs with locks are loaded without");
    }
    has_them
}

/// A target with a delay line and a departure queue for so many bytes.
fn equipped(rule: &RuleBody, bytes: u64) -> Rig {
    let mut rig = Rig::with_rule(rule);
    rig.equip(|target| {
        target.line_ifindex = LINE_IFINDEX;
        target.departures_ifindex = DEPARTURES_IFINDEX;
        target.departures_bytes = u32::try_from(bytes).expect("it fits");
    });
    rig.beat(boot_time());
    rig
}

fn check(rule: &RuleBody, frame: &Frame, departs: bool) {
    let bytes = frame.bytes();
    let rig = equipped(rule, 1 << 20);
    for direction in BOTH {
        let verdict = rig.run(direction, &single(&bytes)).verdict;
        let wire = Tally {
            packets: 1,
            bytes: bytes.len() as u64,
        };
        let expected = Counters {
            matched: wire,
            delayed: wire,
            departing: if departs { wire } else { Tally::default() },
            ..Counters::default()
        };
        assert_eq!(verdict, Verdict::Redirect, "{rule:?}");
        assert_eq!(rig.counters(direction), expected, "{rule:?} {frame:?}");
    }
}

#[test]
fn a_constant_delay_that_is_not_too_long_departs() {
    if !has_departures() {
        return;
    }
    for (millis, departs) in [(0, false), (1, true), (200, true), (201, false)] {
        check(&rule(delaying(Duration::from_millis(millis))), &one(), departs);
    }
    let v6 = Frame::new("fd00::1", "fd00::2", udp(1, 2));
    check(&rule(delaying(Duration::from_millis(5))), &v6, true);
}

#[test]
fn whatever_varies_is_left_to_the_delay_line() {
    check(&rule(jittering(Duration::from_millis(1))), &one(), false);
    let ramp = Ramp {
        over: Duration::from_secs(1),
        from: 0.0,
        to: 1.0,
    };
    let ramped = RuleBody {
        ramp: Some(ramp),
        ..rule(delaying(Duration::from_millis(5)))
    };
    check(&ramped, &one(), false);
}

#[test]
fn the_kernel_has_no_departures_for_frames_with_vlan_headers() {
    let mut tagged = one();
    tagged.vlans = vec![0x8100];
    check(&rule(delaying(Duration::from_millis(5))), &tagged, false);
}

#[test]
fn without_a_queue_it_is_the_delay_lines() {
    let mut rig = equipped(&rule(delaying(Duration::from_millis(5))), 1 << 20);
    rig.equip(|target| target.departures_ifindex = 0);
    let bytes = one().bytes();
    assert_eq!(rig.run(Egress, &single(&bytes)).verdict, Verdict::Redirect);
    let counters = rig.counters(Egress);
    assert_eq!((counters.delayed.packets, counters.departing.packets), (1, 0));
}

#[test]
fn what_there_is_no_room_for_is_lost_and_counted() {
    if !has_departures() {
        return;
    }
    let bytes = one().bytes();
    let weight = bytes.len() as u64 + HOLDING_OVERHEAD;
    let delay: Action = delaying(Duration::from_millis(200));
    let rig = equipped(&rule(delay), 0);
    assert_eq!(rig.run(Egress, &single(&bytes)).verdict, Verdict::Redirect);
    let lost = rig.counters(Egress);
    let wire = Tally {
        packets: 1,
        bytes: bytes.len() as u64,
    };
    let expected = Counters {
        matched: wire,
        lost_bound: wire,
        ..Counters::default()
    };
    assert_eq!(lost, expected);
    drop(rig);
    // What other tests handed over never comes back, so that the count begins anew after a while.
    let rig = equipped(&rule(delaying(Duration::from_millis(200))), 2 * weight);
    std::thread::sleep(Duration::from_millis(1300));
    for _ in 0..3 {
        rig.run(Egress, &single(&bytes));
    }
    let counters = rig.counters(Egress);
    assert_eq!((counters.departing.packets, counters.lost_bound.packets), (2, 1));
}
