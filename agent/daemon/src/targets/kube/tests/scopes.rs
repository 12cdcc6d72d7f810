//! What is followed, and what becomes of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sabot_core::model::{ClusterWanted, Endpoint, EndpointPort, PodSelector, ServicePort, Workload};
use sabot_testkit::kube::{Effect, Rule, Verb};
use serde_json::{Value, json};

use super::{NODE, Rig, elsewhere, labelled, pod, shop, wanting};
use crate::targets::kube::{Connection, KubeConfig, KubeState, KubeWorld, start};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name},
        "spec": spec,
    })
}

fn slice(name: &str, service: &str, endpoints: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "web", "protocol": "TCP", "port": 8080}],
        "endpoints": endpoints,
    })
}

#[tokio::test]
async fn the_nodes_own_pods_are_known_without_being_wanted() {
    let mut rig = Rig::new(ClusterWanted::default()).await;
    rig.cluster.apply(pod("here", "web", NODE, "10.0.0.1"));
    rig.cluster.apply(pod("there", "web", "node-b", "10.0.1.1"));
    rig.until("the node's pod is known", |world| {
        world.own.contains_key("uid-here")
    })
    .await;
    let mut changed = pod("here", "api", NODE, "10.0.0.1");
    changed["metadata"]["annotations"] = json!({"sabot.dev/protected": "true"});
    rig.cluster.apply(changed);
    let world = rig
        .until("its labels follow", |world| {
            world.own["uid-here"].labels["app"] == "api"
        })
        .await;
    assert_eq!(world.own["uid-here"].annotations["sabot.dev/protected"], "true");
    assert_eq!((world.own.size(), world.cluster.pods.len()), (1, 0));
    let mut finished = pod("here", "api", NODE, "10.0.0.1");
    finished["status"]["phase"] = json!("Succeeded");
    rig.cluster.apply(finished);
    rig.until("a finished pod is gone", |world| world.own.is_empty())
        .await;

    // Nothing of other nodes was asked for.
    let mut asked = rig.cluster.requests();
    asked.retain(|r| r.resource != "servicecidrs");
    assert!(asked.iter().all(|r| r.resource == "pods"), "{asked:#?}");
    let fields = |query: &str| query.contains(&format!("spec.nodeName={NODE},"));
    assert!(
        asked.iter().all(|r| fields(&r.query["fieldSelector"])),
        "{asked:#?}"
    );
}

#[tokio::test]
async fn remote_pods_are_watched_only_while_somebody_wants_them() {
    let mut rig = Rig::new(wanting("web")).await;
    for (name, app, node) in [
        ("w1", "web", "node-b"),
        ("w2", "web", "node-c"),
        ("d1", "db", "node-b"),
        ("w3", "web", NODE),
    ] {
        rig.cluster.apply(pod(name, app, node, "10.0.1.1"));
    }
    rig.until_pods(&["w1", "w2"]).await;
    rig.until_watches("pods", 2).await;
    let by_name = PodSelector {
        name: Some("d1".to_owned()),
        labels: Default::default(),
        ..labelled("")
    };
    rig.want(ClusterWanted {
        pods: vec![labelled("web"), by_name],
        nodes: ["node-b".to_owned()].into(),
        ..ClusterWanted::default()
    });
    rig.until_pods(&["w1", "w2", "d1"]).await;
    rig.until_watches("pods", 3).await;
    rig.until_watches("nodes", 1).await;
    let lists = rig.requests(Verb::List, "pods");
    let web: Vec<_> = lists
        .iter()
        .filter(|r| r.query.contains_key("labelSelector"))
        .collect();
    assert_eq!(
        web.len(),
        1,
        "what was followed already isn't read again: {lists:#?}"
    );
    assert_eq!(
        (
            web[0].namespace.as_deref(),
            web[0].query["labelSelector"].as_str()
        ),
        (Some("shop"), "app=web")
    );

    rig.want(ClusterWanted::default());
    rig.until_pods(&[]).await;
    rig.until_watches("pods", 1).await;
    rig.until_watches("nodes", 0).await;
    rig.until_watches("servicecidrs", 1).await;
    assert_eq!(rig.status.watches(), 2);
}

#[tokio::test]
async fn everything_ends_with_the_last_receiver() {
    let rig = Rig::new(wanting("web")).await;
    rig.until_watches("pods", 2).await;
    let Rig {
        cluster,
        world,
        wanted,
        ..
    } = rig;
    drop(world);
    super::until("no watch is open", async || cluster.watches("pods") == 0).await;
    drop(wanted);
}

