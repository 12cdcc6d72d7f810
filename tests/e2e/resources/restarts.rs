//! Daemons that are killed in the middle of a fault and start again.

use std::time::{Duration, SystemTime};

use sabot_testkit::kube::{Effect, Rule, Verb};
use sabot_testkit::wait::wait_until;
use serde_json::{Value, json};

use crate::scene::{LOOK, PATIENCE, Scene, apart, cut, part, time};

/// An instant that is written down in milliseconds.
const SAME: Duration = Duration::from_millis(2);

fn end(fault: &Value) -> SystemTime {
    time(&fault["status"]["expiresAt"])
}

#[test]
fn what_is_left_of_its_time_is_resumed() {
    let mut scene = Scene::new(&[("node-a", 1)]);
    scene.cluster.apply(cut("cut", "12s"));
    let before = scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);
    scene.kill(0);
    // Nothing outlives its daemon.
    scene.wait_pass(0);
    scene.begin(0);
    scene.wait_cut(0);
    let resumed = end(&scene.nodes[0].fault("cut").expect("it is resumed"));
    let expires = time(&before["expiresAt"]);
    assert!(
        apart(resumed, expires) <= SAME,
        "it ends {:?} from where it should",
        apart(resumed, expires)
    );
    let passed = scene.wait_pass(0);
    assert!(passed >= expires, "{:?} before its end", apart(passed, expires));
    let after = scene.wait_phase("cut", "Expired");
    for field in ["injectedAt", "expiresAt"] {
        assert_eq!(
            part(&after, "node-a")[field],
            part(&before, "node-a")[field],
            "{field}"
        );
    }

    // It is over for every daemon that comes later.
    scene.kill(0);
    scene.begin(0);
    let mut other = cut("other", "10m");
    other["spec"]["action"] = json!({"delay": {"latency": "1ms"}});
    scene.cluster.apply(other);
    scene.wait_phase("other", "Injected");
    assert_eq!(scene.nodes[0].fault("cut"), None);
    scene.wait_pass(0);
    assert_eq!(scene.status("cut"), after);
}

#[test]
fn nothing_is_in_force_before_its_begin_is_written() {
    let mut scene = Scene::new(&[("node-a", 1)]);
    let silent = Rule::new(Effect::Hang)
        .verb(Verb::Patch)
        .resource("networkfaults");
    scene.cluster.script(silent);
    scene.cluster.apply(cut("cut", "10m"));
    assert!(
        wait_until(PATIENCE, LOOK, || !scene.writes().is_empty()),
        "nothing is written"
    );
    // It has its target, and waits.
    let waits = |fault: &Value| {
        let status = &fault["status"];
        status["phase"] == "Pending"
            && status["targets"]
                .as_array()
                .is_some_and(|targets| targets.len() == 1)
    };
    assert!(scene.nodes[0].fault("cut").is_some_and(|fault| waits(&fault)));
    scene.wait_pass(0);
    // Had it been in force, nobody would know since when.
    scene.kill(0);
    assert_eq!(scene.status("cut")["nodes"], json!(null));
    scene.cluster.clear_script();
    scene.begin(0);
    scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);
}

#[test]
fn a_daemon_that_is_killed_with_its_first_write_knows_its_begin() {
    let mut scene = Scene::new(&[("node-a", 1)]);
    scene.cluster.apply(cut("cut", "10m"));
    let first = scene.wait_status("cut", "a begin", |status| {
        !part(status, "node-a")["injectedAt"].is_null()
    });
    scene.kill(0);
    let begin = time(&part(&first, "node-a")["injectedAt"]);
    scene.begin(0);
    scene.wait_cut(0);
    let resumed = end(&scene.nodes[0].fault("cut").expect("it is resumed"));
    let expected = begin + Duration::from_secs(600);
    assert!(
        apart(resumed, expected) <= SAME,
        "it ends {:?} from where it should",
        apart(resumed, expected)
    );
}

#[test]
fn a_start_that_was_given_counts_over_restarts() {
    let mut scene = Scene::new(&[("node-a", 1)]);
    let starts = SystemTime::now() + Duration::from_secs(4);
    let mut fault = cut("cut", "10m");
    fault["spec"]["startsAt"] = json!(humantime::format_rfc3339_millis(starts).to_string());
    scene.cluster.apply(fault);
    assert!(
        wait_until(PATIENCE, LOOK, || scene.nodes[0].fault("cut").is_some()),
        "it is not seen"
    );
    scene.kill(0);
    scene.begin(0);
    scene.wait_cut(0);
    assert!(SystemTime::now() >= starts, "it began too early");
    let resumed = end(&scene.nodes[0].fault("cut").expect("it is resumed"));
    let expected = starts + Duration::from_secs(600);
    assert!(
        apart(resumed, expected) <= SAME,
        "it ends {:?} from where it should",
        apart(resumed, expected)
    );
}
