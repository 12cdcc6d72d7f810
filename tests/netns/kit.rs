//! The fixtures measure what they say they measure; no daemon is needed, but root is.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use sabot_testkit::traffic::{
    Bulk, Echo, INTERVAL, ProbeServer, Prober, Stream, UdpLoad, UdpReceiver, echo_once, ping,
};
use sabot_testkit::wait::wait_until;
use sabot_testkit::wire::{WireCapture, WireFilter};
use sabot_testkit::witness::{Barrier, Count, Side, Witness};
use sabot_testkit::{Lab, Leaks, Netns};

const PATIENCE: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(300);

fn lab(pods: usize) -> Lab {
    Lab::new(pods).expect("a lab can be made (root is needed)")
}

#[test]
fn a_namespace_is_its_own_and_goes_with_its_guard() {
    let netns = Netns::new("sabot-kit").expect("root is needed");
    let path = netns.path().to_path_buf();
    let inside = netns.run(|| fs::read_link("/proc/thread-self/ns/net").expect("proc is mounted"));
    assert_eq!(inside.to_string_lossy(), format!("net:[{}]", netns.inode()));
    let output = netns
        .command("readlink")
        .arg("/proc/self/ns/net")
        .output()
        .expect("readlink runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        inside.to_string_lossy()
    );
    assert_ne!(
        inside,
        fs::read_link("/proc/thread-self/ns/net").expect("proc is mounted")
    );

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _owned = netns;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(!path.exists(), "{} stayed", path.display());
}

#[test]
fn pods_reach_each_other_and_the_node_over_both_families() {
    let mut lab = lab(2);
    let (a, b) = (lab.pod(0), lab.pod(1));
    for ip in [b.ipv4(), b.ipv6()] {
        let echo = Echo::start(b.netns(), ip).expect("the server starts");
        echo_once(a.netns(), echo.address(), b"hello", PATIENCE).expect("the echo comes back");
        let report = ping(a.netns(), ip, 5, Duration::from_millis(10)).expect("ping runs");
        assert_eq!(report.round_trips.len(), 5);
    }
    let node = ping(a.netns(), sabot_testkit::lab::NODE_IPV4.into(), 1, INTERVAL).expect("ping runs");
    assert!(node.median().is_some());

    let port = lab.remove_pod(1);
    let gone = wait_until(PATIENCE, Duration::from_millis(10), || !lab.node_has(&port));
    assert!(gone, "the removed pod's namespace lives on");
}

#[test]
fn a_prober_sees_an_outage_and_its_end() {
    let lab = lab(2);
    let (client, server) = (lab.pod(0), lab.pod(1));
    let answers = ProbeServer::start(server.netns(), server.ipv4()).expect("the server starts");
    let prober = Prober::start(client.netns(), &answers, INTERVAL).expect("the prober starts");
    let started = Instant::now();
    prober.wait_pass(started, PATIENCE).expect("probes pass at first");

    let barrier = Barrier::on(client.netns(), "eth0", Side::Ingress, "").expect("nft cuts");
    let cut = Instant::now();
    thread::sleep(Duration::from_millis(300));
    let healed = Instant::now();
    let during = prober.between(cut, healed);
    drop(barrier);
    let removed = Instant::now();
    prober.wait_pass(removed, PATIENCE).expect("probes pass again");

    assert!(during.len() > 10, "only {} probes in 300 ms", during.len());
    assert!(during.iter().all(|sample| sample.answered.is_none()));
    assert!(
        during.iter().rev().skip(2).all(|sample| sample.arrived.is_some()),
        "requests weren't cut"
    );
    assert_eq!(prober.first_pass_after(cut), prober.first_pass_after(healed));
    let outages = prober.outages(started, removed + Duration::from_millis(50), 10);
    assert_eq!(outages.len(), 1, "{outages:?}");
    assert!(outages[0].duration() >= Duration::from_millis(250), "{outages:?}");
}

#[test]
fn an_established_stream_stalls_and_resumes() {
    let lab = lab(2);
    let (client, server) = (lab.pod(0), lab.pod(1));
    let stream = Stream::open(client.netns(), server.netns(), server.ipv4(), INTERVAL).expect("it connects");
    stream.wait_back(Instant::now(), PATIENCE).expect("it flows");
    let barrier = Barrier::on(server.netns(), "eth0", Side::Ingress, "ip protocol tcp").expect("nft cuts");
    let cut = Instant::now();
    let last = stream
        .wait_stalled(Duration::from_millis(300), PATIENCE)
        .expect("it stalls");
    assert!(
        last < cut + Duration::from_millis(100),
        "it went on after the cut"
    );
    assert_eq!(
        stream.backs_between(cut + Duration::from_millis(100), Instant::now()),
        0
    );
    drop(barrier);
    stream.wait_back(Instant::now(), PATIENCE).expect("it resumes");
    assert_eq!(stream.broken(), None);
}

