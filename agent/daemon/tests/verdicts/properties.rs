//! Random faults meet random packets; the classifier does what the model says.

mod cases;

use std::cell::RefCell;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sabot_abi::Counters;
use sabot_core::plan::{PeerEntry, RuleBody, Slot};
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::boot_time;
use sabotd::kernel::trial::{Frame as Given, Verdict};

use crate::chances::Chances;
use crate::frame::{Frame, Transport};
use crate::model::{Fate, Memory, Prediction, Situation, predict};
use crate::rig::{BOTH, Egress, IDENTITY, LOOPBACK_IFINDEX, Rig, TARGET, cut, in_private_netns};
use cases::{Case, case};

const CASES: u32 = 2_500;

fn slot(index: usize) -> Slot {
    Slot(20 + 3 * index as u32)
}

fn put_into_force(rig: &mut Rig, case: &Case) {
    for (index, fault) in case.faults.iter().enumerate() {
        let rule = RuleBody {
            action: fault.action.clone(),
            direction: fault.direction,
            ports: fault.ports.clone(),
            packets: fault.packets,
            peers: None,
            peers_exact: false,
            peers_prefix: false,
            spare_node: fault.spare_node,
            allow_control_plane: false,
            watches_dns: false,
            pulse: fault.pulse,
            ramp: fault.ramp,
            seed: fault.seed,
            starts_at: fault.starts_at,
            expires_at: fault.expires_at,
            sample_every: 2,
        };
        match &fault.peers {
            Some(peers) => {
                let entry = |&(net, included): &(IpNet, bool)| PeerEntry {
                    excepted: !included,
                    ..PeerEntry::included(net)
                };
                let limited = fault.peer_ports.iter();
                let limited = limited.map(|(address, only)| PeerEntry::limited(*address, *only));
                let entries: Vec<_> = peers.iter().map(entry).chain(limited).collect();
                rig.put_on_peers(slot(index), rule, &entries);
            }
            None => rig.put(slot(index), &rule),
        }
    }
    let situation = &case.situation;
    rig.spare(&situation.node_addresses);
    rig.beat(boot_time());
    rig.equip(|target| {
        let device = |exists| if exists { LOOPBACK_IFINDEX } else { 0 };
        target.line_ifindex = device(situation.has_line);
        target.segmenter_ifindex = device(situation.has_segmenter);
        target.flags = sabot_abi::TARGET_MAC_HEADER;
        if situation.is_node_device {
            target.flags |= sabot_abi::TARGET_NODE_DEVICE;
        }
    });
    rig.list(&(0..case.faults.len()).map(slot).collect::<Vec<_>>());
}

/// The kernel makes super-packets of TCP segments and UDP datagrams, whole ones without link padding. One of a single
/// segment is left out: a trial's isn't so well made that a clone of it could be sent.
fn can_be_super(frame: &Frame, gso_size: u32) -> bool {
    let is_known = matches!(frame.transport, Transport::Tcp { .. } | Transport::Udp { .. });
    is_known && frame.is_whole() && frame.padding == 0 && frame.payload.len() > gso_size as usize
}

fn counters(rig: &Rig, case: &Case, direction: LedgerDirection) -> Vec<Counters> {
    let slots = (0..case.faults.len()).map(slot);
    slots
        .map(|slot| rig.trial().counters(slot, TARGET, direction))
        .collect()
}

fn check(rig: &Rig, case: &Case) -> Result<(), TestCaseError> {
    let mut memories = BOTH.map(|direction| {
        let faults = case.faults.iter();
        faults
            .map(|fault| Chances::new(fault.seed, IDENTITY, direction))
            .collect::<Memory>()
    });
    for (direction, frame) in &case.packets {
        let mut situation = Situation {
            direction: *direction,
            now: boot_time(),
            gso_size: if can_be_super(frame, case.situation.gso_size) {
                case.situation.gso_size
            } else {
                0
            },
            ..case.situation.clone()
        };
        let memory = &mut memories[usize::from(*direction != Egress)];
        let earlier = predict(&case.faults, &mut memory.clone(), &situation, frame);
        let mut expected = counters(rig, case, *direction);
        let bytes = frame.bytes();
        let given = Given {
            bytes: &bytes,
            gso_size: situation.gso_size,
            mark: situation.mark,
            ingress_ifindex: 0,
        };
        let outcome = rig.run(*direction, &given);
        situation.now = boot_time();
        let prediction = predict(&case.faults, memory, &situation, frame);
        if prediction != earlier {
            // A pulse or a ramp moved on meanwhile: nobody knows what the classifier saw.
            return Ok(());
        }
        for (expected, counted) in expected.iter_mut().zip(&prediction.counted) {
            counted.add_to(expected);
        }
        let verdict = match prediction.fate {
            Fate::Passed => Verdict::Pass,
            Fate::Dropped => cut(*direction),
            Fate::Diverted => Verdict::Redirect,
        };
        prop_assert_eq!(outcome.verdict, verdict, "{:?} {:?}", direction, frame);
        prop_assert_eq!(
            counters(rig, case, *direction),
            expected,
            "{:?} {:?}",
            direction,
            frame
        );
        check_bytes(frame, &prediction, &bytes, outcome.bytes)?;
    }
    Ok(())
}

/// Nothing has changed but the bits that the model says, and the checksum with them.
fn check_bytes(
    frame: &Frame,
    prediction: &Prediction,
    before: &[u8],
    mut after: Vec<u8>,
) -> Result<(), TestCaseError> {
    if prediction.is_cloned && prediction.fate != Fate::Diverted && !frame.vlans.is_empty() {
        // The tag now stands beside the frame, as a device gives it to the kernel; behind another tag it is in the frame.
        let tag = before[12..16].to_vec();
        after.splice(12..12, tag);
    }
    let mut expected = before.to_vec();
    for (at, flip) in &prediction.flips {
        expected[*at] ^= flip;
    }
    if !prediction.flips.is_empty() {
        prop_assert!(frame.has_valid_checksum(&after), "{:?}", frame);
        if let Some(at) = frame.checksum_at() {
            expected[at..at + 2].copy_from_slice(&after[at..at + 2]);
        }
    }
    prop_assert_eq!(after, expected, "{:?}", frame);
    Ok(())
}

#[test]
fn random_faults_do_to_random_packets_what_the_model_says() {
    in_private_netns(run_cases);
}

fn run_cases() {
    let rig = RefCell::new(Rig::new());
    let before = rig.borrow().trial().incidents();
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    let result = runner.run(&case(), |case| {
        let mut rig = rig.borrow_mut();
        put_into_force(&mut rig, &case);
        let result = check(&rig, &case);
        rig.clear();
        result
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let mut after = rig.borrow().trial().incidents();
    // Nobody reads the events, so that their ring fills up.
    let lost = sabot_abi::INCIDENT_EVENT_LOST as usize;
    after[lost] = before[lost];
    assert_eq!(after, before, "{:?}", sabot_abi::INCIDENT_NAMES);
}
