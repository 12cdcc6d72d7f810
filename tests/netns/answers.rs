//! Reject and reset: what the ends of a connection learn, and how soon.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use sabot_proto::sabot::v1::Direction;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::Echo;
use sabot_testkit::way::{PEER, TARGET};
use sabot_testkit::{Rig, Spec};

/// Asked are 10 ms; what a busy machine adds is tried again.
const SOON: Duration = Duration::from_millis(10);
const TRIES: usize = 4;
/// Much shorter than TCP's first retransmission of a SYN.
const AT_ONCE: Duration = Duration::from_millis(800);

/// The error of a connection from the target, which fails before TCP would try again.
fn refusal(rig: &Rig, to: SocketAddr) -> Option<i32> {
    let netns = rig.lab.pod(TARGET).netns();
    let started = Instant::now();
    let error = netns.run(|| TcpStream::connect_timeout(&to, PATIENCE)).err()?;
    assert!(
        started.elapsed() < AT_ONCE,
        "{error} after {:?}",
        started.elapsed()
    );
    error.raw_os_error()
}

#[test]
fn a_rejected_connection_fails_at_once_with_the_codes_error() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let codes = [
        ("net-unreachable", libc::ENETUNREACH, libc::ENETUNREACH),
        ("host-unreachable", libc::EHOSTUNREACH, libc::EHOSTUNREACH),
        ("port-unreachable", libc::ECONNREFUSED, libc::ECONNREFUSED),
        ("admin-prohibited", libc::EHOSTUNREACH, libc::EACCES),
    ];
    for (ip, pick) in [(peer.ipv4(), 0), (peer.ipv6(), 1)] {
        let echo = Echo::start(peer.netns(), ip).expect("it listens");
        for (code, v4, v6) in codes {
            let spec = Spec::action(target, &format!("reject: {{code: {code}}}"));
            rig.apply("reject", spec.egress().port("TCP", None));
            let error = refusal(&rig, echo.address());
            assert_eq!(error, Some([v4, v6][pick]), "{code} to {ip}");
            // An answer is counted in the direction in which it goes.
            let [egress, ingress] = rig.settled("reject");
            assert!(
                egress.rejected.packets >= 1 && ingress.replied.packets >= 1,
                "{egress:?} {ingress:?}"
            );
            assert_eq!(egress.rejected, egress.matched, "{code} to {ip}");
            rig.delete("reject");
        }
    }
}

#[test]
fn a_rejected_datagram_is_told_to_its_sender_on_both_sides() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    rig.apply("reject", Spec::action(target, "reject: {}").port("UDP", None));
    for (from, to) in [(target, peer), (peer, target)] {
        for ip in [to.ipv4(), to.ipv6()] {
            let receiver = to.netns().run(|| UdpSocket::bind((ip, 0))).expect("it binds");
            let any: IpAddr = if ip.is_ipv4() {
                [0; 4].into()
            } else {
                [0; 16].into()
            };
            let socket = from.netns().run(|| UdpSocket::bind((any, 0))).expect("it binds");
            let address = receiver.local_addr().expect("it is bound");
            from.netns()
                .run(|| socket.connect(address))
                .expect("there is a route");
            socket.set_read_timeout(Some(PATIENCE)).expect("it is set");
            socket.send(b"anyone?").expect("it is sent");
            let error = socket.recv(&mut [0; 8]).expect_err("nobody answers");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "to {ip}: {error}");
            receiver.set_nonblocking(true).expect("it is set");
            let nothing = receiver.recv(&mut [0; 8]).expect_err("it was rejected");
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        }
    }
    for books in rig.settled("reject") {
        assert_eq!(books.rejected.packets, 2, "{books:?}");
        assert_eq!(books.replied.packets, 2, "{books:?}");
    }
}

/// A connection from the target to the peer that has carried something both ways.
fn established(rig: &Rig, ip: IpAddr) -> (Echo, TcpStream) {
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let echo = Echo::start(peer.netns(), ip).expect("it listens");
    let address = echo.address();
    let connection = target
        .netns()
        .run(|| TcpStream::connect_timeout(&address, PATIENCE));
    let mut connection = connection.expect("it connects");
    connection.set_nodelay(true).expect("it is set");
    connection.set_read_timeout(Some(PATIENCE)).expect("it is set");
    connection.write_all(b"ping").expect("it is sent");
    connection.read_exact(&mut [0; 4]).expect("it comes back");
    (echo, connection)
}

#[test]
fn an_established_connection_is_reset_at_its_next_packet() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    for ip in [peer.ipv4(), peer.ipv6()] {
        let mut seen = Vec::new();
        let soon = (0..TRIES).any(|_| {
            let (_echo, mut connection) = established(&rig, ip);
            rig.apply("reset", Spec::action(target, "reset: {}").port("TCP", None));
            let started = Instant::now();
            connection
                .write_all(b"ping")
                .expect("the write itself is accepted");
            let error = connection.read_exact(&mut [0; 4]).expect_err("it is reset");
            seen.push(started.elapsed());
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            // An answer is counted in the direction in which it goes.
            let [egress, ingress] = rig.settled("reset");
            assert!(egress.rejected.packets >= 1, "{egress:?}");
            assert!(egress.replied.packets >= 1 && ingress.replied.packets >= 1);
            rig.delete("reset");
            seen.last().is_some_and(|took| *took < SOON)
        });
        assert!(soon, "to {ip}: {seen:?}");
    }
}

#[test]
fn a_new_connection_is_refused_by_a_reset() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    rig.apply("reset", Spec::action(target, "reset: {to: target}").egress());
    for ip in [peer.ipv4(), peer.ipv6()] {
        let echo = Echo::start(peer.netns(), ip).expect("it listens");
        assert_eq!(refusal(&rig, echo.address()), Some(libc::ECONNREFUSED));
    }
    // What isn't TCP passes.
    let [egress, _] = rig.settled("reset");
    assert_eq!(egress.rejected.packets, 2, "{egress:?}");
}

#[test]
fn a_reset_of_the_peer_alone_reaches_the_peer() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let listener = peer
        .netns()
        .run(|| std::net::TcpListener::bind((peer.ipv4(), 0)))
        .expect("it binds");
    let address = listener.local_addr().expect("it is bound");
    let mut ours = target
        .netns()
        .run(|| TcpStream::connect_timeout(&address, PATIENCE))
        .expect("it connects");
    let (mut theirs, _) = listener.accept().expect("it was connected to");
    theirs.set_read_timeout(Some(PATIENCE)).expect("it is set");
    rig.apply("reset", Spec::action(target, "reset: {to: peer}").egress());
    ours.write_all(b"ping").expect("the write itself is accepted");
    let error = theirs.read_exact(&mut [0; 4]).expect_err("it is reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    let books = rig.books("reset", Direction::Egress);
    assert!(books.replied.packets >= 1, "{books:?}");
}
