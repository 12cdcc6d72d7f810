//! TCP connections of a real runtime's pods.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use sabot_testkit::NetnsRef;
use sabot_testkit::cri::{Pod, PodSpec};
use sabot_testkit::metrics::Scrape;
use sabot_testkit::wait::wait_until;

use crate::node::{LOOK, Node, PATIENCE};

const REFUSED: usize = 9;
const ACCEPTED: usize = 5;
const OUTCOMES: &str = "sabot_tcp_connections_total";

fn scrape(node: &Node) -> Scrape {
    node.daemon.scrape().expect("metrics are served")
}

fn count(scrape: &Scrape, pod: &Pod, outcome: &str) -> f64 {
    let labels = [
        ("namespace", pod.spec.namespace.as_str()),
        ("pod", pod.spec.name.as_str()),
        ("peer", "pod"),
        ("outcome", outcome),
    ];
    scrape.value(OUTCOMES, &labels).unwrap_or_default()
}

fn series(scrape: &Scrape, name: &str) -> usize {
    let names = ["sabot_tcp_rtos_total", "sabot_tcp_bytes_total", OUTCOMES];
    names
        .iter()
        .map(|family| scrape.samples(family, &[("pod", name)]).count())
        .sum()
}

/// Both pods, known to the observer as owners and as peers.
fn wait_known(node: &Node, pods: &[&Pod], netns: &NetnsRef, closed: SocketAddr) {
    let known = || {
        let all = scrape(node);
        pods.iter().all(|pod| series(&all, &pod.spec.name) > 0) && {
            netns
                .run(|| TcpStream::connect(closed))
                .expect_err("nobody listens");
            count(&scrape(node), pods[0], "failed") > 0.0
        }
    };
    assert!(wait_until(PATIENCE, LOOK, known), "the pods are not known");
}

#[test]
fn connections_of_pods_are_counted_under_their_names_and_go_with_them() {
    let node = Node::start();
    let client = node.pod(&PodSpec::idle("team-a", "asker"));
    let server = node.pod(&PodSpec::idle("team-b", "answerer"));
    let [from, to] = [&client, &server].map(|pod| NetnsRef::open(&pod.netns).expect("a pod has a namespace"));
    let listener = to
        .run(|| TcpListener::bind((server.ip(), 0)))
        .expect("an address");
    let address = listener.local_addr().expect("an address");
    let closed = SocketAddr::new(address.ip(), 1);
    wait_known(&node, &[&client, &server], &from, closed);
    let before = scrape(&node);
    for _ in 0..REFUSED {
        from.run(|| TcpStream::connect(closed))
            .expect_err("nobody listens");
    }
    for _ in 0..ACCEPTED {
        drop(from.run(|| TcpStream::connect(address)).expect("it is accepted"));
        drop(listener.accept().expect("a connection"));
    }
    let grown = |pod: &Pod, outcome: &str| count(&scrape(&node), pod, outcome) - count(&before, pod, outcome);
    assert_eq!(grown(&client, "opened"), (REFUSED + ACCEPTED) as f64);
    assert_eq!(grown(&client, "failed"), REFUSED as f64);
    assert_eq!(grown(&server, "accepted"), ACCEPTED as f64);
    let closed =
        || grown(&client, "closed") == ACCEPTED as f64 && grown(&server, "closed") == ACCEPTED as f64;
    assert!(wait_until(PATIENCE, LOOK, closed), "not all are closed");
    let flows = node.daemon.sabot_json(&["flows", "--pod", "team-a/asker"]);
    assert_eq!(
        flows.expect("flows are listed")["flows"].as_array().map(Vec::len),
        Some(0)
    );

    drop((listener, from, to));
    for pod in [&client, &server] {
        node.containerd.stop_pod(pod).expect("the pod ends");
        let gone = || series(&scrape(&node), &pod.spec.name) == 0;
        assert!(
            wait_until(PATIENCE, LOOK.max(Duration::from_millis(20)), gone),
            "{}",
            pod.spec.name
        );
    }
}
