//! Faults are made, shown and deleted.

use std::fs;

use crate::scene::{Scene, code, stderr};

#[test]
fn every_action_bites_and_is_shown_in_every_format() {
    let scene = Scene::new(&[]);
    let ends = scene.ends();
    assert_eq!(scene.ok("get").trim(), "no faults");
    let preview = scene.json(&format!("partition --name cut --dry-run {ends}"));
    assert_eq!(
        preview["targets"].as_array().map(Vec::len),
        Some(1),
        "{preview:#}"
    );
    assert!(
        scene.names().is_empty() && scene.answers(),
        "a dry run does nothing"
    );

    for action in ["partition", "drop 100%", "delay 2s --jitter 1s", "corrupt 0.01%"] {
        let said = scene.ok(&format!("{action} --name one -n shop {ends}"));
        assert!(
            said.starts_with("fault shop/one applied: Injected on 1/1 targets"),
            "{said}"
        );
        let corrupts = action.starts_with("corrupt");
        assert_eq!(scene.answers(), corrupts, "{action}");
        let table = scene.ok("get");
        let word = action.split(' ').next().expect("an action");
        assert!(
            table.starts_with("NAME") && table.contains("shop/one") && table.contains(word),
            "{table}"
        );
        let json = scene.json("get shop/one");
        let yaml = scene.ok("get one -n shop -o yaml");
        assert_eq!(json["apiVersion"], "sabot.dev/v1alpha1");
        assert!(json["spec"]["action"].get(word).is_some(), "{json:#}");
        assert!(
            json["status"]["ledgers"].as_array().is_some_and(|l| l.len() == 2),
            "{json:#}"
        );
        assert!(
            yaml.contains("kind: NetworkFault") && yaml.contains("phase: Injected"),
            "{yaml}"
        );
        let detail = scene.ok("get shop/one");
        assert!(
            detail.contains("MATCHED") && detail.contains("egress"),
            "{detail}"
        );
        let said = scene.ok("delete shop/one");
        assert!(said.contains("shop/one"), "{said}");
        assert!(scene.answers(), "{action} is over");
    }
    assert!(scene.names().is_empty());
    let ended = scene.json("get one -n shop");
    assert_eq!(
        ended["status"]["phase"], "Deleted",
        "an ended fault stays for a while"
    );
}

#[test]
fn faults_are_deleted_by_name_by_namespace_and_all_at_once() {
    let scene = Scene::new(&[]);
    let ends = scene.ends();
    scene.ok(&format!("partition --name a {ends}"));
    scene.ok(&format!("partition --name b -n shop {ends}"));
    assert_eq!(scene.names(), ["a", "b"]);
    let deleted = scene.json("delete --all -n shop");
    assert_eq!(deleted["faults"].as_array().map(Vec::len), Some(1), "{deleted:#}");
    assert_eq!(scene.names(), ["a"]);
    scene.ok("delete --all");
    assert!(scene.names().is_empty() && scene.answers());
    // A name is made up where none is given.
    let made = scene.json(&format!("partition {ends}"));
    let name = made["metadata"]["name"].as_str().expect("it has a name");
    assert!(name.starts_with("partition-"), "{name}");
    scene.ok(&format!("delete {name}"));
}

#[test]
fn a_file_is_applied_whole_or_not_at_all() {
    let scene = Scene::new(&[]);
    let good = scene.manifest("cut", "{partition: {}}") + &scene.manifest("late", "{delay: {latency: 5ms}}");
    let preview = scene.with_input("apply -f - --dry-run", &good);
    assert_eq!(code(&preview), Some(0), "{}", stderr(&preview));
    assert!(scene.names().is_empty(), "a dry run does nothing");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("faults.yaml");
    fs::write(&file, &good).expect("a file");
    let said = scene.ok(&format!("apply -f {}", file.display()));
    assert!(
        said.contains("shop/cut applied") && said.contains("shop/late applied"),
        "{said}"
    );
    assert_eq!(scene.names(), ["cut", "late"]);
    let first = scene.json("get shop/cut");
    let again = scene.json(&format!("apply -f {}", file.display()));
    assert_eq!(
        again["faults"][0]["status"]["expiresAt"], first["status"]["expiresAt"],
        "nothing changed"
    );
    let edited = scene.manifest("cut", "{drop: {percent: 5}}");
    assert_eq!(code(&scene.with_input("apply -f -", &edited)), Some(0));
    assert_eq!(
        scene.json("get shop/cut")["spec"]["action"]["drop"]["percent"],
        5.0
    );
    scene.ok("delete --all");

    let unknown = good.replace("latency: 5ms", "latency: 5ms, surprise: 1");
    for (bad, why) in [
        (unknown, "surprise"),
        (good.replace("60s", "2h"), "spec.duration"),
        (
            good.clone() + &scene.manifest("worse", "{drop: {percent: 101}}"),
            "spec.action.drop.percent",
        ),
        (good.clone() + &scene.manifest("cut", "{partition: {}}"), "twice"),
        (good.replace("NetworkFault", "Deployment"), "kind"),
        (String::new(), "empty"),
    ] {
        let refused = scene.with_input("apply -f -", &bad);
        assert_eq!(code(&refused), Some(2), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(why), "{why}: {}", stderr(&refused));
        assert!(scene.names().is_empty(), "{why}: nothing is applied");
    }
    assert_eq!(code(&scene.run("apply -f /nonexistent.yaml")), Some(1));
}
