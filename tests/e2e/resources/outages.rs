//! API servers that are away, busy, or have forgotten what has happened.

use std::time::{Duration, Instant, SystemTime};

use sabot_testkit::kube::{Effect, Rule, Verb};
use sabot_testkit::wait::wait_until;
use serde_json::json;

use crate::scene::{LOOK, PATIENCE, Scene, cut, part, time};

#[test]
fn without_a_server_a_fault_keeps_its_end() {
    let mut scene = Scene::new(&[("node-a", 1)]);
    scene.cluster.apply(cut("cut", "6s"));
    let before = scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);
    scene.cluster.go_away();
    let end = time(&before["expiresAt"]);
    assert!(SystemTime::now() < end, "too slow a machine to see anything");
    let passed = scene.wait_pass(0);
    assert!(passed >= end, "{:?} before its end", end.duration_since(passed));
    assert_eq!(
        scene.nodes[0].fault("cut").expect("it is listed")["status"]["phase"],
        "Expired"
    );
    scene.cluster.come_back();
    let after = scene.wait_status("cut", "its end", |status| {
        status["phase"] == "Expired" && !part(status, "node-a")["packets"].is_null()
    });
    assert_eq!(
        part(&after, "node-a")["injectedAt"],
        part(&before, "node-a")["injectedAt"]
    );
}

#[test]
fn what_changed_while_the_server_was_away_is_made_up_for() {
    let mut scene = Scene::new(&[("node-a", 2)]);
    let of = |pod: usize| {
        let mut fault = cut(&format!("cut-{pod}"), "10m");
        fault["spec"]["target"] = json!({"pods": {"name": format!("web-{pod}")}});
        fault
    };
    scene.cluster.apply(of(0));
    scene.wait_phase("cut-0", "Injected");
    scene.wait_cut(0);
    scene.cluster.go_away();
    assert!(scene.cluster.delete("networkfaults", "shop", "cut-0"));
    scene.cluster.apply(of(1));
    assert!(scene.is_cut(0) && !scene.is_cut(1));
    scene.cluster.come_back();
    scene.wait_pass(0);
    scene.wait_cut(1);
    scene.wait_phase("cut-1", "Injected");
}

#[test]
fn a_watch_that_ended_is_taken_up_again() {
    let scene = Scene::new(&[("node-a", 1)]);
    scene.cluster.apply(cut("cut", "10m"));
    scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);
    let busy = Effect::Refuse {
        code: 429,
        retry_after: Some(1),
    };
    for verb in [Verb::List, Verb::Watch] {
        scene
            .cluster
            .script(Rule::new(busy).verb(verb).resource("networkfaults").times(1));
    }
    let begin = Instant::now();
    // 410 Gone: everything has to be listed again.
    scene.cluster.expire_watches("networkfaults");
    scene.cluster.delete("networkfaults", "shop", "cut");
    scene.wait_pass(0);
    scene.cluster.apply(cut("next", "10m"));
    scene.wait_phase("next", "Injected");
    scene.wait_cut(0);
    let answers = || {
        let all = scene.cluster.requests().into_iter();
        let asked = all.filter(|request| {
            request.resource == "networkfaults" && matches!(request.verb, Verb::List | Verb::Watch)
        });
        asked
            .map(|request| (request.at, request.code))
            .collect::<Vec<_>>()
    };
    let refused = answers().iter().filter(|(_, code)| *code == 429).count();
    assert!(refused >= 2, "nothing was refused");
    // Not a busy loop: the first answers, those that were refused, and a few more.
    let asked = answers().iter().filter(|(at, _)| *at >= begin).count();
    let most = 12 + usize::try_from(begin.elapsed().as_secs()).expect("a short time");
    assert!(asked <= most, "{asked} requests in {:?}", begin.elapsed());
}

#[test]
fn a_busy_server_delays_the_status_but_not_the_end() {
    let scene = Scene::new(&[("node-a", 1)]);
    scene.cluster.apply(cut("cut", "6s"));
    let before = scene.wait_phase("cut", "Injected");
    let busy = Effect::Refuse {
        code: 429,
        retry_after: Some(2),
    };
    scene.cluster.script(
        Rule::new(busy)
            .verb(Verb::Patch)
            .resource("networkfaults")
            .times(2),
    );
    scene.wait_cut(0);
    let passed = scene.wait_pass(0);
    assert!(passed >= time(&before["expiresAt"]));
    scene.wait_phase("cut", "Expired");
    let is_refused = || scene.writes().iter().filter(|write| write.code == 429).count() == 2;
    assert!(wait_until(PATIENCE, LOOK, is_refused));
    let tries: Vec<_> = scene.writes().iter().map(|write| write.at).collect();
    let last = tries.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(
        last >= Some(Duration::from_secs(1)),
        "no pause between tries: {tries:?}"
    );
}
