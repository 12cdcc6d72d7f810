//! A server that refuses, is slow, or isn't there.

use std::time::{Duration, Instant};

use sabot_core::model::ClusterWanted;
use sabot_testkit::kube::{Effect, FakeCluster, Rule, Verb};

use super::{BACKOFF, NODE, Rig, pod, shop, until, wanting};
use crate::targets::kube::{Backoff, KubeState};

fn is_ready(state: &KubeState) -> bool {
    matches!(state, KubeState::Ready { .. })
}

#[tokio::test]
async fn a_server_that_goes_away_leaves_the_world_and_is_caught_up_with() {
    let mut rig = Rig::new(wanting("web")).await;
    rig.cluster.apply(pod("w1", "web", "node-b", "10.0.1.1"));
    rig.cluster.apply(pod("w2", "web", "node-b", "10.0.1.2"));
    rig.until_pods(&["w1", "w2"]).await;
    rig.until_state("it is ready", |s| {
        *s == KubeState::Ready {
            version: "v1.33.1".to_owned(),
        }
    })
    .await;

    rig.cluster.go_away();
    rig.until_state("it is down", |s| matches!(s, KubeState::Down(_)))
        .await;
    rig.cluster.delete("pods", "shop", "w1");
    rig.cluster.apply(pod("w3", "web", "node-c", "10.0.2.1"));
    let status = rig.status.clone();
    let unanswered = || -> u64 {
        let counts = status.requests().counts();
        counts
            .iter()
            .filter(|((_, _, code), _)| code == "none")
            .map(|(_, count)| count)
            .sum()
    };
    let before = unanswered();
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // One caller for all, every 100 to 200 ms; the first ones come sooner.
    let (attempts, time) = (unanswered() - before, start.elapsed());
    assert!(
        attempts <= 8 + time.as_millis() as u64 / 100,
        "{attempts} attempts in {time:?}"
    );
    // Something new may be wanted meanwhile.
    rig.want(ClusterWanted {
        services: [shop("web")].into(),
        ..wanting("web")
    });
    rig.until_pods(&["w1", "w2"]).await;

    rig.cluster.come_back();
    rig.until_pods(&["w2", "w3"]).await;
    rig.until_state("it is ready", is_ready).await;
    rig.until_watches("services", 1).await;
    assert!(unanswered() > before, "it was tried");
}

#[tokio::test]
async fn a_server_that_comes_later_is_found() {
    let mut cluster = FakeCluster::start();
    cluster.go_away();
    let mut rig = Rig::with(cluster, wanting("web"), BACKOFF).await;
    rig.until_state(
        "it is down",
        |s| matches!(s, KubeState::Down(why) if why.contains("refused")),
    )
    .await;
    rig.cluster.apply(pod("w1", "web", "node-b", "10.0.1.1"));
    rig.cluster.come_back();
    rig.until_pods(&["w1"]).await;
}

#[tokio::test]
async fn patience_is_kept_when_it_is_asked_for() {
    let refuse = Effect::Refuse {
        code: 429,
        retry_after: Some(2),
    };
    let cluster = FakeCluster::start();
    cluster.apply(pod("w1", "web", "node-b", "10.0.1.1"));
    cluster.script(Rule::new(refuse).verb(Verb::List).resource("pods").times(2));
    let mut rig = Rig::with(cluster, wanting("web"), BACKOFF).await;
    rig.until_pods(&["w1"]).await;
    rig.until_watches("pods", 2).await;
    let requests = rig.cluster.requests();
    let refused: Vec<_> = requests.iter().filter(|r| r.code == 429).collect();
    assert_eq!(refused.len(), 2, "{requests:#?}");
    let next = requests
        .iter()
        .find(|r| r.resource == "pods" && r.at > refused[1].at)
        .expect("it goes on");
    let pause = next.at - refused[1].at;
    // The answer was on its way for a moment of it.
    assert!(
        pause >= Duration::from_millis(1900),
        "the next request came after {pause:?}"
    );

    // In the middle of the work, and without a word about how long.
    rig.cluster.script(
        Rule::new(Effect::Refuse {
            code: 503,
            retry_after: None,
        })
        .resource("pods")
        .times(6),
    );
    rig.cluster.cut_watches("pods");
    rig.cluster.apply(pod("w2", "web", "node-b", "10.0.1.2"));
    rig.until_pods(&["w1", "w2"]).await;
    let counts = rig.status.requests().counts();
    assert_eq!(counts[&("list", "pods", "429".to_owned())], 2);
    assert_eq!(counts[&("watch", "pods", "503".to_owned())], 6);
}

