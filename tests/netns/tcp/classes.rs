//! Whose addresses are whose: classes of peers that the operator gives, beside what the daemon knows.

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::Duration;

use sabot_testkit::lab::NODE_IPV4;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{NetnsRef, Rig, Spec};

use crate::daemon::{label, wait_known};
use crate::scene::{Sink, connect, send};

/// The lab's pods are namespaces, whose addresses the daemon doesn't know as pods'; the node's address, which is in the
/// first prefix too, it does know.
const CLASSES: [&str; 4] = [
    "--peer-class",
    "pod=10.77.0.0/22,node=fd77::/64,service=10.96.0.0/12",
    "--peer-class",
    "service=fd96::/112,public=10.96.7.0/24",
];
/// Addresses that the server has besides, and prefixes of them that lead to it.
const MORE: [&str; 4] = ["10.96.0.10", "10.96.7.10", "10.200.0.10", "fd96::10"];
const ROUTES: [&str; 3] = ["10.96.0.0/12", "10.200.0.0/16", "fd96::/112"];

fn give_addresses(rig: &Rig) {
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    let ip = |netns: &sabot_testkit::Netns, words: &[&str]| netns.ip(words).expect("it can be set");
    for address in MORE {
        ip(
            server.netns(),
            &["address", "add", address, "dev", "eth0", "nodad"],
        );
    }
    for route in ROUTES {
        let way = if route.contains(':') {
            server.ipv6()
        } else {
            server.ipv4()
        };
        ip(client.netns(), &["route", "add", route, "via", &way.to_string()]);
    }
}

/// The client's connections that had this outcome, by class.
fn counted(rig: &Rig, outcome: &str) -> BTreeMap<String, u64> {
    let scrape = rig.daemon.scrape().expect("metrics are served");
    let pod = label(rig.lab.pod(0));
    let labels = [("pod", &*pod), ("outcome", outcome)];
    let samples = scrape.samples("sabot_tcp_connections_total", &labels);
    samples
        .map(|sample| (sample.labels["peer"].clone(), sample.value as u64))
        .collect()
}

fn assert_counted(rig: &Rig, outcome: &str, expected: &[(&str, u64)]) {
    let expected = expected.iter().map(|&(class, count)| (class.to_owned(), count));
    let expected: BTreeMap<_, _> = expected.collect();
    wait_until(PATIENCE, Duration::from_millis(20), || {
        counted(rig, outcome) == expected
    });
    assert_eq!(counted(rig, outcome), expected, "{outcome}");
}

#[test]
fn connections_are_counted_by_the_classes_that_are_given() {
    let rig = Rig::with_flags(2, &CLASSES);
    give_addresses(&rig);
    let (client, server) = (rig.lab.pod(0), rig.lab.pod(1));
    rig.apply("known", Spec::drop(client, 0.0).port("UDP", None));
    wait_known(&rig, &label(client), true);

    let open = |netns: &NetnsRef, ip: IpAddr, times: usize| {
        let sink = Sink::start(netns, ip, times);
        for _ in 0..times {
            send(&mut connect(client.netns(), sink.address), 100);
        }
        assert_eq!(sink.finish(), 100 * times as u64);
    };
    let more = MORE.map(|text| text.parse::<IpAddr>().expect("an address"));
    open(server.netns(), server.ipv4(), 3);
    open(server.netns(), server.ipv6(), 2);
    open(rig.lab.node(), NODE_IPV4.into(), 5);
    for (address, times) in more.into_iter().zip([4, 1, 2, 7]) {
        open(server.netns(), address, times);
    }
    let listener = server.netns().run(|| TcpListener::bind((more[0], 0)));
    let closed = listener.and_then(|listener| listener.local_addr());
    let closed = closed.expect("an address");
    for _ in 0..6 {
        let refused = client.netns().run(|| TcpStream::connect(closed));
        refused.expect_err("nobody listens");
    }

    let established = [
        ("pod", 3),
        ("node", 2 + 5),
        ("service", 4 + 7),
        ("public", 1),
        ("private", 2),
    ];
    // What failed was asked for too.
    let opened = established.map(|(class, count)| (class, count + if class == "service" { 6 } else { 0 }));
    assert_counted(&rig, "opened", &opened);
    assert_counted(&rig, "closed", &established);
    assert_counted(&rig, "failed", &[("service", 6)]);
}
