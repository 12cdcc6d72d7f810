//! Segments that are sent again, and the timers behind them.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use sabot_testkit::rig::PATIENCE;
use sabot_testkit::snmp::{netstat, snmp};
use sabot_testkit::wait::wait_until;
use sabot_testkit::{LabPod, NetnsRef, Rig, Spec};
use sabotd::observe::tcp::TcpMoments;

use crate::scene::{Scene, Sink, connect, send};

const BULK: usize = 6 << 20;
/// Connections that come and go while segments are lost, so that SYNs and SYN-ACKs are among them.
const SHORT: usize = 60;

/// What the kernel has counted in a namespace: segments sent again, retransmission timers.
fn counted(pod: &LabPod) -> (u64, u64) {
    let segments = snmp(pod.netns(), "Tcp", "RetransSegs").expect("the kernel counts it");
    let timers = netstat(pod.netns(), "TcpExt", "TCPTimeouts").expect("the kernel counts it");
    (segments, timers)
}

#[test]
fn retransmits_are_those_that_the_kernel_counts_on_old_and_on_new_connections() {
    let rig = Rig::new(2);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    let bulk = Sink::start(server.netns(), server.ipv4(), 2);
    let short = Sink::start(server.netns(), server.ipv6(), SHORT);
    let mut old = connect(client.netns(), bulk.address);
    rig.apply("lossy", Spec::drop(client, 5.0));
    // Segments are lost before anybody observes.
    send(&mut old, BULK / 4);
    let before = || counted(client).0 > 0;
    assert!(
        wait_until(PATIENCE, Duration::from_millis(10), before),
        "nothing was sent again"
    );
    // The connection is at rest when the observer starts, so that both begin with the same counts.
    rig.delete("lossy");
    rest(client);
    let started = [counted(client), counted(server)];
    let scene = Scene::new(&[client.netns(), server.netns()]);

    rig.apply("lossy", Spec::drop(client, 5.0));
    send(&mut old, BULK);
    let mut new = connect(client.netns(), bulk.address);
    send(&mut new, BULK);
    connect_often(client.netns(), short.address);
    drop((old, new));
    assert_eq!(bulk.finish(), (BULK / 4 + 2 * BULK) as u64);
    assert_eq!(short.finish(), 3000 * SHORT as u64);
    rig.delete("lossy");
    rest(client);
    rest(server);

    for (number, pod, before) in [(1, client, started[0]), (2, server, started[1])] {
        let totals = scene.settled(number);
        let now = counted(pod);
        assert_eq!(
            totals.retransmits + totals.synack_retransmits,
            now.0 - before.0,
            "{totals:?}"
        );
        if number == 1 {
            assert!(
                totals.retransmits > 100,
                "5 % were dropped: {}",
                totals.retransmits
            );
            assert_eq!(totals.rtos, now.1 - before.1, "{totals:?}");
        }
    }
    let firsts = || scene.observer.firsts(1).expect("the maps can be read");
    assert!(firsts().is_some_and(|firsts| firsts.retransmit.is_some()));
    scene.observer.reset_firsts(1).expect("the maps can be written");
    assert_eq!(firsts(), Some(TcpMoments::default()));
}

/// Short connections, all at once.
fn connect_often(from: &NetnsRef, to: SocketAddr) {
    let threads: Vec<_> = (0..SHORT)
        .map(|_| {
            let netns = from.clone();
            thread::spawn(move || send(&mut connect(&netns, to), 3000))
        })
        .collect();
    for thread in threads {
        thread.join().expect("it is sent in the end");
    }
}

/// Until the pod sends nothing again any more.
fn rest(pod: &LabPod) {
    let mut last = counted(pod);
    let rested = wait_until(PATIENCE, Duration::ZERO, || {
        thread::sleep(Duration::from_millis(700));
        let now = counted(pod);
        let same = now == last;
        last = now;
        same
    });
    assert!(rested, "segments are still sent again");
}

#[test]
fn segments_that_a_partition_swallows_are_counted_although_nothing_answers() {
    let rig = Rig::new(2);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    let sink = Sink::start(server.netns(), server.ipv4(), 1);
    let mut connection = connect(client.netns(), sink.address);
    send(&mut connection, 10_000);
    // The connection is older than the observer, which first sees it when it is already in trouble.
    let scene = Scene::new(&[client.netns(), server.netns()]);
    let before = counted(client);
    for (egress, sent) in [(true, 15_000), (false, 20_000)] {
        let spec = Spec::partition(client);
        rig.apply("cut", if egress { spec.egress() } else { spec.ingress() });
        let start = counted(client).0;
        send(&mut connection, 5000);
        let repeated = || counted(client).0 >= start + 4;
        assert!(wait_until(PATIENCE, Duration::from_millis(10), repeated));
        rig.delete("cut");
        sink.wait(sent);
        rest(client);
    }
    let now = counted(client);
    let totals = scene.settled(1);
    assert_eq!(totals.retransmits, now.0 - before.0, "{totals:?}");
    assert_eq!(totals.rtos, now.1 - before.1, "{totals:?}");
    assert_eq!(scene.settled(2).retransmits, 0);
    drop(connection);
    assert_eq!(sink.finish(), 20_000);
}
