//! Treatments as the line's users see them: what comes out of it, and what is counted.

use std::time::Duration;

use sabot_abi::{DIRECTION_EGRESS, DIRECTION_INGRESS, Role, Tag};
use sabot_core::action::{QueueBound, RateLimit, RejectCode, ResetTo};
use sabot_core::plan::Slot;

use super::poller::boot_time;
use super::slots::{SlotPolicy, Treatment};
use super::test_frames::{FrameSpec, HEADER, Transport};
use super::test_rig::{Far, HOUR, Rig, boot_in, delay, policy, wait_until};
use crate::engine::handle::Tally;

const MILLI: Duration = Duration::from_millis(1);
const VNET: usize = 12;

fn frame(role: Role, id: u64) -> FrameSpec {
    FrameSpec {
        tag: Tag {
            role,
            ..FrameSpec::default().tag
        },
        id,
        ..FrameSpec::default()
    }
}

/// Slot, direction and role of what came out.
fn tag_of(bytes: &[u8]) -> Tag {
    Tag::from_tci(u16::from_be_bytes([bytes[VNET + 14], bytes[VNET + 15]]))
}

fn tally(packets: u64, bytes_each: u64) -> Tally {
    Tally {
        packets,
        bytes: packets * bytes_each,
    }
}

fn assert_nothing_comes(far: &Far) {
    let nothing = far.receive_within(20 * MILLI).expect("the line is open");
    assert_eq!(nothing, None);
}

#[test]
fn a_rejected_packet_is_answered_and_goes_no_further() {
    let rig = Rig::new();
    let far = rig.open(1);
    rig.set(1, Treatment::Reject(RejectCode::HostUnreachable));
    for id in 0..3 {
        far.send(&frame(Role::Plain, id));
        let answer = far.receive();
        let expected = Tag {
            slot: 1,
            direction: DIRECTION_INGRESS,
            role: Role::Reply,
        };
        assert_eq!(tag_of(&answer), expected);
        assert!(
            answer[..VNET].iter().all(|&byte| byte == 0),
            "nothing is left to the kernel"
        );
        let packet = &answer[VNET + HEADER..];
        assert_eq!((packet[9], packet[20], packet[21]), (1, 3, 1));
    }
    // A group can't be answered.
    let mut bytes = frame(Role::Plain, 3).build(VNET);
    bytes[VNET] |= 1;
    far.send_bytes(&bytes);
    wait_until("it is consumed", || {
        rig.tallies(1, 1).rejected == tally(4, 14 + 20 + 8 + 64)
    });
    assert_nothing_comes(&far);
    rig.line.clear_slot(Slot(1));
    assert_eq!(rig.line.histogram(Slot(1)).count, 0);
}

#[test]
fn both_ends_get_a_reset_and_other_packets_pass() {
    let rig = Rig::new();
    let far = rig.open(1);
    rig.set(1, Treatment::Reset(ResetTo::Both));
    let segment = FrameSpec {
        transport: Transport::Tcp,
        payload: 3000,
        gso_size: 1000,
        ..frame(Role::Plain, 0)
    };
    far.send(&segment);
    let tags: Vec<_> = (0..2).map(|_| tag_of(&far.receive())).collect();
    let answer = |direction| Tag {
        slot: 1,
        direction,
        role: Role::Reply,
    };
    assert_eq!(tags, [answer(DIRECTION_INGRESS), answer(DIRECTION_EGRESS)]);
    let rejected = Tally {
        packets: 3,
        bytes: 3000 + 3 * (14 + 20 + 32),
    };
    assert_eq!(
        rig.tallies(1, 1).rejected,
        rejected,
        "a super-packet is its packets"
    );
    let datagram = far.send(&frame(Role::Plain, 1));
    assert!(far.receive() == datagram, "UDP has no connections");
    let mut reset = segment.build(VNET);
    reset[VNET + HEADER + 20 + 13] = 0x04;
    far.send_bytes(&reset);
    assert!(far.receive() == reset, "a reset passes");
    assert_eq!(rig.tallies(1, 1).rejected, rejected);
    assert_nothing_comes(&far);
}

#[test]
fn one_end_alone_gets_a_reset() {
    let rig = Rig::new();
    let far = rig.open(1);
    for (to, direction) in [
        (ResetTo::Target, DIRECTION_INGRESS),
        (ResetTo::Peer, DIRECTION_EGRESS),
    ] {
        rig.set(1, Treatment::Reset(to));
        far.send(&FrameSpec {
            transport: Transport::Tcp,
            ipv6: true,
            ..frame(Role::Plain, 0)
        });
        assert_eq!(tag_of(&far.receive()).direction, direction);
        assert_nothing_comes(&far);
    }
}

