//! DNS queries of a pod, beside what a real client and a real server make of them.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use sabot_abi::OwnerKey;
use sabot_core::model::{Action, Direction};
use sabot_testkit::traffic::{Dnsmasq, FOREIGN_NAME, KNOWN_NAME, Lookup, MISSING_NAME};
use sabot_testkit::wait::{best_of, wait_until};
use sabot_testkit::{LabPod, NetnsRef};
use sabotd::engine::handle::LedgerDirection;
use sabotd::kernel::netns;
use sabotd::kernel::nsfs::NetnsFile;
use sabotd::observe::event::{DnsEvent, DnsOutcome, EventHub, EventKind, Subscription};
use sabotd::observe::identity::{Identities, Identity, Owner, Owners};
use sabotd::observe::queries::{self, QueriesConfig, QueryObserver, QueryStats};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::rig::{PATIENCE, Rig, delay, drop_share};

const LOOK: Duration = Duration::from_millis(20);
/// The client's latencies and ours agree within this, ..
const NEAR: Duration = Duration::from_millis(1);
/// .. as means of so many queries, ..
const QUERIES: usize = 20;
/// .. at one of so many times.
const TRIES: usize = 8;
/// Unanswered after five seconds, and looked for every second.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// The observer with pods as owners, and what it says.
struct Observed {
    observer: QueryObserver,
    /// As long as it is held, the owners stay.
    _owners: watch::Sender<Arc<Owners>>,
    events: Subscription,
    _runtime: Runtime,
}

impl Observed {
    fn of(pods: &[&LabPod]) -> Self {
        let runtime = Runtime::new().unwrap();
        let owners = pods.iter().zip(1..);
        let owners = owners.map(|(pod, number)| owner(pod.netns(), number, &number.to_string()));
        let (sender, receiver) = watch::channel(Arc::new(Owners::new(owners)));
        let hub = EventHub::new(4096);
        let events = hub.subscribe();
        let observer = runtime.block_on(async {
            let identities = Identities::from_watch(receiver);
            queries::start(&QueriesConfig::default(), &identities, hub).expect("root is needed")
        });
        Self {
            observer,
            _owners: sender,
            events,
            _runtime: runtime,
        }
    }

    fn stats(&self, pod: u32) -> QueryStats {
        let snapshot = self.observer.snapshot().unwrap();
        assert_eq!(snapshot.unrecorded.map(|(_, count)| count), [0, 0]);
        snapshot
            .owners
            .get(&identity(&pod.to_string()))
            .cloned()
            .expect("an owner that lives has counts")
    }

    /// Waits until so many queries are known to be over.
    fn settled(&self, pod: u32, over: u64) -> QueryStats {
        wait_until(GIVEN_UP, LOOK, || {
            let stats = self.stats(pod);
            answered(&stats) + stats.unanswered >= over
        });
        self.stats(pod)
    }

    fn dns_events(&mut self) -> Vec<DnsEvent> {
        let mut seen = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            match &event.kind {
                EventKind::Dns(query) => seen.push(query.clone()),
                other => panic!("{other:?}"),
            }
        }
        seen
    }
}

fn identity(name: &str) -> Arc<Identity> {
    Arc::new(Identity::Pod {
        namespace: "lab".to_owned(),
        name: name.to_owned(),
    })
}

pub(crate) fn owner(of: &NetnsRef, number: u32, name: &str) -> Owner {
    let file = NetnsFile::open(of.path()).unwrap();
    Owner {
        number,
        identity: identity(name),
        keys: vec![OwnerKey {
            cookie: netns::cookie(file.as_fd()).expect("Linux 5.14"),
            cgroup: 0,
        }],
        paths: Default::default(),
    }
}

fn answered(stats: &QueryStats) -> u64 {
    stats.responses.iter().map(|(_, count)| count).sum()
}

fn responses(stats: &QueryStats) -> Vec<(&str, u64)> {
    stats.responses.clone()
}

fn assert_all(lookups: &[Lookup], status: &str) {
    let all = lookups
        .iter()
        .all(|lookup| lookup.status.as_deref() == Some(status));
    assert!(all, "{lookups:?}");
}

