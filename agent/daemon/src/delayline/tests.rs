//! The engine as its users see it. Lower bounds of times are asserted, and orders; upper bounds aren't, since the machine
//! may be busy.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sabot_abi::{DIRECTION_INGRESS, Role, Stamp, Tag};
use sabot_core::model::{BootTime, TargetIdentity};
use sabot_core::plan::{Slot, TargetId};

use super::poller::boot_time;
use super::pool::charge;
use super::test_frames::{FrameSpec, Transport, frame};
use super::test_rig::{Far, HOUR, Rig, boot_in, delay, jittered, wait_until};
use super::{Config, DelayLine, Heartbeat, LineError, SlotPolicy};
use crate::engine::handle::Tally;

const MILLI: Duration = Duration::from_millis(1);

#[test]
fn holds_frames_for_the_latency_and_returns_the_same_bytes() {
    let rig = Rig::new();
    let far = rig.open(1);
    rig.delay(1, 30 * MILLI);
    let start = Instant::now();
    let sent: Vec<_> = (0..20)
        .map(|id| {
            far.send(&FrameSpec {
                payload: 10 << (id % 13),
                transport: Transport::Tcp,
                gso_size: 1448,
                ..frame(1, id)
            })
        })
        .collect();
    let received: Vec<_> = (0..20).map(|_| far.receive()).collect();
    assert!(start.elapsed() >= 30 * MILLI);
    assert!(sent == received, "every frame comes back as it was, in order");
    let histogram = rig.line.histogram(Slot(1));
    assert_eq!(histogram.count, 20);
    assert!(histogram.sum >= 20 * 30 * MILLI);
    assert_eq!(rig.tallies(1, 1), super::LineTallies::default());
}

#[test]
fn a_delay_counts_from_when_the_frame_was_sent_here() {
    let age = 5 * MILLI;
    for _ in 0..100 {
        let rig = Rig::new();
        let far = rig.open(1);
        rig.delay(1, HOUR);
        let made = boot_time() - age.as_nanos() as u64;
        far.send(&stamped(1, 0, made));
        rig.wait_held(1, 1, 1);
        if Duration::from_nanos(boot_time() - made) > 30 * MILLI {
            // The machine is busy: the stamp may have been older than one can be.
            continue;
        }
        rig.line.clear_slot(Slot(1));
        far.receive();
        let histogram = rig.line.histogram(Slot(1));
        assert_eq!(histogram.count, 1);
        assert!(
            histogram.sum >= age - Duration::from_micros(2),
            "{:?}",
            histogram.sum
        );
        assert!(histogram.sum <= Duration::from_nanos(boot_time() - made));
        return;
    }
    panic!("no frame was read within 30 ms");
}

#[test]
fn what_another_cpu_sent_a_moment_before_goes_behind_what_stands_before_it() {
    let rig = Rig::new();
    let far = rig.open(1);
    (1..=2).for_each(|slot| rig.delay(slot, 50 * MILLI));
    let now = boot_time();
    far.send(&stamped(1, 1, now));
    far.send(&stamped(2, 2, now - 10_000_000));
    assert_eq!([far.receive_id(), far.receive_id()], [1, 2]);
}

/// A frame that was sent to the line at this time, ns.
fn stamped(slot: u32, id: u64, at: u64) -> FrameSpec {
    FrameSpec {
        stamp: Stamp::at(at),
        ..frame(slot, id)
    }
}

#[test]
fn a_shorter_delay_overtakes_a_longer_one() {
    let rig = Rig::new();
    let far = rig.open(1);
    for (slot, latency) in [(1, 300), (2, 200), (3, 100)] {
        rig.delay(slot, latency * MILLI);
    }
    (1..=3).for_each(|slot| drop(far.send(&frame(slot, u64::from(slot)))));
    assert_eq!([3, 2, 1], [far.receive_id(), far.receive_id(), far.receive_id()]);
}

#[test]
fn jitter_stays_in_its_range_and_keeps_the_order_of_each_flow() {
    let rig = Rig::new();
    let far = rig.open(1);
    let (latency, jitter) = (40 * MILLI, 30 * MILLI);
    rig.line.set_slot(Slot(1), jittered(latency, jitter));
    let mut sent_at = Vec::new();
    for id in 0..400 {
        sent_at.push(Instant::now());
        far.send(&FrameSpec {
            source_port: 1000 + (id % 20) as u16,
            ..frame(1, id)
        });
    }
    let mut last: HashMap<u64, u64> = HashMap::new();
    let mut ids = Vec::new();
    for _ in 0..400 {
        let id = far.receive_id();
        assert!(sent_at[id as usize].elapsed() >= latency - jitter);
        let before = last.insert(id % 20, id);
        assert!(
            before.is_none_or(|before| before < id),
            "{before:?} before {id} in one flow"
        );
        ids.push(id);
    }
    assert!(!ids.is_sorted(), "flows overtake each other");
}