#[tokio::test]
async fn what_is_forbidden_keeps_nothing_else_from_working() {
    let cluster = FakeCluster::start();
    let forbid = Effect::Refuse {
        code: 403,
        retry_after: None,
    };
    cluster.script(Rule::new(forbid).resource("services"));
    cluster.apply(pod("w1", "web", "node-b", "10.0.1.1"));
    let wanted = ClusterWanted {
        services: [shop("web")].into(),
        ..wanting("web")
    };
    let start = Instant::now();
    let mut rig = Rig::with(cluster, wanted, BACKOFF).await;
    rig.until_pods(&["w1"]).await;
    rig.until_watches("endpointslices", 1).await;
    rig.until_state("it is ready", is_ready).await;
    assert!(
        rig.world().cluster.services.is_empty(),
        "a Service isn't half known"
    );
    // It is tried again, so that it works when it is allowed.
    rig.cluster.clear_script();
    rig.until_watches("services", 1).await;
    let (tried, time) = (rig.requests(Verb::List, "services").len(), start.elapsed());
    assert!(
        tried as u128 <= 8 + time.as_millis() / 100,
        "{tried} attempts in {time:?}"
    );
}

/// An API server from before `discovery.k8s.io/v1`.
#[tokio::test]
async fn what_a_server_does_not_have_is_named_and_not_waited_for() {
    let cluster = FakeCluster::start();
    cluster.uninstall("endpointslices");
    let wanted = ClusterWanted {
        services: [shop("web")].into(),
        ..wanting("web")
    };
    let mut rig = Rig::with(cluster, wanted.clone(), BACKOFF).await;
    rig.until("nothing is left to wait for", |world| world.knows(&wanted))
        .await;
    let known = rig.world().cluster.known.clone();
    assert!(known.contains(&wanting("web")) && !known.contains(&wanted));
    let lacks = || rig.status.lacks().all();
    let all = lacks();
    let slices = "endpointslices of shop (kubernetes.io/service-name=web)";
    assert!(all.len() == 1 && all[slices].contains("404"), "{all:?}");

    rig.cluster.install("endpointslices");
    rig.until_watches("endpointslices", 1).await;
    until("it is said no more", async || lacks().is_empty()).await;

    // What nobody wants any more isn't missed either.
    rig.cluster.uninstall("endpointslices");
    rig.cluster.cut_watches("endpointslices");
    until("it is named again", async || lacks().contains_key(slices)).await;
    rig.want(ClusterWanted::default());
    until("it isn't wanted", async || lacks().is_empty()).await;
}

#[tokio::test]
async fn a_slow_server_and_answers_that_break_off() {
    let cluster = FakeCluster::start();
    cluster.apply(pod("w1", "web", "node-b", "10.0.1.1"));
    cluster.script(Rule::new(Effect::Delay(Duration::from_millis(300))));
    cluster.script(Rule::new(Effect::BreakOff).verb(Verb::List).times(3));
    let mut rig = Rig::with(cluster, wanting("web"), BACKOFF).await;
    rig.until_pods(&["w1"]).await;
    rig.cluster.apply(pod("here", "web", NODE, "10.0.0.1"));
    rig.until("ours is known", |world| world.own.size() == 1).await;
    rig.cluster.cut_watches("pods");
    rig.cluster.apply(pod("w2", "web", "node-b", "10.0.1.2"));
    rig.until_pods(&["w1", "w2"]).await;
    rig.until_state("it is ready", is_ready).await;
}

#[tokio::test]
async fn one_scope_that_hangs_keeps_no_other_waiting() {
    let cluster = FakeCluster::start();
    cluster.script(Rule::new(Effect::Hang).resource("services"));
    cluster.apply(pod("w1", "web", "node-b", "10.0.1.1"));
    let wanted = ClusterWanted {
        services: [shop("web")].into(),
        ..wanting("web")
    };
    let slow = Backoff {
        first: Duration::from_millis(20),
        longest: Duration::from_secs(5),
    };
    let mut rig = Rig::with(cluster, wanted, slow).await;
    rig.until_pods(&["w1"]).await;
    rig.cluster.apply(pod("w2", "web", "node-b", "10.0.1.2"));
    rig.until_pods(&["w1", "w2"]).await;
}