/// By how much the client's mean of some queries is longer than ours of the same ones, which it can't be shorter than.
fn gap(observed: &Observed, before: &QueryStats, lookups: &[Lookup]) -> Duration {
    let after = observed.stats(1).latency;
    let count = after.count() - before.latency.count();
    assert_eq!(count, lookups.len() as u64);
    let ours = Duration::from_nanos((after.sum - before.latency.sum) / count);
    let asked = lookups.iter().map(|lookup| lookup.took).sum::<Duration>() / lookups.len() as u32;
    // The client cuts its microseconds.
    let gap = (asked + Duration::from_micros(1)).checked_sub(ours);
    gap.unwrap_or_else(|| panic!("the client's mean is {asked:?}, ours {ours:?}"))
}

/// Has queries answered until our mean is the client's: a busy machine may wake the client late, but not always.
fn assert_latencies_agree(observed: &Observed, server: &Dnsmasq, pod: &LabPod) {
    best_of(TRIES, NEAR, "between the client's mean and ours", || {
        let before = observed.stats(1);
        let lookups = server.ask(pod.netns(), &[], KNOWN_NAME, QUERIES).unwrap();
        assert_all(&lookups, "NOERROR");
        gap(observed, &before, &lookups)
    });
}

#[test]
fn every_query_is_counted_by_what_was_answered() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    for ip in [peer.ipv4(), peer.ipv6()] {
        let server = Dnsmasq::start(peer.netns(), ip).unwrap();
        let mut observed = Observed::of(&[pod, peer]);
        let known = server.ask(pod.netns(), &[], KNOWN_NAME, 60).unwrap();
        assert_all(&known, "NOERROR");
        let missing = server.ask(pod.netns(), &[], MISSING_NAME, 30).unwrap();
        assert_all(&missing, "NXDOMAIN");
        let refused = server
            .ask(pod.netns(), &["-t", "AAAA"], FOREIGN_NAME, 10)
            .unwrap();
        assert_all(&refused, "REFUSED");
        let stats = observed.stats(1);
        assert_eq!((stats.queries, stats.retries), (100, 0));
        let expected = [("NOERROR", 60), ("NXDOMAIN", 30), ("REFUSED", 10)];
        assert_eq!(responses(&stats), expected);
        assert_eq!((stats.unanswered, stats.late, stats.unmatched), (0, 0, 0));
        assert_eq!(stats.latency.count(), 100);
        gap(
            &observed,
            &QueryStats::default(),
            &[known, missing, refused].concat(),
        );
        assert_latencies_agree(&observed, &server, pod);
        // The server asks nobody.
        assert_eq!(observed.stats(2), QueryStats::default());

        assert!(wait_until(PATIENCE, LOOK, || observed.events.waiting() >= 10));
        for event in observed.dns_events() {
            assert_eq!(event.outcome, DnsOutcome::Failed);
            assert_eq!((event.name.as_str(), event.kind.as_str()), (FOREIGN_NAME, "AAAA"));
            assert_eq!((event.rcode, event.server), (Some("REFUSED"), ip));
            assert_eq!(*event.owner, *identity("1"));
        }
    }
}

#[test]
fn queries_over_tcp_are_counted_like_others() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    for ip in [peer.ipv4(), peer.ipv6()] {
        let server = Dnsmasq::start(peer.netns(), ip).unwrap();
        let mut observed = Observed::of(&[pod, peer]);
        let known = server.ask(pod.netns(), &["+tcp"], KNOWN_NAME, 20).unwrap();
        assert_all(&known, "NOERROR");
        let refused = server
            .ask(pod.netns(), &["+tcp", "-t", "AAAA"], FOREIGN_NAME, 5)
            .unwrap();
        assert_all(&refused, "REFUSED");
        let stats = observed.settled(1, 25);
        assert_eq!((stats.queries, stats.retries), (25, 0));
        assert_eq!(responses(&stats), [("NOERROR", 20), ("REFUSED", 5)]);
        assert_eq!((stats.unanswered, stats.late, stats.unmatched), (0, 0, 0));
        assert_eq!(stats.latency.count(), 25);
        assert_eq!(observed.stats(2), QueryStats::default());
        assert!(wait_until(PATIENCE, LOOK, || observed.events.waiting() >= 5));
        for event in observed.dns_events() {
            assert_eq!((event.rcode, event.server), (Some("REFUSED"), ip));
            assert_eq!((event.name.as_str(), event.kind.as_str()), (FOREIGN_NAME, "AAAA"));
        }
    }
}

