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
    assert_detail(target.during.as_ref().expect("it was in force"));
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

/// What the sums are made of.
fn assert_detail(during: &v1::Aggregate) {
    let dropped = v1::DropAggregate {
        direction: v1::Direction::Ingress.into(),
        reason: "FAULT".into(),
        injected: true,
        packets: 7,
    };
    assert_eq!(during.drops, [dropped]);
    assert_eq!((during.drops_injected, during.drops_other), (7, 0));
    let service = v1::TcpConnections {
        peer: "service".into(),
        opened: 3,
        closed: 1,
        failed: 2,
        ..v1::TcpConnections::default()
    };
    let private = v1::TcpConnections {
        peer: "private".into(),
        accepted: 4,
        ..v1::TcpConnections::default()
    };
    assert_eq!(during.connections, [service, private]);
    assert_eq!((during.connections_opened, during.connections_accepted), (3, 4));
    assert_eq!((during.connections_closed, during.connections_failed), (1, 2));
    assert_eq!(during.connect_errors, [named("ECONNREFUSED", 2)]);
    assert_eq!(during.dns_answers, [named("NOERROR", 5), named("SERVFAIL", 1)]);
    assert_eq!(during.dns_failed, 1);
}

fn named(name: &str, count: u64) -> v1::NamedCount {
    v1::NamedCount {
        name: name.into(),
        count,
    }
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
    assert_eq!(stop.outcomes, [named("NotFound", 1), named("OK", 1)]);
    let took = stop.durations.as_ref().expect("two were timed");
    let millis = |duration: &Option<prost_types::Duration>| duration.map(|d| d.nanos / 1_000_000);
    assert_eq!(
        [&took.mean, &took.p50, &took.p99].map(millis),
        [Some(300), Some(250), Some(500)]
    );
    let [sync] = during.calls.as_slice() else {
        panic!("one syscall: {during:?}");
    };
    assert_eq!(
        (sync.process.as_str(), sync.syscall.as_str(), sync.calls),
        ("kubelet", "fsync", 9)
    );
    assert_eq!(sync.errors, [named("EIO", 3)]);
    assert_eq!(sync.durations, kubelet.durations);
}
