//! What the real daemon says of drops and DNS queries; how they are told apart is for its own tests.

use std::time::Duration;

use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{Dnsmasq, KNOWN_NAME, UdpLoad};
use sabot_testkit::wait::wait_until;
use sabot_testkit::way::{PEER, TARGET, Way, send};
use sabot_testkit::{Rig, Spec};

const LOAD: UdpLoad = UdpLoad {
    datagrams: 5_000,
    payload: 64,
    per_second: 20_000,
};
const QUERIES: usize = 20;
const LOOK: Duration = Duration::from_millis(50);

#[test]
fn metrics_tell_a_faults_drops_and_its_targets_queries() {
    let rig = Rig::new(2);
    let (target, peer) = (rig.lab.pod(TARGET), rig.lab.pod(PEER));
    // A fault names the target, by which the daemon knows whose its network namespace is.
    rig.apply(
        "still",
        Spec::action(target, "drop: {percent: 1}").port("TCP", None),
    );
    let pod = format!("netns:{}", target.netns().path().display());
    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels = [&[("namespace", ""), ("pod", pod.as_str())], labels].concat();
        let scrape = rig.daemon.scrape().expect("the daemon is scraped");
        scrape.value(name, &labels)
    };
    let is_known = wait_until(PATIENCE, LOOK, || {
        value("sabot_dns_queries_total", &[]) == Some(0.0)
    });
    assert!(is_known, "{pod} has no series");

    let server = Dnsmasq::start(peer.netns(), peer.ipv4()).expect("dnsmasq runs");
    server
        .ask(target.netns(), &[], KNOWN_NAME, QUERIES)
        .expect("dig runs");
    let noerror = value("sabot_dns_responses_total", &[("rcode", "NOERROR")]);
    assert_eq!(noerror, Some(QUERIES as f64));
    assert_eq!(value("sabot_dns_queries_total", &[]), noerror);

    rig.apply(
        "drops",
        Spec::action(target, "drop: {percent: 30}").port("UDP", None),
    );
    for way in Way::BOTH {
        let (from, to) = way.ends(&rig);
        send(LOAD, from, to, to.ipv4());
    }
    for (books, direction) in rig.settled("drops").iter().zip(["egress", "ingress"]) {
        let labels = [
            ("direction", direction),
            ("reason", "FAULT"),
            ("injected", "true"),
        ];
        let seen = value("sabot_packet_drops_total", &labels);
        assert_eq!(seen, Some(books.dropped.packets as f64), "{direction}");
        assert!(books.dropped.packets > 0);
    }
}
