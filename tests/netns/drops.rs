//! What the real daemon says of drops and DNS queries; how they are told apart is for its own tests.

use std::time::Duration;

use sabot_proto::sabot::v1::{Direction, GetSnapshotRequest};
use sabot_testkit::books::Books;
use sabot_testkit::rig::PATIENCE;
use sabot_testkit::traffic::{Dnsmasq, KNOWN_NAME, UdpLoad};
use sabot_testkit::wait::wait_until;
use sabot_testkit::way::{PEER, TARGET, Way, send};
use sabot_testkit::witness::Count;
use sabot_testkit::{LabPod, Rig, Spec};

const LOAD: UdpLoad = UdpLoad {
    datagrams: 5_000,
    payload: 64,
    per_second: 20_000,
};
const QUERIES: usize = 20;
const LOOK: Duration = Duration::from_millis(50);
const DIRECTIONS: [&str; 2] = ["egress", "ingress"];

/// A lab whose first pod is the target of a fault that does nothing to UDP.
struct Scene {
    rig: Rig,
    /// The label by which metrics name the target.
    pod: String,
}

impl Scene {
    fn new(flags: &[&str]) -> Self {
        let rig = Rig::with_flags(2, flags);
        let pod = format!("netns:{}", rig.lab.pod(TARGET).netns().path().display());
        let scene = Self { rig, pod };
        // A fault names the target, by which the daemon knows whose its network namespace is.
        let still = Spec::action(scene.target(), "drop: {percent: 1}");
        scene.rig.apply("still", still.port("TCP", None));
        let is_known = wait_until(PATIENCE, LOOK, || {
            scene.value("sabot_dns_queries_total", &[]) == Some(0.0)
        });
        assert!(is_known, "{} has no series", scene.pod);
        scene
    }

    fn target(&self) -> &LabPod {
        self.rig.lab.pod(TARGET)
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = [&[("namespace", ""), ("pod", self.pod.as_str())], labels].concat();
        let scrape = self.rig.daemon.scrape().expect("the daemon is scraped");
        scrape.value(name, &labels)
    }

    /// What faults dropped for a reason, on egress and on ingress, as the metrics say it.
    fn injected(&self, reason: &str) -> [Option<f64>; 2] {
        DIRECTIONS.map(|direction| {
            let labels = [("direction", direction), ("reason", reason), ("injected", "true")];
            self.value("sabot_packet_drops_total", &labels)
        })
    }

    /// The same in packets and in bytes, as the API says it.
    fn summed(&self, reason: &str) -> [Count; 2] {
        let client = &self.rig.client;
        let answer = client.wait(client.observe().get_snapshot(GetSnapshotRequest {}));
        let snapshot = answer.expect("there is a snapshot").into_inner();
        let pod = self.pod.as_str();
        [Direction::Egress, Direction::Ingress].map(|direction| {
            let mut drops = snapshot.drops.iter().filter(|drops| {
                let is_own = drops.pod.as_ref().is_some_and(|owner| owner.name == pod);
                is_own && drops.injected && drops.reason == reason && drops.direction() == direction
            });
            let sum = drops.next().map_or_else(Count::default, |drops| Count {
                packets: drops.packets,
                bytes: drops.bytes,
            });
            assert_eq!(drops.next(), None, "each kind is there once");
            sum
        })
    }

    /// Applies a fault to UDP, sends the load both ways, and returns the fault's counters.
    fn flood(&self, name: &str, action: &str, load: UdpLoad) -> [Books; 2] {
        self.rig
            .apply(name, Spec::action(self.target(), action).port("UDP", None));
        for way in Way::BOTH {
            let (from, to) = way.ends(&self.rig);
            send(load, from, to, to.ipv4());
        }
        self.rig.settled(name)
    }

    /// That metrics and API have what the books have, and that there is something of it.
    fn assert_told(&self, reason: &str, books: [Count; 2]) {
        let packets = books.map(|count| Some(count.packets as f64));
        assert_eq!(self.injected(reason), packets, "{reason}");
        assert_eq!(self.summed(reason), books, "{reason}");
        assert!(books.iter().all(|count| count.packets > 0), "{reason}");
    }
}

#[test]
fn metrics_tell_a_faults_drops_and_its_targets_queries() {
    let scene = Scene::new(&[]);
    let (target, peer) = (scene.target(), scene.rig.lab.pod(PEER));
    let server = Dnsmasq::start(peer.netns(), peer.ipv4()).expect("dnsmasq runs");
    server
        .ask(target.netns(), &[], KNOWN_NAME, QUERIES)
        .expect("dig runs");
    let noerror = scene.value("sabot_dns_responses_total", &[("rcode", "NOERROR")]);
    assert_eq!(noerror, Some(QUERIES as f64));
    assert_eq!(scene.value("sabot_dns_queries_total", &[]), noerror);

    let books = scene.flood("drops", "drop: {percent: 30}", LOAD);
    scene.assert_told("FAULT", books.map(|books| books.dropped));
}

/// The kernel drops the one, the delay line the other.
#[test]
fn a_shapers_tail_drops_are_its_targets_and_outlast_the_fault() {
    let scene = Scene::new(&["--keep-warm", "1s"]);
    let limit = "rateLimit: {rate: 1mbit, burst: 3028, queueTime: 20ms}";
    let limited = scene.flood("limited", limit, LOAD).map(|books| books.dropped);
    scene.assert_told("FAULT", limited);
    scene.rig.delete("limited");
    scene.assert_told("FAULT", limited);

    let books = scene.flood("drops", "drop: {percent: 30}", LOAD);
    let [egress, ingress] = books.map(|books| books.dropped);
    scene.assert_told("FAULT", [limited[0] + egress, limited[1] + ingress]);

    // They go with their owner, whom nobody names any more.
    for name in ["drops", "still"] {
        scene.rig.delete(name);
    }
    let is_gone = wait_until(PATIENCE, LOOK, || scene.injected("FAULT") == [None, None]);
    assert!(is_gone, "{} still has series", scene.pod);
}

#[test]
fn what_a_line_has_no_room_for_has_a_reason_of_its_own() {
    let scene = Scene::new(&["--delay-line-bytes", "256KiB"]);
    let load = UdpLoad {
        datagrams: 1000,
        payload: 1000,
        per_second: 5000,
    };
    // Only the daemon holds packets with a jitter.
    let delay = "delay: {latency: 300ms, jitter: 20ms}";
    let books = scene.flood("slow", delay, load);
    scene.assert_told("FAULT_LOST_BOUND", books.map(|books| books.lost_bound));
    assert_eq!(scene.injected("FAULT"), [None, None]);
}
