//! What the daemon tells of the connections of a namespace that a fault names: metrics, flows, events.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use sabot_proto::sabot::v1;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::snmp::snmp;
use sabot_testkit::traffic::Stream;
use sabot_testkit::wait::{wait_for, wait_until};
use sabot_testkit::{LabPod, Rig, Spec};
use serde_json::Value;
use tonic::Code;

use crate::scene::{Sink, connect, send};

pub(crate) const LOOK: Duration = Duration::from_millis(20);
const BULK: usize = 4 << 20;
const REFUSED: usize = 7;

/// Documents that a command of the client prints, until it is dropped.
struct Follower {
    child: Child,
    documents: Receiver<Value>,
}

impl Follower {
    fn start(rig: &Rig, arguments: &[&str]) -> Self {
        let mut command = rig.daemon.sabot_command(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("sabot runs");
        let output = child.stdout.take().expect("it is piped");
        let (sender, documents) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody listens any more when the test is over.
                let _ = sender.send(serde_json::from_str(&line).expect("each line is a document"));
            }
        });
        Self { child, documents }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn label(pod: &LabPod) -> String {
    format!("netns:{}", pod.netns().path().display())
}

fn retransmits(rig: &Rig, pod: &str) -> f64 {
    let scrape = rig.daemon.scrape().expect("metrics are served");
    scrape.sum("sabot_tcp_retransmits_total", &[("pod", pod)])
}

/// Whether the owner has series now.
fn is_known(rig: &Rig, pod: &str) -> bool {
    let scrape = rig.daemon.scrape().expect("metrics are served");
    scrape
        .samples("sabot_tcp_rtos_total", &[("pod", pod)])
        .next()
        .is_some()
}

pub(crate) fn wait_known(rig: &Rig, pod: &str, wanted: bool) {
    let done = wait_until(PATIENCE, LOOK, || is_known(rig, pod) == wanted);
    assert!(done, "{pod}: {wanted} is not what the metrics say");
}

#[test]
fn the_daemon_tells_what_the_connections_of_its_targets_go_through() {
    let rig = Rig::with_flags(2, &["--keep-warm", "100ms"]);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    let pod = label(client);
    assert!(is_known(&rig, "node") && !is_known(&rig, &pod));
    rig.apply("lossy", Spec::drop(client, 5.0));
    wait_known(&rig, &pod, true);
    let sink = Sink::start(server.netns(), server.ipv4(), 1);
    let mut connection = connect(client.netns(), sink.address);
    send(&mut connection, BULK);
    sink.wait(BULK as u64);

    let flows = |arguments: &[&str]| {
        let words = [&["flows"], arguments].concat();
        rig.daemon.sabot_json(&words).expect("flows are listed")["flows"].clone()
    };
    let path = client.netns().path().display().to_string();
    let flow = &flows(&["--netns", &path, "--sort", "retransmits"])[0];
    assert_eq!(flow["pod"]["name"], pod.as_str(), "{flow}");
    assert_eq!(flow["remotePort"], sink.address.port(), "{flow}");
    assert_eq!(flow["remote"], server.ipv4().to_string(), "{flow}");
    assert!(flow["bytesSent"].as_u64() > Some(BULK as u64 / 2), "{flow}");
    assert!(flow["retransmits"].as_u64() > Some(10), "{flow}");
    assert_eq!(flows(&["--pod", "shop/nobody"]), Value::Array(Vec::new()));

    drop(connection);
    sink.finish();
    // Until the last segment that is sent again is in both counts.
    let same = || {
        let counted = snmp(client.netns(), "Tcp", "RetransSegs").expect("the kernel counts it");
        retransmits(&rig, &pod) == counted as f64 && counted > 10
    };
    assert!(
        wait_until(PATIENCE, LOOK, same),
        "{} are told, and {:?} were sent again",
        retransmits(&rig, &pod),
        snmp(client.netns(), "Tcp", "RetransSegs")
    );
    rig.delete("lossy");
    wait_known(&rig, &pod, false);
}