fn balanced() -> Value {
    let mut service = service(
        "web",
        json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
            "externalIPs": ["192.0.2.9"], "publishNotReadyAddresses": true,
            "ports": [
                {"name": "web", "port": 80, "targetPort": "http", "nodePort": 30080},
                {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
            ],
        }),
    );
    service["status"] =
        json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.4"}, {"hostname": "lb.example"}]}});
    service
}

/// The slices of two Services; of one endpoint nothing is said but its address.
fn slices() -> [Value; 3] {
    let endpoint = |address: &str, pod: &str, conditions: Value| {
        json!({
            "addresses": [address], "conditions": conditions, "nodeName": "node-b",
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod},
        })
    };
    let ready = json!({"ready": true, "serving": true, "terminating": false});
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let leaving = endpoint("10.0.1.2", "w2", leaving);
    [
        slice("web-a", "web", json!([endpoint("10.0.1.1", "w1", ready)])),
        slice("web-b", "web", json!([leaving, {"addresses": ["10.0.1.3"]}])),
        slice("other", "other", json!([endpoint("10.0.9.9", "x", json!({}))])),
    ]
}

fn endpoints() -> [Endpoint; 3] {
    let of_pod = |address: &str, pod: &str| Endpoint {
        addresses: [ip(address)].into(),
        ports: vec![EndpointPort {
            name: "web".to_owned(),
            protocol: 6,
            port: Some(8080),
        }],
        pod: Some(shop(pod)),
        node: Some("node-b".to_owned()),
        ready: true,
        serving: true,
        terminating: false,
    };
    let leaving = Endpoint {
        ready: false,
        terminating: true,
        ..of_pod("10.0.1.2", "w2")
    };
    let unsaid = Endpoint {
        pod: None,
        node: None,
        ..of_pod("10.0.1.3", "")
    };
    [of_pod("10.0.1.1", "w1"), leaving, unsaid]
}

fn has_web(world: &KubeWorld, endpoints: usize) -> bool {
    let web = world.cluster.services.get(&shop("web"));
    web.is_some_and(|web| web.endpoints.len() == endpoints)
}

#[tokio::test]
async fn a_service_is_its_addresses_ports_and_endpoints() {
    let wanted = ClusterWanted {
        services: [shop("web"), shop("missing")].into(),
        ..ClusterWanted::default()
    };
    let mut rig = Rig::new(wanted).await;
    rig.cluster.apply(balanced());
    for slice in slices() {
        rig.cluster.apply(slice);
    }
    let world = rig.until("the Service is known", |world| has_web(world, 3)).await;
    assert!(!world.cluster.services.contains_key(&shop("missing")));
    let web = &world.cluster.services[&shop("web")];
    let addresses = ["10.96.0.7", "fd00:96::7", "192.0.2.9", "203.0.113.4"].map(ip);
    assert_eq!(web.addresses, addresses.into());
    let port = |name: &str, protocol, port, node_port| ServicePort {
        name: name.to_owned(),
        protocol,
        port,
        node_port,
    };
    assert_eq!(
        web.ports,
        [port("web", 6, 80, Some(30080)), port("dns", 17, 53, None)]
    );
    assert!(web.publishes_not_ready);
    assert_eq!(web.endpoints, endpoints());

    // A slice goes, and then the Service.
    assert!(rig.cluster.delete("endpointslices", "shop", "web-b"));
    rig.until("its endpoints go", |world| has_web(world, 1)).await;
    assert!(rig.cluster.delete("services", "shop", "web"));
    rig.until("it is gone", |world| world.cluster.services.is_empty())
        .await;
    // It comes back as a headless one.
    let headless = json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]});
    rig.cluster.apply(service("web", headless));
    let world = rig.until("it is back", |world| has_web(world, 1)).await;
    let web = &world.cluster.services[&shop("web")];
    assert!(web.addresses.is_empty());
    assert_eq!(web.ports, [port("", 6, 80, None)]);
}

