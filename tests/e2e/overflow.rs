//! A daemon that can't keep up with what happens: events are lost, each of them is counted, and the counters lose nothing.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use sabot_proto::sabot::v1::event::Kind;
use sabot_proto::sabot::v1::{
    EventType, GetSnapshotRequest, GetSnapshotResponse, WatchEventsRequest, WatchEventsResponse,
};
use sabot_testkit::daemon::Client;
use sabot_testkit::netns::Netns;
use sabot_testkit::traced::open_missing;
use sabot_testkit::wait::wait_for;
use sabot_testkit::{Daemon, DaemonOptions};
use tonic::Streaming;

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
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
    /// The others aren't counted.
    counts: fn(&Kind) -> bool,
    told: Told,
}

impl<'a> Reader<'a> {
    fn new(client: &'a Client, request: WatchEventsRequest) -> Self {
        let answer = client.wait(client.observe().watch_events(request));
        Self {
            client,
            stream: answer.expect("events are streamed").into_inner(),
            counts: |_| true,
            told: Told::default(),
        }
    }

    fn of_type(client: &'a Client, kind: EventType) -> Self {
        let request = WatchEventsRequest {
            types: vec![kind.into()],
            ..WatchEventsRequest::default()
        };
        Self::new(client, request)
    }

    /// Reads until so many events have come or were said to be lost.
    fn read(&mut self, total: u64) {
        self.read_until(|told| told.events + told.lost.values().sum::<u64>() >= total);
    }

