//! Why the kernel drops packets, as it says itself, and whose they are.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto, setsockopt, sockopt};
use sabot_abi::{DIRECTION_EGRESS, DIRECTION_INGRESS, Tally};
use sabot_testkit::snmp::{snmp, snmp6};
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Lab, LabPod};

use crate::drops::Drops;
use crate::rig::PATIENCE;

const COUNT: u64 = 300;
const PAYLOAD: usize = 100;
/// MAC, IPv4 and UDP headers and the payload.
const FRAME: u64 = 14 + 20 + 8 + PAYLOAD as u64;
/// Nobody listens there.
const CLOSED: u16 = 4;

fn pair() -> (Lab, Drops) {
    let lab = Lab::new(2).expect("root is needed");
    let drops = Drops::of(lab.pod(0));
    (lab, drops)
}

fn assert_dropped(drops: &Drops, reason: &str, direction: u32, expected: Tally) {
    wait_until(PATIENCE, Duration::from_millis(10), || {
        drops.foreign(reason, direction) == expected
    });
    let all = drops.described();
    assert_eq!(drops.foreign(reason, direction), expected, "{reason}: {all:?}");
}

fn frames(count: u64, bytes: u64) -> Tally {
    Tally {
        packets: count,
        bytes: count * bytes,
    }
}

fn send(from: &LabPod, to: SocketAddr) {
    from.netns().run(|| {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        for _ in 0..COUNT {
            // Not connected, so that no ICMP error comes back as the result of a later datagram.
            socket.send_to(&[7; PAYLOAD], to).unwrap();
        }
    });
}

#[test]
fn nobody_listens() {
    let (lab, drops) = pair();
    let (pod, peer) = (lab.pod(0), lab.pod(1));
    send(peer, (pod.ipv4(), CLOSED).into());
    assert_dropped(&drops, "NO_SOCKET", DIRECTION_INGRESS, frames(COUNT, FRAME));
    send(peer, (pod.ipv6(), CLOSED).into());
    let both = frames(COUNT, FRAME).bytes + frames(COUNT, FRAME + 20).bytes;
    assert_dropped(
        &drops,
        "NO_SOCKET",
        DIRECTION_INGRESS,
        Tally {
            packets: 2 * COUNT,
            bytes: both,
        },
    );
    assert_eq!(snmp(pod.netns(), "Udp", "NoPorts").unwrap(), COUNT);
    assert_eq!(snmp6(pod.netns(), "Udp6NoPorts").unwrap(), COUNT);
}

#[test]
fn a_socket_is_full() {
    let (lab, drops) = pair();
    let (pod, peer) = (lab.pod(0), lab.pod(1));
    let receiver = pod.netns().run(|| UdpSocket::bind((pod.ipv4(), 0)).unwrap());
    setsockopt(&receiver, sockopt::RcvBuf, &4096).unwrap();
    send(peer, receiver.local_addr().unwrap());
    receiver
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut arrived = 0;
    while receiver.recv(&mut [0; PAYLOAD]).is_ok() {
        arrived += 1;
    }
    let lost = COUNT - arrived;
    assert!(lost > 0, "the buffer held everything");
    assert_eq!(snmp(pod.netns(), "Udp", "RcvbufErrors").unwrap(), lost);
    assert_dropped(&drops, "SOCKET_RCVBUFF", DIRECTION_INGRESS, frames(lost, FRAME));
}