#[test]
fn refused_connects_are_streamed_and_summed_up() {
    let rig = Rig::new(2);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    let pod = label(client);
    rig.apply("slow", Spec::delay(client, Duration::from_millis(1)));
    wait_known(&rig, &pod, true);
    let events = Follower::start(&rig, &["events", "-o", "json", "--type", "tcp"]);
    let listener = server
        .netns()
        .run(|| TcpListener::bind((server.ipv4(), 0)))
        .expect("an address");
    let closed = listener.local_addr().expect("an address");
    drop(listener);
    let refuse = || {
        client
            .netns()
            .run(|| TcpStream::connect(closed))
            .expect_err("nobody listens")
    };
    // Events come from some moment on, which isn't told.
    let first = wait_for(PATIENCE, LOOK, || {
        refuse();
        events.documents.try_recv().ok()
    });
    let first = first.expect("events are streamed");
    assert_eq!(
        (&first["type"], &first["pod"]["name"]),
        (&"tcp".into(), &pod.as_str().into())
    );
    let failures = |snapshot: &v1::GetSnapshotResponse| {
        let own = snapshot
            .tcp
            .iter()
            .find(|tcp| tcp.pod.as_ref().is_some_and(|p| p.name == pod));
        let own = own.expect("its connections are summed up");
        own.connect_errors
            .iter()
            .map(|error| (error.name.clone(), error.count))
            .collect::<Vec<_>>()
    };
    let snapshot = || {
        let mut observe = rig.client.observe();
        let answer = rig.client.wait(observe.get_snapshot(v1::GetSnapshotRequest {}));
        answer.expect("the daemon answers").into_inner()
    };
    let [(name, before)] = failures(&snapshot())[..].to_vec().try_into().expect("one error");
    for _ in 0..REFUSED {
        refuse();
    }
    assert_eq!(failures(&snapshot()), [(name.clone(), before + REFUSED as u64)]);
    assert_eq!(name, "ECONNREFUSED");
    let refused = |event: &Value| {
        event["change"] == "connect-failed"
            && event["errno"] == "ECONNREFUSED"
            && event["remotePort"] == closed.port()
    };
    let seen = wait_for(PATIENCE, LOOK, || events.documents.try_iter().find(refused));
    assert!(seen.is_some(), "no refused connect is streamed");
}

#[test]
fn bad_questions_are_refused_by_field_and_nothing_is_said_where_nothing_is_observed() {
    let rig = Rig::with_flags(1, &["--tcp", "never"]);
    let ask = |request| {
        let mut observe = rig.client.observe();
        rig.client
            .wait(observe.list_flows(request))
            .expect_err("it is refused")
    };
    let status = ask(v1::ListFlowsRequest {
        limit: 5000,
        ..v1::ListFlowsRequest::default()
    });
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("limit: 5000 flows are too many"),
        "{status}"
    );
    assert_eq!(
        ask(v1::ListFlowsRequest::default()).code(),
        Code::FailedPrecondition
    );
    assert!(!is_known(&rig, "node"));
}

#[test]
fn connections_are_observed_only_while_a_fault_is_active_if_that_is_wanted() {
    let rig = Rig::with_flags(1, &["--tcp", "active"]);
    let netns = rig.lab.node();
    let listener = netns
        .run(|| TcpListener::bind(("127.0.0.1", 0)))
        .expect("an address");
    let address = listener.local_addr().expect("an address");
    let opened = || {
        drop(connect(netns, address));
        drop(listener.accept().expect("a connection"));
        let scrape = rig.daemon.scrape().expect("metrics are served");
        scrape.sum(
            "sabot_tcp_connections_total",
            &[("pod", "node"), ("outcome", "opened")],
        )
    };
    assert_eq!(opened(), 0.0);
    rig.apply("slow", Spec::delay(rig.lab.pod(0), Duration::from_millis(1)));
    assert!(
        wait_until(PATIENCE, LOOK, || opened() > 0.0),
        "nothing is observed under a fault"
    );
    rig.delete("slow");
    let rests = || opened() == opened();
    assert!(
        wait_until(PATIENCE, LOOK, rests),
        "it is still observed after the fault"
    );
}

#[test]
fn rates_are_told_of_the_targets_of_faults() {
    let rig = Rig::new(2);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    let pod = label(client);
    rig.apply("slow", Spec::delay(client, Duration::from_millis(20)).egress());
    wait_known(&rig, &pod, true);
    let interval = Duration::from_millis(5);
    let _stream = Stream::open(client.netns(), server.netns(), server.ipv4(), interval).expect("it connects");
    let top = Follower::start(
        &rig,
        &["top", "-o", "json", "--interval", "500ms", "--count", "40"],
    );
    let told = wait_for(PATIENCE, Duration::ZERO, || {
        let rates = top.documents.recv_timeout(PATIENCE).ok()?;
        let pods = rates["pods"].as_array()?.clone();
        // The first ones may be from before the connection.
        pods.into_iter()
            .find(|row| row["pod"]["name"] == pod.as_str() && row["rttP50"].is_string())
    });
    let row = told.expect("the target is among the pods");
    assert_eq!(row["faults"], serde_json::json!(["slow"]), "{row}");
    assert!(row["bytesSent"].as_f64() > Some(0.0), "{row}");
    let median = humantime::parse_duration(row["rttP50"].as_str().expect("text")).expect("a duration");
    assert!(median >= Duration::from_millis(15), "{row}");
}
