//! Treatments in virtual time.

use std::time::Duration;

use sabot_abi::{DIRECTION_EGRESS, DIRECTION_INGRESS, Role};
use sabot_core::action::{QueueBound, RateLimit, RejectCode};
use sabot_core::model::{BootTime, Ramp, TargetIdentity};

use super::slots::{SlotPolicy, Treatment};
use super::test_line::{
    Line, MILLI, PLAIN, SLOT, START, Sent, TICK, constant, gap, jittered, limited, policy,
};

/// Equal but for the wheel's ticks.
fn alike(one: &[u64], two: &[u64]) -> bool {
    one.len() == two.len() && one.iter().zip(two).all(|(a, b)| a.abs_diff(*b) <= TICK)
}

#[test]
fn a_constant_delay_is_exact_to_the_tick() {
    let mut line = Line::new(constant(5 * MILLI));
    for delay in line.sample(10) {
        assert!((5 * MILLI..5 * MILLI + TICK).contains(&delay), "{delay}");
    }
}

#[test]
fn the_same_seed_gives_the_same_delays_by_target_and_direction() {
    let sample = |identity, direction, seed| {
        let policy = SlotPolicy {
            seed,
            ..policy(jittered(true))
        };
        Line::of(TargetIdentity(identity), direction, 1 << 30, policy).sample(50)
    };
    let first = sample(1, DIRECTION_EGRESS, 7);
    assert_eq!(first, sample(1, DIRECTION_EGRESS, 7));
    assert_ne!(first, sample(2, DIRECTION_EGRESS, 7));
    assert_ne!(first, sample(1, DIRECTION_INGRESS, 7));
    assert_ne!(first, sample(1, DIRECTION_EGRESS, 8));
}

#[test]
fn an_edit_goes_on_with_the_stream_and_a_new_fault_begins_anew() {
    let whole = Line::new(jittered(true)).sample(60);
    let mut line = Line::new(jittered(true));
    assert!(alike(&line.sample(30), &whole[..30]));
    line.set(policy(jittered(true)));
    assert!(alike(&line.sample(30), &whole[30..]));
    let other_seed = SlotPolicy {
        seed: 8,
        ..policy(jittered(true))
    };
    line.set(other_seed);
    assert!(!alike(&line.sample(30), &whole[..30]));
    line.slots.clear(SLOT);
    line.set(policy(jittered(true)));
    assert!(alike(&line.sample(30), &whole[..30]));
}

#[test]
fn order_is_kept_unless_reordering_is_allowed() {
    for allow_reorder in [false, true] {
        let mut line = Line::new(jittered(allow_reorder));
        for _ in 0..200 {
            line.send(PLAIN);
            line.run_until(line.now + MILLI);
        }
        line.drain();
        assert_eq!(line.ids().is_sorted(), !allow_reorder);
        assert_eq!(line.out.len(), 200);
    }
}

#[test]
fn a_ramp_scales_the_whole_delay_and_then_stays() {
    let ramp = Ramp {
        over: Duration::from_millis(100),
        from: 0.5,
        to: 2.0,
    };
    let policy = SlotPolicy {
        ramp: Some(ramp),
        ..policy(constant(10 * MILLI))
    };
    let mut line = Line::of(TargetIdentity(1), DIRECTION_EGRESS, 1 << 30, policy);
    for (at, expected) in [(0, 5), (20, 8), (60, 14), (100, 20), (5000, 20)] {
        line.run_until(START + at * MILLI);
        line.out.clear();
        line.send(PLAIN);
        line.drain();
        let delay = line.out[0].at - START - at * MILLI;
        assert!(
            (expected * MILLI..expected * MILLI + TICK).contains(&delay),
            "{delay} at {at}"
        );
    }
}