#[test]
fn nothing_is_held_past_the_expiry() {
    let rig = Rig::new();
    let far = rig.open(1);
    let expires_at = boot_in(100 * MILLI);
    rig.line.set_slot(
        Slot(1),
        SlotPolicy {
            expires_at,
            ..delay(HOUR)
        },
    );
    (0..10).for_each(|id| drop(far.send(&frame(1, id))));
    (0..10).for_each(|id| assert_eq!(far.receive_id(), id));
    assert!(BootTime(boot_time()) >= expires_at);
    far.send(&frame(1, 10));
    assert_eq!(far.receive_id(), 10, "an expired slot delays nothing");
}

#[test]
fn an_edit_that_expires_earlier_releases_held_packets_then() {
    let rig = Rig::new();
    let far = rig.open(1);
    rig.delay(1, HOUR);
    (0..10).for_each(|id| drop(far.send(&frame(1, id))));
    rig.wait_held(1, 1, 10);
    rig.line.set_slot(
        Slot(1),
        SlotPolicy {
            expires_at: boot_in(20 * MILLI),
            ..delay(HOUR)
        },
    );
    (0..10).for_each(|id| assert_eq!(far.receive_id(), id));
}

#[test]
fn clearing_a_slot_releases_what_it_holds_and_nothing_else() {
    let rig = Rig::new();
    let far = rig.open(1);
    rig.delay(1, HOUR);
    rig.delay(2, HOUR);
    for id in 0..50 {
        far.send(&frame(1, id));
        far.send(&frame(2, 100 + id));
    }
    rig.wait_held(2, 1, 50);
    rig.line.clear_slot(Slot(1));
    for id in 0..50 {
        let bytes = far
            .try_receive()
            .expect("it was released before clear_slot returned");
        assert_eq!(FrameSpec::id_of(&bytes, 12), Some(id));
    }
    assert_eq!(far.try_receive(), None);
    assert_eq!(
        (rig.tallies(1, 1).held.packets, rig.tallies(2, 1).held.packets),
        (0, 50)
    );
    far.send(&frame(1, 50));
    assert_eq!(far.receive_id(), 50, "a slot that isn't set holds nothing");
}

#[test]
fn both_bounds_are_exact_and_counted_in_wire_packets() {
    let spec = |id| FrameSpec {
        transport: Transport::Tcp,
        payload: 3000,
        gso_size: 1000,
        ..frame(1, id)
    };
    let one = charge(spec(0).build(12).len());
    let rig = Rig::with(Config {
        bytes_per_line: 10 * one,
        bytes_total: 15 * one,
        late_after: HOUR,
        ..Config::default()
    });
    rig.delay(1, HOUR);
    let tally = |frames: u64| Tally {
        packets: 3 * frames,
        bytes: frames * (3000 + 3 * (14 + 20 + 32)),
    };
    let (first, second) = (rig.open(1), rig.open(2));
    for (far, target, kept, lost) in [(&first, 1, 10, 4), (&second, 2, 5, 9)] {
        (0..14).for_each(|id| drop(far.send(&spec(id))));
        wait_until("the last one is refused", || {
            rig.tallies(1, target).lost_bound == tally(lost)
        });
        assert_eq!(rig.tallies(1, target).held, tally(kept));
    }
    rig.line.clear_slot(Slot(1));
    (0..10).for_each(|id| assert_eq!(first.receive_id(), id));
    rig.delay(1, HOUR);
    first.send(&spec(20));
    wait_until("there is room again", || rig.tallies(1, 1).held == tally(1));
}

#[test]
fn a_thread_that_stood_still_drops_what_is_too_late() {
    let rig = Rig::with(Config {
        heartbeat_every: 20 * MILLI,
        late_after: 400 * MILLI,
        ..Config::default()
    });
    let far = rig.open(1);
    rig.delay(1, 500 * MILLI);
    rig.delay(2, HOUR);
    far.send(&frame(1, 0));
    far.send(&frame(2, 1));
    rig.wait_held(2, 1, 1);
    rig.pulse.stall.store(2500, Ordering::SeqCst);
    wait_until("the thread stands still", || {
        rig.pulse.stalling.load(Ordering::SeqCst) == 1
    });
    far.send(&frame(1, 2));
    far.send(&frame(3, 3));
    wait_until("what waited in the line is dropped", || {
        rig.tallies(1, 1).lost_late.packets == 2
    });
    wait_until("what waited in the TAP is dropped", || {
        rig.tallies(3, 1).lost_late.packets == 1
    });
    assert_eq!(rig.tallies(2, 1).held.packets, 1, "what isn't due yet stays");
    rig.line.clear_slot(Slot(2));
    assert_eq!(far.receive_id(), 1);
    far.send(&frame(3, 4));
    assert_eq!(far.receive_id(), 4);
}