#[tokio::test]
async fn all_services_of_a_namespace() {
    let wanted = ClusterWanted {
        services: [shop("web")].into(),
        service_namespaces: ["shop".to_owned()].into(),
        ..ClusterWanted::default()
    };
    let mut rig = Rig::new(wanted).await;
    for (number, name) in ["web", "db"].into_iter().enumerate() {
        rig.cluster.apply(service(name, json!({"ports": [{"port": 80}]})));
        let address = format!("10.0.1.{number}");
        rig.cluster
            .apply(slice(name, name, json!([{"addresses": [address]}])));
    }
    let world = rig
        .until("both are known", |world| {
            let services = &world.cluster.services;
            services.size() == 2 && services.values().all(|s| s.endpoints.len() == 1)
        })
        .await;
    let db = &world.cluster.services[&shop("db")];
    assert_eq!(db.endpoints[0].addresses, [ip("10.0.1.1")].into());
    // The one that is wanted by its name too is among them.
    rig.until_watches("services", 1).await;
    rig.until_watches("endpointslices", 1).await;
}

#[tokio::test]
async fn nodes_by_name_and_all_of_them() {
    let mut rig = Rig::new(ClusterWanted {
        nodes: ["node-b".to_owned()].into(),
        ..ClusterWanted::default()
    })
    .await;
    for (name, address) in [("node-a", "192.0.2.1"), ("node-b", "192.0.2.2")] {
        rig.cluster.apply(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"addresses": [
                {"type": "InternalIP", "address": address},
                {"type": "InternalIP", "address": "2001:db8::1"},
                {"type": "Hostname", "address": name},
            ]},
        }));
    }
    let world = rig
        .until("node-b is known", |world| {
            world.cluster.nodes.contains_key("node-b")
        })
        .await;
    assert_eq!(world.cluster.nodes.len(), 1);
    assert_eq!(
        world.cluster.nodes["node-b"],
        [ip("192.0.2.2"), ip("2001:db8::1")].into()
    );
    rig.want(ClusterWanted {
        nodes: ["node-b".to_owned()].into(),
        all_nodes: true,
        ..ClusterWanted::default()
    });
    rig.until("all are known", |world| world.cluster.nodes.len() == 2)
        .await;
    rig.until_watches("nodes", 1).await;
}

#[tokio::test]
async fn nothing_is_forgotten_when_more_is_wanted_or_less() {
    let one = ClusterWanted {
        services: [shop("web")].into(),
        nodes: ["node-b".to_owned()].into(),
        ..ClusterWanted::default()
    };
    let all = ClusterWanted {
        service_namespaces: ["shop".to_owned()].into(),
        all_nodes: true,
        ..one.clone()
    };
    let mut rig = Rig::new(one.clone()).await;
    rig.cluster
        .apply(service("web", json!({"ports": [{"port": 80}]})));
    rig.cluster.apply(service("db", json!({"ports": [{"port": 80}]})));
    rig.cluster
        .apply(slice("web", "web", json!([{"addresses": ["10.0.1.1"]}])));
    for name in ["node-a", "node-b"] {
        let status = json!({"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]});
        rig.cluster.apply(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status,
        }));
    }
    let is_there = |world: &KubeWorld| {
        let web = world.cluster.services.get(&shop("web"));
        web.is_some_and(|web| web.endpoints.len() == 1) && world.cluster.nodes.contains_key("node-b")
    };
    rig.until("one of each is known", is_there).await;
    // Slow enough that each step shows.
    rig.cluster
        .script(Rule::new(Effect::Delay(Duration::from_millis(100))).verb(Verb::List));
    // And the one half of a Service comes later than the other.
    let later = Rule::new(Effect::Delay(Duration::from_millis(200)));
    rig.cluster
        .script(later.verb(Verb::List).resource("endpointslices"));
    for (wanted, services) in [(&all, 2), (&one, 1)] {
        rig.want(wanted.clone());
        rig.until("what is wanted is known, and never less", |world| {
            assert!(is_there(world), "{world:#?}");
            world.cluster.known.contains(wanted) && world.cluster.services.size() == services
        })
        .await;
        rig.until_watches("services", 1).await;
        rig.until_watches("nodes", 1).await;
    }
}