#[test]
fn nothing_is_treated_outside_of_the_policys_time() {
    for treatment in [
        constant(MILLI),
        Treatment::Reject(RejectCode::PortUnreachable),
        gap(1),
    ] {
        let policy = SlotPolicy {
            starts_at: BootTime(START + MILLI),
            expires_at: BootTime(START + 3 * MILLI),
            ..policy(treatment.clone())
        };
        let mut line = Line::of(TargetIdentity(1), DIRECTION_EGRESS, 1 << 30, policy);
        let chosen = Sent {
            role: Role::Chosen,
            ..PLAIN
        };
        line.send(chosen);
        assert_eq!(line.out.len(), 1, "{treatment:?} before the start");
        line.run_until(START + 2 * MILLI + MILLI / 2);
        line.send(chosen);
        assert_eq!(line.out.len(), 1, "{treatment:?}");
        line.run_until(START + 4 * MILLI);
        let held = line.out.get(1).map_or(START, |out| out.at);
        assert!(
            held <= START + 3 * MILLI + TICK,
            "{treatment:?}: held past the end"
        );
        line.send(chosen);
        assert_eq!(
            line.out.last().map(|out| out.id),
            Some(2),
            "{treatment:?} after the end"
        );
    }
}

#[test]
fn copies_wait_and_originals_do_not() {
    let mut line = Line::new(Treatment::Duplicate {
        delay: Duration::from_millis(10),
    });
    for role in [Role::Copy, Role::Copy, Role::Plain, Role::Plain] {
        line.send(Sent { role, ..PLAIN });
    }
    line.drain();
    assert_eq!(line.ids(), [2, 3, 0, 1]);
    assert!(line.out[2].at >= START + 10 * MILLI);
    // A copy is not bound to its flow by any other treatment either.
    line.set(policy(constant(10 * MILLI)));
    line.send(PLAIN);
    line.set(policy(constant(MILLI)));
    line.send(Sent {
        role: Role::Copy,
        ..PLAIN
    });
    line.drain();
    assert_eq!(line.ids()[4..], [5, 4]);
}

#[test]
fn chosen_packets_wait_for_a_time_without_a_gap() {
    let mut line = Line::new(Treatment::Reorder {
        gap: None,
        delay: Duration::from_millis(10),
    });
    for index in 0..20 {
        let role = if index == 3 || index == 4 {
            Role::Chosen
        } else {
            Role::Plain
        };
        line.send(Sent { role, ..PLAIN });
        line.run_until(line.now + MILLI);
    }
    line.drain();
    let place = |id| line.ids().iter().position(|&other| other == id);
    // Ten later ones pass in ten milliseconds, and the tick of the release may let in one more.
    assert!(
        matches!(place(3), Some(12..=14)) && place(4) > place(3),
        "{:?}",
        line.ids()
    );
}

#[test]
fn a_gap_lets_exactly_so_many_pass() {
    let mut line = Line::new(gap(3));
    for id in 0..12 {
        let role = if matches!(id, 1 | 2 | 7) {
            Role::Chosen
        } else {
            Role::Plain
        };
        line.send(Sent { role, ..PLAIN });
    }
    assert_eq!(line.ids(), [0, 3, 4, 5, 1, 2, 6, 8, 9, 10, 7, 11]);
}

#[test]
fn who_is_not_overtaken_goes_after_the_delay() {
    let mut line = Line::new(gap(3));
    line.send(Sent {
        role: Role::Chosen,
        ..PLAIN
    });
    line.send(PLAIN);
    line.send(Sent { flow: 2, ..PLAIN });
    line.send(Sent { flow: 2, ..PLAIN });
    assert_eq!(line.ids(), [1, 2, 3], "other flows don't count");
    line.drain();
    assert_eq!(line.ids(), [1, 2, 3, 0]);
    assert!((START + 1000 * MILLI..START + 1000 * MILLI + TICK).contains(&line.now));
}

