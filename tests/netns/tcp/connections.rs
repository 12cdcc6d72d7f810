//! Connections that come about, that don't, and how they end.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use sabot_abi::{
    CONNECTION_ACCEPTED, CONNECTION_CLOSED, CONNECTION_FAILED, CONNECTION_OPENED, PEER_LOOPBACK, PEER_PRIVATE,
};
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::snmp::{netstat, snmp};
use sabot_testkit::wait::wait_for;
use sabot_testkit::{Lab, Netns, NetnsRef, Rig, Spec};
use sabotd::observe::event::TcpChange;
use sabotd::observe::identity::Owners;

use crate::scene::{Scene, Sink, connect, pod, send};

const TIMES: u64 = 40;

fn sent_resets(netns: &NetnsRef) -> u64 {
    snmp(netns, "Tcp", "OutRsts").expect("the kernel counts it")
}

/// A port of the address on which nothing listens.
fn closed_port(netns: &NetnsRef, ip: std::net::IpAddr) -> SocketAddr {
    let listener = netns.run(|| TcpListener::bind((ip, 0))).expect("an address");
    listener.local_addr().expect("an address")
}

#[test]
fn opened_accepted_and_closed_connections_and_their_bytes_are_counted() {
    let lab = Lab::new(2).expect("pods can be made (root is needed)");
    let (client, server) = (lab.pod(0), lab.pod(1));
    let scene = Scene::new(&[client.netns(), server.netns()]);
    for ip in [server.ipv4(), server.ipv6()] {
        let sink = Sink::start(server.netns(), ip, TIMES as usize);
        for _ in 0..TIMES {
            // The client closes first, so that its end lingers in TIME_WAIT.
            send(&mut connect(client.netns(), sink.address), 12_345);
        }
        assert_eq!(sink.finish(), TIMES * 12_345);
    }
    let (opened, accepted) = (scene.settled(1), scene.settled(2));
    assert_eq!(opened.connections(CONNECTION_OPENED), 2 * TIMES);
    assert_eq!(
        opened.connections[PEER_PRIVATE as usize],
        [2 * TIMES, 0, 2 * TIMES, 0]
    );
    assert_eq!(accepted.connections(CONNECTION_ACCEPTED), 2 * TIMES);
    assert_eq!(accepted.connections(CONNECTION_CLOSED), 2 * TIMES);
    assert_eq!(opened.handshakes.count(), 2 * TIMES);
    assert_eq!(accepted.handshakes.count(), 2 * TIMES);
    // The end of a stream counts as a byte, unless the last segment's acknowledgement was not seen.
    for bytes in [opened.bytes_sent, accepted.bytes_received] {
        let payload = 2 * TIMES * 12_345;
        assert!((payload..=payload + 2 * TIMES).contains(&bytes), "{bytes}");
    }
    assert_eq!((opened.lost, accepted.lost), (0, 0));
    assert_eq!(scene.followed(), [0; 0]);
}

#[test]
fn resets_and_failed_connects_are_as_many_as_the_applications_saw() {
    let lab = Lab::new(2).expect("pods can be made (root is needed)");
    let (client, server) = (lab.pod(0), lab.pod(1));
    let mut scene = Scene::new(&[client.netns(), server.netns()]);
    let mut refused = 0;
    for ip in [server.ipv4(), server.ipv6()] {
        let to = closed_port(server.netns(), ip);
        for _ in 0..TIMES {
            let error = client
                .netns()
                .run(|| TcpStream::connect(to))
                .expect_err("nobody listens");
            refused += u64::from(error.kind() == ErrorKind::ConnectionRefused);
        }
    }
    assert_eq!(refused, 2 * TIMES);
    let listener = server
        .netns()
        .run(|| TcpListener::bind((server.ipv4(), 0)))
        .expect("an address");
    let mut broken = 0;
    for _ in 0..TIMES {
        let connection = connect(client.netns(), listener.local_addr().expect("an address"));
        let (mut accepted, _) = listener.accept().expect("a connection");
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&connection.as_fd(), sockopt::Linger, &linger).expect("an option");
        drop(connection);
        let error = accepted.read(&mut [0]).expect_err("it was reset");
        broken += u64::from(error.kind() == ErrorKind::ConnectionReset);
    }
    assert_eq!(broken, TIMES);
    let (client_did, server_did) = (scene.settled(1), scene.settled(2));
    assert_eq!(client_did.connect_errors, [("ECONNREFUSED", refused)]);
    assert_eq!(client_did.connections(CONNECTION_FAILED), refused);
    assert_eq!(client_did.resets_received, refused);
    assert_eq!(client_did.resets_sent, TIMES);
    assert_eq!(client_did.resets_sent, sent_resets(client.netns()));
    assert_eq!(server_did.resets_sent, refused);
    assert_eq!(server_did.resets_sent, sent_resets(server.netns()));
    assert_eq!(server_did.resets_received, broken);
    assert_eq!((client_did.lost, server_did.lost), (0, broken));
    let (events, lost) = scene.events();
    assert_eq!(lost, 0);
    let seen = |change| events.iter().filter(|event| event.change == change).count() as u64;
    assert_eq!(seen(TcpChange::ConnectFailed), refused);
    assert_eq!(seen(TcpChange::ResetSent), refused + TIMES);
    assert_eq!(seen(TcpChange::ResetReceived), refused + broken);
    assert_eq!(seen(TcpChange::Lost), broken);
    let failure = events
        .iter()
        .find(|event| event.change == TcpChange::ConnectFailed);
    let failure = failure.expect("there are some");
    assert_eq!(
        (failure.remote, failure.errno),
        (server.ipv4(), Some("ECONNREFUSED"))
    );
    assert_ne!(failure.local_port, 0, "{failure:?}");
    assert_eq!(&*failure.owner.label(), "pod-1");
}

