//! Two pods that don't reach each other for a while.

use std::thread;
use std::time::{Duration, Instant};

use sabot_proto::sabot::v1::{Direction, Phase};
use sabot_testkit::cri::{Pod, PodSpec};
use sabot_testkit::wait::best_of;

use crate::node::{GATEWAY, Node, PATIENCE, Probes, is_injected, packets};

/// After a fault's end its traffic must flow within this.
const BACK: Duration = Duration::from_millis(100);
const TRIES: usize = 3;
/// Requests of before the fault may still be answered this long after it.
const IN_FLIGHT: Duration = Duration::from_millis(50);
/// How long a partition is looked at.
const HELD: Duration = Duration::from_millis(400);

fn pods(node: &Node) -> [Pod; 3] {
    [("team-a", "web"), ("team-b", "cli"), ("team-b", "third")]
        .map(|(namespace, name)| node.pod(&PodSpec::web(namespace, name).label("app", name)))
}

#[test]
fn two_pods_are_cut_off_from_each_other_and_from_nobody_else() {
    let node = Node::start();
    let [web, cli, third] = pods(&node);
    let pairs = [(&web, &cli), (&cli, &web)];
    let others = [(&web, &third), (&third, &web), (&cli, &third), (&third, &cli)];
    node.assert_reaches(&[pairs.as_slice(), &others].concat());
    let said =
        node.sabot("partition --name cut --target pods:team-a/app=web --peer pods:team-b/app=cli --for 20s");
    assert!(said.contains("Injected on 1/1 targets"), "{said}");
    let begin = Instant::now();
    node.assert_cut(&pairs);
    node.assert_reaches(&others);
    for (pod, name) in [(&web, "web"), (&cli, "cli")] {
        let pinged = node
            .containerd
            .exec(pod, &["ping", "-c", "1", "-W", "1", GATEWAY], PATIENCE)
            .expect("the runtime runs it");
        assert!(pinged.success(), "{name} doesn't reach the node: {pinged:?}");
    }
    let status = node.status("cut");
    assert!(is_injected(&status), "{status:#?}");
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "the machine is too slow for a fault of 20 s"
    );
    let [target] = status.targets.as_slice() else {
        panic!("one target, and not {:#?}", status.targets)
    };
    let target = target.target.as_ref().expect("it has a name");
    assert_eq!(
        (
            target.pod_namespace.as_str(),
            target.pod_name.as_str(),
            target.device.as_str()
        ),
        ("team-a", "web", "eth0")
    );

    node.sabot("delete cut");
    node.assert_reaches(&pairs);
    for direction in [Direction::Egress, Direction::Ingress] {
        let ledger = node.ledger("cut", direction);
        assert!(packets(ledger.dropped) > 0, "{direction:?}: {ledger:#?}");
        assert_eq!(ledger.matched, ledger.dropped, "{direction:?}");
    }
}

#[test]
fn traffic_is_back_at_once_after_delete_and_after_the_deadline() {
    let node = Node::start();
    let [web, cli, third] = pods(&node);
    let families = [web.ip(), web.ipv6()].map(|ip| Probes::start(&cli, &web, ip));
    let bystander = Probes::start(&third, &web, web.ip());
    let began = Instant::now();
    let cut = |lifetime: &str| {
        node.sabot(&format!(
            "partition --name cut --target pods:team-a/app=web --peer pods:team-b/app=cli --for {lifetime}"
        ));
        thread::sleep(IN_FLIGHT);
        let from = Instant::now();
        thread::sleep(HELD);
        let until = Instant::now();
        families.iter().for_each(|probes| probes.assert_cut(from, until));
        until
    };
    let back = |after: Instant| {
        let passed = families
            .iter()
            .map(|probes| probes.prober.wait_pass(after, PATIENCE));
        passed
            .map(|passed| passed.expect("probes pass after the fault"))
            .max()
            .expect("two families")
    };

    let took = best_of(TRIES, BACK, "from delete to traffic", || {
        cut("60s");
        node.sabot("delete cut");
        back(Instant::now())
    });
    eprintln!("probes passed {took:?} after `sabot delete`");

    let took = best_of(TRIES, BACK, "from the deadline to traffic", || {
        let until = cut("2s");
        let deadline = node.deadline("cut");
        let passed = until + back(until);
        let early = deadline.saturating_duration_since(passed);
        assert!(
            early < Duration::from_millis(20),
            "it ended {early:?} before its deadline"
        );
        passed.saturating_duration_since(deadline)
    });
    eprintln!("probes passed {took:?} after the deadline");
    node.wait_status("cut", "its expiry", |status| status.phase() == Phase::Expired);

    // What was sent last may still be answered.
    let outages = bystander.prober.outages(began, Instant::now() - IN_FLIGHT, 4);
    assert_eq!(outages, [], "the third pod was hit");
}