    fn read_until(&mut self, is_enough: impl Fn(&Told) -> bool) {
        while !is_enough(&self.told) {
            let message = self.client.wait(async {
                let message = self.stream.message();
                tokio::time::timeout(PATIENCE, message).await
            });
            let message = message.unwrap_or_else(|_| panic!("nothing comes after {:?}", self.told));
            let message = message.expect("the daemon runs").expect("the stream goes on");
            match message.event.expect("it has an event").kind {
                Some(Kind::Lost(lost)) => *self.told.lost.entry(lost.stream).or_default() += lost.count,
                Some(kind) => self.told.events += u64::from((self.counts)(&kind)),
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

/// A daemon whose node is a namespace in which nobody else talks.
fn on_a_quiet_node() -> (Netns, Daemon) {
    let netns = Netns::new("sabot-flood").expect("a namespace can be made (root is needed)");
    let options = DaemonOptions::built().expect("the daemon is built");
    // Whose syscalls fail elsewhere on the machine is nothing to it.
    let options = options
        .netns(&netns)
        .flags(&["--event-buffer", ROOMY, "--syscalls", "never"]);
    let daemon = Daemon::start(options).expect("the daemon starts");
    (netns, daemon)
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
    let (netns, daemon) = on_a_quiet_node();
    let client = daemon.client().expect("the daemon answers");
    let mut reader = Reader::of_type(&client, EventType::Tcp);
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

/// Nobody listens there.
const CLOSED: u16 = 9;

fn send_in_vain(netns: &Netns, datagrams: u64) {
    netns.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("it binds");
        for _ in 0..datagrams {
            let sent = socket.send_to(b"flood", (Ipv4Addr::LOCALHOST, CLOSED));
            sent.expect("it is sent");
        }
    });
}

/// What the node's own sockets didn't take.
fn refused(client: &Client) -> u64 {
    let drops = snapshot(client).drops.into_iter();
    let refused = drops.filter(|drops| drops.pod.is_none() && drops.reason == "NO_SOCKET");
    refused.map(|drops| drops.packets).sum()
}

#[test]
fn a_flood_of_dropped_packets_loses_events_and_no_counts() {
    // A processor makes no more than a thousand events in a second: a round makes so many at least, whoever takes part
    // in it, and all of them together more than the ring holds, at 88 bytes each.
    const ROUNDS: u64 = 5;
    const ROUND: u64 = 1500;
    const WINDOW: Duration = Duration::from_millis(1100);
    const ROOM: u64 = 256 * 1024 / 88;
    let (netns, daemon) = on_a_quiet_node();
    let client = daemon.client().expect("the daemon answers");
    let mut reader = Reader::of_type(&client, EventType::Drop);
    // The kernel drops the last segment of whoever looks at the metrics, too.
    reader.counts = |kind| matches!(kind, Kind::Drop(drop) if drop.destination_port == u32::from(CLOSED));
    let before = wait_for(PATIENCE, LOOK, || {
        send_in_vain(&netns, 1);
        Some(refused(&client)).filter(|refused| *refused > 0)
    });
    let before = before.expect("the node itself is observed");
    reader.read(before);

    daemon.pause().expect("the daemon is stopped");
    for _ in 0..ROUNDS {
        thread::sleep(WINDOW);
        send_in_vain(&netns, ROUND);
    }
    daemon.resume().expect("the daemon goes on");
    let after = refused(&client);
    assert_eq!(after - before, ROUNDS * ROUND);
    // There is room again for what the metrics' reader itself makes happen.
    reader.read_until(|told| told.events >= before + ROOM - 100);
    let scrape = daemon.scrape().expect("metrics are served");
    let suppressed = scrape.value("sabot_drop_unrecorded_total", &[("table", "event")]);
    let suppressed = suppressed.expect("it is counted") as u64;
    let total = after - suppressed;
    assert!(total >= before + ROUNDS * 1000, "{suppressed} were kept back");
    reader.read(total);
    reader.assert_told("drops", total, &daemon);
    let uncounted = scrape.value("sabot_drop_unrecorded_total", &[("table", "count")]);
    assert_eq!(uncounted, Some(0.0));
}

/// Asks for a name so often, and has the server fail each time.
fn fail_to_resolve(netns: &Netns, queries: u64) {
    const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53);
    /// Recursion desired, one question: `flood.`, `A`, of the Internet.
    const QUERY: [u8; 23] = *b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x05flood\0\0\x01\0\x01";
    const ANSWER: u8 = 0x80;
    const SERVFAIL: u8 = 2;
    netns.run(|| {
        let [server, client] = [53, 0].map(|port| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("it binds");
            socket.set_read_timeout(Some(PATIENCE)).expect("it may wait");
            socket
        });
        for number in 0..queries {
            let mut message = QUERY;
            message[..2].copy_from_slice(&(number as u16).to_be_bytes());
            client.send_to(&message, SERVER).expect("it is asked");
            let (_, from) = server.recv_from(&mut message).expect("the query comes");
            message[2] |= ANSWER;
            message[3] = SERVFAIL;
            server.send_to(&message, from).expect("it is answered");
            client.recv(&mut message).expect("the answer comes");
        }
    });
}

/// The node's own queries, and those of them that the server could not answer.
fn failed_queries(client: &Client) -> (u64, u64) {
    let dns = snapshot(client).dns;
    let Some(node) = dns.iter().find(|summary| summary.pod.is_none()) else {
        return (0, 0);
    };
    let failed = node.responses.iter().filter(|count| count.name == "SERVFAIL");
    (node.queries, failed.map(|count| count.count).sum())
}

#[test]
fn a_flood_of_failing_queries_loses_events_and_no_counts() {
    const FLOOD: u64 = 5_000;
    let (netns, daemon) = on_a_quiet_node();
    let client = daemon.client().expect("the daemon answers");
    let mut reader = Reader::of_type(&client, EventType::Dns);
    let before = wait_for(PATIENCE, LOOK, || {
        fail_to_resolve(&netns, 1);
        Some(failed_queries(&client).1).filter(|failed| *failed > 0)
    });
    let before = before.expect("the node itself is observed");
    reader.read(before);

    daemon.pause().expect("the daemon is stopped");
    fail_to_resolve(&netns, FLOOD);
    daemon.resume().expect("the daemon goes on");
    let total = before + FLOOD;
    assert_eq!(failed_queries(&client), (total, total));
    reader.read(total);
    reader.assert_told("queries", total, &daemon);
    let scrape = daemon.scrape().expect("metrics are served");
    for table in ["open", "unread"] {
        let unrecorded = scrape.value("sabot_dns_unrecorded_total", &[("table", table)]);
        assert_eq!(unrecorded, Some(0.0), "{table}");
    }
}
