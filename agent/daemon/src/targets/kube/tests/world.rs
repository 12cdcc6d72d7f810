//! The cluster's part of the world that the engine sees.

use std::time::Duration;

use sabot_core::model::ApiServer;
use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, socket_in};
use sabot_testkit::kube::{Effect, FakeCluster, Rule, Verb};
use serde_json::json;
use tokio::time::timeout;

use super::{BACKOFF, NODE, PATIENCE, labelled, pod, wanting};
use crate::targets::kube::limit::ANSWER;
use crate::targets::kube::{Connection, KubeConfig, KubeState};
use crate::targets::test_netns::TestNetns;
use crate::targets::{RuntimeEndpoint, TargetsConfig, TargetsHandle, Wanted, WorldUpdate, start_in};

async fn targets(cluster: &FakeCluster, runtime_endpoint: RuntimeEndpoint) -> TargetsHandle {
    let config = KubeConfig::find(Some(&cluster.kubeconfig())).await.unwrap();
    let connection = Connection::with_times(config, NODE, BACKOFF, ANSWER).unwrap();
    let settings = TargetsConfig {
        runtime_endpoint,
        inspect_interval: Duration::from_secs(3600),
        ..TargetsConfig::default()
    };
    start_in(settings, connection, None)
}

async fn until(targets: &TargetsHandle, what: &str, holds: impl Fn(&WorldUpdate) -> bool) {
    let mut updates = targets.watch();
    let seen = timeout(PATIENCE, updates.wait_for(|update| holds(update))).await;
    assert!(seen.is_ok(), "{what}: {:#?}", targets.current());
}

#[tokio::test]
async fn a_command_waits_for_what_it_wants_of_the_cluster() {
    let cluster = FakeCluster::start();
    cluster.apply(pod("w1", "web", "node-b", "10.0.1.1"));
    let targets = targets(&cluster, RuntimeEndpoint::Disabled).await;
    until(&targets, "it is ready", |u| {
        matches!(u.kubernetes, KubeState::Ready { .. })
    })
    .await;
    cluster.script(Rule::new(Effect::Delay(Duration::from_millis(200))).verb(Verb::List));
    let wanted = Wanted {
        cluster: wanting("web"),
        ..Wanted::default()
    };
    let update = targets.refresh(wanted.clone(), Default::default()).await;
    assert_eq!(update.world.cluster.pods[&labelled("web")]["uid-w1"].name, "w1");
    // Nothing is asked again for what is known.
    super::until("both watches are open", async || {
        cluster.watches("pods") == 2 && cluster.watches("servicecidrs") == 1
    })
    .await;
    let before = cluster.requests().len();
    targets.refresh(wanted, Default::default()).await;
    assert_eq!(cluster.requests().len(), before);
    let update = targets.refresh(Wanted::default(), Default::default()).await;
    assert_eq!(update.kubernetes, targets.current().kubernetes);
    until(&targets, "nothing is wanted", |u| u.world.cluster.pods.is_empty()).await;
}

#[tokio::test]
async fn a_server_that_was_away_counts_as_away_until_it_has_told_what_is_wanted() {
    let mut cluster = FakeCluster::start();
    cluster.apply(pod("w1", "web", "node-b", "10.0.1.1"));
    let targets = targets(&cluster, RuntimeEndpoint::Disabled).await;
    let wanted = wanting("web");
    until(&targets, "it is ready", |u| {
        matches!(u.kubernetes, KubeState::Ready { .. })
    })
    .await;
    assert_eq!(targets.current().world.cluster.server, ApiServer::Answers);
    cluster.go_away();
    until(&targets, "it is down", |u| {
        matches!(u.kubernetes, KubeState::Down(_))
    })
    .await;
    targets.want(Wanted {
        cluster: wanted.clone(),
        ..Wanted::default()
    });
    // Slow enough that it is ready for a while before it has told.
    cluster.script(Rule::new(Effect::Delay(Duration::from_millis(300))).verb(Verb::List));
    cluster.come_back();
    until(&targets, "it has told", |u| {
        let cluster = &u.world.cluster;
        let has_told = cluster.known.contains(&wanted);
        assert_eq!(cluster.server == ApiServer::Answers, has_told, "{u:#?}");
        has_told
    })
    .await;
}

#[tokio::test]
async fn a_pods_labels_are_those_that_it_has_now() {
    let folder = tempfile::tempdir().unwrap();
    let netns = TestNetns::new();
    let socket = socket_in(&folder);
    let runtime = FakeRuntime::start(&socket, "1.7.0", Events::Unimplemented);
    runtime.put("sandbox", FakeSandbox::ready("web", netns.path()));
    let mut cluster = FakeCluster::start();
    let targets = targets(&cluster, RuntimeEndpoint::Socket(socket)).await;
    let label = |u: &WorldUpdate, value: &str| {
        u.world
            .pods
            .get("sandbox")
            .is_some_and(|p| p.labels["app"] == value)
    };
    // The runtime alone is enough.
    until(&targets, "the sandbox is known", |u| label(u, "web")).await;
    cluster.apply(pod("web", "api", NODE, "10.88.0.2"));
    until(&targets, "its label has changed", |u| label(u, "api")).await;
    // Another pod of the same name is another pod.
    cluster.delete("pods", "shop", "web");
    let mut other = pod("web", "other", NODE, "10.88.0.3");
    other["metadata"]["uid"] = json!("uid-of-another");
    cluster.apply(other);
    until(&targets, "the runtime's label is all there is", |u| {
        label(u, "web")
    })
    .await;

    cluster.delete("pods", "shop", "web");
    cluster.apply(pod("web", "api", NODE, "10.88.0.2"));
    until(&targets, "it is back", |u| label(u, "api")).await;
    cluster.go_away();
    until(&targets, "it is down", |u| {
        matches!(u.kubernetes, KubeState::Down(_))
    })
    .await;
    assert!(label(&targets.current(), "api"), "what was known stays");
}
