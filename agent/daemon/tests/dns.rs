//! Which packets are copied as DNS answers: the fault object as the daemon loads it, run by the kernel
//! (`BPF_PROG_TEST_RUN`) without any device. Needs root.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sabot_abi as abi;
use sabot_core::model::{Action, BootTime, Direction, PacketFilter};
use sabot_core::plan::{RuleBody, Slot, TargetId};
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::boot_time;
use sabotd::kernel::trial::{Frame, Outcome, Trial, Verdict, Words};

const TARGET: TargetId = TargetId(5);
const SLOT: Slot = Slot(7);
const UDP: u8 = 17;
const TCP: u8 = 6;
const IPV4_HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;

/// A process can have one loaded object at a time.
static TURN: Mutex<()> = Mutex::new(());

/// The loaded object with one target, on which everything is cut.
struct Rig(
    Trial,
    #[expect(dead_code, reason = "held as long as the object")] MutexGuard<'static, ()>,
);

impl Rig {
    fn new(watches: bool) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let trial = Trial::load(Duration::from_secs(10), Words::of_this_kernel())
            .expect("the fault object loads (root is needed)");
        let rule = RuleBody {
            action: Action::Partition,
            direction: Direction::Both,
            ports: Vec::new(),
            packets: PacketFilter::ALL,
            peers: None,
            peers_exact: false,
            peers_prefix: false,
            spare_node: false,
            allow_control_plane: false,
            watches_dns: watches,
            pulse: None,
            ramp: None,
            seed: 0,
            starts_at: BootTime(0),
            expires_at: boot_time().after(Duration::from_secs(3600)),
            sample_every: 0,
        };
        trial.write_rule(SLOT, &rule).expect("it is written");
        let rig = Self(trial, turn);
        rig.watch(watches);
        rig
    }

    fn watch(&self, watches: bool) {
        let mut slots = [0; abi::MAX_TARGET_SLOTS];
        slots[0] = SLOT.0;
        let body = abi::Target {
            ifindex: 900,
            line_ifindex: 0,
            segmenter_ifindex: 0,
            departures_ifindex: 0,
            flags: abi::TARGET_MAC_HEADER | if watches { abi::TARGET_WATCH_DNS } else { 0 },
            slot_count: 1,
            index: abi::TARGET_NO_INDEX,
            departures_bytes: 0,
            identity: 0,
            slots,
        };
        self.0.set_target(TARGET, &body).expect("it is written");
    }

    fn arrive(&self, bytes: &[u8], gso_size: u32) -> Outcome {
        let frame = Frame {
            bytes,
            gso_size,
            ..Frame::default()
        };
        let outcome = self.0.run(TARGET, LedgerDirection::Ingress, &frame);
        outcome.expect("the kernel takes it")
    }

    /// Runs a frame of which nothing may be copied and nothing counted as lost.
    fn assert_unseen(&mut self, direction: LedgerDirection, bytes: &[u8]) {
        let before = self.0.incidents();
        let frame = Frame {
            bytes,
            ..Frame::default()
        };
        self.0
            .run(TARGET, direction, &frame)
            .expect("the kernel takes it");
        assert_eq!(self.0.next_dns_answer(), None, "{bytes:x?}");
        assert_eq!(self.0.incidents(), before);
    }

    fn lost(&self) -> u64 {
        self.0.incidents()[abi::INCIDENT_DNS_LOST as usize]
    }
}

/// A UDP or TCP packet, whose header says `fragment`.
fn ipv4(protocol: u8, ports: (u16, u16), fragment: u16, payload: &[u8]) -> Vec<u8> {
    let transport = transport(protocol, ports, payload);
    let mut frame = mac(0x0800);
    let length = (IPV4_HEADER + transport.len()) as u16;
    frame.extend([0x45, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 1]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, protocol, 0, 0]);
    frame.extend(Ipv4Addr::new(192, 0, 2, 53).octets());
    frame.extend(Ipv4Addr::new(10, 0, 0, 9).octets());
    frame.extend(transport);
    frame
}

fn ipv6(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let transport = transport(UDP, ports, payload);
    let mut frame = mac(0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((transport.len() as u16).to_be_bytes());
    frame.extend([UDP, 64]);
    frame.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53).octets());
    frame.extend(Ipv6Addr::LOCALHOST.octets());
    frame.extend(transport);
    frame
}

