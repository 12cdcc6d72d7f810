//! A daemon that can't keep up with what happens: events are lost, each of them is counted, and the counters lose nothing.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::Duration;

use sabot_proto::sabot::v1::event::Kind;
use sabot_proto::sabot::v1::{
    EventType, GetSnapshotRequest, GetSnapshotResponse, WatchEventsRequest, WatchEventsResponse,
};
use sabot_testkit::daemon::Client;
use sabot_testkit::netns::Netns;
use sabot_testkit::traced::open_missing;
use sabot_testkit::{Daemon, DaemonOptions};
use tonic::Streaming;

const PATIENCE: Duration = Duration::from_secs(30);
/// More than any reader lags behind here, so that events are lost in the kernel's rings only.
const ROOMY: &str = "1000000";

/// What a reader of events has been told.
#[derive(Debug, Default)]
struct Told {
    events: u64,
    /// By stream.
    lost: BTreeMap<String, u64>,
}

struct Reader<'a> {
    client: &'a Client,
    stream: Streaming<WatchEventsResponse>,
    told: Told,
}

impl<'a> Reader<'a> {
    fn new(client: &'a Client, request: WatchEventsRequest) -> Self {
        let answer = client.wait(client.observe().watch_events(request));
        Self {
            client,
            stream: answer.expect("events are streamed").into_inner(),
            told: Told::default(),
        }
    }

    /// Reads until so many events have come or were said to be lost.
    fn read(&mut self, total: u64) {
        while self.told.events + self.told.lost.values().sum::<u64>() < total {
            let message = self.client.wait(async {
                let message = self.stream.message();
                tokio::time::timeout(PATIENCE, message).await
            });
            let message = message.unwrap_or_else(|_| panic!("of {total} came only {:?}", self.told));
            let message = message.expect("the daemon runs").expect("the stream goes on");
            match message.event.expect("it has an event").kind {
                Some(Kind::Lost(lost)) => *self.told.lost.entry(lost.stream).or_default() += lost.count,
                Some(_) => self.told.events += 1,
                None => panic!("an event of no kind"),
            }
        }
    }

    /// That the rest was lost in this stream's ring, and that there is nothing more to come.
    fn assert_told(&self, stream: &str, total: u64, daemon: &Daemon) {
        let told = &self.told;
        let lost = told.lost.get(stream).copied().unwrap_or_default();
        assert!(told.events > 1 && lost > 0, "{told:?}");
        assert_eq!(told.lost.len(), 1, "{told:?}");
        assert_eq!(told.events + lost, total, "{told:?}");
        let snapshot = snapshot(self.client);
        let counted = snapshot.events_lost.iter().find(|count| count.name == stream);
        assert_eq!(counted.map(|count| count.count), Some(lost), "{told:?}");
        let watch = snapshot.events_lost.iter().find(|count| count.name == "watch");
        assert_eq!(watch.map(|count| count.count), Some(0));
        let scrape = daemon.scrape().expect("metrics are served");
        let metric = scrape.value("sabot_events_lost_total", &[("stream", stream)]);
        assert_eq!(metric, Some(lost as f64));
    }
}

fn snapshot(client: &Client) -> GetSnapshotResponse {
    let answer = client.wait(client.observe().get_snapshot(GetSnapshotRequest {}));
    answer.expect("there is a snapshot").into_inner()
}

#[test]
fn a_flood_of_failing_syscalls_loses_events_and_no_counts() {
    const FLOOD: u64 = 50_000;
    let name = format!("flood-{}", std::process::id());
    let options = DaemonOptions::built().expect("the daemon is built");
    let options = options.flags(&[
        "--syscall-process",
        &name,
        "--event-buffer",
        ROOMY,
        "--tcp",
        "never",
    ]);
    let daemon = Daemon::start(options).expect("the daemon starts (root is needed)");
    let client = daemon.client().expect("the daemon answers");
    let mut reader = Reader::new(
        &client,
        WatchEventsRequest {
            types: vec![EventType::Syscall.into()],
            process: Some(name.clone()),
            ..WatchEventsRequest::default()
        },
    );
    open_missing(&name, 1);
    reader.read(1);
    daemon.pause().expect("the daemon is stopped");
    open_missing(&name, FLOOD);
    daemon.resume().expect("the daemon goes on");
    let total = FLOOD + 1;
    reader.read(total);
    reader.assert_told("syscalls", total, &daemon);

    let snapshot = snapshot(&client);
    let mut calls = snapshot.syscalls.iter().filter(|call| call.process == name);
    let call = calls.find(|call| call.syscall.starts_with("open"));
    let call = call.expect("it was traced");
    let errors: Vec<_> = call.errors.iter().map(|e| (e.name.as_str(), e.count)).collect();
    assert_eq!((call.calls, errors), (total, vec![("ENOENT", total)]));
    let labels = [("process", name.as_str()), ("errno", "ENOENT")];
    let scrape = daemon.scrape().expect("metrics are served");
    assert_eq!(scrape.sum("sabot_syscall_errors_total", &labels), total as f64);
}

/// Everything that is an event of TCP, as the counters have it.
fn tcp_events(client: &Client) -> (u64, u64) {
    let snapshot = snapshot(client);
    let node = snapshot.tcp.iter().find(|summary| summary.pod.is_none());
    let node = node.expect("the node itself is observed");
    let failed: u64 = node.connections.iter().map(|peer| peer.failed).sum();
    let others = node.lost + node.rtos + node.resets_sent + node.resets_received;
    (failed, failed + others)
}

#[test]
fn a_flood_of_refused_connections_loses_events_and_no_counts() {
    const FLOOD: u64 = 20_000;
    // The daemon's node is a namespace in which nobody else talks.
    let netns = Netns::new("sabot-flood").expect("a namespace can be made (root is needed)");
    let options = DaemonOptions::built().expect("the daemon is built");
    let options = options.netns(&netns).flags(&["--event-buffer", ROOMY]);
    let daemon = Daemon::start(options).expect("the daemon starts");
    let client = daemon.client().expect("the daemon answers");
    let mut reader = Reader::new(
        &client,
        WatchEventsRequest {
            types: vec![EventType::Tcp.into()],
            ..WatchEventsRequest::default()
        },
    );
    let (failed_before, before) = tcp_events(&client);
    daemon.pause().expect("the daemon is stopped");
    netns.run(|| {
        for _ in 0..FLOOD {
            let refused = TcpStream::connect(("127.0.0.1", 1)).expect_err("nobody listens");
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    });
    daemon.resume().expect("the daemon goes on");
    let (failed_after, after) = tcp_events(&client);
    assert_eq!(failed_after - failed_before, FLOOD);
    // Each was refused by a reset, which was sent and received here.
    assert_eq!(after - before, 3 * FLOOD);
    reader.read(3 * FLOOD);
    reader.assert_told("tcp", 3 * FLOOD, &daemon);
}
