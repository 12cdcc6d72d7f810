//! Faults toward Services, with what kube-proxy and socket-level load balancers set up, on real namespaces.
//!
//! A client, another client, three backends that two Services share, and a pod that joins them later.

mod cluster;
mod engine;
mod ipvs;
mod sockets;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use sabot_testkit::Netns;
use sabot_testkit::features::lacks;
use sabot_testkit::traffic::ping;
use sabot_testkit::wait::{on_this_machine, wait_until};
use sabotd::engine::handle::LedgerDirection;

use crate::cluster::{Cluster, Front, Proxy};
use crate::engine::Rig;
use crate::ipvs::Ipvs;
use crate::sockets::Balancer;

const CLIENT: usize = 0;
const OTHER: usize = 1;
const BACKENDS: [usize; 3] = [2, 3, 4];
const LATE: usize = 5;
const PODS: u8 = 6;

/// The Services' target ports.
const WEB: u16 = 8080;
const ADMIN: u16 = 9090;

/// What may take long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);
/// What an answer may take that isn't expected.
const SHORT: Duration = Duration::from_millis(500);
/// Connections to a Service, enough to meet each of its backends as a rule.
const MANY: usize = 16;

fn web(backends: &[usize]) -> Front {
    Front {
        name: "web",
        address: Ipv4Addr::new(10, 96, 0, 1),
        port: 80,
        target_port: WEB,
        backends: backends.to_vec(),
    }
}

/// On the same pods.
fn admin() -> Front {
    Front {
        name: "admin",
        address: Ipv4Addr::new(10, 96, 0, 2),
        port: 80,
        target_port: ADMIN,
        backends: BACKENDS.to_vec(),
    }
}

fn node() -> Netns {
    Netns::new("sabot-node").expect("root is needed")
}

/// With kube-proxy's device and setting. `None` where the kernel has no IPVS.
fn ipvs(node: &Netns) -> Option<Proxy> {
    let ipvs = match Ipvs::of(node) {
        Ok(ipvs) => ipvs,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            lacks("ipvs", "the kernel has no IPVS, or its module isn't loaded");
            return None;
        }
        Err(error) => panic!("IPVS doesn't answer: {error}"),
    };
    node.ip(&["link", "add", ipvs::DEVICE, "type", "dummy"])
        .expect("a dummy device");
    node.run(|| fs::write("/proc/sys/net/ipv4/vs/conntrack", "1"))
        .expect("IPVS has settings");
    Some(Proxy::Ipvs(ipvs))
}

fn cluster(proxy: Proxy) -> Cluster {
    cluster_on(node(), proxy)
}

fn cluster_on(node: Netns, proxy: Proxy) -> Cluster {
    let mut cluster = Cluster::new(node, PODS, proxy);
    cluster.serve(&[BACKENDS.as_slice(), &[LATE]].concat(), &[WEB, ADMIN]);
    cluster.proxy(&[&web(&BACKENDS), &admin()]);
    cluster
}

/// Each connection is answered, by these pods and no others.
fn assert_served(cluster: &Cluster, from: usize, to: SocketAddr, by: &[usize]) {
    let mut seen = BTreeSet::new();
    let started = Instant::now();
    // Chance may leave one out for a while.
    while seen.len() < by.len() && started.elapsed() < on_this_machine(PATIENCE) {
        for answer in cluster.ask_often(from, to, PATIENCE, MANY) {
            seen.insert(answer.unwrap_or_else(|| panic!("{to} doesn't answer pod {from}")));
        }
    }
    assert_eq!(seen, by.iter().copied().collect(), "who answers at {to}");
}

fn assert_cut(cluster: &Cluster, from: usize, to: SocketAddr) {
    let answers = cluster.ask_often(from, to, SHORT, MANY);
    assert_eq!(answers, vec![None; MANY], "{to} answers pod {from}");
}

fn assert_all_served(cluster: &Cluster) {
    for from in [CLIENT, OTHER] {
        assert_served(cluster, from, web(&BACKENDS).socket(), &BACKENDS);
        assert_served(cluster, from, admin().socket(), &BACKENDS);
    }
}

/// A fault toward a Service cuts what goes through its address and what goes to its backends at its ports: nothing else
/// of the same pods, no other Service, nobody else's traffic.
fn a_service_is_cut_exactly(cluster: &Cluster) {
    let rig = Rig::new(cluster);
    rig.tell(cluster, &[&web(&BACKENDS), &admin()]);
    assert_all_served(cluster);

    rig.partition(
        "cut",
        "target: {pods: {name: pod-0}}, peers: [{service: {name: web}}]",
    );
    assert_cut(cluster, CLIENT, web(&BACKENDS).socket());
    for backend in BACKENDS {
        assert_cut(cluster, CLIENT, cluster.pod_socket(backend, WEB));
        assert_served(cluster, CLIENT, cluster.pod_socket(backend, ADMIN), &[backend]);
        let client = &cluster.pods[CLIENT].netns;
        let pinged = ping(client, cluster.pods[backend].ip(), 3, Duration::from_millis(10));
        assert_eq!(pinged.expect("ping runs").round_trips.len(), 3);
    }
    assert_served(cluster, CLIENT, admin().socket(), &BACKENDS);
    assert_served(cluster, CLIENT, cluster.pod_socket(LATE, WEB), &[LATE]);
    assert_served(cluster, OTHER, web(&BACKENDS).socket(), &BACKENDS);
    assert!(rig.dropped("cut", LedgerDirection::Egress) > 0);

    rig.delete("cut");
    assert_all_served(cluster);
    rig.end();
}