fn mac(ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn transport(protocol: u8, (source, destination): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    if protocol == UDP {
        bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
        bytes.extend([0, 0]);
    } else {
        bytes.extend([0; 8]);
        bytes.extend([0x50, 0x18, 0, 0, 0, 0, 0, 0]);
    }
    bytes.extend(payload);
    bytes
}

fn numbered(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[test]
fn answers_are_copied_byte_for_byte() {
    let mut rig = Rig::new(true);
    for length in [1, 2, 12, 63, 64, 512, 1232, 1472, 2047, abi::DNS_ANSWER_ROOM] {
        let payload = numbered(length);
        for frame in [ipv4(UDP, (53, 40_000), 0, &payload), ipv6((53, 40_000), &payload)] {
            let before = boot_time();
            let outcome = rig.arrive(&frame, 0);
            assert_eq!(
                outcome.verdict,
                Verdict::Drop,
                "the fault decides about it all the same"
            );
            assert_eq!(outcome.bytes, frame);
            let answer = rig.0.next_dns_answer().expect("a copy");
            assert_eq!(answer.payload(), payload);
            assert_eq!((answer.target, answer.is_cut()), (TARGET.0, false));
            assert!((before.0..=boot_time().0).contains(&answer.time));
            assert_eq!(rig.0.next_dns_answer(), None);
        }
    }
    assert_eq!(rig.lost(), 0);
}

#[test]
fn a_long_answer_is_cut_and_says_so() {
    let mut rig = Rig::new(true);
    let payload = numbered(abi::DNS_ANSWER_ROOM + 1);
    rig.arrive(&ipv4(UDP, (53, 40_000), 0, &payload), 0);
    let answer = rig.0.next_dns_answer().expect("a copy");
    assert_eq!(answer.payload(), &payload[..abi::DNS_ANSWER_ROOM]);
    assert_eq!((answer.length as usize, answer.is_cut()), (payload.len(), true));
}

#[test]
fn padding_of_the_link_is_not_copied() {
    let mut rig = Rig::new(true);
    let mut frame = ipv4(UDP, (53, 40_000), 0, b"answer");
    frame.extend([0xee; 12]);
    rig.arrive(&frame, 0);
    assert_eq!(rig.0.next_dns_answer().expect("a copy").payload(), b"answer");
}

#[test]
fn nothing_else_is_copied() {
    let mut rig = Rig::new(true);
    let payload = numbered(100);
    let answer = ipv4(UDP, (53, 40_000), 0, &payload);
    rig.assert_unseen(LedgerDirection::Egress, &answer);
    for frame in [
        ipv4(UDP, (40_000, 53), 0, &payload),
        ipv4(UDP, (54, 53), 0, &payload),
        ipv4(UDP, (53, 40_000), 0, &[]),
        ipv4(TCP, (53, 40_000), 0, &payload),
        ipv6((5353, 40_000), &payload),
        // A later fragment, whose bytes look like a header.
        ipv4(UDP, (53, 40_000), 100, &payload),
    ] {
        rig.assert_unseen(LedgerDirection::Ingress, &frame);
    }
    rig.watch(false);
    rig.assert_unseen(LedgerDirection::Ingress, &answer);
    rig.watch(true);
    rig.arrive(&answer, 0);
    assert!(rig.0.next_dns_answer().is_some());
}

#[test]
fn what_cannot_be_copied_is_counted() {
    let mut rig = Rig::new(true);
    let payload = numbered(1200);
    rig.arrive(&ipv4(UDP, (53, 40_000), MORE_FRAGMENTS, &payload), 0);
    assert_eq!((rig.0.next_dns_answer(), rig.lost()), (None, 1));
    // Two answers in one packet.
    rig.arrive(&ipv4(UDP, (53, 40_000), 0, &payload), 600);
    assert_eq!((rig.0.next_dns_answer(), rig.lost()), (None, 2));

    // More than the ring has room for.
    let frame = ipv4(UDP, (53, 40_000), 0, &payload);
    let sent = 1500;
    for _ in 0..sent {
        rig.arrive(&frame, 0);
    }
    let mut copied = 0;
    while rig.0.next_dns_answer().is_some() {
        copied += 1;
    }
    assert!(copied > 400, "only {copied}");
    assert_eq!(copied + rig.lost() - 2, sent);
    // There is room again.
    rig.arrive(&frame, 0);
    assert!(rig.0.next_dns_answer().is_some());
}
