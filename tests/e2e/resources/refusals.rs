//! What isn't injected, and where that is said.

use sabot_testkit::wait::wait_until;
use serde_json::{Value, json};

use crate::scene::{LOOK, PATIENCE, Scene, condition, cut, part, text};

const REFUSED: i32 = 4;

/// The condition and the events say no, for this reason and with these words.
fn assert_refused(scene: &Scene, name: &str, reason: &str, says: &[&str]) {
    let status = scene.wait_phase(name, "Refused");
    let accepted = condition(&status, "Accepted");
    assert_eq!(
        (&accepted["status"], &accepted["reason"]),
        (&json!("False"), &json!(reason)),
        "{status:#}"
    );
    let own = part(&status, "node-a");
    assert_eq!(own["reason"], reason);
    assert_eq!(own["injectedAt"], json!(null), "{own}");
    let event = scene.wait_event("FaultRefused", "NetworkFault", name);
    assert_eq!(event["type"], "Warning");
    for words in says {
        for said in [&accepted["message"], &own["message"], &event["note"]] {
            assert!(text(said).contains(words), "`{words}` is not in {said}");
        }
    }
    scene.wait_pass(0);
}

/// What the node would say to a fault on the pod.
fn dry_run(scene: &Scene) -> String {
    let words = [
        "partition",
        "--target",
        "pod:shop/web-0",
        "--for",
        "10m",
        "--dry-run",
    ];
    let output = scene.nodes[0].daemon().sabot(&words).expect("sabot runs");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn annotate(pod: &mut Value) {
    pod["metadata"]["annotations"] = json!({"sabot.dev/protected": "true"});
}

#[test]
fn pods_of_other_namespaces_are_not_touched() {
    let scene = Scene::new(&[("node-a", 1)]);
    for (name, target, says) in [
        (
            "pods",
            json!({"pods": {"namespace": "bank", "name": "web-0"}}),
            "spec.target.pods.namespace: `bank`",
        ),
        (
            "service",
            json!({"service": {"namespace": "bank", "name": "web"}}),
            "spec.target.service.namespace: `bank`",
        ),
        (
            "device",
            json!({"interface": "br0"}),
            "spec.target.interface: `br0`",
        ),
    ] {
        let mut fault = cut(name, "10m");
        fault["spec"]["target"] = target;
        scene.cluster.apply(fault);
        assert_refused(&scene, name, "Invalid", &[says, "shop"]);
    }
}

#[test]
fn guards_refuse_resources_too() {
    let scene = Scene::with_flags(&[("node-a", 1)], &["--guard-protected-namespace", "shop"]);
    scene.cluster.apply(cut("cut", "10m"));
    assert_refused(&scene, "cut", "Guarded", &["protected-namespace", "shop"]);
}

#[test]
fn an_annotation_of_the_pod_decides_while_the_fault_is_there() {
    let scene = Scene::new(&[("node-a", 1)]);
    scene.run(0, 0, annotate);
    let knows = || dry_run(&scene).contains("protected-pod");
    assert!(wait_until(PATIENCE, LOOK, knows), "the annotation is not seen");
    scene.cluster.apply(cut("cut", "10m"));
    assert_refused(&scene, "cut", "Guarded", &["protected-pod", "shop/web-0"]);
    scene.run(0, 0, |_| {});
    let status = scene.wait_phase("cut", "Injected");
    assert_eq!(condition(&status, "Accepted")["status"], "True");
    scene.wait_cut(0);
    scene.run(0, 0, annotate);
    scene.wait_pass(0);
    let status = scene.wait_status("cut", "no target", |status| {
        part(status, "node-a")["injected"] == 0
    });
    assert!(
        text(&part(&status, "node-a")["message"]).contains("protected-pod"),
        "{status:#}"
    );
}

#[test]
fn a_name_belongs_to_the_call_or_to_the_resource() {
    let scene = Scene::new(&[("node-a", 1)]);
    let daemon = scene.nodes[0].daemon();
    let delay = [
        "delay",
        "1ms",
        "--target",
        "pods:shop/app=web",
        "--for",
        "10m",
        "--name",
        "cut",
        "-n",
        "shop",
    ];
    daemon.sabot_ok(&delay).expect("it is injected");
    scene.cluster.apply(cut("cut", "10m"));
    assert_refused(&scene, "cut", "NameTaken", &["shop/cut", "given over the API"]);
    daemon
        .sabot_ok(&["delete", "cut", "-n", "shop"])
        .expect("it is deleted");
    scene.wait_phase("cut", "Injected");
    scene.wait_cut(0);

    for words in [
        vec!["delete", "cut", "-n", "shop"],
        vec!["delete", "--all"],
        delay.to_vec(),
    ] {
        let output = daemon.sabot(&words).expect("sabot runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{words:?}");
        assert!(said.contains("NetworkFault shop/cut"), "{words:?}: {said}");
    }
    let deleted = daemon
        .sabot(&["delete", "cut", "-n", "shop"])
        .expect("sabot runs");
    assert_eq!(deleted.status.code(), Some(REFUSED));
    assert!(scene.is_cut(0));
    assert_eq!(scene.status("cut")["phase"], "Injected");
}
