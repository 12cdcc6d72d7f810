//! What each action does to a pod's packets, and when programs are attached.

use std::fs;
use std::time::Duration;

use sabot_proto::sabot::v1::Direction;
use sabot_testkit::cri::{Pod, PodSpec};
use sabot_testkit::traffic::{UdpLoad, UdpReceiver, ping};
use sabot_testkit::wait::{best_of, wait_until};

use crate::node::{LOOK, Node, PATIENCE, netns, packets};

const LOAD: UdpLoad = UdpLoad {
    datagrams: 2000,
    payload: 300,
    per_second: 5000,
};
/// Without a datagram for this long, none comes any more.
const QUIET: Duration = Duration::from_millis(500);

fn pods(node: &Node) -> (Pod, Pod) {
    let web = node.pod(&PodSpec::idle("team-a", "web").label("app", "web"));
    let cli = node.pod(&PodSpec::idle("team-b", "cli").label("app", "cli"));
    (web, cli)
}

#[test]
fn a_delay_holds_both_directions_back_as_long_as_asked() {
    const PINGS: u32 = 20;
    let node = Node::start();
    let (web, cli) = pods(&node);
    let median = || {
        let report = ping(&netns(&cli), web.ip(), PINGS, Duration::from_millis(10)).expect("ping runs");
        assert_eq!(report.round_trips.len() as u32, PINGS);
        report.median().expect("all were answered")
    };
    let baseline = median();
    for (direction, asked) in [("egress", 50), ("both", 100)] {
        let asked = Duration::from_millis(asked);
        // More than a busy machine adds at its best, and far less than what is asked for.
        let off = best_of(
            3,
            Duration::from_millis(5),
            "off the delay that was asked for",
            || {
                node.sabot(&format!(
                "delay 50ms --name late --target pods:team-a/app=web --peer pod:team-b/cli --direction {direction} --for 60s"
            ));
                let median = median();
                let ledger = node.ledger("late", Direction::Egress);
                assert_eq!(packets(ledger.released), u64::from(PINGS), "{ledger:#?}");
                assert_eq!(ledger.released, ledger.delayed);
                node.sabot("delete late");
                assert!(median >= asked, "{median:?} is less than {asked:?}");
                median.saturating_sub(baseline + asked)
            },
        );
        eprintln!("delay {direction}: {off:?} more than asked for");
    }
    assert!(
        median() < Duration::from_millis(50),
        "nothing is held back after it"
    );
}

#[test]
fn a_drop_takes_exactly_what_it_counts() {
    let node = Node::start();
    let (web, cli) = pods(&node);
    for ip in [web.ip(), web.ipv6()] {
        node.sabot("drop 30% --name some --target pods:team-a/app=web --peer pods:team-b/app=cli --for 60s");
        let receiver = UdpReceiver::start(&netns(&web), ip).expect("the receiver starts");
        LOAD.send(&netns(&cli), receiver.address())
            .expect("the load is sent");
        let report = receiver.finish(LOAD.datagrams, QUIET);
        let missing = report.missing(LOAD.datagrams).len() as u64;
        node.sabot("delete some");
        let ledger = node.ledger("some", Direction::Ingress);
        assert_eq!(packets(ledger.matched), LOAD.datagrams, "{ip}: {ledger:#?}");
        assert_eq!(packets(ledger.dropped), missing, "{ip}: {ledger:#?}");
        assert!(report.altered.is_empty() && report.duplicates == 0);
        // Four standard deviations of a binomial distribution.
        let (n, p) = (LOAD.datagrams as f64, 0.3);
        let off = (missing as f64 - n * p).abs();
        assert!(
            off <= 4.0 * (n * p * (1.0 - p)).sqrt(),
            "{ip}: {missing} of {n} dropped"
        );
    }
}

#[test]
fn a_corruption_changes_exactly_what_it_counts() {
    let node = Node::start();
    let (web, cli) = pods(&node);
    for ip in [web.ip(), web.ipv6()] {
        node.sabot(
            "corrupt 20% --name some --target pods:team-a/app=web --peer pods:team-b/app=cli --for 60s",
        );
        let receiver = UdpReceiver::start(&netns(&web), ip).expect("the receiver starts");
        LOAD.send(&netns(&cli), receiver.address())
            .expect("the load is sent");
        let report = receiver.finish(LOAD.datagrams, QUIET);
        node.sabot("delete some");
        let ledger = node.ledger("some", Direction::Ingress);
        assert_eq!(report.arrived(), LOAD.datagrams, "{ip}: none is lost");
        assert!(!report.altered.is_empty(), "{ip}");
        assert_eq!(
            packets(ledger.corrupted),
            report.altered.len() as u64,
            "{ip}: {ledger:#?}"
        );
        assert_eq!(packets(ledger.passed), LOAD.datagrams, "{ip}: {ledger:#?}");
    }
}

/// The tcx links that a process holds.
fn tcx_links(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the daemon runs");
    let files = files
        .flatten()
        .filter_map(|file| fs::read_to_string(file.path()).ok());
    files.filter(|text| text.contains("link_type:\ttcx\n")).count()
}

#[test]
fn programs_are_attached_before_any_fault_where_all_pods_are_to_be_warm() {
    let lazy = Node::start();
    pods(&lazy);
    assert_eq!(
        tcx_links(lazy.daemon.pid()),
        0,
        "nothing is attached without a fault"
    );
    drop(lazy);

    let node = Node::with(&["--attach", "all"]);
    let (web, cli) = pods(&node);
    node.pod(&PodSpec::idle("kube-system", "proxy").host_network());
    let has = |pods: usize| wait_until(PATIENCE, LOOK, || tcx_links(node.daemon.pid()) == 2 * pods);
    assert!(has(2), "{} links for two pods", tcx_links(node.daemon.pid()));
    let status = |what: &str| {
        node.sabot(&format!(
            "partition --name cut --target pods:team-a/app=web {what} --for 60s"
        ));
        node.status("cut")
    };
    assert_eq!(status("--peer pod:team-b/cli").targets.len(), 1);
    let report = ping(&netns(&cli), web.ip(), 1, Duration::from_millis(10)).expect("ping runs");
    assert_eq!(report.median(), None, "it is cut off");
    assert_eq!(
        tcx_links(node.daemon.pid()),
        4,
        "the fault needed no new attachment"
    );
    node.containerd.stop_pod(&cli).expect("the pod ends");
    assert!(has(1), "{} links for one pod", tcx_links(node.daemon.pid()));
}
