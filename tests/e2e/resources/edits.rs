//! Resources that are changed while they are in force.

use std::time::Instant;

use serde_json::json;

use crate::scene::{IN_FLIGHT, Scene, cut, part, text};

#[test]
fn an_edit_is_taken_over_without_a_gap() {
    let scene = Scene::new(&[("node-a", 1)]);
    scene.cluster.apply(cut("cut", "10m"));
    let before = scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);
    let silent = Instant::now() - IN_FLIGHT;
    // Both stop everything, one by its rule and one by chance.
    for (generation, action) in [
        (2, json!({"drop": {"percent": 100.0}})),
        (3, json!({"partition": {}})),
        (4, json!({"drop": {"percent": 100.0}})),
    ] {
        let mut edited = cut("cut", "10m");
        edited["spec"]["action"] = action.clone();
        scene.cluster.apply(edited);
        let is_followed = |status: &serde_json::Value| {
            let own = part(status, "node-a");
            own["observedGeneration"] == generation && own["phase"] == "Injected"
        };
        let status = scene.wait_status("cut", "the edit", is_followed);
        let wanted = action
            .as_object()
            .and_then(|action| action.keys().next().cloned());
        assert_eq!(status["action"], json!(wanted));
        assert_eq!(
            status["expiresAt"], before["expiresAt"],
            "an edit prolongs nothing"
        );
        let fault = scene.nodes[0].fault("cut").expect("it is there");
        assert_eq!(fault["spec"]["action"], action);
    }
    scene.wait_cut(0);
    let passage = scene.prober(0).passage(silent, Instant::now() - IN_FLIGHT);
    assert!(passage.sent > 100, "{passage:?}");
    assert_eq!(
        passage.answered, 0,
        "some probes passed during the edits: {passage:?}"
    );
}

#[test]
fn an_edit_moves_the_end_but_not_the_begin() {
    let scene = Scene::new(&[("node-a", 1)]);
    scene.cluster.apply(cut("cut", "10m"));
    let before = scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);
    scene.cluster.apply(cut("cut", "20m"));
    let after = scene.wait_status("cut", "another end", |status| {
        status["expiresAt"] != before["expiresAt"]
    });
    let begin = |status| part(status, "node-a")["injectedAt"].clone();
    assert_eq!(begin(&after), begin(&before));
    // A duration that is over already ends it.
    scene.cluster.apply(cut("cut", "1ms"));
    scene.wait_phase("cut", "Expired");
    scene.wait_pass(0);
}

#[test]
fn an_edit_that_is_refused_ends_the_fault() {
    let scene = Scene::new(&[("node-a", 1)]);
    scene.cluster.apply(cut("cut", "10m"));
    scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);
    let mut wrong = cut("cut", "10m");
    wrong["spec"]["action"] = json!({"drop": {"percent": 110}});
    scene.cluster.apply(wrong);
    let status = scene.wait_phase("cut", "Refused");
    scene.wait_pass(0);
    let own = part(&status, "node-a");
    assert_eq!(own["observedGeneration"], 2);
    assert!(
        text(&own["message"]).contains("spec.action.drop.percent"),
        "{own}"
    );
}
