//! Faults of resources beside those of the API: names, ends, and since when time counts.

use std::time::{Duration, SystemTime};

use super::rig::{Rig, fault, fault_name, pass, pod};
use crate::engine::datapath::Datapath;
use crate::engine::handle::{EngineError, FaultView, Origin, Phase};

const PARTITION: &str = "{duration: 1m, target: {pods: {namespace: shop, selector: {matchLabels: {app: web}}}}, \
                         action: {partition: {}}}";

fn resource(uid: &str) -> Origin {
    Origin::Resource {
        kind: "NetworkFault",
        uid: uid.to_owned(),
    }
}

async fn apply(
    rig: &Rig,
    name: &str,
    uid: &str,
    since: Option<SystemTime>,
) -> Result<FaultView, EngineError> {
    let (metadata, spec) = fault(name, PARTITION);
    rig.handle
        .apply_resource(metadata, spec, resource(uid), since)
        .await
}

#[tokio::test(start_paused = true)]
async fn a_name_belongs_to_who_came_first() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    rig.inject("api", PARTITION).await;
    let error = apply(&rig, "api", "1", None)
        .await
        .expect_err("the name is taken");
    assert!(matches!(error, EngineError::NameTaken { .. }), "{error}");
    assert!(error.to_string().contains("given over the API"), "{error}");

    apply(&rig, "declared", "1", None).await.expect("accepted");
    let error = rig
        .apply("declared", PARTITION)
        .await
        .expect_err("the name is taken");
    assert!(error.to_string().contains("NetworkFault declared"), "{error}");
    // Another resource of the same name is another one.
    let error = apply(&rig, "declared", "2", None)
        .await
        .expect_err("the name is taken");
    assert!(matches!(error, EngineError::NameTaken { .. }), "{error}");
    assert_eq!(rig.view("declared").origin, resource("1"));
}

#[tokio::test(start_paused = true)]
async fn only_the_resource_ends_its_fault() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let since = Some(SystemTime::now());
    apply(&rig, "declared", "1", since).await.expect("accepted");
    let error = rig.handle.delete(fault_name("declared")).await.expect_err("held");
    assert!(
        error
            .to_string()
            .starts_with("NetworkFault declared is not deleted here"),
        "{error}"
    );
    let error = rig.handle.delete_all(None).await.expect_err("held");
    assert!(matches!(error, EngineError::Held(_)), "{error}");

    rig.inject("api", PARTITION).await;
    let deleted = rig.handle.delete_all(None).await.expect("deleted");
    let names: Vec<_> = deleted.iter().map(|view| view.fault.name.name.as_str()).collect();
    assert_eq!(names, ["api"]);
    assert_eq!(rig.view("declared").phase, Phase::Injected);

    let other = rig
        .handle
        .delete_resource(fault_name("declared"), resource("2"))
        .await;
    assert!(matches!(other, Err(EngineError::Held(_))));
    let view = rig
        .handle
        .delete_resource(fault_name("declared"), resource("1"))
        .await;
    assert_eq!(view.expect("deleted").phase, Phase::Deleted);
    // The name is free again.
    rig.inject("declared", PARTITION).await;
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_resource_begins_when_that_is_said() {
    let rig = Rig::new();
    let view = apply(&rig, "declared", "1", None).await.expect("accepted");
    assert_eq!((view.phase, view.since), (Phase::Pending, None));
    pass(Duration::from_secs(150)).await;
    assert_eq!(rig.view("declared").phase, Phase::Pending);

    rig.world.add_pod(pod("web", "web", 1));
    pass(Duration::from_secs(150)).await;
    let view = rig.view("declared");
    assert_eq!((view.phase, view.since), (Phase::Pending, None));
    assert_eq!(
        view.message,
        "its begin isn't written in its resource's status yet; in place on 1 target"
    );
    let starts_at = || {
        let state = rig.kernel.state();
        state
            .rules
            .values()
            .next()
            .expect("its rule is in place")
            .starts_at
    };
    assert!(starts_at() > rig.kernel.now().after(Duration::from_secs(24 * 3600)));

    let since = Some(SystemTime::now());
    apply(&rig, "declared", "1", since).await.expect("accepted");
    pass(Duration::from_secs(1)).await;
    let view = rig.view("declared");
    assert_eq!((view.phase, view.since), (Phase::Injected, since));
    assert!(starts_at() <= rig.kernel.now());
    pass(Duration::from_secs(58)).await;
    assert_eq!(rig.view("declared").phase, Phase::Injected);
    // That it is applied again prolongs nothing.
    apply(&rig, "declared", "1", None).await.expect("accepted");
    pass(Duration::from_secs(2)).await;
    assert_eq!(rig.view("declared").phase, Phase::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_resource_resumes_what_is_left_of_its_time() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let since = SystemTime::now() - Duration::from_secs(40);
    let view = apply(&rig, "declared", "1", Some(since)).await.expect("accepted");
    assert_eq!(view.since, Some(since));
    assert_eq!(view.fault.expires, since + Duration::from_secs(60));
    pass(Duration::from_secs(18)).await;
    assert_eq!(rig.view("declared").phase, Phase::Injected);
    pass(Duration::from_secs(3)).await;
    assert_eq!(rig.view("declared").phase, Phase::Expired);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_begin_that_becomes_known_moves_the_end() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let first = Some(SystemTime::now());
    apply(&rig, "declared", "1", first).await.expect("accepted");
    let since = SystemTime::now() - Duration::from_secs(50);
    apply(&rig, "declared", "1", Some(since)).await.expect("accepted");
    pass(Duration::from_secs(1)).await;
    assert_eq!(rig.view("declared").phase, Phase::Injected);
    pass(Duration::from_secs(11)).await;
    assert_eq!(rig.view("declared").phase, Phase::Expired);
}

#[tokio::test(start_paused = true)]
async fn what_has_been_over_for_long_is_never_in_force() {
    let rig = Rig::new();
    rig.world.add_pod(pod("web", "web", 1));
    let since = SystemTime::now() - Duration::from_secs(100 * 24 * 3600);
    apply(&rig, "declared", "1", Some(since)).await.expect("accepted");
    pass(Duration::from_millis(10)).await;
    assert_eq!(rig.view("declared").phase, Phase::Expired);
    assert_eq!(rig.kernel.calls("equip"), 0);
}
