use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config, Error, ResourceExt};
use sabot_testkit::kube::{Effect, FakeCluster, Order, Rule, Verb};
use serde_json::{Value, json};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn pod(name: &str, app: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": []},
    })
}

fn code<T>(result: Result<T, Error>) -> u16 {
    match result {
        Err(Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was answered"),
    }
}

fn names(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}

/// What a watch from a version on sees, as kinds, names and versions; of an error, its code.
async fn seen(api: &Api<Pod>, labels: &str, from: &str, count: usize) -> Vec<(&'static str, String, String)> {
    let stream = api
        .watch(&WatchParams::default().labels(labels), from)
        .await
        .unwrap();
    let events = stream.take(count).map_ok(|event| match event {
        WatchEvent::Added(pod) => ("added", pod.name_any(), pod.resource_version().unwrap()),
        WatchEvent::Modified(pod) => ("modified", pod.name_any(), pod.resource_version().unwrap()),
        WatchEvent::Deleted(pod) => ("deleted", pod.name_any(), pod.resource_version().unwrap()),
        WatchEvent::Bookmark(mark) => ("bookmark", String::new(), mark.metadata.resource_version),
        WatchEvent::Error(status) => ("error", status.code.to_string(), String::new()),
    });
    timeout(PATIENCE, events.try_collect())
        .await
        .expect("so many events come")
        .unwrap()
}

#[tokio::test]
async fn lists_are_narrowed_and_paged() {
    let cluster = FakeCluster::start();
    for (name, app, node) in [
        ("a", "web", "n1"),
        ("b", "web", "n2"),
        ("c", "db", "n1"),
        ("d", "web", "n1"),
    ] {
        cluster.apply(pod(name, app, node));
    }
    let client = client(&cluster.kubeconfig()).await;
    assert_eq!(client.apiserver_version().await.unwrap().git_version, "v1.33.1");
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    let web = pods
        .list(&ListParams::default().labels("app in (web)"))
        .await
        .unwrap();
    assert_eq!(names(&web.items), ["a", "b", "d"]);
    let here = pods
        .list(&ListParams::default().labels("app=web").fields("spec.nodeName=n1"))
        .await
        .unwrap();
    assert_eq!(names(&here.items), ["a", "d"]);
    assert_eq!(
        names(
            &Api::<Pod>::namespaced(client.clone(), "other")
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
        ),
        Vec::<String>::new()
    );

    let first = pods.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!(names(&first.items), ["a", "b", "c"]);
    let token = first.metadata.continue_.unwrap();
    let rest = pods
        .list(&ListParams::default().limit(3).continue_token(&token))
        .await
        .unwrap();
    assert_eq!(names(&rest.items), ["d"]);
    assert_eq!(rest.metadata.continue_, None);
    cluster.compact();
    assert_eq!(
        code(pods.list(&ListParams::default().continue_token(&token)).await),
        410
    );
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let cluster = FakeCluster::start();
    cluster.apply(pod("a", "web", "n1"));
    let client = client(&cluster.kubeconfig()).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    let known = pods.get("a").await.unwrap();
    assert_eq!(known.spec.unwrap().node_name.unwrap(), "n1");
    assert_eq!(code(pods.get("x").await), 404);
    cluster.uninstall("services");
    let services = Api::<Service>::all(client);
    let nothing = ListParams::default();
    assert_eq!(code(services.list(&nothing).await), 404);
    cluster.install("services");
    services.list(&nothing).await.unwrap();
}

#[tokio::test]
async fn watches_see_every_change_from_their_version_on() {
    let cluster = FakeCluster::start();
    cluster.apply(pod("a", "web", "n1"));
    let pods: Api<Pod> = Api::namespaced(client(&cluster.kubeconfig()).await, "shop");
    let start = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    cluster.apply(pod("b", "web", "n1"));
    cluster.apply(pod("b", "web", "n1"));
    cluster.apply(pod("a", "db", "n1"));
    cluster.apply(pod("a", "web", "n2"));
    assert!(cluster.delete("pods", "shop", "b"));
    assert!(!cluster.delete("pods", "shop", "b"));
    let expected = [("added", "b"), ("deleted", "a"), ("added", "a"), ("deleted", "b")];
    let events = seen(&pods, "app=web", &start, 4).await;
    let plain: Vec<_> = events
        .iter()
        .map(|(kind, name, _)| (*kind, name.as_str()))
        .collect();
    assert_eq!(
        plain, expected,
        "an object that says the same is no change; one that leaves the scope is deleted"
    );
    let versions: Vec<u64> = events
        .iter()
        .map(|(_, _, version)| version.parse().unwrap())
        .collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");

    cluster.compact();
    assert_eq!(
        seen(&pods, "", &start, 1).await,
        [("error", "410".to_owned(), String::new())]
    );
    assert_eq!(
        cluster
            .requests()
            .iter()
            .filter(|r| r.verb == Verb::Watch)
            .count(),
        2
    );
}

// Its client goes on while the test waits.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_test_does_to_open_watches() {
    let cluster = FakeCluster::start();
    let pods: Api<Pod> = Api::all(client(&cluster.kubeconfig()).await);
    let mut stream = pods.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let mut next = async || timeout(PATIENCE, stream.next()).await.expect("an event comes");
    cluster.hold_events("pods");
    cluster.apply(pod("a", "web", "n1"));
    cluster.apply(pod("b", "web", "n1"));
    cluster.release_events("pods", Order::Reversed);
    cluster.repeat_events("pods");
    cluster.bookmark("pods");
    for expected in ["b", "a", "b", "a"] {
        match next().await {
            Some(Ok(WatchEvent::Added(pod))) => assert_eq!(pod.name_any(), expected),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(next().await, Some(Ok(WatchEvent::Bookmark(_)))));
    assert_eq!(cluster.watches("pods"), 1);
    cluster.expire_watches("pods");
    assert!(matches!(next().await, Some(Ok(WatchEvent::Error(status))) if status.code == 410));
    assert!(next().await.is_none(), "it has ended");

    for cut in [FakeCluster::cut_watches, FakeCluster::end_watches] {
        let mut stream = pods.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        for _ in 0..2 {
            timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
        }
        cut(&cluster, "pods");
        let rest = timeout(PATIENCE, stream.filter(|e| std::future::ready(e.is_ok())).count()).await;
        assert_eq!(rest.expect("it ends"), 0);
    }
    drop(pods);
    assert!(cluster.wait_for_watches("pods", 0));
}

#[tokio::test]
async fn a_script_and_an_absence() {
    let mut cluster = FakeCluster::start();
    let pods: Api<Pod> = Api::all(client(&cluster.kubeconfig()).await);
    let refuse = Effect::Refuse {
        code: 429,
        retry_after: Some(1),
    };
    cluster.script(Rule::new(refuse).verb(Verb::List).resource("pods").times(2));
    for _ in 0..2 {
        assert_eq!(code(pods.list(&ListParams::default()).await), 429);
    }
    pods.list(&ListParams::default()).await.unwrap();
    cluster.script(Rule::new(Effect::BreakOff));
    assert!(pods.list(&ListParams::default()).await.is_err());
    cluster.clear_script();

    cluster.go_away();
    assert!(pods.list(&ListParams::default()).await.is_err());
    cluster.apply(pod("a", "web", "n1"));
    cluster.come_back();
    assert_eq!(
        names(&pods.list(&ListParams::default()).await.unwrap().items),
        ["a"]
    );
    let codes: Vec<u16> = cluster.requests().iter().map(|request| request.code).collect();
    assert_eq!(codes, [429, 429, 200, 200, 200]);
}

#[tokio::test]
async fn statuses_are_applied_by_their_managers() {
    let cluster = FakeCluster::start();
    cluster.apply(json!({
        "apiVersion": "sabot.dev/v1alpha1", "kind": "NetworkFault",
        "metadata": {"namespace": "shop", "name": "cut"},
        "spec": {"duration": "1m"},
    }));
    let kind = GroupVersionKind::gvk("sabot.dev", "v1alpha1", "NetworkFault");
    let client = client(&cluster.kubeconfig()).await;
    let faults: Api<DynamicObject> = Api::namespaced_with(client, "shop", &ApiResource::from_gvk(&kind));
    let apply = async |node: &str, phase: &str| {
        let status = json!({
            "apiVersion": "sabot.dev/v1alpha1", "kind": "NetworkFault",
            "status": {"phase": phase, "nodes": [{"node": node, "phase": phase}]},
        });
        let manager = PatchParams::apply(&format!("sabot-{node}"));
        faults.patch_status("cut", &manager, &Patch::Apply(status)).await
    };
    apply("a", "Injected").await.unwrap();
    let both = apply("b", "Injected").await.unwrap();
    assert_eq!(both.data["status"]["nodes"].as_array().unwrap().len(), 2);
    assert_eq!(both.metadata.generation, Some(1));
    assert_eq!(both.managed_fields()[1].manager.as_deref(), Some("sabot-b"));
    assert_eq!(code(apply("a", "Expired").await), 409);
    assert_eq!(
        cluster.get("networkfaults", "shop", "cut").unwrap()["spec"],
        json!({"duration": "1m"})
    );
    assert_eq!(
        code(
            faults
                .patch_status("x", &PatchParams::apply("a"), &Patch::Apply(json!({})))
                .await
        ),
        404
    );
}
