//! What only wire packets can show: duplicates, checksums, lengths.

use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::libc;
use sabot_core::model::{Action, CorruptKind, Direction, Duplicate, PacketFilter};
use sabot_testkit::snmp::snmp;
use sabot_testkit::traffic::{Bulk, UdpLoad, UdpReceiver, UdpReport};
use sabotd::engine::handle::{Ledger, LedgerDirection};

use crate::rig::{PATIENCE, Rig, assert_reconciled, corrupt, percent};

/// Sends datagrams out of the pod or into it, past a fault of that direction on the pod; what arrived, and the pod's ledger.
fn datagrams(rig: &Rig, action: Action, direction: Direction) -> (UdpReport, Ledger) {
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let (from, to, counted) = match direction {
        Direction::Ingress => (peer, pod, LedgerDirection::Ingress),
        _ => (pod, peer, LedgerDirection::Egress),
    };
    let receiver = UdpReceiver::start(to.netns(), to.ipv4()).unwrap();
    rig.apply(action, direction, Some(peer.ipv4()));
    LOAD.send(from.netns(), receiver.address()).unwrap();
    let report = receiver.finish(3 * LOAD.datagrams, Duration::from_millis(500));
    (report, rig.ledger(counted))
}

const LOAD: UdpLoad = UdpLoad {
    datagrams: 2_000,
    payload: 301,
    per_second: 10_000,
};

#[test]
fn duplicates_arrive_once_more_each() {
    let rig = Rig::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        let action = Action::Duplicate(Duplicate {
            percent: percent(100.0),
            copies: 2,
            delay: Duration::ZERO,
        });
        let (report, ledger) = datagrams(&rig, action, direction);
        assert_eq!(report.intact.len() as u64, LOAD.datagrams, "{direction:?}");
        assert_eq!(report.duplicates, 2 * LOAD.datagrams, "{direction:?}");
        assert_eq!(ledger.matched.packets, LOAD.datagrams, "{direction:?}");
        assert_eq!(ledger.passed.packets, 3 * LOAD.datagrams, "{direction:?}");
    }
}

#[test]
fn a_duplicated_stream_of_super_packets_arrives_as_it_was() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let bulk = Bulk::listen(peer.netns(), peer.ipv4(), PATIENCE).unwrap();
    let action = Action::Duplicate(Duplicate {
        percent: percent(20.0),
        copies: 1,
        delay: Duration::ZERO,
    });
    rig.apply(action, Direction::Both, Some(peer.ipv4()));
    let (sent, received) = bulk.send_from(pod.netns(), 10 << 20, PATIENCE).unwrap();
    assert_eq!(sent.sha256, received.sha256);
    std::thread::sleep(Duration::from_millis(300));
    let ledger = rig.ledger(LedgerDirection::Egress);
    let matched = ledger.matched.packets as f64;
    assert!(matched > (10 << 20) as f64 / 1500.0, "{ledger:?}");
    let copies = (ledger.passed.packets - ledger.matched.packets) as f64;
    let deviation = (matched * 0.2 * 0.8).sqrt();
    assert!((copies - matched * 0.2).abs() < 4.0 * deviation, "{ledger:?}");
}

#[test]
fn the_receivers_stack_rejects_what_is_corrupted_on_the_wire() {
    let rig = Rig::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        let receiver = match direction {
            Direction::Ingress => rig.lab.pod(0).netns(),
            _ => rig.lab.pod(1).netns(),
        };
        let before = snmp(receiver, "Udp", "InCsumErrors").unwrap();
        let (report, ledger) = datagrams(&rig, corrupt(100.0, CorruptKind::Wire), direction);
        let errors = snmp(receiver, "Udp", "InCsumErrors").unwrap() - before;
        assert_eq!(report.arrived(), 0, "{direction:?}");
        assert_eq!(ledger.corrupted.packets, LOAD.datagrams, "{direction:?}");
        assert_eq!(errors, LOAD.datagrams, "{direction:?}");
        assert_reconciled(&ledger);
    }
}

