//! Partitions: whom they cut, whom they leave alone, and what that means to a connection that stands.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use sabot_proto::sabot::v1::Direction;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{Echo, INTERVAL, Passage, ProbeServer, Prober, Stream, echo_once, ping};
use sabot_testkit::wait::wait_until;
use sabot_testkit::{LabPod, Rig, Spec};

const TARGET: usize = 0;
const PEER: usize = 1;
const OTHER: usize = 2;
const BYSTANDER: usize = 3;
const PODS: usize = 4;

/// What is on its way when a fault comes into force arrives within this time.
const IN_FLIGHT: Duration = Duration::from_millis(50);
/// How long a partition is watched.
const WATCHED: Duration = Duration::from_millis(250);
/// What an answer may take that isn't expected.
const SHORT: Duration = Duration::from_millis(400);

/// What becomes of probes from one pod to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    /// They don't arrive.
    Vanish,
    /// They arrive, and their answers don't.
    Unanswered,
}
use Fate::{Pass, Unanswered, Vanish};

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}
use Family::{V4, V6};

/// Probes from one pod to another.
struct Line {
    name: String,
    prober: Prober,
    server: ProbeServer,
}

impl Line {
    fn new(rig: &Rig, from: usize, to: usize, family: Family) -> Self {
        let (client, server) = (rig.lab.pod(from), rig.lab.pod(to));
        let answers = ProbeServer::start(server.netns(), address(server, family)).expect("it binds");
        let prober = Prober::start(client.netns(), &answers, INTERVAL).expect("there is a route");
        let line = Self {
            name: format!("{from} to {to} at {}", answers.address()),
            prober,
            server: answers,
        };
        line.assert_flows();
        line
    }

    /// A probe that is sent now is answered.
    fn assert_flows(&self) {
        let passed = self.prober.wait_pass(Instant::now(), PATIENCE);
        assert!(passed.is_some(), "nothing passes from {}", self.name);
    }

    fn assert_fate(&self, fate: Fate, from: Instant, until: Instant, case: &str) {
        let passage = || self.prober.passage(from, until);
        let expected = |passage: Passage| match fate {
            Pass => passage.answered == passage.sent,
            Vanish => passage.arrived == 0 && passage.answered == 0,
            Unanswered => passage.arrived == passage.sent && passage.answered == 0,
        };
        // The machine may be busy with something else while the last ones are on their way.
        let held = wait_until(SHORT, Duration::from_millis(5), || expected(passage()));
        assert!(held, "{case}: {} should {fate:?}: {:?}", self.name, passage());
        assert!(passage().sent > 5, "{case}: {:?} from {}", passage(), self.name);
    }
}

fn address(pod: &LabPod, family: Family) -> IpAddr {
    match family {
        V4 => pod.ipv4(),
        V6 => pod.ipv6(),
    }
}

/// Applies a fault, looks at every line while it holds, deletes it, and sees that everything passes again.
fn assert_fates(rig: &Rig, case: &str, spec: Spec, lines: &[(&Line, Fate)]) {
    rig.apply("cut", spec);
    thread::sleep(IN_FLIGHT);
    let from = Instant::now();
    thread::sleep(WATCHED);
    let until = Instant::now();
    for (line, fate) in lines {
        line.assert_fate(*fate, from, until, case);
    }
    rig.delete("cut");
    for (line, _) in lines {
        line.assert_flows();
    }
    rig.settled("cut");
}

#[test]
fn peers_and_directions_say_exactly_what_is_cut() {
    let rig = Rig::new(PODS);
    let (target, peer, other) = (rig.lab.pod(TARGET), rig.lab.pod(PEER), rig.lab.pod(OTHER));
    let to_peer = Line::new(&rig, TARGET, PEER, V4);
    let from_peer = Line::new(&rig, PEER, TARGET, V4);
    let to_other = Line::new(&rig, TARGET, OTHER, V4);
    let from_bystander = Line::new(&rig, BYSTANDER, TARGET, V4);
    let around = Line::new(&rig, BYSTANDER, PEER, V4);
    let fates = |fates: [Fate; 5]| {
        let lines = [&to_peer, &from_peer, &to_other, &from_bystander, &around];
        std::array::from_fn::<_, 5, _>(|at| (lines[at], fates[at]))
    };
    let check = |case, spec, expected| assert_fates(&rig, case, spec, &fates(expected));

    let cut = || Spec::partition(target);
    check("everybody", cut(), [Vanish, Vanish, Vanish, Vanish, Pass]);
    check(
        "everybody, egress",
        cut().egress(),
        [Vanish, Unanswered, Vanish, Unanswered, Pass],
    );
    check(
        "everybody, ingress",
        cut().ingress(),
        [Unanswered, Vanish, Unanswered, Vanish, Pass],
    );
    let named = || cut().peer(peer.ipv4());
    check("one peer", named(), [Vanish, Vanish, Pass, Pass, Pass]);
    check(
        "one peer, egress",
        named().egress(),
        [Vanish, Unanswered, Pass, Pass, Pass],
    );
    check(
        "one peer, ingress",
        named().ingress(),
        [Unanswered, Vanish, Pass, Pass, Pass],
    );
    check(
        "two peers",
        named().peer(other.ipv4()),
        [Vanish, Vanish, Vanish, Pass, Pass],
    );
    let network = |except: &[String]| cut().peers_in("10.77.0.0/24", except);
    check("a network", network(&[]), [Vanish, Vanish, Vanish, Vanish, Pass]);
    check(
        "a network without the peer",
        network(&[format!("{}/32", peer.ipv4())]),
        [Pass, Pass, Vanish, Vanish, Pass],
    );
    check(
        "another network",
        cut().peers_in("10.78.0.0/16", &[]),
        [Pass, Pass, Pass, Pass, Pass],
    );
    // 10 and 11 are the target and the peer, 12 and 13 the others.
    check(
        "a network without the half of it",
        network(&["10.77.0.12/31".to_owned()]),
        [Vanish, Vanish, Pass, Pass, Pass],
    );
}

