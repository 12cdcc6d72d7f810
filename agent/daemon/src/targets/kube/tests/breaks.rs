//! Watches that end, break, repeat themselves and forget.

use std::time::{Duration, Instant};

use sabot_testkit::kube::{FakeCluster, Order, Verb};

use tokio::time::sleep;

use super::{NODE, Rig, elsewhere, pod, wanting};
use crate::targets::kube::KubeState;

/// A source that knows `w1`, with its two watches open.
async fn knowing_one() -> Rig {
    let mut rig = Rig::new(wanting("web")).await;
    rig.cluster.apply(pod("w1", "web", "node-b", "10.0.1.1"));
    rig.until_pods(&["w1"]).await;
    rig.until_watches("pods", 2).await;
    rig
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_where_it_was() {
    for (how, end) in [
        ("in order", FakeCluster::end_watches as fn(&FakeCluster, &str)),
        ("amid an event", FakeCluster::cut_watches),
    ] {
        let mut rig = knowing_one().await;
        for round in 0..5 {
            let lists = rig.requests(Verb::List, "pods").len();
            end(&rig.cluster, "pods");
            let name = format!("x{round}");
            rig.cluster.apply(pod(&name, "web", "node-b", "10.0.1.2"));
            rig.until_pods(&["w1", &name]).await;
            rig.cluster.delete("pods", "shop", &name);
            rig.until_pods(&["w1"]).await;
            assert_eq!(
                rig.requests(Verb::List, "pods").len(),
                lists,
                "nothing is read again, {how}"
            );
            rig.until_watches("pods", 2).await;
        }
    }
}

#[tokio::test]
async fn a_bookmark_spares_a_quiet_watch_the_next_list() {
    let mut rig = knowing_one().await;
    for number in 0..10 {
        rig.cluster
            .apply(pod("d1", &format!("db{number}"), "node-c", "10.0.3.1"));
    }
    rig.cluster.bookmark("pods");
    // Both have read their bookmarks when they see what comes after.
    rig.cluster.apply(pod("w2", "web", "node-b", "10.0.1.2"));
    rig.cluster.apply(pod("here", "db", NODE, "10.0.0.1"));
    rig.until_pods(&["w1", "w2"]).await;
    rig.until("ours is known", |world| world.own.size() == 1).await;
    for number in 0..10 {
        rig.cluster
            .apply(pod("d2", &format!("db{number}"), "node-c", "10.0.3.2"));
    }
    rig.cluster.bookmark("pods");
    let marked: u64 = rig.cluster.get("pods", "shop", "d2").unwrap()["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|version| version.parse().ok())
        .unwrap();
    let lists = rig.requests(Verb::List, "pods").len();
    // The bookmark and the end are read in this order.
    rig.cluster.end_watches("pods");
    rig.until_watches("pods", 2).await;
    assert_eq!(rig.requests(Verb::List, "pods").len(), lists);
    let watches = rig.requests(Verb::Watch, "pods");
    for watch in watches.iter().rev().take(2) {
        assert_eq!(watch.query["resourceVersion"], marked.to_string());
        assert_eq!(watch.query["allowWatchBookmarks"], "true");
    }
}

#[tokio::test]
async fn a_server_that_has_forgotten_is_read_anew() {
    let mut rig = knowing_one().await;
    rig.cluster.apply(pod("w2", "web", "node-b", "10.0.1.2"));
    rig.until_pods(&["w1", "w2"]).await;
    // What was deleted in the meantime is found out by the list alone.
    rig.cluster.hold_events("pods");
    rig.cluster.delete("pods", "shop", "w2");
    rig.cluster.apply(pod("w3", "web", "node-c", "10.0.2.1"));
    rig.cluster.expire_watches("pods");
    rig.cluster.release_events("pods", Order::AsWritten);
    rig.until_pods(&["w1", "w3"]).await;
    rig.until_watches("pods", 2).await;
    let lists = rig.requests(Verb::List, "pods");
    assert!(
        lists[..2].iter().all(|r| r.query["resourceVersion"] == "0"),
        "first from the cache: {lists:#?}"
    );
    let again = lists[2..]
        .iter()
        .filter(|r| r.query.contains_key("resourceVersion"));
    assert_eq!(
        again.count(),
        0,
        "a list after 410 must not be older than what is known: {lists:#?}"
    );

    // The same, told at the beginning of the next watch.
    rig.cluster.hold_events("pods");
    rig.cluster.delete("pods", "shop", "w3");
    rig.cluster.compact();
    rig.cluster.cut_watches("pods");
    rig.cluster.release_events("pods", Order::AsWritten);
    rig.until_pods(&["w1"]).await;
    assert!(matches!(rig.status.state(), KubeState::Ready { .. }));
}

#[tokio::test]
async fn what_is_told_twice_or_late_changes_nothing() {
    let mut rig = knowing_one().await;
    let moved = |address: &str| pod("w1", "web", "node-b", address);
    rig.cluster.apply(moved("10.0.1.7"));
    rig.cluster.apply(moved("10.0.1.8"));
    rig.cluster.apply(pod("w2", "web", "node-b", "10.0.1.2"));
    rig.cluster.delete("pods", "shop", "w2");
    // All of it again, and then something new, so that it is known when it was heard.
    rig.cluster.repeat_events("pods");
    rig.cluster.apply(pod("w3", "web", "node-b", "10.0.1.3"));
    rig.until_pods(&["w1", "w3"]).await;
    let address = |rig: &Rig| {
        let world = rig.world();
        let mut pods = elsewhere(&world).filter(|pod| pod.name == "w1");
        pods.next().expect("it is there").addresses.clone()
    };
    assert_eq!(address(&rig), ["10.0.1.8".parse().unwrap()].into());

    // The newest first: an older state, and the life of a pod that is dead already.
    rig.cluster.hold_events("pods");
    rig.cluster.apply(moved("10.0.1.9"));
    rig.cluster.apply(moved("10.0.1.10"));
    rig.cluster.apply(pod("w4", "web", "node-b", "10.0.1.4"));
    rig.cluster.delete("pods", "shop", "w4");
    rig.cluster.delete("pods", "shop", "w3");
    rig.cluster.release_events("pods", Order::Reversed);
    rig.cluster.apply(pod("w5", "web", "node-b", "10.0.1.5"));
    rig.until_pods(&["w1", "w5"]).await;
    assert_eq!(address(&rig), ["10.0.1.10".parse().unwrap()].into());
}

#[tokio::test]
async fn endless_short_watches_are_no_busy_loop() {
    let rig = knowing_one().await;
    let before = rig.requests(Verb::Watch, "pods").len();
    // Each watch ends as soon as it is open.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        rig.cluster.end_watches("pods");
        sleep(Duration::from_millis(1)).await;
    }
    // Each of the two waits longer and longer, up to 100 to 200 ms.
    let (watches, time) = (rig.requests(Verb::Watch, "pods").len() - before, start.elapsed());
    let most = 2 * (8 + time.as_millis() / 100);
    assert!(
        watches as u128 <= most,
        "{watches} watches were opened in {time:?}"
    );
    assert!(matches!(rig.status.state(), KubeState::Ready { .. }));
}