#[test]
fn an_edit_meets_the_next_packet_and_no_held_one() {
    let rig = Rig::new();
    let far = rig.open(1);
    rig.delay(1, HOUR);
    far.send(&frame(1, 0));
    rig.wait_held(1, 1, 1);
    rig.delay(1, MILLI);
    far.send(&frame(1, 1));
    far.send(&FrameSpec {
        source_port: 7,
        ..frame(1, 2)
    });
    assert_eq!(far.receive_id(), 2, "another flow has the new delay");
    assert_eq!(rig.tallies(1, 1).held.packets, 2, "the same flow keeps its order");
    rig.line.clear_slot(Slot(1));
    assert_eq!([0, 1], [far.receive_id(), far.receive_id()]);
}

#[test]
fn closing_releases_what_is_held_and_closes_the_descriptor() {
    let rig = Rig::new();
    let (far, other) = (rig.open(1), rig.open(2));
    rig.delay(1, HOUR);
    (0..100).for_each(|id| drop(far.send(&frame(1, id))));
    other.send(&frame(1, 7));
    rig.wait_held(1, 2, 1);
    rig.line.close(TargetId(1));
    assert!(!rig.line.is_open(TargetId(1)) && rig.line.is_open(TargetId(2)));
    let ids: Vec<_> = far
        .receive_to_end()
        .iter()
        .map(|bytes| FrameSpec::id_of(bytes, 12))
        .collect();
    assert_eq!(
        ids,
        (0..100).map(Some).collect::<Vec<_>>(),
        "also what still waited in the TAP"
    );
    assert_eq!(rig.tallies(1, 1), super::LineTallies::default());
    assert_eq!(rig.tallies(1, 2).held.packets, 1);
    rig.line.close(TargetId(1));
    let again = rig.open(1);
    again.send(&frame(2, 9));
    assert_eq!(again.receive_id(), 9);
}

#[test]
fn a_line_whose_device_goes_away_ends_alone_and_its_packets_are_counted() {
    let rig = Rig::new();
    let (far, other) = (rig.open(1), rig.open(2));
    rig.delay(1, HOUR);
    (0..5).for_each(|id| drop(far.send(&frame(1, id))));
    rig.wait_held(1, 1, 5);
    drop(far);
    wait_until("the line is closed", || !rig.line.is_open(TargetId(1)));
    let tallies = rig.tallies(1, 1);
    assert_eq!((tallies.held.packets, tallies.lost_write.packets), (0, 5));
    other.send(&frame(2, 1));
    assert_eq!(other.receive_id(), 1);
}

#[test]
fn a_write_that_fails_is_counted() {
    let rig = Rig::new();
    let (far, tap) = Far::pair();
    nix::sys::socket::setsockopt(&tap, nix::sys::socket::sockopt::SndBuf, &40_000).expect("a small buffer");
    rig.take(1, tap);
    rig.delay(1, HOUR);
    let spec = |id| FrameSpec {
        payload: 1400,
        ..frame(1, id)
    };
    (0..200).for_each(|id| drop(far.send(&spec(id))));
    rig.wait_held(1, 1, 200);
    rig.line.clear_slot(Slot(1));
    let lost = rig.tallies(1, 1).lost_write;
    assert!((1..200).contains(&lost.packets), "{lost:?}");
    assert_eq!(lost.bytes, lost.packets * 1442);
    let received = std::iter::from_fn(|| far.try_receive()).count() as u64;
    assert_eq!(received + lost.packets, 200);
    assert!(rig.line.is_open(TargetId(1)));
}

#[test]
fn frames_without_our_tag_are_discarded_and_counted() {
    let rig = Rig::new();
    let far = rig.open(1);
    let mut bytes = frame(1, 0).build(12);
    bytes[24..26].copy_from_slice(&[0x86, 0xdd]);
    far.send_bytes(&bytes);
    far.send_bytes(&[0; 3]);
    far.send(&frame(1, 1));
    assert_eq!(far.receive_id(), 1);
    let expected = Tally {
        packets: 2,
        bytes: bytes.len() as u64 - 12,
    };
    assert_eq!(rig.line.untagged(), expected);
}

