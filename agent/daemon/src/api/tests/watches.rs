use sabot_proto::sabot::v1;
use sabot_proto::sabot::v1::Change;

use super::engine::{fault_name, pod};
use super::{Fixture, assert_ends, next};
use crate::engine::handle::Phase;

fn seen(message: &v1::WatchFaultsResponse) -> (Change, String) {
    let fault = message.fault.as_ref().and_then(|f| f.metadata.as_ref());
    (
        message.change(),
        fault.map(|m| m.name.clone()).unwrap_or_default(),
    )
}

fn matched(message: &v1::WatchFaultsResponse) -> u64 {
    let status = message.fault.as_ref().and_then(|f| f.status.as_ref());
    status
        .expect("with its status")
        .ledgers
        .iter()
        .filter_map(|l| l.ledger?.matched)
        .map(|t| t.packets)
        .sum()
}

#[tokio::test]
async fn a_watch_begins_with_what_is_and_goes_on_with_what_changes() {
    let fixture = Fixture::start().await;
    fixture.apply("one").await;
    let mut stream = fixture
        .faults()
        .watch_faults(v1::WatchFaultsRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    assert_eq!(seen(&next(&mut stream).await), (Change::Added, "one".into()));
    assert_eq!(seen(&next(&mut stream).await), (Change::Synced, String::new()));
    fixture.apply("two").await;
    assert_eq!(seen(&next(&mut stream).await), (Change::Added, "two".into()));

    fixture.engine.change(|s| {
        let fault = s.faults.get_mut(&fault_name("two")).expect("it was applied");
        fault.phase = Phase::Expired;
    });
    let message = next(&mut stream).await;
    assert_eq!(seen(&message), (Change::Modified, "two".into()));
    let status = message.fault.and_then(|f| f.status).expect("with its status");
    assert_eq!(status.phase(), v1::Phase::Expired);

    fixture
        .faults()
        .delete_fault(v1::DeleteFaultRequest {
            namespace: "team-a".into(),
            name: "one".into(),
        })
        .await
        .expect("it is deleted");
    let message = next(&mut stream).await;
    assert_eq!(seen(&message), (Change::Deleted, "one".into()));
    let status = message.fault.and_then(|f| f.status).expect("with its status");
    assert_eq!(status.phase(), v1::Phase::Deleted);
    assert!(status.ended_at.is_some());

    // The daemon forgets both: the deleted one was told, the expired one was not.
    fixture.engine.change(|s| s.faults.clear());
    assert_eq!(seen(&next(&mut stream).await), (Change::Deleted, "two".into()));
}

#[tokio::test]
async fn a_watch_of_one_fault_tells_of_no_other() {
    let fixture = Fixture::start().await;
    let mut stream = fixture
        .faults()
        .watch_faults(v1::WatchFaultsRequest {
            namespace: Some("team-a".into()),
            name: Some("mine".into()),
            ..v1::WatchFaultsRequest::default()
        })
        .await
        .expect("a stream")
        .into_inner();
    assert_eq!(next(&mut stream).await.change(), Change::Synced);
    fixture.apply("other").await;
    fixture.apply("mine").await;
    assert_eq!(seen(&next(&mut stream).await), (Change::Added, "mine".into()));
}

#[tokio::test]
async fn counters_are_sent_as_they_move() {
    let fixture = Fixture::start().await;
    fixture.apply("cut").await;
    fixture.engine.count("cut", 1);
    let mut stream = fixture
        .faults()
        .watch_faults(v1::WatchFaultsRequest {
            include_counters: true,
            counters_interval: Some(prost_types::Duration {
                seconds: 0,
                nanos: 100_000_000,
            }),
            ..v1::WatchFaultsRequest::default()
        })
        .await
        .expect("a stream")
        .into_inner();
    let first = next(&mut stream).await;
    assert_eq!((first.change(), matched(&first)), (Change::Added, 1));
    assert_eq!(next(&mut stream).await.change(), Change::Synced);
    fixture.engine.count("cut", 5);
    let moved = next(&mut stream).await;
    assert_eq!((moved.change(), matched(&moved)), (Change::Counters, 5));
}

#[tokio::test]
async fn targets_are_watched_with_the_faults_on_them() {
    let fixture = Fixture::start().await;
    let mut stream = fixture
        .node()
        .watch_targets(v1::WatchTargetsRequest { namespace: None })
        .await
        .expect("a stream")
        .into_inner();
    assert_eq!(next(&mut stream).await.change(), Change::Synced);
    let set_pods = |names: &[&str]| {
        fixture.engine.change(|s| {
            let mut world = s.world.as_ref().clone();
            world.pods = names.iter().map(|n| ((*n).to_owned(), pod(n, false))).collect();
            s.world = world.into();
        });
    };
    set_pods(&["web"]);
    let added = next(&mut stream).await;
    assert_eq!(added.change(), Change::Added);
    assert_eq!(added.target.expect("the target").faults, []);

    fixture.apply("cut").await;
    let modified = next(&mut stream).await;
    assert_eq!(modified.change(), Change::Modified);
    let faults = modified.target.expect("the target").faults;
    assert_eq!(faults, [super::metadata("cut")]);

    set_pods(&[]);
    assert_eq!(next(&mut stream).await.change(), Change::Deleted);
}

#[tokio::test]
async fn streams_end_cleanly_when_the_daemon_stops() {
    let mut fixture = Fixture::start().await;
    let mut faults = fixture
        .faults()
        .watch_faults(v1::WatchFaultsRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    let mut targets = fixture
        .node()
        .watch_targets(v1::WatchTargetsRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    let mut events = fixture
        .observe()
        .watch_events(v1::WatchEventsRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    assert_eq!(next(&mut faults).await.change(), Change::Synced);
    assert_eq!(next(&mut targets).await.change(), Change::Synced);
    fixture.shut_down();
    assert_ends(&mut faults).await;
    assert_ends(&mut targets).await;
    assert_ends(&mut events).await;
    let served = fixture.server.await.expect("the server doesn't panic");
    served.expect("and ends without an error");
}
