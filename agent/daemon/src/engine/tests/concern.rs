//! What a fault asks of the cluster follows from what it has to do with this node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sabot_core::model::{ApiServer, ClusterPod, ClusterWanted, Percent, Pod, PodSelector, PodSet, Workload};

use super::rig::{Rig, fault, fault_name, pass, pod};
use crate::engine::handle::{EngineError, Phase};

const SOON: Duration = Duration::from_millis(10);
/// Longer than what nobody wants any more is kept.
const LATER: Duration = Duration::from_secs(61);
const TO_PODS: &str = "{duration: 1h, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}}}, \
     peers: [{pods: {namespace: bank, selector: {matchLabels: {app: db}}}}], action: {partition: {}}}";

/// With an API server that answers when the test says so.
fn rig() -> Rig {
    let rig = Rig::new();
    rig.world
        .change(|update| update.world.cluster.server = ApiServer::Answers);
    rig
}

/// The API server has told all that is wanted now: these pods of another node match every selector.
fn tell(rig: &Rig, addresses: &[&str]) {
    let wanted = rig.world.wanted().cluster;
    let pod = |address: &&str| {
        let pod = ClusterPod {
            namespace: "bank".to_owned(),
            name: format!("db-{address}"),
            uid: format!("uid-{address}"),
            node: "worker-7".to_owned(),
            labels: Default::default(),
            annotations: Default::default(),
            addresses: [address.parse().expect("an address")].into(),
            host_network: false,
            workload: Default::default(),
        };
        (pod.uid.clone(), Arc::new(pod))
    };
    let pods: Arc<PodSet> = Arc::new(addresses.iter().map(pod).collect());
    rig.world.change(|update| {
        let cluster = &mut update.world.cluster;
        let selectors = wanted.pods.iter().cloned();
        cluster.pods = selectors.map(|selector| (selector, Arc::clone(&pods))).collect();
        cluster.known = Arc::new(wanted);
    });
}

fn is_asked(rig: &Rig) -> bool {
    rig.world.wanted().cluster != ClusterWanted::default()
}

fn peers(rig: &Rig) -> usize {
    rig.kernel.state().peers.values().map(BTreeSet::len).sum()
}

