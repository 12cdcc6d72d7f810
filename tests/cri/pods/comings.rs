//! Pods of a real runtime that come and go again and again leave nothing in the daemon.

use std::env;
use std::time::Duration;

use sabot_testkit::cri::{Pod, PodSpec};
use sabot_testkit::traffic::Counterpart;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Leaks, Remains};

use crate::node::{Node, PATIENCE, netns};

/// How many pods come and go, where it is set.
const VARIABLE: &str = "SABOT_TEST_COMINGS";
const COMINGS: usize = 20;
/// In which everything is used for the first time.
const WARM_UP: usize = 4;
const LOOK: Duration = Duration::from_millis(50);
const REST: Duration = Duration::from_secs(60);

const NAMESPACE: &str = "team-a";

fn comings() -> usize {
    let given = env::var(VARIABLE).ok();
    given.map_or(COMINGS, |text| {
        let number = text.parse();
        number.unwrap_or_else(|_| panic!("{VARIABLE}: `{text}` is not allowed: a number of pods is needed"))
    })
}

/// The sum of a family's series of one pod; `None` where it has none.
fn sum(node: &Node, pod: &str, family: &str, more: &[(&str, &str)]) -> Option<f64> {
    let scrape = node.daemon.scrape().expect("metrics are served");
    let labels = [&[("namespace", NAMESPACE), ("pod", pod)], more].concat();
    let found = scrape.samples(family, &labels).count() > 0;
    found.then(|| scrape.sum(family, &labels))
}

/// Lines of `/metrics` that name what came and went.
fn series(node: &Node) -> Vec<String> {
    let (_, text) = node.daemon.http("/metrics").expect("metrics are served");
    let lines = text.lines();
    lines
        .filter(|line| line.contains("pod=\"guest-") || line.contains("fault=\""))
        .map(str::to_owned)
        .collect()
}

/// A pod does something that each observer counts, and all of it is counted.
fn meet(node: &Node, counterpart: &Counterpart, pod: &Pod) {
    let name = &pod.spec.name;
    let is_observed = || {
        let families = ["sabot_tcp_rtos_total", "sabot_dns_queries_total"];
        families
            .iter()
            .all(|family| sum(node, name, family, &[]).is_some())
    };
    assert!(wait_until(PATIENCE, LOOK, is_observed), "{name} isn't observed");
    let connection = counterpart.meet(&netns(pod), PATIENCE);
    let connection = connection.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let is_counted = || {
        counterpart.bother(pod.ip()).expect("it is sent");
        let opened = [("outcome", "opened")];
        sum(node, name, "sabot_tcp_connections_total", &opened) == Some(2.0)
            && sum(node, name, "sabot_dns_queries_total", &[]) == Some(2.0)
            && sum(node, name, "sabot_packet_drops_total", &[]).is_some()
    };
    assert!(
        wait_until(PATIENCE, LOOK, is_counted),
        "not all that {name} did is counted"
    );
    // A socket of ours would keep the namespace of the pod.
    drop(connection);
}

/// Every fourth pod has packets dropped until it goes, every fourth one's are late until after that.
fn come_and_go(node: &Node, counterpart: &Counterpart, number: usize) {
    let pod = node.pod(&PodSpec::idle(NAMESPACE, &format!("guest-{number}")));
    let on = |action: &str| {
        let name = &pod.spec.name;
        node.sabot(&format!(
            "{action} --name {name} --target pod:{NAMESPACE}/{name} --for 60s"
        ));
    };
    let fault = number % 4;
    match fault {
        1 => on(&format!("drop 100% --port UDP:{}", Counterpart::CLOSED_PORT)),
        3 => on("delay 1ms"),
        _ => {}
    }
    meet(node, counterpart, &pod);
    let end = || drop(node.sabot(&format!("delete {}", pod.spec.name)));
    if fault == 1 {
        end();
    }
    node.containerd.stop_pod(&pod).expect("the pod ends");
    let is_gone = || sum(node, &pod.spec.name, "sabot_tcp_rtos_total", &[]).is_none();
    assert!(wait_until(PATIENCE, LOOK, is_gone), "{pod:?} is still observed");
    if fault == 3 {
        end();
    }
}

#[test]
fn real_pods_that_come_and_go_leave_no_series_no_descriptor_and_no_map_entry() {
    let node = Node::with(&["--keep-warm", "1s", "--keep-ended", "1s"]);
    let leaks = Leaks::baseline(&[&node.netns()]).expect("the machine can be looked at");
    let host = node.pod(&PodSpec::idle(NAMESPACE, "host"));
    let counterpart = Counterpart::start(&netns(&host), host.ip()).expect("it can be bound");
    for number in 0..WARM_UP {
        come_and_go(&node, &counterpart, number);
    }
    let pid = node.daemon.pid();
    let before = Remains::at_rest(pid, REST).expect("the daemon runs");
    let before = before.expect("it comes to rest");

    let comings = comings();
    for number in WARM_UP..WARM_UP + comings {
        come_and_go(&node, &counterpart, number);
    }
    let beyond = || Remains::of(pid).expect("the daemon runs").beyond(&before);
    let rests = wait_until(REST, LOOK, || beyond().is_empty() && series(&node).is_empty());
    assert!(
        rests,
        "after {comings} pods: {:#?}\n{:#?}",
        beyond(),
        series(&node)
    );
    let left = leaks.wait_clean(PATIENCE).expect("the machine can be looked at");
    assert_eq!(left, Vec::<String>::new());
}
