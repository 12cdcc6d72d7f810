//! Pods that may not have faults, and how many may.

use std::fs;

use sabot_testkit::wait::wait_until;
use serde_json::Value;

use crate::scene::{LOOK, PATIENCE, Scene, USAGE, assert_says};

const PROTECTED: &str = "sabot.dev/protected";

fn protect(annotations: &mut std::collections::BTreeMap<String, String>) {
    annotations.insert(PROTECTED.into(), "true".into());
}

#[test]
fn pods_of_protected_namespaces_have_no_faults() {
    let scene = Scene::new(2, &[]);
    scene.run(0, "dns", |pod| pod.namespace = "kube-system".into());
    scene.run(1, "web", |_| {});
    let says = ["guard protected-namespace", "kube-system"];
    for target in [
        "pod:kube-system/dns",
        "pods:kube-system/app=dns",
        "pods:kube-system/*",
    ] {
        scene.assert_refused(&format!("partition --target {target} --for 60s"), &says);
    }
    // Neither by another name of it, nor when it is only looked at.
    let netns = scene.lab.pod(0).target();
    scene.assert_refused(&format!("partition --target {netns} --for 60s"), &says);
    scene.assert_refused("partition --target pods:kube-system/* --for 60s --dry-run", &says);
    assert!(scene.answers(0, 1));
    // As a peer it may be named.
    scene.ok("partition --target pod:shop/web --peer pod:kube-system/dns --for 60s");
    assert!(!scene.answers(0, 1));
}

#[test]
fn other_namespaces_are_protected_by_flag_and_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sabotd.toml");
    fs::write(&file, "[guard]\nprotected-namespace = ['bank']\n").expect("it is written");
    let path = file.to_str().expect("UTF-8").to_owned();
    let flags = ["--config", &path, "--guard-protected-namespace", "shop"];
    let scene = Scene::in_folder(folder, 2, &flags);
    scene.run(0, "dns", |pod| pod.namespace = "kube-system".into());
    scene.run(1, "web", |_| {});
    for namespace in ["bank", "shop"] {
        let line = format!("partition --target pods:{namespace}/* --for 60s");
        scene.assert_refused(&line, &["guard protected-namespace", namespace]);
    }
    scene.ok("partition --target pod:kube-system/dns --for 60s");
    assert!(!scene.answers(0, 1));
}

#[test]
fn an_annotated_pod_has_no_faults_also_when_it_comes_later() {
    let scene = Scene::new(3, &[]);
    scene.run(0, "web", |pod| protect(&mut pod.annotations));
    let says = ["guard protected-pod", "shop/web", PROTECTED];
    scene.assert_refused("partition --target pod:shop/web --for 60s", &says);

    scene.run(1, "other", |pod| {
        drop(pod.labels.insert("app".into(), "web".into()));
    });
    scene.ok("partition --target pods:shop/app=web --for 60s --name cut");
    assert!(scene.answers(0, 2) && !scene.answers(1, 2));
    let shown = scene.ok("get cut");
    assert!(shown.contains("guard protected-pod"), "{shown}");
    let preview = scene.ok("partition --target pods:shop/app=web --for 60s --dry-run");
    assert!(preview.contains("guard protected-pod"), "{preview}");

    // It restarts as one that isn't protected, and again as one that is.
    let sandbox = |id: &str, protected: bool| {
        scene.runtime.remove("sandbox-0");
        scene.runtime.remove("restarted");
        let mut pod = sabot_testkit::cri::fake::FakeSandbox::ready("web", scene.lab.pod(0).netns().path());
        if protected {
            protect(&mut pod.annotations);
        }
        scene.runtime.put(id, pod);
    };
    sandbox("restarted", false);
    assert!(
        wait_until(PATIENCE, LOOK, || !scene.answers(0, 2)),
        "it never gets the fault"
    );
    sandbox("sandbox-0", true);
    assert!(
        wait_until(PATIENCE, LOOK, || scene.answers(0, 2)),
        "it keeps the fault"
    );
    assert!(!scene.answers(1, 2));
}

#[test]
fn with_opt_in_only_labelled_pods_have_faults() {
    let scene = Scene::new(2, &["--guard-opt-in", "sabot.dev/allowed=true"]);
    scene.run(0, "web", |_| {});
    scene.run(1, "willing", |pod| {
        drop(pod.labels.insert("sabot.dev/allowed".into(), "true".into()));
    });
    let says = ["guard opt-in", "shop/web", "sabot.dev/allowed"];
    scene.assert_refused("partition --target pod:shop/web --for 60s", &says);
    scene.ok("partition --target pod:shop/willing --for 60s");
    assert!(!scene.answers(0, 1));
}