/// A query for the root's name servers, with its length before it.
fn root_query() -> Vec<u8> {
    let mut message = vec![0xff, 0xff, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend([0, 0, 2, 0, 1]);
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [length.to_vec(), message].concat()
}

#[test]
fn what_a_segment_does_not_hold_as_a_whole_is_counted_as_unread() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let server = SocketAddr::new(peer.ipv4(), 53);
    let listener = peer.netns().run(|| TcpListener::bind(server)).unwrap();
    let observed = Observed::of(&[pod]);
    let mut stream = pod.netns().run(|| TcpStream::connect(server)).unwrap();
    let (_accepted, _) = listener.accept().unwrap();
    // Each write is a segment.
    stream.set_nodelay(true).unwrap();
    let query = root_query();
    let mut seen = |bytes: &[u8], expected: (u64, u64)| {
        stream.write_all(bytes).unwrap();
        let mut counts = (0, 0);
        let settled = wait_until(PATIENCE, LOOK, || {
            let snapshot = observed.observer.snapshot().unwrap();
            let [_, (_, unread)] = snapshot.unrecorded;
            counts = (snapshot.owners[&identity("1")].queries, unread);
            counts == expected
        });
        assert!(
            settled,
            "queries and what is unread: {counts:?}, not {expected:?}"
        );
    };
    seen(&query[..2], (0, 1));
    seen(&query[2..], (0, 2));
    // A whole one, and the beginning of the next.
    seen(&[&query, &query[..4]].concat(), (1, 3));
    seen(&query[4..], (1, 4));
    // The same once more is a retry.
    seen(&query, (1, 4));
}

#[test]
fn answers_that_a_fault_drops_are_missing() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let server = Dnsmasq::start(peer.netns(), peer.ipv4()).unwrap();
    let mut observed = Observed::of(&[pod]);
    rig.apply(Action::Partition, Direction::Ingress, Some(peer.ipv4()));
    let lookups = server
        .ask(pod.netns(), &["+tries=1", "+time=1"], KNOWN_NAME, 5)
        .unwrap();
    assert!(
        lookups.iter().all(|lookup| lookup.status.is_none()),
        "{lookups:?}"
    );
    let stats = observed.settled(1, 5);
    assert_eq!((stats.queries, stats.unanswered, answered(&stats)), (5, 5, 0));
    assert_eq!(stats.latency.count(), 0);
    let events = observed.dns_events();
    assert_eq!(events.len(), 5);
    for event in events {
        assert_eq!((event.outcome, event.rcode), (DnsOutcome::Unanswered, None));
        assert_eq!((event.name.as_str(), event.kind.as_str()), (KNOWN_NAME, "A"));
        assert!(event.latency >= queries::UNANSWERED_AFTER);
    }
}

#[test]
fn of_answers_that_are_lost_in_part_the_rest_is_counted() {
    const ASKED: u64 = 24;
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let server = Dnsmasq::start(peer.netns(), peer.ipv4()).unwrap();
    let mut observed = Observed::of(&[pod]);
    rig.apply(drop_share(50.0), Direction::Ingress, Some(peer.ipv4()));
    let lookups = server
        .ask(pod.netns(), &["+tries=1", "+time=1"], KNOWN_NAME, ASKED as usize)
        .unwrap();
    let timeouts = lookups.iter().filter(|lookup| lookup.status.is_none()).count() as u64;
    assert!(timeouts > 0 && timeouts < ASKED, "{lookups:?}");
    let stats = observed.settled(1, ASKED);
    assert_eq!((stats.queries, stats.unanswered), (ASKED, timeouts));
    assert_eq!(responses(&stats), [("NOERROR", ASKED - timeouts)]);
    assert_eq!((stats.retries, stats.late, stats.replaced), (0, 0, 0));
    // Each answer is a packet.
    let ledger = rig.ledger(LedgerDirection::Ingress);
    assert_eq!(
        (ledger.matched.packets, ledger.dropped.packets),
        (ASKED, timeouts)
    );
    let unanswered = observed.dns_events();
    assert_eq!(unanswered.len() as u64, timeouts, "{unanswered:?}");
}

#[test]
fn latency_is_what_the_client_waits() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let server = Dnsmasq::start(peer.netns(), peer.ipv4()).unwrap();
    for direction in [Direction::Egress, Direction::Ingress] {
        let observed = Observed::of(&[pod]);
        rig.apply(delay(Duration::from_millis(40)), direction, Some(peer.ipv4()));
        assert_latencies_agree(&observed, &server, pod);
        let latency = observed.stats(1).latency;
        let mean = Duration::from_nanos(latency.sum / latency.count());
        assert!(mean >= Duration::from_millis(40), "{direction:?}: {mean:?}");
    }
}

