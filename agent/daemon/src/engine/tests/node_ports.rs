//! Services that are reached through every node's addresses: those have to be known before a fault toward them begins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sabot_core::model::{ApiServer, ClusterWanted, ObjectName, Service, ServicePort};

use super::rig::{Rig, fault, pass, pod};
use crate::engine::handle::Phase;

const SOON: Duration = Duration::from_millis(10);
const TO_DB: &str = "{duration: 1h, target: {pods: {namespace: shop, name: web}}, \
     peers: [{service: {namespace: shop, name: db}}], action: {partition: {}}}";
const CLUSTER_IP: &str = "10.96.0.1:80";
const NODE_PORT: &str = "192.0.2.7:30080";

/// A pod `web`, and an API server that answers when the test says so.
fn rig() -> Rig {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.world
        .change(|update| update.world.cluster.server = ApiServer::Answers);
    rig
}

/// The API server has told of the Service, with or without a node port, and of the nodes where it was asked for them.
async fn tell(rig: &Rig, node_port: Option<u16>, nodes: bool) {
    let wanted = rig.world.wanted().cluster;
    let name = ObjectName {
        namespace: "shop".to_owned(),
        name: "db".to_owned(),
    };
    let service = Service {
        addresses: ["10.96.0.1".parse().expect("an address")].into(),
        ports: vec![ServicePort {
            name: String::new(),
            protocol: 6,
            port: 80,
            node_port,
        }],
        ..Service::default()
    };
    rig.world.change(|update| {
        let cluster = &mut update.world.cluster;
        cluster.services.insert_mut(name, Arc::new(service));
        let all_nodes = wanted.all_nodes && nodes;
        if all_nodes {
            let address = "192.0.2.7".parse().expect("an address");
            cluster.nodes = Arc::new([("worker-7".to_owned(), [address].into())].into());
        }
        cluster.known = Arc::new(ClusterWanted { all_nodes, ..wanted });
    });
    pass(SOON).await;
}

fn peers(rig: &Rig) -> BTreeSet<String> {
    let state = rig.kernel.state();
    let entries = state.peers.values().flatten();
    let text = |entry: &sabot_core::plan::PeerEntry| {
        let port = entry.only.and_then(|only| only.port).expect("a port");
        format!("{}:{port}", entry.net.addr())
    };
    entries.map(text).collect()
}

fn these(peers: &[&str]) -> BTreeSet<String> {
    peers.iter().map(|&peer| peer.to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_fault_begins_when_the_nodes_are_known_too() {
    let rig = rig();
    let view = rig.apply("cut", TO_DB).await.expect("accepted");
    assert_eq!(view.phase, Phase::Pending, "nothing is known");
    tell(&rig, Some(30_080), false).await;
    let view = rig.view("cut");
    assert_eq!((view.phase, view.targets.len()), (Phase::Pending, 0));
    assert!(
        view.message.starts_with("the addresses of the nodes"),
        "{}",
        view.message
    );
    assert!(rig.world.wanted().cluster.all_nodes, "they are asked for");
    let slot = view.slot.expect("it has a target as soon as they are known");
    assert!(rig.kernel.devices(slot).is_empty());

    tell(&rig, Some(30_080), true).await;
    assert_eq!(rig.view("cut").phase, Phase::Injected);
    assert_eq!(peers(&rig), these(&[CLUSTER_IP, NODE_PORT]));
}

#[tokio::test(start_paused = true)]
async fn a_node_port_that_comes_later_leaves_no_gap() {
    let rig = rig();
    rig.apply("cut", TO_DB).await.expect("accepted");
    tell(&rig, None, false).await;
    let view = rig.view("cut");
    let slot = view.slot.expect("a slot");
    assert_eq!(view.phase, Phase::Injected, "{}", view.message);
    assert!(!rig.world.wanted().cluster.all_nodes, "it needs no node");

    let lists = rig.kernel.calls("set_slots");
    tell(&rig, Some(30_080), false).await;
    let view = rig.view("cut");
    assert_eq!(view.phase, Phase::Partial, "it lacks the nodes' addresses");
    assert!(
        view.message
            .starts_with("in force on 1 target; the addresses of the nodes")
    );
    rig.world.add_pod(pod("web", "web", 2));
    pass(SOON).await;
    assert_eq!(rig.kernel.devices(slot), these(&["eth1"]), "a new target waits");
    tell(&rig, Some(30_080), true).await;
    assert_eq!(rig.view("cut").phase, Phase::Injected);
    assert_eq!(rig.kernel.devices(slot), these(&["eth1", "eth2"]));
    assert_eq!(
        rig.kernel.calls("set_slots"),
        lists + 1,
        "the first one kept its list"
    );
    assert_eq!(peers(&rig), these(&[CLUSTER_IP, NODE_PORT]));
}

#[tokio::test(start_paused = true)]
async fn a_preview_looks_at_the_nodes_where_the_service_is_known() {
    let rig = rig();
    rig.apply("cut", TO_DB).await.expect("accepted");
    tell(&rig, Some(30_080), false).await;
    let before = rig.world.refreshes();
    let (metadata, spec) = fault("other", TO_DB);
    rig.handle.preview(metadata, spec).await.expect("valid");
    assert_eq!(rig.world.refreshes(), before + 1);
    tell(&rig, Some(30_080), true).await;
    let (metadata, spec) = fault("other", TO_DB);
    let preview = rig.handle.preview(metadata, spec).await.expect("valid");
    assert_eq!(rig.world.refreshes(), before + 1, "all of it is known");
    assert_eq!(
        preview.peers,
        ["10.96.0.1 TCP port 80", "192.0.2.7 TCP port 30080"]
    );
}
