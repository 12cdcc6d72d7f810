//! The audit log: who asked for what, what became of it, when it ended.

use std::fs;
use std::path::{Path, PathBuf};

use sabot_testkit::wait::{wait_for, wait_until};
use serde_json::Value;

use crate::scene::{FAILED, LOOK, PATIENCE, Scene, assert_says};

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"));
    lines.collect()
}

struct Audited {
    scene: Scene,
    path: PathBuf,
}

impl Audited {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("audit.log");
        let flag = path.to_str().expect("UTF-8").to_owned();
        let scene = Scene::in_folder(folder, 2, &["--audit-log", &flag]);
        Self { scene, path }
    }

    /// The one line of a kind about a fault.
    fn wait(&self, event: &str, fault: &str) -> Value {
        let find = || {
            let all = lines(&self.path);
            all.into_iter()
                .find(|line| line["event"] == event && line["fault"] == fault)
        };
        wait_for(PATIENCE, LOOK, find)
            .unwrap_or_else(|| panic!("no {event} of {fault}: {:?}", lines(&self.path)))
    }
}

#[test]
fn who_asked_and_what_became_of_it_is_written() {
    let audited = Audited::new();
    let scene = &audited.scene;
    let target = scene.lab.pod(0).target();
    scene.ok(&format!(
        "partition --target {target} --for 60s --name cut -n shop"
    ));
    let request = audited.wait("request", "shop/cut");
    assert_eq!(request["method"], "ApplyFault");
    assert_eq!(request["result"], "done");
    assert_eq!(request["node"], "node-a");
    assert_eq!(
        (&request["who"]["kind"], &request["who"]["uid"]),
        (&"process".into(), &0.into())
    );
    assert!(
        request["who"]["pid"].as_u64().is_some_and(|pid| pid > 1),
        "{request}"
    );
    assert_eq!(request["spec"]["duration"], "1m", "{request}");
    assert!(request["spec"]["action"]["partition"].is_object(), "{request}");

    scene.sabot("partition --target pods:kube-system/* --for 60s --name never");
    let refused = audited.wait("request", "never");
    assert_eq!(
        (&refused["result"], &refused["guard"]),
        (&"refused".into(), &"protected-namespace".into())
    );
    assert_eq!(refused["code"], "FailedPrecondition");

    assert_says(&scene.sabot("delete nobody"), FAILED, &["nobody"]);
    let missing = audited.wait("request", "nobody");
    assert_eq!(
        (&missing["method"], &missing["code"]),
        (&"DeleteFault".into(), &"NotFound".into())
    );
    // What only reads isn't there.
    scene.ok("get");
    assert!(
        lines(&audited.path)
            .iter()
            .all(|line| line["method"] != "ListFaults")
    );
}

#[test]
fn an_end_is_written_with_its_reason_and_the_counters() {
    let mut audited = Audited::new();
    let target = audited.scene.lab.pod(0).target();
    for (name, duration) in [("short", "1s"), ("cut", "60s"), ("standing", "60s")] {
        audited.scene.ok(&format!(
            "partition --target {target} --for {duration} --name {name}"
        ));
    }
    assert!(!audited.scene.answers(0, 1));
    let expired = audited.wait("ended", "short");
    assert_eq!(expired["reason"], "expired", "{expired}");
    audited.scene.ok("delete cut");
    let deleted = audited.wait("ended", "cut");
    assert_eq!(deleted["reason"], "deleted", "{deleted}");
    assert!(
        deleted["injected"].is_string() && deleted["ended"].is_string(),
        "{deleted}"
    );

    // The one whose slot is first takes what the others would have met.
    let counted = |line: &Value, what: &str| line["counters"][what]["packets"].as_u64();
    audited.scene.daemon.terminate().expect("it ends");
    let standing = audited.wait("ended", "standing");
    assert_eq!(standing["reason"], "the daemon ended", "{standing}");
    let all = [&expired, &deleted, &standing];
    let dropped: Vec<_> = all.map(|line| counted(line, "dropped").expect("a number")).into();
    let matched: Vec<_> = all.map(|line| counted(line, "matched").expect("a number")).into();
    assert_eq!(dropped, matched);
    assert!(
        dropped.iter().sum::<u64>() >= 3,
        "three requests were lost: {dropped:?}"
    );
    let ends = lines(&audited.path)
        .iter()
        .filter(|line| line["event"] == "ended")
        .count();
    assert_eq!(ends, 3, "each end is written once");
}

#[test]
fn a_rotated_log_goes_on_in_a_new_file() {
    let audited = Audited::new();
    let target = audited.scene.lab.pod(0).target();
    let rotated = audited.path.with_extension("1");
    fs::rename(&audited.path, &rotated).expect("it is renamed");
    audited
        .scene
        .ok(&format!("partition --target {target} --for 60s --name cut"));
    audited.wait("request", "cut");
    let old = lines(&rotated);
    assert_eq!(old.len(), 1, "{old:?}");
    assert_eq!(old[0]["event"], "started");
}

#[test]
fn on_stderr_it_is_among_the_logs_lines() {
    let scene = Scene::new(1, &["--audit-log", "stderr"]);
    let target = scene.lab.pod(0).target();
    scene.ok(&format!("partition --target {target} --for 60s --name cut"));
    let written = || {
        let log = scene.daemon.log();
        let mut documents = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        documents.any(|line| line["method"] == "ApplyFault" && line["fault"] == "cut")
    };
    assert!(wait_until(PATIENCE, LOOK, written), "{}", scene.daemon.log());
}