/// A sender that always has more to send than the rate takes.
#[test]
fn the_achieved_rate_is_within_a_thousandth() {
    for rate in [1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000] {
        let size = 1514;
        let mut line = Line::new(Treatment::RateLimit(RateLimit {
            rate,
            burst: 3028,
            queue: QueueBound::Bytes(200 * size),
        }));
        // A packet takes this long; one in 80 % of it is sent.
        let pause = size * 8 * 1_000_000_000 / rate * 8 / 10;
        let count = 8_000;
        for index in 0..count {
            let (flow, bytes) = (index % 5, size as u32);
            line.send(Sent { flow, bytes, ..PLAIN });
            line.run_until(line.now + pause);
        }
        line.drain();
        assert_eq!(line.out.len() + line.consumed.len(), count as usize);
        assert!(!line.consumed.is_empty(), "the queue overflows at {rate}");
        assert!(line.ids().is_sorted(), "first in, first out");
        // After ten packets there is always a queue.
        let (first, last) = (line.out[10], line.out[line.out.len() - 1]);
        let bits = (line.out.len() - 11) as f64 * size as f64 * 8.0;
        let achieved = bits / (last.at - first.at) as f64 * 1e9;
        let error = achieved / rate as f64 - 1.0;
        let by_ticks = TICK as f64 / (last.at - first.at) as f64;
        assert!(error.abs() < 0.001 + by_ticks, "{achieved} instead of {rate}");
        if rate <= 1_000_000_000 {
            assert!(error.abs() < 0.001, "{achieved} instead of {rate}");
        }
    }
}

#[test]
fn a_ramp_scales_the_rate() {
    let ramp = Ramp {
        over: Duration::from_secs(1),
        from: 0.1,
        to: 1.0,
    };
    let policy = SlotPolicy {
        ramp: Some(ramp),
        ..policy(limited(8_000_000, Duration::from_secs(9)))
    };
    let mut line = Line::of(TargetIdentity(1), DIRECTION_EGRESS, 1 << 30, policy);
    // 0.8 Mbit/s at the start: a byte takes ten microseconds.
    for _ in 0..4 {
        line.send(Sent { bytes: 1514, ..PLAIN });
    }
    line.drain();
    let gap = line.out[3].at - line.out[2].at;
    assert!(gap.abs_diff(15_140_000) < 10 * TICK, "{gap}");
    line.run_until(START + 2000 * MILLI);
    for _ in 0..4 {
        line.send(Sent { bytes: 1514, ..PLAIN });
    }
    line.drain();
    let gap = line.out[7].at - line.out[6].at;
    assert!(gap.abs_diff(1_514_000) < 2 * TICK, "{gap}");
}

#[test]
fn a_packet_that_memory_refuses_takes_nothing_of_the_rate() {
    let room = 4 * super::pool::charge(8);
    let policy = policy(limited(8_000_000, Duration::from_secs(1)));
    let mut line = Line::of(TargetIdentity(1), DIRECTION_EGRESS, room, policy);
    for _ in 0..40 {
        line.send(Sent { bytes: 1000, ..PLAIN });
    }
    line.drain();
    // Three and a bit at once, four held; the last of them when all seven are sent.
    assert_eq!(line.out.len(), 7);
    let last = line.out[6].at - START;
    assert!(last.abs_diff(7_000_000 - 3_028_000) <= TICK, "{last}");
}

#[test]
fn an_edit_to_any_other_treatment_loses_nothing() {
    let treatments = [
        constant(5 * MILLI),
        jittered(true),
        gap(2),
        Treatment::Duplicate {
            delay: Duration::from_millis(1),
        },
        limited(100_000_000, Duration::from_secs(10)),
    ];
    for first in &treatments {
        for second in &treatments {
            let mut line = Line::new(first.clone());
            for index in 0..40 {
                if index == 20 {
                    line.set(policy(second.clone()));
                }
                let role = [Role::Plain, Role::Chosen, Role::Copy, Role::Plain][index % 4];
                let flow = index as u64 % 3;
                line.send(Sent { role, flow, ..PLAIN });
                line.run_until(line.now + MILLI / 10);
            }
            line.drain();
            let mut ids = line.ids();
            ids.sort_unstable();
            assert!(ids.into_iter().eq(0..40), "from {first:?} to {second:?}");
        }
    }
}
