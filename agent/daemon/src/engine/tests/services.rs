//! Services, pods of other nodes and nodes: what the source is asked for, and what its answers mean.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sabot_core::model::{
    ClusterPod, ClusterWanted, Endpoint, EndpointPort, ObjectName, Service, ServicePort,
};

use super::rig::{Rig, fault, fault_name, pass, pod};
use crate::engine::handle::Phase;

fn named(name: &str) -> ObjectName {
    ObjectName {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn endpoint(text: &str, pod: Option<&str>) -> Endpoint {
    Endpoint {
        addresses: [address(text)].into(),
        ports: vec![EndpointPort {
            name: String::new(),
            protocol: 6,
            port: Some(8080),
        }],
        pod: pod.map(named),
        ready: true,
        serving: true,
        ..Endpoint::default()
    }
}

fn service(endpoints: Vec<Endpoint>) -> Service {
    Service {
        addresses: [address("10.96.0.1")].into(),
        ports: vec![ServicePort {
            name: String::new(),
            protocol: 6,
            port: 80,
            node_port: None,
        }],
        publishes_not_ready: false,
        endpoints,
    }
}

fn tell(rig: &Rig, name: &str, service: Service) {
    rig.world.change(|update| {
        let services = &mut update.world.cluster.services;
        services.insert_mut(named(name), Arc::new(service));
    });
}

fn peers(rig: &Rig) -> Vec<String> {
    let state = rig.kernel.state();
    let entries = state.peers.values().flatten();
    let text = |entry: &sabot_core::plan::PeerEntry| {
        let port = entry.only.and_then(|only| only.port);
        port.map_or_else(
            || entry.net.addr().to_string(),
            |port| format!("{}:{port}", entry.net.addr()),
        )
    };
    entries.map(text).collect()
}

const TO_SERVICE: &str = "{duration: 5m, target: {pods: {namespace: shop, name: web}}, \
     peers: [{service: {namespace: shop, name: db}}], action: {partition: {}}}";

#[tokio::test(start_paused = true)]
async fn a_service_is_asked_for_and_followed() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let slot = rig.inject("cut", TO_SERVICE).await;
    let wanted = ClusterWanted {
        services: [named("db")].into(),
        ..ClusterWanted::default()
    };
    assert_eq!(rig.world.wanted().cluster, wanted);
    assert_eq!(rig.world.refreshes(), 1, "it is looked at before apply answers");
    assert_eq!(peers(&rig), [""; 0]);

    tell(&rig, "db", service(vec![endpoint("10.1.0.5", None)]));
    pass(Duration::from_millis(10)).await;
    assert_eq!(peers(&rig), ["10.1.0.5:8080", "10.96.0.1:80"]);
    let writes = rig.kernel.calls("write_rule");
    let scaled = vec![endpoint("10.1.0.6", None), endpoint("10.1.0.7", None)];
    tell(&rig, "db", service(scaled));
    pass(Duration::from_millis(10)).await;
    assert_eq!(peers(&rig), ["10.1.0.6:8080", "10.1.0.7:8080", "10.96.0.1:80"]);
    assert_eq!(rig.kernel.calls("write_rule"), writes, "the set changes in place");
    assert!(rig.kernel.state().rules[&slot].peers_exact);

    // Node ports are at every node.
    let mut exposed = service(Vec::new());
    exposed.ports[0].node_port = Some(30080);
    tell(&rig, "db", exposed);
    pass(Duration::from_millis(10)).await;
    assert!(rig.world.wanted().cluster.all_nodes);
    rig.world.change(|update| {
        let nodes = Arc::make_mut(&mut update.world.cluster.nodes);
        nodes.insert("worker-1".to_owned(), [address("192.0.2.1")].into());
    });
    pass(Duration::from_millis(10)).await;
    assert_eq!(peers(&rig), ["10.96.0.1:80", "192.0.2.1:30080"]);

    rig.handle.delete(fault_name("cut")).await.expect("it is known");
    pass(Duration::from_millis(10)).await;
    assert_eq!(peers(&rig), [""; 0]);
    assert!(
        !rig.world.wanted().cluster.is_empty(),
        "kept in sight for a while"
    );
    pass(Duration::from_secs(61)).await;
    assert!(rig.world.wanted().cluster.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_target_service_follows_its_backends() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web-1", "web", 1));
    rig.world.add_pod(pod("web-2", "web", 2));
    let spec = "{duration: 5m, target: {service: {namespace: shop, name: front}}, action: {partition: {}}}";
    let view = rig.apply("cut", spec).await.expect("accepted");
    assert_eq!(view.phase, Phase::Pending);
    assert!(
        view.message.contains("the Service shop/front isn't known"),
        "{}",
        view.message
    );
    tell(&rig, "front", service(vec![endpoint("10.0.0.1", Some("web-1"))]));
    pass(Duration::from_millis(10)).await;
    let slot = rig.view("cut").slot.expect("a slot");
    assert_eq!(rig.kernel.devices(slot), BTreeSet::from(["eth1".to_owned()]));
    tell(&rig, "front", service(vec![endpoint("10.0.0.2", Some("web-2"))]));
    pass(Duration::from_millis(10)).await;
    assert_eq!(rig.kernel.devices(slot), BTreeSet::from(["eth2".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn pods_of_other_nodes_and_nodes_are_asked_for() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let spec = "{duration: 5m, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}, pick: {count: 3}}}, \
                peers: [{pods: {namespace: bank, selector: {matchLabels: {app: db}}}}, {node: worker-7}], \
                action: {partition: {}}}";
    rig.inject("cut", spec).await;
    let wanted = rig.world.wanted().cluster;
    let selectors: Vec<_> = wanted
        .pods
        .iter()
        .map(|selector| (selector.namespace.as_str(), selector.labels.to_string()))
        .collect();
    assert_eq!(
        selectors,
        [("bank", "app=db".to_owned()), ("shop", "app=web".to_owned())]
    );
    assert_eq!(wanted.service_namespaces, BTreeSet::from(["bank".to_owned()]));
    assert_eq!(wanted.nodes, BTreeSet::from(["worker-7".to_owned()]));
    assert!(!wanted.all_nodes && wanted.services.is_empty());

    rig.world.change(|update| {
        let pod = ClusterPod {
            namespace: "bank".to_owned(),
            name: "db-0".to_owned(),
            uid: "uid-db-0".to_owned(),
            node: "worker-7".to_owned(),
            labels: [("app".to_owned(), "db".to_owned())].into(),
            annotations: Default::default(),
            addresses: [address("10.2.0.1")].into(),
            host_network: false,
            workload: Default::default(),
        };
        let cluster = &mut update.world.cluster;
        let pods = wanted.pods.iter().find(|selector| selector.namespace == "bank");
        let pods = cluster
            .pods
            .entry(pods.expect("it is wanted").clone())
            .or_default();
        Arc::make_mut(pods).insert_mut(pod.uid.clone(), Arc::new(pod));
        Arc::make_mut(&mut cluster.nodes).insert("worker-7".to_owned(), [address("192.0.2.7")].into());
    });
    pass(Duration::from_millis(10)).await;
    assert_eq!(peers(&rig), ["10.2.0.1", "192.0.2.7"]);
}

#[tokio::test(start_paused = true)]
async fn a_preview_names_ports_and_the_ways_that_it_cant_see() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.world.add_pod(pod("db", "db", 2));
    tell(
        &rig,
        "db",
        service(vec![endpoint("10.0.0.2", Some("db")), endpoint("10.9.0.1", None)]),
    );
    let preview = async |peers: &str| {
        let spec = format!(
            "{{duration: 5m, target: {{pods: {{namespace: shop, name: web}}}}, peers: [{peers}], action: {{partition: {{}}}}}}"
        );
        let (metadata, spec) = fault("cut", &spec);
        rig.handle.preview(metadata, spec).await.expect("it is valid")
    };
    let of_service = preview("{service: {namespace: shop, name: db, port: 80}}").await;
    assert_eq!(
        of_service.peers,
        [
            "10.0.0.2 TCP port 8080",
            "10.9.0.1 TCP port 8080",
            "10.96.0.1 TCP port 80"
        ]
    );
    assert_eq!(of_service.warnings, [""; 0]);
    let warned = |warnings: &[String], text: &str| {
        assert!(
            warnings.iter().any(|w| w.contains(text)),
            "{text} in {warnings:?}"
        );
    };
    let wrong = preview("{service: {namespace: shop, name: db, port: https}}").await;
    warned(
        &wrong.warnings,
        "the Service shop/db has no port https; it has 80",
    );
    let unknown = preview("{service: {namespace: shop, name: other}}").await;
    warned(&unknown.warnings, "the Service shop/other isn't known");
    let of_pods = preview("{pods: {namespace: shop, name: db}}").await;
    warned(
        &of_pods.warnings,
        "of the Services shop/db some backends are peers",
    );

    tell(&rig, "db", service(vec![endpoint("10.0.0.2", Some("db"))]));
    let of_pods = preview("{pods: {namespace: shop, name: db}}").await;
    warned(
        &of_pods.warnings,
        "by those of the Services that lead to nobody else: shop/db",
    );
    assert_eq!(of_pods.peers, ["10.0.0.2", "10.96.0.1 TCP port 80"]);
}
