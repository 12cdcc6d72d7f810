//! Loss models: each loses exactly the packets that its seed says, and as many as it is asked for.

use std::net::UdpSocket;
use std::time::Duration;

use sabot_proto::sabot::v1::Direction;
use sabot_testkit::prediction::{Chain, SeededStream};
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::statistics::{Bins, ChiSquare, binomial_sigmas, bursts, geometric, gilbert_sigmas};
use sabot_testkit::traffic::{Bulk, Echo, UdpLoad, UdpReceiver, echo_once};
use sabot_testkit::way::{PEER, TARGET, Way, send};
use sabot_testkit::{LabPod, Rig, Spec};

const SEED: u64 = 20_261_121;
const LOAD: UdpLoad = UdpLoad {
    datagrams: 100_000,
    payload: 64,
    per_second: 50_000,
};
/// A model that holds fails this once in a thousand streams. The seed is fixed, but the stream follows from the target's name too,
/// which is another one in each run.
const LEAST_PROBABILITY: f64 = 0.001;

/// The stream of random numbers of `SEED` on a pod.
fn stream(target: &LabPod, way: Way) -> SeededStream {
    let name = format!("netns:{}/eth0", target.netns().path().display());
    SeededStream::new(SEED, &name, way.direction())
}

/// Sends the load under a fault; the numbers of the datagrams that are lost, which the fault counts.
fn lost(rig: &Rig, way: Way, action: &str) -> Vec<u64> {
    let (from, to) = way.ends(rig);
    let spec = Spec::action(rig.lab.pod(TARGET), action)
        .seed(SEED)
        .port("UDP", None);
    rig.apply("loss", way.limit(spec));
    let report = send(LOAD, from, to, to.ipv4());
    let books = way.pick(rig.settled("loss"));
    rig.delete("loss");
    let missing = report.missing(LOAD.datagrams);
    assert_eq!(books.matched.packets, LOAD.datagrams, "{action}");
    assert_eq!(books.dropped.packets, missing.len() as u64, "{action}: {books:?}");
    assert!(report.duplicates == 0 && report.altered.is_empty(), "{action}");
    missing
}

/// The lengths of the bursts are spread as a geometric distribution of this mean.
fn assert_bursts(lost: &[u64], length: f64) {
    let mut flags = vec![false; LOAD.datagrams as usize];
    lost.iter().for_each(|&number| flags[number as usize] = true);
    let bins = Bins::of(&bursts(flags), geometric(length));
    let fit = ChiSquare::of(&bins.observed, &bins.expected);
    assert!(
        fit.probability() > LEAST_PROBABILITY,
        "bursts of mean {length}: {fit:?} {bins:?}"
    );
}

#[test]
fn a_percentage_loses_its_share_of_packets_each_by_itself() {
    let rig = Rig::new(2);
    for way in Way::BOTH {
        let lost = lost(&rig, way, "drop: {percent: 10}");
        assert_eq!(lost, stream(rig.lab.pod(TARGET), way).share(0.1, LOAD.datagrams));
        let sigmas = binomial_sigmas(lost.len() as u64, LOAD.datagrams, 0.1);
        assert!(sigmas.abs() < 4.0, "{} lost, {sigmas} sigma off", lost.len());
        // A burst goes on with the probability of any loss.
        assert_bursts(&lost, 1.0 / 0.9);
    }
}

#[test]
fn bursts_have_the_loss_and_the_length_that_are_asked_for() {
    let rig = Rig::new(2);
    let (share, length) = (0.02, 8.0);
    let to_good = 1.0 / length;
    let to_bad = to_good * share / (1.0 - share);
    for way in Way::BOTH {
        let lost = lost(&rig, way, "drop: {burst: {percent: 2, length: 8}}");
        let chain = Chain {
            to_bad,
            to_good,
            loss_good: 0.0,
            loss_bad: 1.0,
        };
        let stream = stream(rig.lab.pod(TARGET), way);
        assert_eq!(lost, stream.chain(chain, LOAD.datagrams));
        let sigmas = gilbert_sigmas(lost.len() as u64, LOAD.datagrams, to_bad, to_good);
        assert!(sigmas.abs() < 4.0, "{} lost, {sigmas} sigma off", lost.len());
        assert_bursts(&lost, length);
    }
}