#[test]
fn ipv6_peers_are_cut_and_ipv4_ones_left_alone() {
    let rig = Rig::new(PODS);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let to_peer = Line::new(&rig, TARGET, PEER, V6);
    let from_peer = Line::new(&rig, PEER, TARGET, V6);
    let to_other = Line::new(&rig, TARGET, OTHER, V6);
    let old = Line::new(&rig, TARGET, PEER, V4);
    let check = |case, spec, fates: [Fate; 4]| {
        let lines = [&to_peer, &from_peer, &to_other, &old];
        let fates = std::array::from_fn::<_, 4, _>(|at| (lines[at], fates[at]));
        assert_fates(&rig, case, spec, &fates);
    };
    let cut = || Spec::partition(target);
    check("everybody", cut(), [Vanish, Vanish, Vanish, Vanish]);
    check("one peer", cut().peer(peer.ipv6()), [Vanish, Vanish, Pass, Pass]);
    check(
        "one peer, egress",
        cut().peer(peer.ipv6()).egress(),
        [Vanish, Unanswered, Pass, Pass],
    );
    check(
        "a network without the peer",
        cut().peers_in("fd77::/64", &[format!("{}/128", peer.ipv6())]),
        [Pass, Pass, Vanish, Pass],
    );
    check(
        "all of IPv4",
        cut().peers_in("0.0.0.0/0", &[]),
        [Pass, Pass, Pass, Vanish],
    );
}

#[test]
fn ports_and_protocols_say_exactly_what_is_cut() {
    let rig = Rig::new(PODS);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let (named, unnamed) = (
        Line::new(&rig, TARGET, PEER, V4),
        Line::new(&rig, TARGET, PEER, V4),
    );
    let echo = |pod: &LabPod| Echo::start(pod.netns(), pod.ipv4()).expect("it binds");
    let (named_echo, other_echo) = (echo(peer), echo(peer));
    let talks = |echo: &Echo| echo_once(target.netns(), echo.address(), b"hello", SHORT).is_ok();
    let pings = || {
        let report = ping(target.netns(), peer.ipv4(), 3, Duration::from_millis(20)).expect("ping runs");
        report.round_trips.len()
    };
    let (udp, tcp) = (named.server.address().port(), named_echo.address().port());

    // Which port is cut: the named UDP port, the other one, the named TCP port, the other one, ICMP.
    let cases = [
        ("UDP port", ("UDP", Some(udp)), [true, false, false, false, false]),
        ("UDP", ("UDP", None), [true, true, false, false, false]),
        ("TCP port", ("TCP", Some(tcp)), [false, false, true, false, false]),
        ("TCP", ("TCP", None), [false, false, true, true, false]),
        ("ICMP", ("ICMP", None), [false, false, false, false, true]),
        // A port number means nothing without its protocol.
        (
            "TCP with the number of the UDP port",
            ("TCP", Some(udp)),
            [false, false, false, false, false],
        ),
    ];
    for (case, (protocol, port), cut) in cases {
        let fate = |cut| if cut { Vanish } else { Pass };
        rig.apply("ports", Spec::partition(target).port(protocol, port));
        thread::sleep(IN_FLIGHT);
        let from = Instant::now();
        thread::sleep(WATCHED);
        let until = Instant::now();
        named.assert_fate(fate(cut[0]), from, until, case);
        unnamed.assert_fate(fate(cut[1]), from, until, case);
        assert_eq!(talks(&named_echo), !cut[2], "{case}: the named TCP port");
        assert_eq!(talks(&other_echo), !cut[3], "{case}: the other TCP port");
        assert_eq!(pings(), if cut[4] { 0 } else { 3 }, "{case}: ping");
        rig.delete("ports");
        rig.settled("ports");
    }
    let both = Spec::partition(target).port("ICMP", None).port("TCP", Some(tcp));
    rig.apply("ports", both);
    assert!(!talks(&named_echo) && talks(&other_echo) && pings() == 0);
    named.assert_flows();
}

