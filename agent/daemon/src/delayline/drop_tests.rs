//! What lines drop by themselves, by owner, beside the books of the slots.

use std::time::Duration;

use sabot_abi::OwnerKey;
use sabot_core::plan::{Slot, TargetId};

use super::pool::charge;
use super::test_frames::frame;
use super::test_line::limited;
use super::test_rig::{Far, HOUR, Rig, wait_until};
use super::{Config, LineDrop, OwnerDrops};
use crate::engine::handle::Tally;

/// A cookie.
const NETNS: u64 = 70;
const POD: u32 = 8;
/// Slots: one that holds, one with a queue in which nothing waits, and one without a policy.
const HELD: u32 = 1;
const LIMITED: u32 = 2;
const FREE: u32 = 3;
const LAST: u64 = 99;

fn owner(cookie: u64, number: u32) -> (OwnerKey, u32) {
    (OwnerKey { cookie, cgroup: 0 }, number)
}

/// More than a line with room for one packet takes; returns once all of it has been seen.
fn flood(far: &Far) {
    (0..4).for_each(|id| drop(far.send(&frame(HELD, id))));
    (0..60).for_each(|id| drop(far.send(&frame(LIMITED, id))));
    far.send(&frame(FREE, LAST));
    while far.receive_id() != LAST {}
}

fn by_reason(rig: &Rig, why: LineDrop) -> Option<(u32, Tally)> {
    let drops = rig.line.drops();
    let found = drops.iter().find(|drops| drops.why == why);
    found.map(|drops| (drops.owner, drops.dropped))
}

#[test]
fn drops_are_counted_by_owners_as_in_the_books_and_outlast_these() {
    let rig = Rig::with(Config {
        bytes_per_line: charge(frame(HELD, 0).build(12).len()),
        late_after: HOUR,
        ..Config::default()
    });
    let pod_of_node = OwnerKey {
        cookie: NETNS,
        cgroup: 5,
    };
    rig.line.set_owners(&[owner(NETNS, POD), (pod_of_node, 9)]);
    rig.delay(HELD, HOUR);
    rig.set(LIMITED, limited(1000, Duration::ZERO));
    let open = |target, cookie| {
        let (far, tap) = Far::pair();
        rig.take_in(target, Some(cookie), tap);
        far
    };
    // Two of the owner's, and another's who isn't known yet.
    let [first, second, other] = [open(1, NETNS), open(2, NETNS), open(3, NETNS + 1)];
    [&first, &second, &other].into_iter().for_each(flood);
    let bound = [1, 2].map(|target| rig.tallies(HELD, target).lost_bound);
    let queue = [1, 2].map(|target| rig.tallies(LIMITED, target).dropped);
    assert!(
        bound[0].packets == 3 && queue[0].packets > 1,
        "{bound:?} {queue:?}"
    );
    let told = [(LineDrop::Queue, queue), (LineDrop::Bound, bound)].map(|(why, [one, two])| OwnerDrops {
        owner: POD,
        egress: true,
        why,
        dropped: one + two,
    });
    assert_eq!(rig.line.drops(), told);

    // A fault's end takes its books away.
    for (slot, target) in [(HELD, 1), (HELD, 2), (LIMITED, 1), (LIMITED, 2)] {
        rig.line.forget(Slot(slot), TargetId(target));
    }
    assert_eq!(rig.tallies(LIMITED, 1).dropped, Tally::default());
    assert_eq!(rig.line.drops(), told);
    // What its line holds is lost with it.
    drop(first);
    wait_until("the line ends", || !rig.line.is_open(TargetId(1)));
    let lost = rig.tallies(HELD, 1).lost_write;
    assert_eq!(lost.packets, 1);
    assert_eq!(by_reason(&rig, LineDrop::Write), Some((POD, lost)));

    rig.line.set_owners(&[owner(NETNS + 1, 10)]);
    let owners: Vec<u32> = rig.line.drops().iter().map(|drops| drops.owner).collect();
    assert_eq!(owners, [10, 10]);
    rig.line.stop();
    rig.line.set_owners(&[]);
    assert_eq!(rig.line.drops(), [], "also without the thread");
    drop(second);
}

#[test]
fn what_is_too_late_is_counted_by_owners_too() {
    let rig = Rig::with(Config {
        heartbeat_every: Duration::from_millis(20),
        late_after: Duration::from_millis(400),
        ..Config::default()
    });
    rig.line.set_owners(&[owner(NETNS, POD)]);
    let (far, tap) = Far::pair();
    rig.take_in(1, Some(NETNS), tap);
    rig.delay(HELD, Duration::from_millis(500));
    far.send(&frame(HELD, 0));
    rig.wait_held(HELD, 1, 1);
    rig.pulse.stall.store(2500, std::sync::atomic::Ordering::SeqCst);
    wait_until("it is dropped", || rig.tallies(HELD, 1).lost_late.packets == 1);
    let lost = rig.tallies(HELD, 1).lost_late;
    wait_until("it is told", || {
        by_reason(&rig, LineDrop::Late) == Some((POD, lost))
    });
}