#[tokio::test]
async fn what_has_not_changed_is_shared_with_the_world_before() {
    let wanted = ClusterWanted {
        pods: vec![labelled("db"), labelled("web")],
        service_namespaces: ["shop".to_owned()].into(),
        ..ClusterWanted::default()
    };
    let mut rig = Rig::new(wanted).await;
    for name in ["web", "db"] {
        rig.cluster.apply(pod(name, name, "node-b", "10.0.1.1"));
        rig.cluster.apply(service(name, json!({"ports": [{"port": 80}]})));
    }
    let before = rig
        .until("all is known", |world| {
            elsewhere(world).count() == 2 && world.cluster.services.size() == 2
        })
        .await;
    rig.cluster.apply(pod("web", "web", "node-b", "10.0.1.2"));
    rig.cluster
        .apply(slice("web", "web", json!([{"addresses": ["10.0.1.2"]}])));
    let after = rig
        .until("both changes are known", |world| {
            let moved = world.cluster.moved_services(&before.cluster);
            let web = labelled("web");
            moved == [shop("web")].into() && world.cluster.pods[&web] != before.cluster.pods[&web]
        })
        .await;
    let pods = |world: &KubeWorld| Arc::clone(&world.cluster.pods[&labelled("db")]);
    assert!(Arc::ptr_eq(&pods(&before), &pods(&after)));
    assert!(Arc::ptr_eq(&before.cluster.nodes, &after.cluster.nodes));
}

#[tokio::test]
async fn long_lists_are_read_in_pages() {
    let mut rig = Rig::new(ClusterWanted::default()).await;
    let names: Vec<String> = (0..1201).map(|n| format!("w{n:04}")).collect();
    for name in &names {
        rig.cluster.apply(pod(name, "web", "node-b", "10.0.1.1"));
    }
    rig.want(wanting("web"));
    rig.until("all pods are known", |world| {
        elsewhere(world).count() == names.len()
    })
    .await;
    let lists = |rig: &Rig| {
        let mut lists = rig.requests(Verb::List, "pods");
        lists.retain(|list| list.query.contains_key("labelSelector"));
        lists.len()
    };
    assert_eq!(lists(&rig), 1, "the server's cache gives it all at once");
    rig.until_watches("pods", 2).await;
    rig.cluster.hold_events("pods");
    rig.cluster.delete("pods", "shop", "w0600");
    rig.cluster.expire_watches("pods");
    rig.until("one is gone", |world| elsewhere(world).count() == names.len() - 1)
        .await;
    assert_eq!(lists(&rig), 1 + 3, "its storage is read in pages");
}

#[tokio::test]
async fn without_a_cluster_nothing_is_known_and_it_says_why() {
    let connection = Connection::new(KubeConfig::Absent("no kubeconfig".to_owned()), NODE).unwrap();
    assert!(connection.handle().is_none());
    let status = connection.status();
    let world = start(
        connection,
        tokio::sync::watch::Sender::new(Default::default()).subscribe(),
    );
    assert_eq!(**world.borrow(), Default::default());
    assert_eq!(status.state(), KubeState::Absent("no kubeconfig".to_owned()));
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    for (text, says) in [
        (None, "No such file"),
        (Some("{"), "parse"),
        (Some(r#"{"current-context": "x", "contexts": []}"#), "context"),
    ] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = KubeConfig::find(Some(&path))
            .await
            .expect_err("it can't be used")
            .to_string();
        assert!(
            error.starts_with(&format!("kubeconfig: `{}`", path.display())),
            "{error}"
        );
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_pod_is_one_of_what_controls_it() {
    let mut rig = Rig::new(ClusterWanted::default()).await;
    let owner = |kind: &str, name: &str, controller: bool| json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": controller}]);
    let of = |name: &str| Workload::Of(name.to_owned());
    let cases = [
        (
            "deployed",
            owner("ReplicaSet", "web-5d4f", true),
            of("Deployment web"),
        ),
        (
            "other-version",
            owner("ReplicaSet", "web-77aa", true),
            of("ReplicaSet web-77aa"),
        ),
        ("stateful", owner("StatefulSet", "db", true), of("StatefulSet db")),
        ("owned", owner("Thing", "it", false), Workload::Alone),
        ("alone", json!(null), Workload::Alone),
    ];
    for (name, owners, _) in &cases {
        let mut pod = pod(name, "web", NODE, "10.0.0.9");
        pod["metadata"]["labels"]["pod-template-hash"] = json!("5d4f");
        pod["metadata"]["ownerReferences"] = owners.clone();
        rig.cluster.apply(pod);
    }
    let world = rig
        .until("all are known", |world| world.own.size() == cases.len())
        .await;
    for (name, _, workload) in cases {
        assert_eq!(world.own[&format!("uid-{name}")].workload, workload, "{name}");
    }
}