#[test]
fn an_established_stream_stalls_at_once_and_resumes_on_the_same_connection() {
    const HELD: Duration = Duration::from_millis(800);
    let rig = Rig::new(2);
    let (client, server) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let stream = Stream::open(client.netns(), server.netns(), server.ipv4(), INTERVAL).expect("it connects");
    let flows = || stream.wait_back(Instant::now(), PATIENCE).expect("it flows");
    let cut = || Spec::partition(client).peer(server.ipv4());
    let directions: [(&str, Spec); 3] = [
        ("both", cut()),
        ("egress", cut().egress()),
        ("ingress", cut().ingress()),
    ];
    for (name, spec) in directions {
        flows();
        rig.apply(name, spec);
        let from = Instant::now() + IN_FLIGHT;
        thread::sleep(HELD);
        assert_eq!(stream.backs_between(from, Instant::now()), 0, "{name}");
        rig.delete(name);
        let healed = Instant::now();
        let resumed = stream.wait_back(healed, PATIENCE).expect("it resumes");
        // Retransmissions are at most as far apart as the stall has been long, beside the first one's timeout.
        assert!(resumed < HELD + Duration::from_secs(2), "{name}: {resumed:?}");
        assert_eq!(stream.broken(), None, "{name}");
    }

    flows();
    let fault = rig.apply("expires", cut().lasting(Duration::from_secs(1)));
    let (applied, deadline) = (Instant::now(), rig.deadline(&fault));
    let resumed = stream.wait_back(deadline, PATIENCE).expect("it resumes");
    let early = deadline - Duration::from_millis(10);
    assert_eq!(stream.backs_between(applied + IN_FLIGHT, early), 0);
    assert!(resumed < Duration::from_secs(3), "{resumed:?}");
    assert_eq!(stream.broken(), None);
}

#[test]
fn a_partition_still_bites_seconds_after_it_was_applied() {
    let rig = Rig::new(PODS);
    let line = Line::new(&rig, TARGET, PEER, V4);
    let around = Line::new(&rig, BYSTANDER, PEER, V4);
    rig.apply("cut", Spec::partition(rig.lab.pod(TARGET)));
    let from = Instant::now() + IN_FLIGHT;
    thread::sleep(Duration::from_secs(4));
    let until = Instant::now();
    line.assert_fate(Vanish, from, until, "after seconds");
    around.assert_fate(Pass, from, until, "after seconds");
    let dropped = rig.books("cut", Direction::Egress).dropped.packets;
    let sent = line.prober.passage(from, until).sent as u64;
    assert!(dropped >= sent, "{dropped} counted of {sent} or more");
}

#[test]
fn an_edit_leaves_no_gap_and_keeps_the_counters() {
    const EDITS: usize = 60;
    const PROBES: usize = 20;
    let rig = Rig::new(PODS);
    let (target, peer, other) = (rig.lab.pod(TARGET), rig.lab.pod(PEER), rig.lab.pod(OTHER));
    let answers = ProbeServer::start(peer.netns(), peer.ipv4()).expect("it binds");
    let prober = Prober::start(target.netns(), &answers, Duration::from_millis(1)).expect("there is a route");
    prober.wait_pass(Instant::now(), PATIENCE).expect("it flows");

    let cut = || Spec::partition(target);
    // The peer is in every one of them.
    let lists: [Spec; 5] = [
        cut().peer(peer.ipv4()),
        cut().peer(peer.ipv4()).peer(other.ipv4()),
        cut().peers_in("10.77.0.0/24", &[format!("{}/32", other.ipv4())]),
        cut(),
        cut().peers_in("10.77.0.11/32", &[]).peers_in("10.1.0.0/16", &[]),
    ];
    rig.apply("edited", lists[0].clone());
    let from = Instant::now();
    let (mut edit, mut before) = (0, 0);
    // A busy machine sends fewer probes between two edits.
    while edit < EDITS || prober.passage(from, Instant::now()).sent <= PROBES {
        edit += 1;
        rig.apply("edited", lists[edit % lists.len()].clone());
        let matched = rig.books("edited", Direction::Egress).matched.packets;
        assert!(matched >= before, "edit {edit}: {matched} after {before}");
        before = matched;
    }
    let until = Instant::now();
    let passage = prober.passage(from, until);
    assert!(passage.sent > PROBES, "{passage:?}");
    assert_eq!((passage.arrived, passage.answered), (0, 0), "{passage:?}");
    let dropped = rig.books("edited", Direction::Egress).dropped.packets;
    assert!(dropped >= passage.sent as u64, "{dropped} of {passage:?}");
    rig.delete("edited");
    prober
        .wait_pass(Instant::now(), PATIENCE)
        .expect("it flows again");
    rig.settled("edited");
}