#[test]
fn a_service_is_cut_exactly_behind_nftables() {
    a_service_is_cut_exactly(&cluster(Proxy::Nftables));
}

#[test]
fn a_service_is_cut_exactly_behind_iptables() {
    a_service_is_cut_exactly(&cluster(Proxy::Iptables));
}

#[test]
fn a_service_is_cut_exactly_behind_ipvs() {
    let node = node();
    let Some(proxy) = ipvs(&node) else { return };
    a_service_is_cut_exactly(&cluster_on(node, proxy));
}

/// The Service's address is in no packet: it is the backends' part of the fault alone that does it.
#[test]
fn a_service_is_cut_exactly_behind_sockets_that_are_connected_to_backends() {
    let balancer = Balancer::new().expect("a cgroup can be made");
    a_service_is_cut_exactly(&cluster(Proxy::Sockets(balancer)));
}

fn scaling_is_followed(mut cluster: Cluster) {
    let rig = Rig::new(&cluster);
    rig.tell(&cluster, &[&web(&BACKENDS), &admin()]);
    rig.partition(
        "cut",
        "target: {pods: {name: pod-0}}, peers: [{service: {name: web}}]",
    );
    assert_cut(&cluster, CLIENT, cluster.pod_socket(BACKENDS[0], WEB));
    assert_served(&cluster, CLIENT, cluster.pod_socket(LATE, WEB), &[LATE]);

    // One backend goes and another one comes.
    let scaled = [BACKENDS[1], BACKENDS[2], LATE];
    cluster.proxy(&[&web(&scaled), &admin()]);
    let told = Instant::now();
    rig.tell(&cluster, &[&web(&scaled), &admin()]);
    let gone = cluster.pod_socket(BACKENDS[0], WEB);
    // A try that is too early isn't repeated by TCP for a second.
    let freed = wait_until(PATIENCE, Duration::ZERO, || {
        cluster.ask(CLIENT, gone, Duration::from_millis(20)).is_some()
    });
    println!("served again {:?} after the change was told", told.elapsed());
    assert!(freed, "the backend that has gone is still cut off");
    assert_cut(&cluster, CLIENT, cluster.pod_socket(LATE, WEB));
    assert_cut(&cluster, CLIENT, web(&scaled).socket());
    assert_served(&cluster, OTHER, web(&scaled).socket(), &scaled);
    assert_served(&cluster, CLIENT, cluster.pod_socket(LATE, ADMIN), &[LATE]);
    rig.end();
}

#[test]
fn scaling_is_followed_behind_nftables() {
    scaling_is_followed(cluster(Proxy::Nftables));
}

#[test]
fn scaling_is_followed_behind_ipvs() {
    let node = node();
    let Some(proxy) = ipvs(&node) else { return };
    scaling_is_followed(cluster_on(node, proxy));
}

/// At the backends' devices the client is seen and not the Service's address.
#[test]
fn a_target_service_is_its_backends() {
    let mut cluster = cluster(Proxy::Nftables);
    let rig = Rig::new(&cluster);
    rig.tell(&cluster, &[&web(&BACKENDS), &admin()]);
    rig.partition(
        "cut",
        "target: {service: {name: web}}, peers: [{pods: {selector: {matchLabels: {app: client}}}}], \
         ports: [{port: 8080}]",
    );
    for client in [CLIENT, OTHER] {
        assert_cut(&cluster, client, web(&BACKENDS).socket());
        assert_cut(&cluster, client, cluster.pod_socket(BACKENDS[0], WEB));
        assert_served(&cluster, client, admin().socket(), &BACKENDS);
        assert_served(&cluster, client, cluster.pod_socket(LATE, WEB), &[LATE]);
    }
    assert!(rig.dropped("cut", LedgerDirection::Ingress) > 0);

    // Pods that join the Service join the fault.
    rig.tell(&cluster, &[&web(&[LATE]), &admin()]);
    cluster.proxy(&[&web(&[LATE]), &admin()]);
    assert_served(
        &cluster,
        CLIENT,
        cluster.pod_socket(BACKENDS[0], WEB),
        &[BACKENDS[0]],
    );
    let cut = wait_until(PATIENCE, Duration::from_millis(20), || {
        let answer = cluster.ask(CLIENT, web(&[LATE]).socket(), SHORT);
        answer.is_none()
    });
    assert!(cut, "the pod that joined isn't cut off");
    rig.end();
}

/// Pods as peers are reached through the Services that lead to nobody else; of those that lead to others too only the
/// pods' own addresses are meant.
#[test]
fn pods_as_peers_are_cut_off_through_their_services() {
    let cluster = cluster(Proxy::Nftables);
    let rig = Rig::new(&cluster);
    let wider = web(&[BACKENDS.as_slice(), &[OTHER]].concat());
    rig.tell(&cluster, &[&web(&BACKENDS), &admin()]);
    rig.partition(
        "cut",
        "target: {pods: {name: pod-0}}, peers: [{pods: {selector: {matchLabels: {app: backend}}}}]",
    );
    assert_cut(&cluster, CLIENT, web(&BACKENDS).socket());
    assert_cut(&cluster, CLIENT, admin().socket());
    assert_cut(&cluster, CLIENT, cluster.pod_socket(LATE, ADMIN));
    assert_served(&cluster, OTHER, web(&BACKENDS).socket(), &BACKENDS);

    // As far as the target can see, what goes to the Service may go to the other client.
    rig.tell(&cluster, &[&wider, &admin()]);
    assert_served(&cluster, CLIENT, web(&BACKENDS).socket(), &BACKENDS);
    assert_cut(&cluster, CLIENT, admin().socket());
    rig.end();
}