#[test]
fn no_byte_of_a_stream_changes_when_its_packets_are_corrupted_on_the_wire() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let bulk = Bulk::listen(peer.netns(), peer.ipv4(), PATIENCE).unwrap();
    let before = snmp(peer.netns(), "Tcp", "InCsumErrors").unwrap();
    rig.apply(
        corrupt(1.0, CorruptKind::Wire),
        Direction::Egress,
        Some(peer.ipv4()),
    );
    let (sent, received) = bulk.send_from(pod.netns(), 10 << 20, PATIENCE).unwrap();
    assert_eq!(sent.sha256, received.sha256);
    std::thread::sleep(Duration::from_millis(300));
    let errors = snmp(peer.netns(), "Tcp", "InCsumErrors").unwrap() - before;
    let ledger = rig.ledger(LedgerDirection::Egress);
    assert!(errors > 0);
    assert_eq!(ledger.corrupted.packets, errors, "{ledger:?}");
    assert_reconciled(&ledger);
}

#[test]
fn datagrams_without_a_checksum_pass_the_wires_corruption_unharmed() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    rig.apply(
        corrupt(100.0, CorruptKind::Wire),
        Direction::Egress,
        Some(peer.ipv4()),
    );
    let receiver = peer.netns().run(|| UdpSocket::bind((peer.ipv4(), 0)).unwrap());
    let to = receiver.local_addr().unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let sender = pod.netns().run(|| UdpSocket::bind((pod.ipv4(), 0)).unwrap());
    setsockopt_no_check(&sender);
    for number in 0..100_u8 {
        sender.send_to(&[number; 200], to).unwrap();
        let mut datagram = [0; 300];
        let length = receiver.recv(&mut datagram).unwrap();
        assert_eq!(datagram[..length], [number; 200]);
    }
    let ledger = rig.ledger(LedgerDirection::Egress);
    assert_eq!(
        (ledger.bypassed.packets, ledger.corrupted.packets),
        (100, 0),
        "{ledger:?}"
    );
    assert_reconciled(&ledger);
}

/// Datagrams of the socket have no checksum.
fn setsockopt_no_check(socket: &UdpSocket) {
    let on: libc::c_int = 1;
    // SAFETY: the option is an int, whose address and size are given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// A partition of some lengths takes a super-packet apart: the full segments go, what is shorter arrives.
#[test]
fn lengths_are_of_wire_packets() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let receiver = peer.netns().run(|| UdpSocket::bind((peer.ipv4(), 0)).unwrap());
    let to = receiver.local_addr().unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let sender = pod.netns().run(|| UdpSocket::bind((pod.ipv4(), 0)).unwrap());
    setsockopt_segment(&sender, 500);
    rig.apply_to(
        Action::Partition,
        Direction::Egress,
        Some(peer.ipv4()),
        PacketFilter {
            least_length: 528,
            ..PacketFilter::ALL
        },
    );
    let payload: Vec<u8> = (0..1720).map(|at| at as u8).collect();
    for _ in 0..50 {
        sender.send_to(&payload, to).unwrap();
        let mut datagram = [0; 600];
        let length = receiver.recv(&mut datagram).unwrap();
        assert_eq!(datagram[..length], payload[1500..]);
    }
    let ledger = rig.ledger(LedgerDirection::Egress);
    assert_eq!((ledger.matched.packets, ledger.dropped.packets), (150, 150));
    assert_eq!(ledger.matched.bytes, 150 * (14 + 28 + 500));
    assert_reconciled(&ledger);
}

/// What is sent at once is a super-packet of datagrams of this payload.
fn setsockopt_segment(socket: &UdpSocket, payload: u16) {
    let payload = libc::c_int::from(payload);
    // SAFETY: the option is an int, whose address and size are given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const payload).cast(),
            size_of_val(&payload) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