#[test]
fn the_udp_receiver_tells_intact_altered_and_missing_apart() {
    let lab = lab(2);
    let (from, to) = (lab.pod(0), lab.pod(1));
    let receiver = UdpReceiver::start(to.netns(), to.ipv6()).expect("the receiver starts");
    let load = UdpLoad {
        datagrams: 2000,
        payload: 200,
        per_second: 20_000,
    };
    load.send_altered(from.netns(), receiver.address(), |number, datagram| {
        if number % 10 == 3 {
            datagram[(number % 200) as usize] ^= 1;
        }
    })
    .expect("it is sent");
    let report = receiver.finish(load.datagrams, QUIET);
    let altered: BTreeSet<u64> = (0..2000).filter(|number| number % 10 == 3).collect();
    assert_eq!(report.altered, altered);
    assert_eq!(report.missing(load.datagrams), Vec::<u64>::new());
    assert_eq!((report.duplicates, report.bytes), (0, 2000 * 200));

    let _barrier = Barrier::on(to.netns(), "eth0", Side::Ingress, "meta l4proto udp").expect("nft cuts");
    load.send(from.netns(), receiver.address()).expect("it is sent");
    let report = receiver.finish(load.datagrams, QUIET);
    assert_eq!(report.missing(load.datagrams).len(), 2000);
}

#[test]
fn witnesses_count_datagrams_exactly_on_both_sides() {
    let lab = lab(2);
    let (from, to) = (lab.pod(0), lab.pod(1));
    let receiver = UdpReceiver::start(to.netns(), to.ipv4()).expect("the receiver starts");
    let matching = format!("udp dport {}", receiver.address().port());
    let leaving = Witness::on(from.netns(), "eth0", Side::Egress, &matching).expect("nft counts");
    let arriving = Witness::on(to.netns(), "eth0", Side::Ingress, &matching).expect("nft counts");
    let filter = WireFilter {
        protocol: Some(17),
        port: Some(receiver.address().port()),
        ..WireFilter::default()
    };
    let capture = WireCapture::on(to.netns(), "eth0", Side::Ingress, filter).expect("it captures");
    let load = UdpLoad {
        datagrams: 500,
        payload: 100,
        per_second: 10_000,
    };
    load.send(from.netns(), receiver.address()).expect("it is sent");
    assert_eq!(receiver.finish(500, QUIET).arrived(), 500);
    let expected = Count {
        packets: 500,
        bytes: 500 * (14 + 20 + 8 + 100),
    };
    assert_eq!(leaving.count().expect("nft lists"), expected);
    assert_eq!(arriving.count().expect("nft lists"), expected);
    assert_eq!(capture.count_after(QUIET).expect("nothing was lost"), expected);
}

#[test]
fn a_capture_of_super_packets_equals_the_kernels_own_segmentation() {
    let lab = lab(2);
    let (from, to) = (lab.pod(0), lab.pod(1));
    lab.segment_towards(to).expect("ip sets it");
    let sink = Bulk::listen(to.netns(), to.ipv4(), PATIENCE).expect("the sink listens");
    let port = sink.address().port();
    let filter = WireFilter {
        protocol: Some(6),
        destination: Some(to.ipv4()),
        port: Some(port),
        ..WireFilter::default()
    };
    // Super-packets where they enter the node, wire packets where they arrive.
    let whole = WireCapture::on(lab.node(), from.port(), Side::Ingress, filter).expect("it captures");
    let supers = Witness::on(
        lab.node(),
        from.port(),
        Side::Ingress,
        &format!("tcp dport {port}"),
    )
    .expect("nft counts");
    let wire =
        Witness::on(to.netns(), "eth0", Side::Ingress, &format!("tcp dport {port}")).expect("nft counts");
    let (sent, received) = sink
        .send_from(from.netns(), 20 << 20, PATIENCE)
        .expect("it is sent");
    assert_eq!((received.bytes, received.sha256), (sent.bytes, sent.sha256));
    assert_eq!(received.altered, Vec::<u64>::new());

    let captured = whole.count_after(QUIET).expect("nothing was lost");
    assert_eq!(captured, wire.count().expect("nft lists"));
    let supers = supers.count().expect("nft lists");
    assert!(
        supers.packets * 2 < captured.packets,
        "no super-packets: {supers:?} {captured:?}"
    );
}

#[test]
fn leaks_are_what_came_and_stayed() {
    let netns = Netns::new("sabot-kit").expect("root is needed");
    let leaks = Leaks::baseline(&[&netns]).expect("bpftool runs");
    assert_eq!(leaks.left().expect("they run"), Vec::<String>::new());
    netns
        .ip(&["link", "add", "sabot-x", "type", "veth", "peer", "name", "other"])
        .expect("ip adds it");
    let left = leaks.left().expect("they run");
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].starts_with("device sabot-x in /run/netns/"), "{left:?}");
    let add = ["qdisc", "add", "dev", "sabot-x", "clsact"];
    let status = netns.command("tc").args(add).status().expect("tc runs");
    assert!(status.success());
    let left = leaks.left().expect("they run");
    assert!(
        left.iter()
            .any(|what| what.starts_with("qdisc clsact of sabot-x in /run/netns/")),
        "{left:?}"
    );
    netns.ip(&["link", "del", "sabot-x"]).expect("ip deletes it");
    assert_eq!(
        leaks.wait_clean(PATIENCE).expect("they run"),
        Vec::<String>::new()
    );
}
