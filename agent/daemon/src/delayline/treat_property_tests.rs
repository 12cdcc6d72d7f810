//! Whatever treatments follow each other, in virtual time.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use sabot_abi::{DIRECTION_EGRESS, Role};
use sabot_core::action::RejectCode;
use sabot_core::model::{BootTime, TargetIdentity};
use sabot_core::plan::TargetId;

use super::slots::{SlotPolicy, Treatment};
use super::test_line::{Line, MILLI, PLAIN, SLOT, Sent, constant, gap, jittered, limited, policy};

#[derive(Clone, Debug)]
enum Step {
    Send(Role, u64, u32),
    Set(Treatment, Option<u64>),
    Run(u64),
    Clear,
}

fn treatment() -> impl Strategy<Value = Treatment> {
    let delay = (0u64..20 * MILLI).prop_map(Duration::from_nanos);
    let rate = (1u64..10_000).prop_map(|kilobits| kilobits * 1000);
    prop_oneof![
        (0..20 * MILLI).prop_map(constant),
        any::<bool>().prop_map(jittered),
        (prop::option::of(0u32..5), delay.clone()).prop_map(|(gap, delay)| Treatment::Reorder { gap, delay }),
        delay.clone().prop_map(|delay| Treatment::Duplicate { delay }),
        (rate, delay).prop_map(|(rate, queue)| limited(rate, queue)),
        Just(Treatment::Reject(RejectCode::NetUnreachable)),
    ]
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![4 => Just(Role::Plain), 2 => Just(Role::Chosen), 1 => Just(Role::Copy)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (role(), 0u64..4, 60u32..1514).prop_map(|(role, flow, bytes)| Step::Send(role, flow, bytes)),
        2 => (treatment(), prop::option::of(0..40 * MILLI)).prop_map(|(t, expiry)| Step::Set(t, expiry)),
        5 => (0..5 * MILLI).prop_map(Step::Run),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    /// Whatever happens, each packet goes on once or is consumed once, and the accounts end empty.
    #[test]
    fn every_packet_is_accounted_for(
        first in treatment(),
        room in prop_oneof![2_000usize..20_000, Just(1 << 20)],
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut line = Line::of(TargetIdentity(1), DIRECTION_EGRESS, room, policy(first));
        for step in steps {
            match step {
                Step::Send(role, flow, bytes) => line.send(Sent { role, flow, bytes }),
                Step::Set(treatment, expiry) => {
                    let expires_at = expiry.map_or(u64::MAX, |after| line.now + after);
                    line.set(SlotPolicy { expires_at: BootTime(expires_at), ..policy(treatment) });
                }
                Step::Run(time) => line.run_until(line.now + time),
                Step::Clear => {
                    line.slots.clear(SLOT);
                    line.store.flush_slot(SLOT, line.now);
                    line.run_until(line.now);
                    prop_assert!(!line.store.holds_slot(SLOT));
                }
            }
        }
        line.drain();
        let mut all = line.ids();
        all.extend(&line.consumed);
        all.sort_unstable();
        prop_assert!(all.into_iter().eq(0..line.sent.len() as u64));
        prop_assert_eq!(line.store.held_by_line(line.line), 0);
        prop_assert!(!line.store.knows_flows(), "the table of flows ends empty");
        let tallies = line.registry.tallies((SLOT, TargetId(1), true));
        prop_assert_eq!(tallies.held.packets, 0);
    }

    /// In a busy flow each chosen packet is overtaken by exactly as many as were asked for.
    #[test]
    fn the_extent_of_reordering_is_exact(
        by in 1u32..8,
        packets in prop::collection::vec((0u64..3, prop::bool::weighted(0.2)), 1..400),
    ) {
        let mut line = Line::new(gap(by));
        for &(flow, chosen) in &packets {
            let role = if chosen { Role::Chosen } else { Role::Plain };
            line.send(Sent { role, flow, ..PLAIN });
            line.run_until(line.now + MILLI / 100);
        }
        line.drain();
        let place: HashMap<u64, usize> = line.ids().into_iter().enumerate().map(|(at, id)| (id, at)).collect();
        for (id, &(flow, chosen)) in packets.iter().enumerate() {
            let later = || (id + 1..packets.len()).filter(|&other| packets[other].0 == flow);
            let overtakers = later().filter(|&other| place[&(other as u64)] < place[&(id as u64)]).count();
            let plain = later().filter(|&other| !packets[other].1).count();
            let expected = if chosen { plain.min(by as usize) } else { 0 };
            prop_assert_eq!(overtakers, expected, "packet {}", id);
        }
    }
}
