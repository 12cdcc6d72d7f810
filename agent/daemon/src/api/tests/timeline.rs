//! What a fault did, as a timeline tells it.

use sabot_proto::sabot::v1;
use tonic::Code;

use super::{Fixture, metadata};

#[tokio::test]
async fn a_timeline_says_what_happened_and_how_long_after_what() {
    let fixture = Fixture::start().await;
    let request = |name: &str| v1::GetTimelineRequest {
        namespace: "team-a".into(),
        name: name.into(),
    };
    let answer = fixture.observe().get_timeline(request("cut")).await;
    let told = answer
        .expect("it is known")
        .into_inner()
        .timeline
        .expect("with it");
    assert_eq!(told.fault, Some(metadata("cut")));
    let [target] = told.targets.as_slice() else {
        panic!("one target: {told:?}");
    };
    assert_eq!(
        (target.namespace.as_str(), target.name.as_str()),
        ("team-a", "web")
    );
    assert_eq!(target.recovery(), v1::Recovery::NoTraffic);
    let kinds: Vec<_> = target.moments.iter().map(v1::Moment::kind).collect();
    assert_eq!(kinds, [v1::MomentKind::Applied, v1::MomentKind::FirstRto]);
    let since: Vec<_> = target
        .moments
        .iter()
        .map(|moment| moment.since_previous.map(|since| since.seconds))
        .collect();
    assert_eq!(since, [None, Some(2)]);
    let retransmits = |window: &Option<v1::Aggregate>| window.as_ref().map(|window| window.retransmits);
    assert_eq!(
        [&target.before, &target.during, &target.after].map(retransmits),
        [None, Some(4), Some(1)]
    );
    assert_node(told.activity.expect("the node's part"));

    let unknown = fixture
        .observe()
        .get_timeline(request("other"))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let unnamed = fixture.observe().get_timeline(request("")).await.unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument);
}

/// What the node's processes and its runtime did meanwhile.
fn assert_node(node: v1::NodeTimeline) {
    assert_eq!((&node.before, &node.after), (&None, &None));
    let during = node.during.expect("it was in force");
    let [kubelet] = during.processes.as_slice() else {
        panic!("one process: {during:?}");
    };
    assert_eq!(
        (kubelet.process.as_str(), kubelet.calls, kubelet.errors),
        ("kubelet", 10, 3)
    );
    assert_eq!(
        kubelet.durations.as_ref().map(|durations| durations.count),
        Some(9)
    );
    let [stop] = during.operations.as_slice() else {
        panic!("one operation: {during:?}");
    };
    assert_eq!(
        (stop.operation.as_str(), stop.calls, stop.failures),
        ("StopContainer", 2, 1)
    );
    assert_eq!(stop.mean.as_ref().map(|mean| mean.nanos), Some(300_000_000));
}
