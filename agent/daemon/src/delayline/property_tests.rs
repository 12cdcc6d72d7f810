//! Whatever is done to the line: every frame comes back exactly once and as it was, or is counted lost exactly once.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use sabot_abi::{DIRECTION_EGRESS, DIRECTION_INGRESS, Role, Tag};
use sabot_core::plan::{Slot, TargetId};

use super::test_frames::FrameSpec;
use super::test_rig::{Far, HOUR, Rig, boot_in, jittered};
use super::{Config, SlotPolicy};

const LINES: u32 = 2;
const SLOTS: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Send {
        line: u32,
        slot: u32,
        ingress: bool,
        port: u16,
        payload: usize,
    },
    Edit {
        slot: u32,
        latency_us: u64,
        jitter_us: u64,
        expires_in_us: u64,
    },
    Clear(u32),
    Reopen(u32),
    Pause(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let payload = prop_oneof![4 => 8usize..200, 2 => 200usize..3000, 1 => 3000usize..60_000];
    let expiry = prop_oneof![Just(u64::from(u32::MAX)), 0..20_000u64];
    prop_oneof![
        20 => (0..LINES, 0..SLOTS + 1, any::<bool>(), 0u16..3, payload).prop_map(
            |(line, slot, ingress, port, payload)| Step::Send { line, slot, ingress, port, payload }
        ),
        4 => (0..SLOTS, 0..8000u64, 0..8000u64, expiry).prop_map(
            |(slot, latency_us, jitter_us, expires_in_us)| Step::Edit { slot, latency_us, jitter_us, expires_in_us }
        ),
        1 => (0..SLOTS).prop_map(Step::Clear),
        1 => (0..LINES).prop_map(Step::Reopen),
        3 => (0..2000u64).prop_map(Step::Pause),
    ]
}

struct Run {
    rig: Rig,
    lines: Vec<Far>,
    /// By id: on which opening of which line, and what.
    sent: Vec<(usize, FrameSpec)>,
    /// What came back, by the opening of its line.
    received: Vec<(usize, Vec<u8>)>,
    /// The present opening of each line.
    openings: Vec<usize>,
    targets: Vec<u32>,
}

impl Run {
    fn new(bytes_per_line: usize) -> Self {
        let rig = Rig::with(Config {
            bytes_per_line,
            late_after: HOUR,
            ..Config::default()
        });
        Self {
            lines: (0..LINES).map(|line| rig.open(line)).collect(),
            rig,
            sent: Vec::new(),
            received: Vec::new(),
            openings: (0..LINES as usize).collect(),
            targets: (0..LINES).collect(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Send {
                line,
                slot,
                ingress,
                port,
                payload,
            } => {
                let direction = if ingress {
                    DIRECTION_INGRESS
                } else {
                    DIRECTION_EGRESS
                };
                let spec = FrameSpec {
                    tag: Tag {
                        slot,
                        direction,
                        role: Role::Plain,
                    },
                    source_port: port,
                    payload,
                    id: self.sent.len() as u64,
                    ..FrameSpec::default()
                };
                self.lines[line as usize].send(&spec);
                self.sent.push((self.openings[line as usize], spec));
            }
            Step::Edit {
                slot,
                latency_us,
                jitter_us,
                expires_in_us,
            } => {
                let expires_at = boot_in(Duration::from_micros(expires_in_us));
                let jitter = Duration::from_micros(jitter_us);
                let delay = SlotPolicy {
                    expires_at,
                    ..jittered(Duration::from_micros(latency_us), jitter)
                };
                self.rig.line.set_slot(Slot(slot), delay);
            }
            Step::Clear(slot) => self.rig.line.clear_slot(Slot(slot)),
            Step::Reopen(line) => {
                self.close(line);
                self.lines[line as usize] = self.rig.open(line);
                self.openings[line as usize] = self.targets.len();
                self.targets.push(line);
            }
            Step::Pause(us) => std::thread::sleep(Duration::from_micros(us)),
        }
    }

    fn close(&mut self, line: u32) {
        self.rig.line.close(TargetId(line));
        let opening = self.openings[line as usize];
        let frames = self.lines[line as usize].receive_to_end();
        self.received
            .extend(frames.into_iter().map(|bytes| (opening, bytes)));
    }

    fn check(mut self) -> Result<(), TestCaseError> {
        (0..LINES).for_each(|line| self.close(line));
        // By slot, target and direction: wire packets and bytes that are missing.
        let mut missing: HashMap<(u32, u32, u32), (u64, u64)> = HashMap::new();
        for (opening, spec) in &self.sent {
            let key = (spec.tag.slot, self.targets[*opening], spec.tag.direction);
            let entry = missing.entry(key).or_default();
            entry.0 += 1;
            entry.1 += spec.payload as u64 + 42;
        }
        let mut last: HashMap<(usize, u16, u16), u64> = HashMap::new();
        for (opening, bytes) in &self.received {
            let id = FrameSpec::id_of(bytes, 12).expect("every frame has an id");
            let (sent_on, spec) = &self.sent[id as usize];
            prop_assert_eq!(sent_on, opening);
            prop_assert!(&spec.build(12) == bytes, "frame {} came back changed", id);
            let before = last.insert((*opening, spec.tag.tci(), spec.source_port), id);
            prop_assert!(
                before.is_none_or(|before| before < id),
                "{:?} before {} in one flow",
                before,
                id
            );
            let key = (spec.tag.slot, self.targets[*opening], spec.tag.direction);
            let entry = missing.entry(key).or_default();
            // Strictly growing ids within each flow: none came twice.
            entry.0 -= 1;
            entry.1 -= spec.payload as u64 + 42;
        }
        for ((slot, target, direction), expected) in missing {
            let egress = direction == DIRECTION_EGRESS;
            let tallies = self.rig.line.tallies(Slot(slot), TargetId(target), egress);
            prop_assert_eq!(tallies.held.packets, 0);
            prop_assert_eq!(tallies.held.bytes, 0);
            let lost = [tallies.lost_bound, tallies.lost_write, tallies.lost_late];
            let packets: u64 = lost.iter().map(|tally| tally.packets).sum();
            let bytes: u64 = lost.iter().map(|tally| tally.bytes).sum();
            prop_assert_eq!((packets, bytes), expected);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_time: 60_000, ..ProptestConfig::default() })]
    #[test]
    fn every_frame_comes_back_or_is_counted(
        bytes_per_line in prop_oneof![10_000usize..300_000, Just(64 << 20)],
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut run = Run::new(bytes_per_line);
        for step in &steps {
            run.step(step);
        }
        run.check()?;
    }
}