/// A query by hand: an id, and the question for the address of `x.test`.
fn query(id: u8) -> Vec<u8> {
    let mut message = vec![7, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(b"\x01x\x04test\x00\x00\x01\x00\x01");
    message
}

fn answer(id: u8, rcode: u8) -> Vec<u8> {
    let mut message = query(id);
    (message[2], message[3]) = (0x81, 0x80 | rcode);
    message
}

struct Hands {
    client: UdpSocket,
    server: UdpSocket,
    from: SocketAddr,
}

impl Hands {
    fn new(pod: &LabPod, peer: &LabPod) -> Self {
        let server = peer.netns().run(|| UdpSocket::bind((peer.ipv4(), 53)).unwrap());
        let client = pod.netns().run(|| UdpSocket::bind((pod.ipv4(), 0)).unwrap());
        client.connect((peer.ipv4(), 53)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let from = client.local_addr().unwrap();
        Self { client, server, from }
    }

    fn answer(&self, message: &[u8]) {
        self.server.send_to(message, self.from).unwrap();
        self.client.recv(&mut [0; 512]).unwrap();
    }
}

#[test]
fn retries_second_answers_and_late_ones_are_told_apart() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let mut observed = Observed::of(&[pod]);
    let hands = Hands::new(pod, peer);
    hands.client.send(&query(1)).unwrap();
    hands.client.send(&query(1)).unwrap();
    hands.answer(&answer(1, 0));
    hands.answer(&answer(1, 0));
    let stats = observed.stats(1);
    assert_eq!((stats.queries, stats.retries, stats.unmatched), (1, 1, 1));
    assert_eq!(responses(&stats), [("NOERROR", 1)]);

    hands.client.send(&query(2)).unwrap();
    let stats = observed.settled(1, 2);
    assert_eq!((stats.queries, stats.unanswered, stats.late), (2, 1, 0));
    hands.answer(&answer(2, 2));
    let stats = observed.stats(1);
    assert_eq!((stats.unanswered, stats.late), (1, 1));
    assert_eq!(responses(&stats), [("NOERROR", 1)]);
    assert_eq!(stats.latency.count(), 1);

    // Another question with the same id takes an open one's place.
    hands.client.send(&query(3)).unwrap();
    let mut other = query(3);
    other[13] = b'y';
    hands.client.send(&other).unwrap();
    hands.answer(&answer(3, 2));
    let stats = observed.stats(1);
    assert_eq!((stats.queries, stats.replaced), (4, 1));
    assert_eq!(responses(&stats), [("NOERROR", 1), ("SERVFAIL", 1)]);
    assert_eq!(
        stats.queries,
        answered(&stats) + stats.unanswered + stats.replaced
    );

    wait_until(PATIENCE, LOOK, || observed.events.waiting() >= 2);
    let seen: Vec<_> = observed
        .dns_events()
        .into_iter()
        .map(|event| (event.outcome, event.name))
        .collect();
    let expected = [
        (DnsOutcome::Unanswered, "x.test".to_owned()),
        (DnsOutcome::Failed, "y.test".to_owned()),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn messages_that_are_no_queries_of_clients_are_left_alone() {
    let rig = Rig::new();
    let (pod, peer) = (rig.lab.pod(0), rig.lab.pod(1));
    let observed = Observed::of(&[pod, peer]);
    let hands = Hands::new(pod, peer);
    // An answer to the DNS port, and an update.
    hands.client.send(&answer(1, 0)).unwrap();
    let mut update = query(2);
    update[2] = 5 << 3;
    hands.client.send(&update).unwrap();
    hands.answer(&query(3));
    assert_eq!(observed.stats(1), QueryStats::default());
    assert_eq!(observed.stats(2), QueryStats::default());
    // What is too short to be a message is counted as unread.
    hands.client.send(&[1, 2, 3]).unwrap();
    let snapshot = observed.observer.snapshot().unwrap();
    assert_eq!(snapshot.unrecorded, [("open", 0), ("unread", 1)]);
}

/// Asks the namespace's own loopback, where nobody answers.
pub(crate) fn ask_nobody(netns: &NetnsRef) {
    netns.run(|| {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(&query(1), ("127.0.0.1", 53)).unwrap();
    });
}