#[tokio::test(start_paused = true)]
async fn peers_are_asked_for_while_the_fault_has_targets_here() {
    let rig = rig();
    let view = rig.apply("cut", TO_PODS).await.expect("accepted");
    assert_eq!((view.phase, rig.world.refreshes()), (Phase::Pending, 0));
    assert!(!is_asked(&rig), "{:?}", rig.world.wanted());
    assert!(!view.message.contains("peers"), "{}", view.message);

    rig.world.add_pod(pod("web", "web", 1));
    pass(SOON).await;
    assert!(is_asked(&rig));
    let view = rig.view("cut");
    assert_eq!(view.phase, Phase::Pending);
    assert_eq!(view.message, "its peers in the cluster aren't known yet");
    let slot = view.slot.expect("a slot");
    assert!(rig.kernel.devices(slot).is_empty(), "it would mean nobody");

    tell(&rig, &["10.2.0.1", "10.2.0.2"]);
    pass(SOON).await;
    assert_eq!((rig.view("cut").phase, peers(&rig)), (Phase::Injected, 2));

    // A pod that restarts finds its peers known.
    rig.world.remove_pod("sandbox-1");
    pass(SOON).await;
    assert_eq!(rig.view("cut").phase, Phase::Pending);
    assert!(is_asked(&rig));
    rig.world.add_pod(pod("web", "web", 1));
    pass(SOON).await;
    assert_eq!(rig.view("cut").phase, Phase::Injected);
    rig.world.remove_pod("sandbox-1");
    pass(LATER).await;
    assert!(!is_asked(&rig), "nothing here needs them any more");

    tell(&rig, &[]);
    rig.world.add_pod(pod("web", "web", 1));
    pass(SOON).await;
    assert!(is_asked(&rig));
    assert_eq!(
        rig.view("cut").phase,
        Phase::Pending,
        "they have to be read again"
    );
    rig.handle.delete(fault_name("cut")).await.expect("it is known");
    assert!(is_asked(&rig));
    pass(LATER).await;
    assert!(!is_asked(&rig));
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_ends_without_targets_asks_for_nothing() {
    let rig = rig();
    rig.apply("cut", TO_PODS).await.expect("accepted");
    rig.handle.delete(fault_name("cut")).await.expect("it is known");
    pass(SOON).await;
    assert!(!is_asked(&rig));
}

#[tokio::test(start_paused = true)]
async fn a_preview_and_a_new_fault_look_at_the_peers_first() {
    let rig = rig();
    let (metadata, spec) = fault("cut", TO_PODS);
    let preview = rig.handle.preview(metadata, spec).await.expect("valid");
    assert_eq!(rig.world.refreshes(), 1, "also where it has no target");
    assert!(preview.targets.is_empty());
    pass(LATER).await;
    assert!(!is_asked(&rig));

    rig.world.add_pod(pod("web", "web", 1));
    pass(SOON).await;
    let view = rig.apply("cut", TO_PODS).await.expect("accepted");
    assert_eq!(rig.world.refreshes(), 2);
    assert_eq!(view.phase, Phase::Pending, "nothing was told: {}", view.message);
    tell(&rig, &["10.2.0.1"]);
    pass(SOON).await;
    assert_eq!(rig.view("cut").phase, Phase::Injected);
}

#[tokio::test(start_paused = true)]
async fn a_pick_asks_for_its_rivals_and_then_for_its_peers() {
    let rig = rig();
    let spec = TO_PODS.replace("{app: web}}}", "{app: web}}, pick: {count: 1, seed: 1}}");
    rig.apply("cut", &spec).await.expect("accepted");
    assert!(!is_asked(&rig), "no pod here can be picked");

    let namespaces = |wanted: &[PodSelector]| -> Vec<String> {
        wanted.iter().map(|selector| selector.namespace.clone()).collect()
    };
    rig.world.add_pod(pod("web", "web", 1));
    pass(SOON).await;
    assert_eq!(namespaces(&rig.world.wanted().cluster.pods), ["shop"]);
    let message = rig.view("cut").message;
    assert!(message.contains("the pods of other nodes"), "{message}");
    tell(&rig, &[]);
    pass(SOON).await;
    assert_eq!(namespaces(&rig.world.wanted().cluster.pods), ["bank", "shop"]);
    assert_eq!(rig.view("cut").phase, Phase::Pending);
    tell(&rig, &[]);
    pass(SOON).await;
    assert_eq!(rig.view("cut").phase, Phase::Injected);
}

#[tokio::test(start_paused = true)]
async fn what_changes_elsewhere_makes_no_news() {
    let rig = rig();
    rig.world.add_pod(pod("web", "web", 1));
    pass(SOON).await;
    rig.apply("cut", TO_PODS).await.expect("accepted");
    tell(&rig, &["10.2.0.1"]);
    pass(SOON).await;
    let generation = rig.handle.snapshot().generation;
    rig.world.change(|update| {
        let cluster = &mut update.world.cluster;
        let (mut other, pods) = cluster.pods.pop_first().expect("the peers");
        cluster.pods.insert(other.clone(), pods);
        other.namespace = "other".to_owned();
        cluster.pods.insert(other, Arc::default());
    });
    pass(SOON).await;
    assert_eq!(rig.handle.snapshot().generation, generation);
    tell(&rig, &["10.2.0.1", "10.2.0.2"]);
    pass(SOON).await;
    assert_eq!(peers(&rig), 2);
    assert!(rig.handle.snapshot().generation > generation);
}

/// What nobody meant so far counts as soon as it is known.
#[tokio::test(start_paused = true)]
async fn pods_that_come_into_sight_for_a_new_fault_are_counted_for_it() {
    let rig = Rig::with(
        |options| options.guards.workload_share = Percent::new(50.0).expect("a share"),
        &[],
    );
    rig.world
        .change(|update| update.world.cluster.server = ApiServer::Answers);
    let workload = Workload::Of("Deployment web".to_owned());
    rig.world.add_pod(Pod {
        workload: workload.clone(),
        ..pod("web", "web", 1)
    });
    pass(SOON).await;
    let (metadata, spec) = fault("cut", TO_PODS);
    let alone = rig.handle.preview(metadata.clone(), spec.clone()).await;
    let said = |result: Result<_, EngineError>| match result {
        Err(EngineError::Refused { message, .. }) => message,
        _ => panic!("it is accepted"),
    };
    assert!(said(alone.map(drop)).contains("of the 1 pods"));

    tell(&rig, &["10.2.0.1", "10.2.0.2", "10.2.0.3"]);
    rig.world.change(|update| {
        let pods = update.world.cluster.pods.values_mut();
        for pods in pods {
            let of_shop = |pod: &Arc<ClusterPod>| ClusterPod {
                namespace: "shop".to_owned(),
                workload: workload.clone(),
                ..ClusterPod::clone(pod)
            };
            let pods: &mut Arc<PodSet> = pods;
            *pods = Arc::new(
                pods.iter()
                    .map(|(uid, pod)| (uid.clone(), of_shop(pod).into()))
                    .collect(),
            );
        }
    });
    pass(SOON).await;
    let refusal = said(rig.handle.preview(metadata, spec).await.map(drop));
    assert!(refusal.contains("of the 4 pods"), "{refusal}");
}
