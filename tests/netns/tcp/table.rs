//! A table that has room for fewer connections than there are.

use std::net::TcpStream;
use std::time::Duration;

use sabot_proto::sabot::v1;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Rig, Spec};

use crate::daemon::{LOOK, label, wait_known};
use crate::scene::{Sink, connect, send};

const ROOM: usize = 64;
/// Each has two ends, and each end is to have an entry.
const MANY: usize = 100;
const REFUSED: f64 = (2 * MANY - ROOM) as f64;

fn metric(rig: &Rig, family: &str, labels: &[(&str, &str)]) -> f64 {
    let scrape = rig.daemon.scrape().expect("metrics are served");
    scrape.sum(family, labels)
}

fn untracked(rig: &Rig, seen: &str) -> f64 {
    metric(rig, "sabot_tcp_untracked_total", &[("seen", seen)])
}

fn audit(rig: &Rig) -> v1::Audit {
    let mut observe = rig.client.observe();
    let answer = rig.client.wait(observe.get_snapshot(v1::GetSnapshotRequest {}));
    let snapshot = answer.expect("the daemon answers").into_inner();
    snapshot.audit.expect("it says what is missing")
}

fn is_kept_out(what: &str) -> bool {
    what.contains("TCP connections that a full table kept out")
}

/// Whether the flows hold a connection to this port.
fn is_followed(rig: &Rig, port: u16) -> bool {
    let answer = rig
        .daemon
        .sabot_json(&["flows", "--for", "0s", "--limit", "1000"]);
    let answer = answer.expect("flows are listed");
    let flows = answer["flows"].as_array().expect("a list");
    flows.iter().any(|flow| flow["remotePort"] == port)
}

#[test]
fn connections_that_find_no_room_are_counted_and_the_room_of_those_that_end_is_used_again() {
    let room = ROOM.to_string();
    let rig = Rig::with_flags(2, &["--tcp-connections", &room]);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    let pod = label(client);
    rig.apply("slow", Spec::delay(client, Duration::from_millis(1)));
    wait_known(&rig, &pod, true);
    let count = |outcome| {
        let labels = [("pod", pod.as_str()), ("outcome", outcome)];
        metric(&rig, "sabot_tcp_connections_total", &labels)
    };

    let sink = Sink::start(server.netns(), server.ipv4(), MANY);
    let held: Vec<TcpStream> = (0..MANY).map(|_| connect(client.netns(), sink.address)).collect();
    assert_eq!(count("opened"), MANY as f64, "with an entry or without");
    // Others on this machine may have found no room either.
    let begun = untracked(&rig, "beginning");
    assert!(begun >= REFUSED, "{begun} found no room, of {REFUSED}");
    let said = audit(&rig);
    assert!(!said.complete);
    assert!(said.missing.iter().any(|what| is_kept_out(what)), "{said:?}");

    // What is seen of them later is counted as that.
    for mut connection in held {
        send(&mut connection, 1000);
    }
    assert_eq!(sink.finish(), 1000 * MANY as u64);
    let closed = || count("closed") == MANY as f64;
    assert!(
        wait_until(PATIENCE, LOOK, closed),
        "{} are closed",
        count("closed")
    );
    assert!(untracked(&rig, "later") > 0.0);

    let sink = Sink::start(server.netns(), server.ipv4(), 1);
    let mut connection = connect(client.netns(), sink.address);
    send(&mut connection, 1000);
    sink.wait(1000);
    let port = sink.address.port();
    assert!(
        wait_until(PATIENCE, LOOK, || is_followed(&rig, port)),
        "it finds no room although the others have ended"
    );
    drop(connection);
    assert_eq!(sink.finish(), 1000);
}
