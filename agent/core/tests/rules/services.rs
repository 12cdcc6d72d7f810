//! Services as targets and as peers, pods of other nodes, and nodes.

use std::sync::Arc;

use sabot_core::model::{
    BootTime, ClusterPod, Endpoint, EndpointPort, Fault, ObjectName, Peer, Pick, PickShare, Pod, PortRef,
    Service, ServicePort, TargetSelector, World,
};
use sabot_core::resolve::{Coverage, covered_services};
use sabot_core::{peer_entries, resolve};

use crate::fixtures::{add_remote, backend, cidr, device, fault, front, labelled, pod, world};

const NOW: BootTime = BootTime(0);

pub(crate) fn named(name: &str) -> ObjectName {
    ObjectName {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

pub(crate) fn with_peers(peers: Vec<Peer>) -> Fault {
    Fault {
        peers,
        ..fault("cut", NOW)
    }
}

fn service_peer(port: Option<PortRef>) -> Peer {
    Peer::Service {
        name: named("front"),
        port,
    }
}

/// The entries as `ADDRESS[/PREFIX] [PROTOCOL:PORT]`.
fn entries(fault: &Fault, world: &World) -> Vec<String> {
    let text = |entry: &sabot_core::plan::PeerEntry| {
        let net = if entry.is_exact() {
            entry.net.addr().to_string()
        } else {
            entry.net.to_string()
        };
        let except = if entry.excepted { "!" } else { "" };
        match entry.only {
            None => format!("{except}{net}"),
            Some(only) => {
                let port = only.port.map_or_else(|| "*".to_owned(), |port| port.to_string());
                format!("{except}{net} {}:{port}", only.protocol)
            }
        }
    };
    peer_entries(fault, world).iter().map(text).collect()
}

/// A world with the Service `front` in front of these pods at port 8080.
fn fronted(service: Service, pods: &[Pod]) -> World {
    let endpoints = pods.iter().map(|pod| backend(pod, 8080)).collect();
    let mut world = world(pods.iter().cloned());
    let service = Service { endpoints, ..service };
    world
        .cluster
        .services
        .insert_mut(named("front"), Arc::new(service));
    world
}

/// The Service `front`, to be changed.
fn front_of(world: &mut World) -> &mut Service {
    let service = world.cluster.services.get_mut(&named("front"));
    Arc::make_mut(service.expect("it is there"))
}

pub(crate) fn remote(index: u8, app: &str, node: &str) -> ClusterPod {
    let pod = pod(index, app, 9);
    ClusterPod {
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
        node: node.to_owned(),
        labels: pod.labels,
        annotations: Default::default(),
        addresses: pod.addresses.into_iter().collect(),
        host_network: false,
        workload: Default::default(),
    }
}

#[test]
fn a_service_is_its_addresses_and_its_backends_at_their_ports() {
    let world = fronted(front("10.96.0.1", 80), &[pod(1, "web", 1), pod(2, "web", 1)]);
    let expected = ["10.1.1.1 6:8080", "10.1.1.2 6:8080", "10.96.0.1 6:80"];
    assert_eq!(entries(&with_peers(vec![service_peer(None)]), &world), expected);
    let unknown = with_peers(vec![Peer::Service {
        name: named("other"),
        port: None,
    }]);
    assert_eq!(entries(&unknown, &world), [""; 0]);
}

#[test]
fn one_port_of_a_service_is_that_port_everywhere() {
    let mut service = front("10.96.0.1", 80);
    service.addresses.insert("fd00::96".parse().expect("an address"));
    service.ports.push(ServicePort {
        name: "dns".to_owned(),
        protocol: 17,
        port: 53,
        node_port: Some(30053),
    });
    let mut world = fronted(service, &[pod(1, "web", 1)]);
    let service = front_of(&mut world);
    service.endpoints[0].ports.push(EndpointPort {
        name: "dns".to_owned(),
        protocol: 17,
        port: Some(5353),
    });
    let at = |port| entries(&with_peers(vec![service_peer(Some(port))]), &world);
    let main = ["10.1.1.1 6:8080", "10.96.0.1 6:80", "fd00::96 6:80"];
    assert_eq!(at(PortRef::Name("main".to_owned())), main);
    assert_eq!(at(PortRef::Number(80)), main);
    let dns = ["10.1.1.1 17:5353", "10.96.0.1 17:53", "fd00::96 17:53"];
    assert_eq!(at(PortRef::Number(53)), dns);
    // The number is the Service's, not the backends'.
    assert_eq!(at(PortRef::Number(8080)), [""; 0]);
    assert_eq!(at(PortRef::Name("https".to_owned())), [""; 0]);

    let nodes = [("a", "192.0.2.1"), ("b", "192.0.2.2")];
    for (name, address) in nodes {
        let addresses = [address.parse().expect("an address")].into();
        Arc::make_mut(&mut world.cluster.nodes).insert(name.to_owned(), addresses);
    }
    let at = |port| entries(&with_peers(vec![service_peer(Some(port))]), &world);
    let with_nodes = at(PortRef::Number(53));
    assert!(
        with_nodes.contains(&"192.0.2.1 17:30053".to_owned()),
        "{with_nodes:?}"
    );
    assert!(
        with_nodes.contains(&"192.0.2.2 17:30053".to_owned()),
        "{with_nodes:?}"
    );
    assert_eq!(at(PortRef::Number(80)), main);
}

#[test]
fn backends_are_those_that_clients_are_sent_to() {
    let endpoint = |ready, serving, terminating| Endpoint {
        ready,
        serving,
        terminating,
        ..backend(&pod(1, "web", 1), 8080)
    };
    let is_backend = |endpoint: Endpoint, publishes_not_ready| {
        let service = Service {
            endpoints: vec![endpoint],
            publishes_not_ready,
            ..front("10.96.0.1", 80)
        };
        service.backends().count() == 1
    };
    assert!(is_backend(endpoint(true, true, false), false));
    assert!(!is_backend(endpoint(false, false, false), false));
    assert!(is_backend(endpoint(false, false, false), true));
    assert!(
        is_backend(endpoint(false, true, true), false),
        "it ends and serves"
    );
    assert!(!is_backend(endpoint(false, false, true), false));
    assert!(!is_backend(endpoint(false, true, false), false));
}

#[test]
fn headless_services_and_whole_protocols() {
    let headless = Service {
        addresses: Default::default(),
        ..front("10.96.0.1", 80)
    };
    let mut world = fronted(headless, &[pod(1, "web", 1)]);
    let cut = with_peers(vec![service_peer(None)]);
    assert_eq!(entries(&cut, &world), ["10.1.1.1 6:8080"]);
    let service = front_of(&mut world);
    service.endpoints[0].ports[0].port = None;
    assert_eq!(entries(&cut, &world), ["10.1.1.1 6:*"]);
    // Without ports it is a name for its pods.
    let service = front_of(&mut world);
    service.ports.clear();
    service.endpoints[0].ports.clear();
    assert_eq!(entries(&cut, &world), ["10.1.1.1"]);
}

#[test]
fn a_service_adds_to_other_peers_and_takes_nothing_away() {
    let world = fronted(front("10.96.0.1", 80), &[pod(1, "web", 1)]);
    let peers = vec![cidr("10.1.0.0/16", &["10.1.1.1/32"]), service_peer(None)];
    assert_eq!(
        entries(&with_peers(peers), &world),
        ["10.1.0.0/16", "10.1.1.1 6:8080", "!10.1.1.1", "10.96.0.1 6:80"]
    );
}

#[test]
fn pods_of_other_nodes_are_peers_too() {
    let mut world = world([pod(1, "web", 1), pod(2, "db", 1)]);
    for (index, app, node) in [(3, "db", "b"), (4, "db", ""), (5, "web", "b")] {
        add_remote(&mut world.cluster, labelled(app), remote(index, app, node));
    }
    let cut = with_peers(vec![Peer::Pods(labelled("db"))]);
    assert_eq!(
        entries(&cut, &world),
        ["10.1.1.2", "10.1.9.3"],
        "one has no node yet"
    );
}

#[test]
fn pods_are_reached_through_the_services_that_lead_to_nobody_else() {
    let (web, db) = (pod(1, "web", 1), pod(2, "db", 1));
    let mut world = fronted(front("10.96.0.1", 80), &[web.clone(), db.clone()]);
    let of_db = Service {
        endpoints: vec![backend(&db, 5432)],
        ..front("10.96.0.2", 5432)
    };
    world.cluster.services.insert_mut(named("db"), Arc::new(of_db));
    let of_nobody = front("10.96.0.3", 80);
    world
        .cluster
        .services
        .insert_mut(named("empty"), Arc::new(of_nobody));
    let of_web = Service {
        endpoints: vec![backend(&web, 80)],
        ..front("10.96.0.4", 80)
    };
    world.cluster.services.insert_mut(named("web"), Arc::new(of_web));
    let cut = with_peers(vec![Peer::Pods(labelled("db"))]);
    assert_eq!(entries(&cut, &world), ["10.1.1.2", "10.96.0.2 6:5432"]);
    let covered: Vec<_> = covered_services(&cut, &world)
        .map(|(name, _, coverage)| (name.name.as_str(), coverage))
        .collect();
    assert_eq!(covered, [("db", Coverage::All), ("front", Coverage::Some)]);
    // Addresses and networks are meant as they stand.
    let by_address = with_peers(vec![cidr("10.1.1.2/32", &[])]);
    assert_eq!(covered_services(&by_address, &world).count(), 0);
}

#[test]
fn nodes_are_their_addresses() {
    let mut world = World::default();
    let addresses = ["192.0.2.7", "2001:db8::7"].map(|text| text.parse().expect("an address"));
    Arc::make_mut(&mut world.cluster.nodes).insert("worker-1".to_owned(), addresses.into());
    let cut = |name: &str| with_peers(vec![Peer::Node(name.to_owned())]);
    assert_eq!(entries(&cut("worker-1"), &world), ["192.0.2.7", "2001:db8::7"]);
    assert_eq!(entries(&cut("worker-2"), &world), [""; 0]);
    world.node.name = "worker-2".to_owned();
    world
        .node_addresses
        .insert("10.0.0.1".parse().expect("an address"));
    assert_eq!(entries(&cut("worker-2"), &world), ["10.0.0.1"]);
}

#[test]
fn a_target_service_is_its_backends_of_this_node() {
    let on_service = |pick| Fault {
        target: TargetSelector::Service {
            name: named("front"),
            pick,
        },
        ..fault("cut", NOW)
    };
    let meant = |fault: &Fault, world: &World| -> Vec<String> {
        let targets = resolve(fault, world).targets.into_iter();
        targets.map(|target| target.pod.expect("a pod").name).collect()
    };
    let pods: Vec<Pod> = (1..=3).map(|index| pod(index, "web", 1)).collect();
    let mut world = fronted(front("10.96.0.1", 80), &pods[..2]);
    let third = pods[2].clone();
    world.pods.insert(third.sandbox.clone(), third);
    // A backend on another node is none of ours.
    let service = front_of(&mut world);
    let elsewhere: Vec<Pod> = (4..=9).map(|index| pod(index, "web", 9)).collect();
    service
        .endpoints
        .extend(elsewhere.iter().map(|pod| backend(pod, 8080)));
    assert_eq!(meant(&on_service(None), &world), ["web-1", "web-2"]);

    // Each node takes its part of one choice.
    let pick = Pick {
        share: PickShare::Count(4),
        seed: 3,
    };
    let there = World {
        cluster: world.cluster.clone(),
        ..crate::fixtures::world(elsewhere)
    };
    let fault = on_service(Some(pick));
    assert_eq!(meant(&fault, &world).len() + meant(&fault, &there).len(), 4);

    front_of(&mut world).endpoints.clear();
    let pending = resolve(&on_service(None), &world)
        .pending
        .expect("nobody is there");
    assert_eq!(pending, "the Service shop/front has no backend on this node");
    world.cluster.services = Default::default();
    let pending = resolve(&on_service(None), &world).pending;
    assert_eq!(pending.expect("unknown"), "the Service shop/front isn't known");
    let pending = resolve(&on_service(None), &World::default()).pending;
    assert_eq!(
        pending.expect("nobody is there"),
        "the Service shop/front has no backend on this node, which has no pod of namespace shop"
    );
}

#[test]
fn every_node_picks_the_same_pods_of_the_cluster() {
    let pick = |share, seed| Fault {
        target: TargetSelector::Pods {
            selector: labelled("web"),
            pick: Some(Pick { share, seed }),
        },
        ..fault("cut", NOW)
    };
    let view = |own: std::ops::Range<u8>| {
        let mut view = world(own.clone().map(|index| pod(index, "web", 1)));
        for index in (0..12).filter(|index| !own.contains(index)) {
            let pod = remote(index, "web", "elsewhere");
            add_remote(&mut view.cluster, labelled("web"), pod);
        }
        view
    };
    let nodes = [view(0..4), view(4..8), view(8..12)];
    for seed in 0..50 {
        let fault = pick(PickShare::Count(5), seed);
        let taken: Vec<usize> = nodes
            .iter()
            .map(|world| resolve(&fault, world).targets.len())
            .collect();
        assert_eq!(taken.iter().sum::<usize>(), 5, "seed {seed}: {taken:?}");
    }
    let none = (0..50).map(|seed| resolve(&pick(PickShare::Count(1), seed), &nodes[0]));
    let pending = none.filter_map(|found| found.pending).next();
    assert_eq!(
        pending.as_deref(),
        Some("the pick takes none of the 4 matching pods of this node")
    );
}

#[test]
fn a_target_node_is_this_node_or_another_one() {
    let on = |name: &str| Fault {
        target: TargetSelector::Node(name.to_owned()),
        ..fault("cut", NOW)
    };
    let mut world = World::default();
    world.node.name = "worker-1".to_owned();
    let pending = resolve(&on("worker-1"), &world).pending;
    assert_eq!(
        pending.as_deref(),
        Some("the node has no device with a default route")
    );
    world.node.devices.push(device(1, "eth0"));
    let found = resolve(&on("worker-1"), &world);
    assert_eq!((found.targets.len(), found.pending), (1, None));
    let found = resolve(&on("worker-2"), &world);
    assert_eq!(found.targets, []);
    assert_eq!(
        found.pending.as_deref(),
        Some("this node is worker-1, and the fault is on worker-2")
    );
}