#[test]
fn connects_fail_by_the_error_that_the_application_sees() {
    let rig = Rig::new(2);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    let scene = Scene::new(&[client.netns(), server.netns()]);
    let sink = Sink::start(server.netns(), server.ipv4(), 0);
    rig.apply("cut", Spec::partition(server));
    let before = netstat(client.netns(), "TcpExt", "TCPTimeouts").expect("the kernel counts it");
    // Nobody has this address: the node's own answer, after some seconds, is that the host can't be reached.
    let absent = SocketAddr::from((Ipv4Addr::new(10, 77, 3, 250), 80));
    assert_eq!(
        failure(client.netns(), absent).raw_os_error(),
        Some(libc::EHOSTUNREACH)
    );
    // The application gives up.
    let patience = Duration::from_millis(50);
    let given_up = client
        .netns()
        .run(|| TcpStream::connect_timeout(&sink.address, patience));
    assert_eq!(given_up.expect_err("it is cut off").kind(), ErrorKind::TimedOut);
    client.netns().run(|| {
        for (setting, value) in [("tcp_syn_retries", "1"), ("tcp_syn_linear_timeouts", "0")] {
            fs::write(format!("/proc/sys/net/ipv4/{setting}"), value).expect("it can be set");
        }
    });
    let timed_out = failure(client.netns(), sink.address);
    assert_eq!(timed_out.raw_os_error(), Some(libc::ETIMEDOUT));
    let totals = scene.settled(1);
    assert_eq!(
        totals.connect_errors,
        [("closed", 1), ("ETIMEDOUT", 1), ("EHOSTUNREACH", 1)]
    );
    assert_eq!(totals.failed(), 3);
    let timers = netstat(client.netns(), "TcpExt", "TCPTimeouts").expect("the kernel counts it") - before;
    assert_eq!(totals.rtos, timers);
    assert_eq!(sink.finish(), 0);
}

fn failure(netns: &NetnsRef, to: SocketAddr) -> std::io::Error {
    netns.run(|| TcpStream::connect(to)).expect_err("nobody answers")
}

#[test]
fn equal_addresses_in_different_namespaces_are_not_mixed() {
    let namespaces = [1, 2].map(|_| Netns::new("sabot-twin").expect("root is needed"));
    let scene = Scene::new(&[&namespaces[0], &namespaces[1]]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 7777));
    for (netns, times) in namespaces.iter().zip([3_u64, 8]) {
        netns.run(|| {
            let listener = TcpListener::bind(address).expect("nobody else has the port here");
            for _ in 0..times {
                drop(TcpStream::connect(address).expect("it is accepted"));
                drop(listener.accept().expect("a connection"));
            }
        });
    }
    for (number, times) in [(1, 3), (2, 8)] {
        let totals = scene.settled(number);
        assert_eq!(
            totals.connections[PEER_LOOPBACK as usize],
            [times, times, 2 * times, 0]
        );
    }
}

#[test]
fn what_a_full_ring_loses_is_counted_and_the_counters_stay_exact() {
    const FLOOD: u64 = 3000;
    let netns = Netns::new("sabot-flood").expect("root is needed");
    let mut scene = Scene::with(Owners::new([pod(1, &netns)]), 4096);
    let to = closed_port(&netns, Ipv4Addr::LOCALHOST.into());
    let (held, hold) = std::sync::mpsc::channel::<()>();
    // The only thread that could read the ring waits.
    scene.runtime.spawn(async move {
        let _ = hold.recv();
    });
    netns.run(|| {
        for _ in 0..FLOOD {
            TcpStream::connect(to).expect_err("nobody listens");
        }
    });
    drop(held);
    let totals = scene.settled(1);
    assert_eq!(
        (totals.failed(), totals.resets_sent, totals.resets_received),
        (FLOOD, FLOOD, FLOOD)
    );
    // For each connect: a reset that is sent, one that arrives, and the failure.
    let mut received = 0;
    let mut announced = 0;
    let complete = wait_for(PATIENCE, Duration::from_millis(20), || {
        let (events, lost) = scene.events();
        received += events.len() as u64;
        announced += lost;
        (received + announced == 3 * FLOOD).then_some(())
    });
    assert!(
        complete.is_some(),
        "{received} came and {announced} are said to be lost"
    );
    assert_eq!(scene.observer.lost_events(), announced);
    assert!(announced > 0, "the ring held all of {FLOOD}");
}