#[test]
fn gilbert_and_elliotts_chain_loses_in_both_of_its_states() {
    let rig = Rig::new(2);
    let chain = Chain {
        to_bad: 0.01,
        to_good: 0.2,
        loss_good: 0.005,
        loss_bad: 0.7,
    };
    let action = "drop: {gilbertElliott: {p: 1, r: 20, lossGood: 0.5, lossBad: 70}}";
    for way in Way::BOTH {
        let lost = lost(&rig, way, action);
        let stream = stream(rig.lab.pod(TARGET), way);
        assert_eq!(lost, stream.chain(chain, LOAD.datagrams));
        let bad = 0.01 / 0.21;
        let share = bad * 0.7 + (1.0 - bad) * 0.005;
        // States are correlated over some five packets; this spread is that of a loss of every packet in the bad state.
        let spread: f64 = (2.0 - 0.21) / 0.21;
        let sigmas = binomial_sigmas(lost.len() as u64, LOAD.datagrams, share) / spread.sqrt();
        assert!(sigmas.abs() < 4.0, "{} lost, {sigmas} sigma off", lost.len());
    }
}

#[test]
fn every_nth_packet_is_lost() {
    let rig = Rig::new(2);
    let lost = lost(&rig, Way::Egress, "drop: {nth: {every: 10}}");
    let expected: Vec<u64> = (9..LOAD.datagrams).step_by(10).collect();
    assert_eq!(lost, expected);
}

#[test]
fn the_first_packets_of_each_connection_are_lost() {
    const CONNECTIONS: u64 = 20;
    const EACH: u64 = 10;
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let echo = Echo::start(peer.netns(), peer.ipv4()).expect("it listens");
    rig.apply(
        "first",
        Spec::action(target, "drop: {nth: {first: 3}}")
            .egress()
            .port("UDP", None),
    );
    let receiver = UdpReceiver::start(peer.netns(), peer.ipv4()).expect("it binds");
    let load = UdpLoad {
        datagrams: EACH,
        payload: 64,
        per_second: 10_000,
    };
    for _ in 0..CONNECTIONS {
        // Each has a socket, and so a port, of its own.
        load.send(target.netns(), receiver.address()).expect("it is sent");
        let report = receiver.finish(EACH - 3, PATIENCE);
        assert_eq!(report.missing(EACH), [0, 1, 2]);
    }
    let [egress, _] = rig.settled("first");
    assert_eq!(egress.dropped.packets, 3 * CONNECTIONS);
    // An edit counts on; of a TCP connection the SYN is lost, and sent again.
    rig.apply(
        "first",
        Spec::action(target, "drop: {nth: {first: 1}}")
            .egress()
            .port("TCP", None),
    );
    echo_once(target.netns(), echo.address(), b"anyone?", PATIENCE).expect("the second SYN gets through");
    let [egress, _] = rig.settled("first");
    assert_eq!(egress.dropped.packets, 3 * CONNECTIONS + 1);
}