#[test]
fn shares_of_a_namespace_and_of_the_node_are_bounded() {
    let scene = Scene::new(4, &["--guard-namespace-share", "50%", "--guard-node-share", "50"]);
    for (index, name) in ["web", "cli", "db"].into_iter().enumerate() {
        scene.run(index, name, |_| {});
    }
    scene.run(3, "teller", |pod| pod.namespace = "bank".into());
    let says = ["guard namespace-share", "50 % of the 3 pods of namespace shop"];
    scene.assert_refused("partition --target pods:shop/* --for 60s", &says);
    scene.assert_refused("partition --target pods:shop/* --pick 2 --for 60s", &says);
    scene.assert_refused(
        "partition --target pod:bank/teller --for 60s",
        &["guard namespace-share"],
    );
    scene.ok("partition --target pod:shop/web --for 60s --name web");
    scene.assert_refused("partition --target pod:shop/cli --for 60s", &says);
    // The same pod again, with another fault, is no more of them.
    scene.ok("delay 1ms --target pod:shop/web --for 60s --name more");
    scene.ok("delete web more");
    scene.ok("partition --target pod:shop/cli --for 60s");
}

#[test]
fn the_nodes_share_is_counted_over_all_namespaces() {
    let scene = Scene::new(2, &["--guard-node-share", "50"]);
    scene.run(0, "web", |_| {});
    scene.run(1, "teller", |pod| pod.namespace = "bank".into());
    scene.ok("partition --target pod:shop/web --for 60s");
    let says = ["guard node-share", "50 % of the 2 pods of this node"];
    scene.assert_refused("partition --target pod:bank/teller --for 60s", &says);
}

#[test]
fn a_refusal_names_its_guard_for_machines_too() {
    use sabot_proto::convert::spec_to_proto;
    use sabot_proto::sabot::v1::{ApplyFaultRequest, Metadata};
    use tonic_types::StatusExt as _;

    let scene = Scene::new(1, &[]);
    let text = "{apiVersion: sabot.dev/v1alpha1, kind: NetworkFault, metadata: {name: cut}, spec: {duration: 60s, \
                target: {pods: {namespace: kube-system, name: dns}}, action: {partition: {}}}}";
    let manifest = sabot_core::parse_manifests(text).expect("YAML").remove(0);
    let client = scene.daemon.client().expect("it answers");
    let request = ApplyFaultRequest {
        metadata: Some(Metadata {
            name: "cut".into(),
            namespace: String::new(),
        }),
        spec: Some(spec_to_proto(&manifest.spec).expect("it converts")),
        wait: None,
    };
    let status = client
        .wait(client.faults().apply_fault(request))
        .expect_err("it is refused");
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    let info = status.get_details_error_info().expect("details");
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        ("protected-namespace", "sabot.dev")
    );
}

#[test]
fn settings_of_guards_are_checked() {
    use sabot_testkit::{Daemon, DaemonOptions};
    for (flags, says) in [
        (["--guard-namespace-share", "120"], "a percent from 0 to 100"),
        (["--guard-opt-in", "a=b=c,"], "label"),
        (
            ["--guard-protected-namespace", "Not_A_Name"],
            "names of namespaces are needed",
        ),
        (["--guard-protected-namespace", "none,shop"], "`none` alone"),
        (["--guard-api-server", "10.0.0.1"], "a host and a port are needed"),
        (["--guard-port", "0"], "--guard-port"),
    ] {
        let options = DaemonOptions::built().expect("it is built").flags(&flags);
        let mut daemon = Daemon::spawn(options).expect("it is started");
        let status = daemon.wait_end(PATIENCE).expect("it ends");
        assert_eq!(status.code(), Some(USAGE), "{flags:?}: {}", daemon.log());
        assert!(daemon.log().contains(says), "{flags:?}: {}", daemon.log());
    }
    // And what is written in one line on the client's side.
    let scene = Scene::new(1, &[]);
    let output = scene.sabot("partition --target interface:br0 --for 60s --allow-control-plane=maybe");
    assert_says(&output, USAGE, &["--allow-control-plane"]);
    assert_eq!(scene.faults()["faults"], Value::Array(Vec::new()));
}