#[test]
fn a_checksum_is_wrong() {
    let (lab, drops) = pair();
    let (pod, peer) = (lab.pod(0), lab.pod(1));
    let datagrams = pod.netns().run(|| UdpSocket::bind((pod.ipv4(), 0)).unwrap());
    let port = datagrams.local_addr().unwrap().port();
    look_on_arrival(&datagrams);
    send_raw(peer, pod.ipv4(), libc::IPPROTO_UDP, &damaged_datagram(port));
    assert_dropped(&drops, "UDP_CSUM", DIRECTION_INGRESS, frames(COUNT, FRAME));
    assert_eq!(snmp(pod.netns(), "Udp", "InCsumErrors").unwrap(), COUNT);

    let listener = pod.netns().run(|| TcpListener::bind((pod.ipv4(), 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let mut syn = vec![0x30, 0x39];
    syn.extend(port.to_be_bytes());
    syn.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 0xff, 0xff, 0xde, 0xad, 0, 0]);
    send_raw(peer, pod.ipv4(), libc::IPPROTO_TCP, &syn);
    assert_dropped(&drops, "TCP_CSUM", DIRECTION_INGRESS, frames(COUNT, 14 + 20 + 20));
    assert_eq!(snmp(pod.netns(), "Tcp", "InCsumErrors").unwrap(), COUNT);
}

/// The kernel looks at a datagram's checksum when somebody reads it, and on its arrival at a socket with a filter.
fn look_on_arrival(socket: &UdpSocket) {
    const BPF_RET_CONSTANT: u16 = 0x06;
    let mut all = libc::sock_filter {
        code: BPF_RET_CONSTANT,
        jt: 0,
        jf: 0,
        k: u32::MAX,
    };
    let filter = libc::sock_fprog {
        len: 1,
        filter: &raw mut all,
    };
    // SAFETY: the kernel copies the filter, which lives until the call is over, and its one instruction.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// What is found to be damaged only when somebody reads it has lost everything that says whose it is.
#[test]
fn a_damaged_datagram_that_waits_is_nobodys() {
    let (lab, drops) = pair();
    let (pod, peer) = (lab.pod(0), lab.pod(1));
    let datagrams = pod.netns().run(|| UdpSocket::bind((pod.ipv4(), 0)).unwrap());
    let port = datagrams.local_addr().unwrap().port();
    datagrams
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let before = drops.unresolved();
    let errors = std::thread::scope(|scope| {
        scope.spawn(|| assert!(datagrams.recv(&mut [0; PAYLOAD]).is_err()));
        send_raw(peer, pod.ipv4(), libc::IPPROTO_UDP, &damaged_datagram(port));
        wait_until(PATIENCE, Duration::from_millis(10), || {
            snmp(pod.netns(), "Udp", "InCsumErrors").unwrap() > 0
        });
        snmp(pod.netns(), "Udp", "InCsumErrors").unwrap()
    });
    assert!(errors > 0);
    assert!(drops.unresolved() >= before + errors);
    assert_eq!(drops.foreign("UDP_CSUM", DIRECTION_INGRESS), Tally::default());
}

fn damaged_datagram(port: u16) -> Vec<u8> {
    let mut datagram = vec![0x30, 0x39];
    datagram.extend(port.to_be_bytes());
    datagram.extend((8 + PAYLOAD as u16).to_be_bytes());
    datagram.extend([0xde, 0xad]);
    datagram.extend([7; PAYLOAD]);
    datagram
}

/// Sends IP packets of which the kernel makes the IP header alone.
fn send_raw(from: &LabPod, to: IpAddr, protocol: libc::c_int, content: &[u8]) {
    from.netns().run(|| {
        // SAFETY: the call takes numbers; what it returns is checked.
        let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, protocol) };
        assert!(raw >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let raw = unsafe { OwnedFd::from_raw_fd(raw) };
        let address = SockaddrStorage::from(SocketAddr::from((to, 0)));
        for _ in 0..COUNT {
            let flags = MsgFlags::empty();
            sendto(raw.as_raw_fd(), content, &address, flags).unwrap();
        }
    });
}

#[test]
fn a_filter_drops_in_both_directions() {
    let (lab, drops) = pair();
    let (pod, peer) = (lab.pod(0), lab.pod(1));
    let rules = "add table inet cut; \
         add chain inet cut in { type filter hook input priority 0; }; \
         add chain inet cut out { type filter hook output priority 0; }; \
         add rule inet cut in udp dport 4 drop; \
         add rule inet cut out udp dport 4 drop;";
    let output = pod.netns().command("nft").arg(rules).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    send(peer, (pod.ipv4(), CLOSED).into());
    assert_dropped(&drops, "NETFILTER_DROP", DIRECTION_INGRESS, frames(COUNT, FRAME));
    assert_eq!(
        drops.foreign("NETFILTER_DROP", DIRECTION_EGRESS),
        Tally::default()
    );

    pod.netns().run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..COUNT {
            let error = socket.send_to(&[7; PAYLOAD], (peer.ipv4(), CLOSED)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
    });
    // It has no MAC header yet.
    assert_dropped(
        &drops,
        "NETFILTER_DROP",
        DIRECTION_EGRESS,
        frames(COUNT, FRAME - 14),
    );
}

/// What happens in other namespaces is counted as nobody's.
#[test]
fn another_namespace_is_nobodys() {
    let (lab, drops) = pair();
    let before = drops.unresolved();
    send(lab.pod(0), (lab.pod(1).ipv4(), CLOSED).into());
    assert!(wait_until(PATIENCE, Duration::from_millis(10), || {
        drops.unresolved() >= before + COUNT
    }));
    assert_eq!(drops.foreign("NO_SOCKET", DIRECTION_INGRESS), Tally::default());
}