#[test]
fn a_share_of_the_connections_loses_everything_and_the_others_nothing() {
    const CONNECTIONS: u64 = 400;
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let receiver = UdpReceiver::start(peer.netns(), peer.ipv4()).expect("it binds");
    let run = || {
        rig.apply(
            "flows",
            Spec::action(target, "drop: {flows: {percent: 20}}")
                .seed(SEED)
                .egress()
                .port("UDP", None),
        );
        let mut cut = Vec::new();
        for port in 20_000..20_000 + CONNECTIONS as u16 {
            let socket = target.netns().run(|| UdpSocket::bind((target.ipv4(), port)));
            let socket = socket.expect("the port is free");
            let before = rig.books("flows", Direction::Egress).dropped.packets;
            for _ in 0..3 {
                socket.send_to(b"flow", receiver.address()).expect("it is sent");
            }
            match rig.books("flows", Direction::Egress).dropped.packets - before {
                0 => {}
                3 => cut.push(port),
                some => panic!("{some} of 3 packets of port {port} are lost"),
            }
        }
        rig.delete("flows");
        cut
    };
    let first = run();
    let sigmas = binomial_sigmas(first.len() as u64, CONNECTIONS, 0.2);
    assert!(sigmas.abs() < 4.0, "{} cut, {sigmas} sigma off", first.len());
    assert_eq!(run(), first, "the same seed chooses the same connections");
}

#[test]
fn loss_of_handshakes_alone_leaves_established_connections_alone() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    let echo = Echo::start(peer.netns(), peer.ipv4()).expect("it listens");
    for only in ["syn", "handshake"] {
        let sink = Bulk::listen(peer.netns(), peer.ipv4(), PATIENCE).expect("it binds");
        rig.apply(
            "opening",
            Spec::action(target, &format!("drop: {{only: {only}}}")),
        );
        let refused = echo_once(
            target.netns(),
            echo.address(),
            b"anyone?",
            Duration::from_millis(300),
        );
        assert!(refused.is_err(), "{only}: a connection opens");
        let [egress, ingress] = rig.settled("opening");
        assert!(egress.dropped.packets >= 1, "{only}: {egress:?}");
        assert_eq!(ingress.dropped.packets, 0, "{only}: {ingress:?}");
        rig.delete("opening");
        let (sent, received) = sink
            .send_from(target.netns(), 1 << 20, PATIENCE)
            .expect("it opens");
        assert_eq!(sent.sha256, received.sha256);
    }
}

#[test]
fn a_bulk_stream_loses_wire_packets_not_super_packets() {
    const BYTES: u64 = 150_000_000;
    // A burst that meets a lone packet eats its retransmissions too, each twice as long after the one before.
    const STALL: Duration = Duration::from_secs(120);
    let rig = Rig::new(2);
    let target = rig.lab.pod(TARGET);
    let chain = Chain {
        to_bad: 0.25 * 0.01 / 0.99,
        to_good: 0.25,
        loss_good: 0.0,
        loss_bad: 1.0,
    };
    for (action, share) in [
        ("drop: {percent: 1}", 0.01),
        ("drop: {burst: {percent: 1, length: 4}}", 0.01),
    ] {
        let way = Way::Egress;
        let (from, to) = way.ends(&rig);
        rig.apply(
            "bulk",
            way.limit(Spec::action(target, action).seed(SEED).port("TCP", None)),
        );
        let sink = Bulk::listen(to.netns(), to.ipv4(), STALL).expect("it binds");
        let (sent, received) = sink.send_from(from.netns(), BYTES, STALL).expect("it arrives");
        assert_eq!(sent.sha256, received.sha256);
        let books = way.pick(rig.settled("bulk"));
        rig.delete("bulk");
        let packets = books.matched.packets;
        assert!(packets >= 100_000, "{books:?}");
        let stream = stream(target, way);
        let expected = if action.contains("burst") {
            stream.chain(chain, packets)
        } else {
            stream.share(share, packets)
        };
        assert_eq!(
            books.dropped.packets,
            expected.len() as u64,
            "{action}: {books:?}"
        );
        let sigmas = if action.contains("burst") {
            gilbert_sigmas(books.dropped.packets, packets, chain.to_bad, chain.to_good)
        } else {
            binomial_sigmas(books.dropped.packets, packets, share)
        };
        assert!(sigmas.abs() < 4.0, "{action}: {sigmas} sigma off: {books:?}");
    }
}
