//! Decisions that several CPUs make at the same time: each of them counts once.

use std::thread;

use sabot_core::model::LossModel;

use crate::frame::{Frame, udp};
use crate::rig::{Egress, Rig, lose, rule, single, ways};

const CROWD: usize = 4;
/// The kernel repeats a packet without a pause, so that others come between the steps of a decision.
const ROUNDS: u32 = 200_000;
const ALL: u64 = CROWD as u64 * ROUNDS as u64;

/// How many packets of one connection are lost that so many threads send at once.
fn lost(rig: &Rig) -> u64 {
    let frame = Frame::new("10.0.0.1", "10.0.0.2", udp(1, 2)).bytes();
    thread::scope(|scope| {
        for _ in 0..CROWD {
            scope.spawn(|| rig.repeat(Egress, &single(&frame), ROUNDS));
        }
    });
    let counters = rig.counters(Egress);
    assert_eq!(counters.matched.packets, ALL);
    counters.dropped.packets
}

#[test]
fn no_packet_is_decided_with_anothers_number() {
    let some = ROUNDS / 2;
    for (model, expected) in [
        (LossModel::EveryNth(4), ALL / 4),
        (LossModel::FirstOfConnection(some), some.into()),
    ] {
        for words in ways() {
            let rig = Rig::of(words).under(&rule(lose(model)));
            assert_eq!(lost(&rig), expected, "{words:?} {model:?}");
        }
    }
}
