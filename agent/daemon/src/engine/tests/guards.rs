//! Guards at work: refusals, and what changes while a fault is in force.

use std::collections::BTreeSet;
use std::time::Duration;

use sabot_core::guard::{Guards, PROTECTED};
use sabot_core::model::Percent;

use super::rig::{Rig, device, fault, pass, pod};
use crate::engine::ControlPlane;
use crate::engine::handle::{EngineError, Phase, TargetPhase};

const WEB: &str = "{duration: 1m, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}}}, action: {partition: {}}}";
const CLI: &str = "{duration: 1m, target: {pods: {namespace: shop, selector: {matchLabels: {app: cli}}}}, action: {partition: {}}}";
const SYSTEM: &str =
    "{duration: 1m, target: {pods: {namespace: kube-system, name: dns}}, action: {partition: {}}}";
const NETNS: &str = "{duration: 1m, target: {netns: /run/netns/web}, action: {partition: {}}}";

fn half(guards: &mut Guards) {
    guards.namespace_share = Percent::new(50.0).expect("a percent");
}

fn guard_of<T: std::fmt::Debug>(result: Result<T, EngineError>) -> &'static str {
    match result {
        Err(EngineError::Refused { guard, .. }) => guard,
        other => panic!("it isn't refused: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_fault_leaves_nothing_behind() {
    let mut rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    assert_eq!(guard_of(rig.apply("cut", SYSTEM).await), "protected-namespace");
    let (metadata, spec) = fault("cut", SYSTEM);
    assert_eq!(
        guard_of(rig.handle.preview(metadata, spec).await),
        "protected-namespace"
    );
    assert!(rig.handle.snapshot().faults.is_empty());
    assert!(rig.changes().is_empty());
    assert_eq!(rig.kernel.calls("equip"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_edit_leaves_the_fault_as_it_is() {
    let mut rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.inject("cut", WEB).await;
    let before = rig.view("cut");
    rig.changes();
    assert_eq!(guard_of(rig.apply("cut", SYSTEM).await), "protected-namespace");
    assert_eq!(rig.view("cut"), before);
    assert!(rig.changes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_becomes_protected_leaves_the_fault_and_comes_back() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web-1", "web", 1));
    rig.world.add_pod(pod("web-2", "web", 2));
    let slot = rig.inject("cut", WEB).await;
    let mut kept = pod("web-1", "web", 1);
    kept.annotations.insert(PROTECTED.into(), "true".into());
    rig.world.add_pod(kept);
    pass(Duration::from_millis(100)).await;
    assert_eq!(rig.kernel.devices(slot), BTreeSet::from(["eth2".to_owned()]));
    let view = rig.view("cut");
    assert_eq!(view.phase, Phase::Partial);
    assert!(view.message.contains("guard protected-pod"), "{}", view.message);
    let refused = |phase: &TargetPhase| matches!(phase, TargetPhase::Refused(why) if why.contains(PROTECTED));
    assert!(
        view.targets
            .iter()
            .any(|t| t.pod_name == "web-1" && refused(&t.phase))
    );

    rig.world.add_pod(pod("web-1", "web", 1));
    pass(Duration::from_millis(100)).await;
    assert_eq!(rig.view("cut").phase, Phase::Injected);
    assert_eq!(rig.kernel.devices(slot).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_namespaces_path_of_a_protected_pod_is_refused_once_it_was_looked_at() {
    let rig = Rig::new();
    let mut kept = pod("web", "web", 1);
    kept.annotations.insert(PROTECTED.into(), "true".into());
    rig.world.add_pod(kept);
    rig.world.add_netns("/run/netns/web", device("eth1", 1));
    assert_eq!(guard_of(rig.apply("cut", NETNS).await), "protected-pod");
    assert_eq!(rig.world.refreshes(), 1);
    assert_eq!(rig.kernel.calls("equip"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_share_holds_for_all_faults_and_while_the_world_changes() {
    let rig = Rig::with(|options| half(&mut options.guards), &[]);
    for (name, app, number) in [
        ("web-1", "web", 1),
        ("web-2", "web", 2),
        ("cli", "cli", 3),
        ("db", "db", 4),
    ] {
        rig.world.add_pod(pod(name, app, number));
    }
    let slot = rig.inject("web", WEB).await;
    assert_eq!(guard_of(rig.apply("cli", CLI).await), "namespace-share");

    // Two of three are more than half: one has to go, and it is told why.
    rig.world.remove_pod("sandbox-4");
    pass(Duration::from_millis(100)).await;
    assert_eq!(rig.kernel.devices(slot).len(), 1);
    let message = rig.view("web").message;
    assert!(message.contains("guard namespace-share"), "{message}");

    // Where there is room again it comes back; one that comes after it gets none.
    rig.world.add_pod(pod("db", "db", 4));
    pass(Duration::from_millis(100)).await;
    assert_eq!(rig.view("web").phase, Phase::Injected);
    rig.world.add_pod(pod("web-0", "web", 5));
    pass(Duration::from_millis(100)).await;
    let devices = ["eth1", "eth2"].map(str::to_owned);
    assert_eq!(rig.kernel.devices(slot), BTreeSet::from(devices));
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_ends_gives_its_share_back() {
    let rig = Rig::with(|options| half(&mut options.guards), &[]);
    for (name, app, number) in [("web", "web", 1), ("cli", "cli", 2)] {
        rig.world.add_pod(pod(name, app, number));
    }
    rig.inject("web", WEB).await;
    assert_eq!(guard_of(rig.apply("cli", CLI).await), "namespace-share");
    rig.handle
        .delete(super::rig::fault_name("web"))
        .await
        .expect("it is there");
    rig.inject("cli", CLI).await;
    pass(Duration::from_secs(61)).await;
    assert_eq!(rig.view("cli").phase, Phase::Expired);
    rig.inject("web", WEB).await;
}

#[tokio::test(start_paused = true)]
async fn the_kernel_knows_where_the_control_plane_is() {
    let rig = Rig::new();
    rig.world.add_node_address([192, 0, 2, 1]);
    pass(Duration::from_millis(100)).await;
    let ssh = "192.0.2.1:22".parse().expect("an address");
    assert_eq!(rig.kernel.state().control_plane, BTreeSet::from([ssh]));
    let server = "203.0.113.1:6443".parse().expect("an address");
    rig.servers.send_replace(BTreeSet::from([server]));
    pass(Duration::from_millis(100)).await;
    assert_eq!(rig.kernel.state().control_plane, BTreeSet::from([ssh, server]));
    // What can't be written is written later.
    rig.kernel.fail("set_control_plane", 1);
    rig.servers.send_replace(BTreeSet::new());
    pass(Duration::from_secs(3)).await;
    assert_eq!(rig.kernel.state().control_plane, BTreeSet::from([ssh]));
}

#[tokio::test(start_paused = true)]
async fn the_api_servers_service_is_known_while_the_node_itself_may_have_a_fault() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.world.add_netns("/run/netns/web", device("eth5", 5));
    rig.inject("web", WEB).await;
    assert!(rig.world.wanted().cluster.is_empty());
    rig.inject("cut", NETNS).await;
    assert_eq!(
        rig.world.wanted().cluster.services,
        BTreeSet::from([ControlPlane::service()])
    );
}