#[test]
fn tallies_tell_targets_and_directions_apart_until_forgotten() {
    let rig = Rig::new();
    let (far, _other) = (rig.open(1), rig.open(2));
    rig.delay(1, HOUR);
    let ingress = Tag {
        slot: 1,
        direction: DIRECTION_INGRESS,
        role: Role::Plain,
    };
    far.send(&FrameSpec {
        tag: ingress,
        ..frame(1, 0)
    });
    let held = |target, egress| rig.line.tallies(Slot(1), TargetId(target), egress).held.packets;
    wait_until("it is held", || held(1, false) == 1);
    assert_eq!((held(1, true), held(2, true), held(2, false)), (0, 0, 0));
    rig.line.clear_slot(Slot(1));
    assert_eq!(rig.line.histogram(Slot(1)).count, 1);
    rig.line.forget(Slot(1), TargetId(1));
    assert_eq!(rig.line.histogram(Slot(1)).count, 0);
}

#[test]
fn the_heart_beats_while_a_line_is_open() {
    let rig = Rig::with(Config {
        heartbeat_every: 10 * MILLI,
        ..Config::default()
    });
    let beats = || rig.pulse.beats.load(Ordering::SeqCst);
    std::thread::sleep(50 * MILLI);
    assert_eq!(beats(), 0);
    let _far = rig.open(1);
    assert!(
        beats() > 0,
        "it beats before the classifier can send the first packet"
    );
    wait_until("it goes on", || beats() > 5);
    rig.line.close(TargetId(1));
    let at_close = beats();
    std::thread::sleep(50 * MILLI);
    assert_eq!(beats(), at_close);
}

#[test]
fn a_second_line_for_a_target_is_refused() {
    let rig = Rig::new();
    let _far = rig.open(1);
    let (_far, tap) = Far::pair();
    let error = rig
        .line
        .open(TargetId(1), TargetIdentity(1), None, tap)
        .expect_err("there is one");
    assert_eq!(error.to_string(), "target 1 has a delay line already");
}

#[test]
fn stopping_releases_everything_and_ends_the_thread() {
    let rig = Rig::new();
    let (far, other) = (rig.open(1), rig.open(2));
    rig.delay(1, HOUR);
    (0..30).for_each(|id| drop(far.send(&frame(1, id))));
    other.send(&frame(1, 5));
    rig.wait_held(1, 1, 30);
    assert!(rig.line.is_alive());
    rig.line.stop();
    assert!(!rig.line.is_alive() && !rig.line.is_open(TargetId(1)));
    assert_eq!(far.receive_to_end().len(), 30);
    assert_eq!(other.receive_to_end().len(), 1);
    assert!(matches!(
        rig.line.open(TargetId(3), TargetIdentity(3), None, Far::pair().1),
        Err(LineError::Stopped)
    ));
    // None of these may hang or panic.
    rig.line.close(TargetId(1));
    rig.line.clear_slot(Slot(1));
    rig.line.forget(Slot(1), TargetId(1));
    rig.line.stop();
}

#[test]
fn dropping_the_last_handle_closes_the_lines() {
    let Rig { line, pulse } = Rig::new();
    let (far, tap) = Far::pair();
    line.open(TargetId(1), TargetIdentity(1), None, tap)
        .expect("the line opens");
    drop(line.clone());
    assert!(line.is_alive());
    drop(line);
    assert!(far.receive_to_end().is_empty());
    assert_eq!(
        std::sync::Arc::strong_count(&pulse.beats),
        1,
        "the thread is gone"
    );
}

#[test]
fn a_dead_thread_leaves_no_line_and_no_waiting_caller() {
    struct Dying(u32);
    impl Heartbeat for Dying {
        fn beat(&mut self, _: BootTime) {
            self.0 += 1;
            assert!(self.0 < 5, "this heart stops");
        }
    }
    let config = Config {
        heartbeat_every: 10 * MILLI,
        ..Config::default()
    };
    let line = DelayLine::start(config, Box::new(Dying(0))).expect("the engine starts");
    let (far, tap) = Far::pair();
    line.open(TargetId(1), TargetIdentity(1), None, tap)
        .expect("the line opens");
    assert!(
        far.receive_to_end().is_empty(),
        "its descriptor is closed, so its TAP would be gone"
    );
    wait_until("the thread has ended", || !line.is_alive());
    line.clear_slot(Slot(1));
    line.close(TargetId(1));
    assert!(!line.is_open(TargetId(1)));
}
