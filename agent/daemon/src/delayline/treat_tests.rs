//! Treatments in virtual time: the policy, a target's state and the store, without a thread, a clock or a TAP.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sabot_abi::{DIRECTION_EGRESS, DIRECTION_INGRESS, Role, Tag};
use sabot_core::action::{QueueBound, RateLimit, RejectCode};
use sabot_core::delay::DelayShape;
use sabot_core::model::{BootTime, Ramp, TargetIdentity};
use sabot_core::plan::{Slot, TargetId};

use super::frame::Wire;
use super::pool::Pool;
use super::slots::{Edit, SlotPolicy, Slots, Treatment};
use super::store::{Arrival, Released, Store, Verdict};
use super::tally::Registry;
use super::test_rig::uniform;
use super::treat::{Fate, Order};

const SLOT: Slot = Slot(3);
const START: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;
/// A release is never early, and at most a tick of the wheel late.
const TICK: u64 = 8192;

fn policy(treatment: Treatment) -> SlotPolicy {
    SlotPolicy {
        treatment,
        starts_at: BootTime(START),
        expires_at: BootTime(u64::MAX),
        ramp: None,
        seed: 7,
    }
}

fn constant(latency: u64) -> Treatment {
    Treatment::Delay {
        shape: Arc::new(DelayShape::fixed(Duration::from_nanos(latency))),
        allow_reorder: false,
    }
}

fn jittered(allow_reorder: bool) -> Treatment {
    Treatment::Delay {
        shape: uniform(Duration::from_millis(20), Duration::from_millis(10)),
        allow_reorder,
    }
}

fn gap(gap: u32) -> Treatment {
    Treatment::Reorder {
        gap: Some(gap),
        delay: Duration::from_secs(1),
    }
}

/// A packet as the kernel sends it here.
#[derive(Clone, Copy, Debug)]
struct Sent {
    role: Role,
    flow: u64,
    bytes: u32,
}

const PLAIN: Sent = Sent {
    role: Role::Plain,
    flow: 1,
    bytes: 100,
};

/// A packet that went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Out {
    id: u64,
    at: u64,
}

/// The engine's part, by the same calls.
struct Line {
    slots: Slots,
    store: Store,
    registry: Registry,
    line: u32,
    direction: u32,
    scratch: Box<[u8]>,
    now: u64,
    sent: Vec<Sent>,
    out: Vec<Out>,
    /// Ids of what was consumed.
    consumed: Vec<u64>,
}

impl Line {
    fn new(treatment: Treatment) -> Self {
        Self::of(TargetIdentity(1), DIRECTION_EGRESS, 1 << 30, policy(treatment))
    }

    fn of(identity: TargetIdentity, direction: u32, bytes: usize, policy: SlotPolicy) -> Self {
        let mut store = Store::new(bytes, bytes, START);
        let line = store.open_line(TargetId(1), identity);
        let mut this = Self {
            slots: Slots::default(),
            store,
            registry: Registry::default(),
            line,
            direction,
            scratch: Pool::scratch(),
            now: START,
            sent: Vec::new(),
            out: Vec::new(),
            consumed: Vec::new(),
        };
        this.set(policy);
        this
    }

    fn set(&mut self, policy: SlotPolicy) {
        if let Some(limit) = self.slots.edit(SLOT, Edit::Set(policy)) {
            self.store.shorten_slot(SLOT, limit.0.max(self.now));
        }
    }

    /// Lets time pass, and releases what is due as it becomes due.
    fn run_until(&mut self, until: u64) {
        loop {
            self.store.advance(self.now);
            while let Some(released) = self.store.pop_due() {
                self.release(released);
            }
            if self.now == until {
                return;
            }
            self.now = self
                .store
                .next_wake()
                .map_or(until, |wake| wake.clamp(self.now, until));
        }
    }

    fn drain(&mut self) {
        while let Some(wake) = self.store.next_wake() {
            self.run_until(wake.max(self.now));
        }
        self.run_until(self.now);
    }

    fn send(&mut self, sent: Sent) {
        self.run_until(self.now);
        let id = self.sent.len() as u64;
        self.sent.push(sent);
        let wire = Wire {
            packets: 1,
            bytes: sent.bytes,
        };
        let tag = Tag {
            slot: SLOT.0,
            direction: self.direction,
            role: sent.role,
        };
        let group = self
            .store
            .group_of(self.line, tag, &self.registry)
            .expect("the line is open");
        let fate = match (self.slots.get(SLOT), self.store.group_mut(group)) {
            (Some(entry), Some(group)) => group.state.decide(entry, sent.role, wire, self.now),
            _ => Fate::Hold {
                deadline: self.now,
                order: Order::Flow,
            },
        };
        let Fate::Hold { deadline, order } = fate else {
            return self.consumed.push(id);
        };
        let arrival = Arrival {
            group,
            flow: sent.flow,
            wire,
            read_at: self.now,
            deadline,
            order,
        };
        self.scratch[..8].copy_from_slice(&id.to_be_bytes());
        match self.store.admit(&mut self.scratch, 8, arrival) {
            Verdict::Held => {}
            Verdict::Refused => {
                self.consumed.push(id);
                self.store
                    .group_mut(group)
                    .expect("it is there")
                    .state
                    .take_back();
            }
            Verdict::Release => {
                self.out.push(Out { id, at: self.now });
                while let Some(released) = self.store.pop_overtaken(&arrival) {
                    self.release(released);
                }
            }
        }
    }

    fn release(&mut self, released: Released) {
        let id = released.buffer[..8].try_into().map(u64::from_be_bytes);
        let id = id.expect("eight bytes");
        self.out.push(Out { id, at: self.now });
        self.store.recycle(released.buffer);
    }

    fn ids(&self) -> Vec<u64> {
        self.out.iter().map(|out| out.id).collect()
    }

    /// The delays of packets of different flows, so that none waits for another.
    fn sample(&mut self, count: u64) -> Vec<u64> {
        let (start, first) = (self.now, self.sent.len() as u64);
        (0..count).for_each(|flow| self.send(Sent { flow, ..PLAIN }));
        self.drain();
        let mut out: Vec<_> = self.out.iter().filter(|out| out.id >= first).collect();
        out.sort_by_key(|out| out.id);
        out.iter().map(|out| out.at - start).collect()
    }
}

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

fn limited(rate: u64, queue: Duration) -> Treatment {
    Treatment::RateLimit(RateLimit {
        rate,
        burst: 3028,
        queue: QueueBound::Time(queue),
    })
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
