//! Services in resources: as targets and as peers, with endpoints that come and go.

use std::time::{Duration, Instant};

use sabot_testkit::kube::{Effect, Rule, Verb};
use serde_json::{Value, json};

use crate::scene::{Scene, cut};

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
            "ports": [{"name": "probe", "protocol": "UDP", "port": 53}],
        },
    })
}

/// The Service's endpoints, each with an address and the pod that it is, if it is one.
fn slice(service: &str, port: u16, endpoints: &[(String, Option<String>)]) -> Value {
    let endpoint = |(address, pod): &(String, Option<String>)| {
        let mut endpoint = json!({"addresses": [address], "conditions": {"ready": true}});
        if let Some(pod) = pod {
            endpoint["targetRef"] = json!({"kind": "Pod", "namespace": "shop", "name": pod});
        }
        endpoint
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": "shop", "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service},
        },
        "ports": [{"name": "probe", "protocol": "UDP", "port": port}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

#[test]
fn a_services_backends_are_followed() {
    let scene = Scene::new(&[("node-a", 2)]);
    let backends = |pods: &[usize]| {
        let backend = |pod: &usize| {
            let address = scene.lab.pod(*pod).ipv4().to_string();
            (address, Some(format!("web-{pod}")))
        };
        let endpoints: Vec<_> = pods.iter().map(backend).collect();
        scene.cluster.apply(slice("front", 8080, &endpoints));
    };
    scene.cluster.apply(service("front"));
    backends(&[0]);
    let mut fault = cut("cut", "10m");
    fault["spec"]["target"] = json!({"service": {"name": "front"}});
    scene.cluster.apply(fault);
    scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);
    assert!(!scene.is_cut(1));
    backends(&[0, 1]);
    scene.wait_cut(1);
    scene.wait_status("cut", "two targets", |status| status["targets"] == 2);
    backends(&[1]);
    scene.wait_pass(0);
    assert!(scene.is_cut(1));
    scene.wait_status("cut", "one target", |status| status["targets"] == 1);
}

#[test]
fn a_peer_services_backends_are_followed() {
    let scene = Scene::new(&[("node-a", 1)]);
    let outside = scene.outside();
    let backends = |endpoints: &[(String, Option<String>)]| {
        scene.cluster.apply(slice("db", outside.port(), endpoints));
    };
    scene.cluster.apply(service("db"));
    backends(&[]);
    let mut fault = cut("cut", "10m");
    fault["spec"]["peers"] = json!([{"service": {"name": "db"}}]);
    scene.cluster.apply(fault);
    scene.wait_phase("cut", "Injected");
    assert!(!scene.is_cut(0));
    backends(&[(outside.ip().to_string(), None)]);
    scene.wait_cut(0);
    // The same address at another port is another peer.
    scene.cluster.apply(slice(
        "db",
        outside.port() ^ 1,
        &[(outside.ip().to_string(), None)],
    ));
    scene.wait_pass(0);
    backends(&[(outside.ip().to_string(), None)]);
    scene.wait_cut(0);
    scene.cluster.delete("services", "shop", "db");
    scene.wait_pass(0);
}

/// A peer that is reached through every node's addresses is cut off there too, and the fault doesn't begin before those are
/// known: it would let some of what it names pass.
#[test]
fn a_fault_waits_for_the_nodes_whose_ports_lead_to_its_peers() {
    const SLOW: Duration = Duration::from_secs(2);
    let scene = Scene::new(&[("node-a", 1)]);
    let outside = scene.outside();
    let mut exposed = service("db");
    exposed["spec"]["type"] = json!("NodePort");
    exposed["spec"]["ports"][0]["nodePort"] = json!(outside.port());
    scene.cluster.apply(exposed);
    scene.cluster.apply(slice("db", 8080, &[]));
    scene.cluster.apply(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-b"},
        "status": {"addresses": [{"type": "InternalIP", "address": outside.ip().to_string()}]},
    }));
    let late = Rule::new(Effect::Delay(SLOW));
    scene.cluster.script(late.verb(Verb::List).resource("nodes"));
    let mut fault = cut("cut", "10m");
    fault["spec"]["peers"] = json!([{"service": {"name": "db"}}]);
    let applied = Instant::now();
    scene.cluster.apply(fault);
    scene.wait_phase("cut", "Injected");
    let waited = applied.elapsed();
    assert!(
        waited >= SLOW,
        "it began after {waited:?}, before the nodes were told"
    );
    scene.wait_cut(0);
    scene.cluster.delete("nodes", "", "node-b");
    scene.wait_pass(0);
}
