//! What nodes do with resources, and what they say of them.

use std::time::Duration;

use sabot_core::guard::PROTECTED;
use sabot_testkit::kube::{Effect, FakeCluster, Recorded, Rule, Verb};
use serde_json::json;

use super::rig::{Node, condition, cut, node_part, status, until, until_phase};
use crate::engine::handle::Phase;
use crate::engine::tests::rig::pod;

fn patches(cluster: &FakeCluster) -> Vec<Recorded> {
    let all = cluster.requests().into_iter();
    all.filter(|request| request.verb == Verb::Patch && request.resource == "networkfaults")
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_is_injected_and_its_status_says_so() {
    let cluster = FakeCluster::start();
    let node = Node::with_web(&cluster, "node-a").await;
    cluster.apply(cut("cut", "1m"));
    let status = until_phase(&cluster, "cut", "Injected").await;
    assert_eq!(status["action"], "partition");
    assert_eq!(status["targets"], 1);
    for (kind, holds) in [
        ("Accepted", "True"),
        ("Injected", "True"),
        ("Expired", "False"),
        ("Failed", "False"),
    ] {
        assert_eq!(condition(&status, kind)["status"], holds, "{kind}");
    }
    let part = node_part(&status, "node-a");
    assert_eq!(part["phase"], "Injected");
    assert_eq!((&part["targets"], &part["injected"]), (&json!(1), &json!(1)));
    assert_eq!(part["observedGeneration"], 1);
    assert_eq!(part["expiresAt"], status["expiresAt"]);
    let view = node.fault("shop", "cut").expect("the fault");
    assert_eq!(view.phase, Phase::Injected);
    let expires = humantime::format_rfc3339_millis(view.fault.expires).to_string();
    assert_eq!(status["expiresAt"], expires);
    let patch = &patches(&cluster)[0];
    assert_eq!(patch.subresource.as_deref(), Some("status"));
    assert_eq!(patch.query["fieldManager"], "sabot-node-a");

    until("its events", || cluster.objects("events").len() >= 2).await;
    let events = cluster.objects("events");
    let about: Vec<_> = events
        .iter()
        .map(|event| event["regarding"]["kind"].as_str())
        .collect();
    assert!(
        about.contains(&Some("NetworkFault")) && about.contains(&Some("Pod")),
        "{about:?}"
    );
    assert!(events.iter().all(|event| event["reason"] == "FaultInjected"));
    let of_pod = events
        .iter()
        .find(|event| event["regarding"]["kind"] == "Pod")
        .expect("one");
    assert_eq!(of_pod["regarding"]["name"], "web-node-a");
    assert_eq!(of_pod["regarding"]["uid"], "uid-web-node-a");

    cluster.delete("networkfaults", "shop", "cut");
    until("the end", || {
        node.fault("shop", "cut")
            .is_some_and(|view| view.phase == Phase::Deleted)
    })
    .await;
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_with_targets_writes_its_part_and_the_first_one_the_sum() {
    let cluster = FakeCluster::start();
    let one = Node::with_web(&cluster, "node-a").await;
    let two = Node::with_web(&cluster, "node-b").await;
    let idle = Node::start(&cluster, "node-c").await;
    cluster.apply(cut("cut", "1m"));
    until("the sum of both", || {
        let status = status(&cluster, "cut");
        status["targets"] == 2 && status["phase"] == "Injected"
    })
    .await;
    let parts = status(&cluster, "cut")["nodes"].as_array().expect("parts").len();
    assert_eq!(parts, 2, "a node without targets has nothing to say");
    // They count from the same instant: the first injection of all.
    let first = status(&cluster, "cut")["expiresAt"].clone();
    let first = humantime::parse_rfc3339(first.as_str().expect("a time")).expect("a time");
    for node in [&one, &two] {
        until("the common end", || {
            let end = node.fault("shop", "cut").expect("the fault").fault.expires;
            let apart = end.duration_since(first).unwrap_or_else(|e| e.duration());
            apart <= Duration::from_millis(2)
        })
        .await;
    }
    assert!(
        idle.fault("shop", "cut")
            .is_some_and(|view| view.since.is_some() || view.targets.is_empty())
    );
    // A pod that comes to the third node makes it write, too.
    idle.rig.world.add_pod(pod("web-c", "web", 3));
    until("three targets", || status(&cluster, "cut")["targets"] == 3).await;
    let sums: Vec<_> = patches(&cluster)
        .into_iter()
        .filter(|patch| !patch.body["status"]["phase"].is_null() && patch.code == 200)
        .map(|patch| patch.query["fieldManager"].clone())
        .collect();
    assert!(!sums.contains(&"sabot-node-c".to_owned()), "{sums:?}");
    for node in [one, two, idle] {
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_api_has_is_refused_until_it_is_free() {
    let cluster = FakeCluster::start();
    let node = Node::with_web(&cluster, "node-a").await;
    let spec =
        "{duration: 1m, target: {pods: {selector: {matchLabels: {app: web}}}}, action: {partition: {}}}";
    let (mut metadata, spec) = crate::engine::tests::rig::fault("cut", spec);
    metadata.namespace = "shop".to_owned();
    let wait = Duration::from_secs(5);
    node.rig
        .handle
        .apply(metadata, spec, wait)
        .await
        .expect("accepted");
    cluster.apply(cut("cut", "1m"));
    let status = until_phase(&cluster, "cut", "Refused").await;
    let accepted = condition(&status, "Accepted");
    assert_eq!(
        (&accepted["status"], &accepted["reason"]),
        (&json!("False"), &json!("NameTaken"))
    );
    let name = node.fault("shop", "cut").expect("the fault").fault.name.clone();
    node.rig.handle.delete(name).await.expect("deleted");
    let status = until_phase(&cluster, "cut", "Injected").await;
    assert_eq!(condition(&status, "Accepted")["status"], "True");
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_node_accepts_is_not_said_by_all() {
    let cluster = FakeCluster::start();
    let mut nodes = Vec::new();
    for name in ["node-a", "node-b", "node-c"] {
        nodes.push(Node::with_web(&cluster, name).await);
    }
    let mut elsewhere = cut("cut", "1m");
    // Who waits how long follows from it.
    elsewhere["metadata"]["uid"] = json!("elsewhere");
    elsewhere["spec"]["target"]["pods"]["namespace"] = json!("other");
    cluster.apply(elsewhere);
    let refused = until_phase(&cluster, "cut", "Refused").await;
    let accepted = condition(&refused, "Accepted");
    assert_eq!(accepted["reason"], "Invalid");
    let message = accepted["message"].as_str().expect("a message");
    assert!(
        message.contains("spec.target.pods.namespace: `other` given"),
        "{message}"
    );
    // Longer than any of them waits before it writes.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(
        status(&cluster, "cut")["nodes"].as_array().expect("parts").len(),
        1
    );
    for node in nodes {
        assert!(node.fault("shop", "cut").is_none());
        node.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_is_followed_and_one_that_is_wrong_ends_the_fault() {
    let cluster = FakeCluster::start();
    let node = Node::with_web(&cluster, "node-a").await;
    cluster.apply(cut("cut", "1m"));
    let before = until_phase(&cluster, "cut", "Injected").await;
    let mut edited = cut("cut", "1m");
    edited["metadata"]["generation"] = json!(2);
    edited["spec"]["action"] = json!({"drop": {"percent": 10}});
    cluster.apply(edited.clone());
    until("the edit", || {
        let view = node.fault("shop", "cut").expect("the fault");
        view.fault.action.name() == "drop" && view.phase == Phase::Injected
    })
    .await;
    until("the new action", || status(&cluster, "cut")["action"] == "drop").await;
    assert_eq!(status(&cluster, "cut")["expiresAt"], before["expiresAt"]);

    edited["metadata"]["generation"] = json!(3);
    edited["spec"]["action"] = json!({"drop": {"percent": 110}});
    cluster.apply(edited);
    let status = until_phase(&cluster, "cut", "Refused").await;
    assert_eq!(node_part(&status, "node-a")["observedGeneration"], 3);
    assert_eq!(
        node.fault("shop", "cut").expect("the fault").phase,
        Phase::Deleted
    );
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_replaced_while_nobody_looks_is_another_one() {
    let mut cluster = FakeCluster::start();
    let node = Node::with_web(&cluster, "node-a").await;
    cluster.apply(cut("cut", "1m"));
    cluster.apply(cut("gone", "1m"));
    until_phase(&cluster, "cut", "Injected").await;
    until_phase(&cluster, "gone", "Injected").await;
    let first = node.fault("shop", "cut").expect("the fault");
    cluster.go_away();
    for name in ["cut", "gone"] {
        assert!(cluster.delete("networkfaults", "shop", name));
    }
    cluster.apply(cut("cut", "2m"));
    cluster.come_back();
    until("the new one", || {
        let view = node.fault("shop", "cut").expect("the fault");
        view.origin != first.origin && view.phase == Phase::Injected
    })
    .await;
    until("the end of the other", || {
        node.fault("shop", "gone")
            .is_some_and(|view| view.phase == Phase::Deleted)
    })
    .await;
    until_phase(&cluster, "cut", "Injected").await;
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restless_targets_make_few_writes() {
    let cluster = FakeCluster::start();
    let node = Node::with_web(&cluster, "node-a").await;
    cluster.apply(cut("cut", "5m"));
    until_phase(&cluster, "cut", "Injected").await;
    let begin = std::time::Instant::now();
    for round in 0..60_u8 {
        if round % 2 == 0 {
            node.rig.world.add_pod(pod("web-2", "web", 2));
        } else {
            node.rig
                .world
                .change(|update| drop(update.world.pods.remove("sandbox-2")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until("the last state", || status(&cluster, "cut")["targets"] == 1).await;
    // Its begin, that it is in force, and the last state.
    let most = 4 + usize::try_from(begin.elapsed().as_secs()).expect("a short time");
    let written = patches(&cluster).len();
    assert!(written <= most, "{written} writes in {:?}", begin.elapsed());
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_is_asked_again_later() {
    let cluster = FakeCluster::start();
    let refuse = Effect::Refuse {
        code: 429,
        retry_after: Some(1),
    };
    cluster.script(
        Rule::new(refuse)
            .verb(Verb::Patch)
            .resource("networkfaults")
            .times(3),
    );
    let node = Node::with_web(&cluster, "node-a").await;
    cluster.apply(cut("cut", "5m"));
    until_phase(&cluster, "cut", "Injected").await;
    let tries = patches(&cluster);
    assert_eq!(tries.iter().filter(|patch| patch.code == 429).count(), 3);
    // What follows from the first write that was taken needs no pause.
    for pair in tries[..4].windows(2) {
        assert!(
            pair[1].at - pair[0].at >= Duration::from_millis(900),
            "no pause between tries"
        );
    }
    node.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_guard_refuses_says_so_until_the_guard_lets_it_pass() {
    let cluster = FakeCluster::start();
    let node = Node::start(&cluster, "node-a").await;
    let mut kept = pod("web", "web", 1);
    kept.annotations.insert(PROTECTED.to_owned(), "true".to_owned());
    node.rig.world.add_pod(kept);
    cluster.apply(cut("cut", "5m"));
    let status = until_phase(&cluster, "cut", "Refused").await;
    assert_eq!(condition(&status, "Accepted")["status"], "False");
    let part = node_part(&status, "node-a");
    assert_eq!(part["reason"], "Guarded");
    let message = part["message"].as_str().expect("a message");
    assert!(message.contains("protected-pod"), "{message}");

    node.rig.world.add_pod(pod("web", "web", 1));
    until_phase(&cluster, "cut", "Injected").await;
    node.kill().await;
}
