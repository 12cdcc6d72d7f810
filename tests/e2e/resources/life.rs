//! The life of a resource: from its injection to its end.

use std::time::{Duration, Instant, SystemTime};

use sabot_testkit::wait::wait_for;
use serde_json::json;

use crate::scene::{IN_FLIGHT, LOOK, PATIENCE, Scene, apart, condition, cut, nodes, part, text, time};

#[test]
fn it_is_injected_says_so_and_ends_with_its_counters() {
    let scene = Scene::new(&[("node-a", 1)]);
    scene.wait_pass(0);
    scene.cluster.apply(cut("cut", "6s"));
    let status = scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);
    let silent = Instant::now();

    let own = part(&status, "node-a");
    assert_eq!(
        (&own["phase"], &own["targets"], &own["injected"]),
        (&json!("Injected"), &json!(1), &json!(1))
    );
    assert_eq!(own["observedGeneration"], 1);
    let (begin, end) = (time(&own["injectedAt"]), time(&own["expiresAt"]));
    assert_eq!(
        end.duration_since(begin).expect("it ends later"),
        Duration::from_secs(6)
    );
    assert_eq!(own["expiresAt"], status["expiresAt"]);
    for (kind, holds) in [
        ("Accepted", "True"),
        ("Injected", "True"),
        ("Expired", "False"),
        ("Failed", "False"),
    ] {
        assert_eq!(condition(&status, kind)["status"], holds, "{kind}");
    }
    scene.wait_event("FaultInjected", "NetworkFault", "cut");
    let of_pod = scene.wait_event("FaultInjected", "Pod", "web-0");
    assert_eq!(of_pod["regarding"]["uid"], "uid-web-0");
    assert_eq!(of_pod["related"]["name"], "cut");
    assert!(text(&of_pod["note"]).contains("node-a"), "{of_pod}");

    let over = SystemTime::now();
    assert!(over < end, "too slow a machine to see anything");
    let passed = scene.wait_pass(0);
    assert!(passed >= end, "{:?} before its end", apart(passed, end));
    let status = scene.wait_status("cut", "its counters", |status| {
        !part(status, "node-a")["packets"].is_null()
    });
    assert_eq!(status["phase"], "Expired");
    assert_eq!(condition(&status, "Expired")["status"], "True");
    let own = part(&status, "node-a");
    assert_eq!((time(&own["injectedAt"]), time(&own["expiresAt"])), (begin, end));
    // Each probe that was lost for sure was counted.
    let lost = scene.prober(0).passage(silent - IN_FLIGHT, silent);
    let dropped = own["packets"]["dropped"].as_u64().expect("a number");
    assert!(lost.sent > 0 && dropped >= lost.sent as u64, "{own}: {lost:?}");
    assert_eq!(own["packets"]["matched"], dropped);
    scene.wait_event("FaultEnded", "NetworkFault", "cut");
    scene.wait_event("FaultEnded", "Pod", "web-0");
}

#[test]
fn it_ends_when_it_is_deleted() {
    let scene = Scene::new(&[("node-a", 1)]);
    scene.cluster.apply(cut("cut", "10m"));
    scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);
    let deleted = Instant::now();
    assert!(scene.cluster.delete("networkfaults", "shop", "cut"));
    scene.wait_pass(0);
    eprintln!("healed {:?} after the deletion", deleted.elapsed());
    let fault = scene.nodes[0].fault("cut").expect("it is listed for a while");
    assert_eq!(fault["status"]["phase"], "Deleted");
    let ended = scene.wait_event("FaultEnded", "NetworkFault", "cut");
    assert!(text(&ended["note"]).contains("deleted"), "{ended}");

    // Another one of the same name has nothing to do with it.
    scene.cluster.apply(cut("cut", "10m"));
    let again = scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);
    assert!(time(&part(&again, "node-a")["injectedAt"]) > SystemTime::now() - deleted.elapsed());
}

#[test]
fn its_time_begins_with_the_first_pod() {
    let scene = Scene::new(&[("node-a", 1)]);
    let mut later = cut("later", "10m");
    later["spec"]["target"]["pods"]["selector"]["matchLabels"]["app"] = json!("db");
    scene.cluster.apply(later);
    // Whatever comes after it has been seen means that it was looked at.
    scene.cluster.apply(cut("cut", "10m"));
    scene.wait_phase("cut", "Injected");
    assert_eq!(scene.status("later")["nodes"], json!(null));
    scene.cluster.delete("networkfaults", "shop", "cut");
    scene.wait_pass(0);
    let labelled = SystemTime::now();
    scene.run(0, 0, |pod| pod["metadata"]["labels"]["app"] = json!("db"));
    let status = scene.wait_phase("later", "Injected");
    scene.wait_cut(0);
    let begin = time(&part(&status, "node-a")["injectedAt"]);
    assert!(
        begin + Duration::from_millis(1) >= labelled,
        "its time began before it had a target"
    );
}

#[test]
fn one_of_the_cluster_reaches_any_namespace() {
    let scene = Scene::new(&[("node-a", 1)]);
    let mut fault = cut("wide", "10m");
    fault["kind"] = json!("ClusterNetworkFault");
    fault["metadata"] = json!({"name": "wide"});
    fault["spec"]["target"]["pods"]["namespace"] = json!("shop");
    scene.cluster.apply(fault);
    let injected = || {
        let fault = scene.cluster.get("clusternetworkfaults", "", "wide")?;
        Some(fault["status"].clone()).filter(|status| status["phase"] == "Injected")
    };
    let status = wait_for(PATIENCE, LOOK, injected).expect("it is injected");
    scene.wait_cut(0);
    assert_eq!(nodes(&status), ["node-a"]);
    scene.wait_event("FaultInjected", "ClusterNetworkFault", "wide");
    assert!(scene.cluster.delete("clusternetworkfaults", "", "wide"));
    scene.wait_pass(0);
}
