//! Faults on the node's own devices keep the node reachable.

use std::net::SocketAddr;

use sabot_testkit::lab::NODE_IPV4;

use crate::scene::{Scene, answers, connects, listen};

const SSH: u16 = 22;
const KUBELET: u16 = 10250;
const API: u16 = 6443;
const OTHER: u16 = 8080;

fn at(address: impl Into<std::net::IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

struct Node {
    scene: Scene,
    server: SocketAddr,
}

impl Node {
    fn new() -> Self {
        // The first address that a lab gives is a pod's.
        let server = at([10, 77, 0, 10], API);
        let scene = Scene::new(2, &["--guard-api-server", &server.to_string()]);
        assert_eq!(scene.lab.pod(0).ipv4(), server.ip());
        for port in [SSH, KUBELET, OTHER] {
            listen(scene.lab.node(), port);
        }
        for port in [API, OTHER] {
            listen(scene.lab.pod(0).netns(), port);
        }
        let node = Self { scene, server };
        assert_eq!(node.reached(), [true; 6]);
        node
    }

    /// From outside SSH, the kubelet, the daemon's metrics and another port; from the node the API server and another
    /// port of its host.
    fn reached(&self) -> [bool; 6] {
        let outside = self.scene.lab.pod(1).netns();
        let node = self.scene.lab.node();
        let metrics = self.scene.daemon.metrics_address();
        [
            connects(outside, at(NODE_IPV4, SSH)),
            connects(outside, at(NODE_IPV4, KUBELET)),
            connects(node, metrics),
            connects(node, self.server),
            connects(outside, at(NODE_IPV4, OTHER)),
            connects(node, at(self.server.ip(), OTHER)),
        ]
    }
}

#[test]
fn a_partition_of_the_node_keeps_its_control_plane() {
    let node = Node::new();
    node.scene
        .ok("partition --target interface:br0 --for 60s --no-spare-node --name cut");
    assert_eq!(node.reached(), [true, true, true, true, false, false]);
    assert!(!answers(node.scene.lab.pod(1).netns(), NODE_IPV4.into()));
    let preview = node
        .scene
        .ok("partition --target interface:br0 --for 60s --dry-run");
    for part in [
        "10.77.0.1:22",
        "10.77.0.1:10250",
        &node.server.to_string(),
        "allowControlPlane",
    ] {
        assert!(preview.contains(part), "{part}: {preview}");
    }
}

#[test]
fn with_allow_control_plane_it_is_hit_too() {
    let node = Node::new();
    node.scene
        .ok("partition --target interface:br0 --for 60s --no-spare-node --allow-control-plane --name cut");
    // The metrics are asked for on the loopback device, where the fault isn't.
    assert_eq!(node.reached(), [false, false, true, false, false, false]);
    let spec = node.scene.faults()["faults"][0]["spec"].clone();
    assert_eq!(spec["allowControlPlane"], true, "{spec}");
    // The same fault without it, in place.
    node.scene
        .ok("partition --target interface:br0 --for 60s --no-spare-node --name cut");
    assert_eq!(node.reached(), [true, true, true, true, false, false]);
}

#[test]
fn a_pods_ssh_is_no_control_plane() {
    let node = Node::new();
    listen(node.scene.lab.pod(0).netns(), SSH);
    let target = node.scene.lab.pod(0).target();
    node.scene
        .ok(&format!("partition --target {target} --for 60s --no-spare-node"));
    let pod = node.scene.lab.pod(0).ipv4();
    assert!(!connects(node.scene.lab.node(), at(pod, SSH)));
    assert!(!connects(node.scene.lab.node(), node.server));
}