#[test]
fn chosen_packets_are_overtaken_by_the_gap() {
    let rig = Rig::new();
    let far = rig.open(1);
    let gap = Some(2);
    rig.set(1, Treatment::Reorder { gap, delay: HOUR });
    let sent: Vec<_> = (0..400)
        .map(|id| {
            let role = if id % 10 == 3 { Role::Chosen } else { Role::Plain };
            far.send(&frame(role, id))
        })
        .collect();
    let order: Vec<_> = (0..400)
        .map(|_| {
            let bytes = far.receive();
            let id = FrameSpec::id_of(&bytes, VNET).expect("it has an id");
            assert!(sent[id as usize] == bytes);
            id
        })
        .collect();
    for ten in order.chunks(10) {
        let ends: Vec<_> = ten.iter().map(|id| id % 10).collect();
        assert_eq!(ends, [0, 1, 2, 4, 5, 3, 6, 7, 8, 9]);
    }
    assert_eq!(rig.tallies(1, 1), super::LineTallies::default());
}

#[test]
fn a_shaper_holds_to_its_rate_and_drops_at_its_tail() {
    let rig = Rig::new();
    let far = rig.open(1);
    let bytes = 14 + 20 + 8 + 958;
    let limit = RateLimit {
        rate: 8_000_000,
        burst: 10 * bytes,
        queue: QueueBound::Time(MILLI * 30),
    };
    rig.set(1, Treatment::RateLimit(limit));
    let spec = |id| FrameSpec {
        payload: 958,
        source_port: id as u16 % 7,
        ..frame(Role::Plain, id)
    };
    let start = boot_time();
    (0..1000).for_each(|id| drop(far.send(&spec(id))));
    wait_until("all are read", || {
        let passed = rig.line.histogram(Slot(1)).count;
        passed + rig.tallies(1, 1).dropped.packets == 1000
    });
    let ids: Vec<_> = std::iter::from_fn(|| far.try_receive())
        .map(|bytes| FrameSpec::id_of(&bytes, VNET).expect("it has an id"))
        .collect();
    assert!(ids.is_sorted());
    let taken = boot_time() - start;
    let sent = ids.len() as u64;
    assert!(sent >= 40, "the burst and 30 ms of the rate: {sent}");
    assert!((sent - 10) * 1_000_000 <= taken, "{sent} in {taken} ns");
    let dropped = rig.tallies(1, 1).dropped;
    assert_eq!(dropped, tally(1000 - sent, bytes.into()));
}

#[test]
fn a_slot_that_sends_nothing_more_ends_with_its_fault() {
    let rig = Rig::new();
    let far = rig.open(1);
    rig.delay(1, HOUR);
    (0..5).for_each(|id| drop(far.send(&frame(Role::Plain, id))));
    rig.wait_held(1, 1, 5);
    rig.line.expire_slot(Slot(1), boot_in(2 * HOUR));
    far.send(&frame(Role::Plain, 5));
    rig.wait_held(1, 1, 6);
    rig.line.expire_slot(Slot(1), boot_in(10 * MILLI));
    (0..6).for_each(|id| assert_eq!(far.receive_id(), id));
}

#[test]
fn answers_that_somebody_else_sends_here_are_discarded() {
    let rig = Rig::new();
    let far = rig.open(1);
    far.send(&frame(Role::Reply, 0));
    wait_until("it is counted", || rig.line.untagged().packets == 1);
    assert_nothing_comes(&far);
}

#[test]
fn treatments_change_under_traffic_and_lose_nothing() {
    let rig = Rig::new();
    let far = rig.open(1);
    let limit = RateLimit {
        rate: 1_000_000_000,
        burst: 3000,
        queue: QueueBound::Bytes(1 << 30),
    };
    let gap = Some(3);
    let policies: [SlotPolicy; 4] = [
        delay(2 * MILLI),
        policy(Treatment::Reorder { gap, delay: MILLI }),
        policy(Treatment::RateLimit(limit)),
        policy(Treatment::Duplicate { delay: MILLI }),
    ];
    let roles = [Role::Plain, Role::Chosen, Role::Copy];
    for id in 0..2000u64 {
        if id % 50 == 0 {
            let policy = &policies[id as usize / 50 % 4];
            rig.line.set_slot(Slot(1), policy.clone());
        }
        far.send(&frame(roles[id as usize % 3], id));
    }
    let mut ids: Vec<_> = (0..2000).map(|_| far.receive_id()).collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..2000));
    assert_eq!(rig.tallies(1, 1), super::LineTallies::default());
}
