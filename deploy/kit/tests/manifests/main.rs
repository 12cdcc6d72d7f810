//! Every manifest of the repository: that Kubernetes' types have all that stands in it, and that the parts fit together.

mod schema;

use std::collections::BTreeSet;

use sabot_deploy::chart::{Chart, Release, documents};
use sabot_deploy::manifests::repository;
use sabot_deploy::{image, manifests};
use serde_json::{Value, json};

fn chart() -> Chart {
    Chart::load(&repository().join(manifests::CHART)).expect("the chart is there")
}

fn rendered(values: &Value) -> Vec<Value> {
    let rendered = chart().render(&Release::standard("Helm"), values);
    let rendered = rendered.unwrap_or_else(|error| panic!("{values}: {error:#}"));
    rendered.into_iter().flat_map(|file| file.documents).collect()
}

fn of_kind<'a>(all: &'a [Value], kind: &str) -> Vec<&'a Value> {
    all.iter().filter(|document| document["kind"] == kind).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Values that switch on everything that is off by default.
fn everything() -> Value {
    json!({
        "image": {"tag": "9.9.9", "pullSecrets": [{"name": "registry"}]},
        "config": {"max-duration": "15m"},
        "env": [{"name": "RUST_BACKTRACE", "value": "1"}],
        "metrics": {
            "probeHost": "127.0.0.1",
            "address": "127.0.0.1",
            "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
        },
        "podSecurityContext": {"seLinuxOptions": {"type": "spc_t"}},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "chaos", "operator": "Exists"}]},
        ]}}},
        "podAnnotations": {"example.org/a": "b"},
        "podLabels": {"example.org/c": "d"},
        "serviceAccount": {"annotations": {"example.org/e": "f"}},
        "rbac": {"aggregate": true},
    })
}

#[test]
fn every_manifest_is_what_kubernetes_knows() {
    let off = json!({"tun": false, "rbac": {"userRoles": false}});
    for values in [json!({}), everything(), off] {
        let all = rendered(&values);
        assert!(!all.is_empty());
        for document in &all {
            schema::check(document).unwrap_or_else(|error| panic!("{values}: {error}"));
        }
    }
    for path in ["deploy/kustomize/base/namespace.yaml", manifests::BASE] {
        for document in documents(&read(path)).expect("YAML") {
            schema::check(&document).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}

#[test]
fn a_mistake_in_a_manifest_is_found() {
    let mut daemon = of_kind(&rendered(&json!({})), "DaemonSet")[0].clone();
    daemon["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readonlyRootFilesystem"] =
        json!(true);
    let error = schema::check(&daemon).expect_err("it is misspelt");
    assert!(
        error.contains("spec.template.spec.containers[0].securityContext.readonlyRootFilesystem"),
        "{error}"
    );
    daemon["spec"]["template"]["spec"]["hostPID"] = json!("yes");
    assert!(
        schema::check(&daemon)
            .expect_err("no boolean")
            .contains("DaemonSet")
    );
    let unknown = json!({"apiVersion": "v2", "kind": "Demon"});
    assert!(
        schema::check(&unknown)
            .expect_err("no such kind")
            .contains("Demon")
    );
}

#[test]
fn kustomize_has_what_the_chart_has() {
    let now = manifests::base(&repository()).expect("the chart renders");
    assert!(
        read(manifests::BASE) == now,
        "{} isn't what the chart renders to; run `cargo xtask manifests`",
        manifests::BASE
    );
    let listed: Value =
        serde_norway::from_str(&read("deploy/kustomize/base/kustomization.yaml")).expect("YAML");
    for name in listed["resources"].as_array().expect("a list") {
        let name = name.as_str().expect("a path");
        assert!(
            repository().join("deploy/kustomize/base").join(name).is_file(),
            "{name}"
        );
    }
    let namespace = documents(&read("deploy/kustomize/base/namespace.yaml")).expect("YAML");
    assert_eq!(namespace, [manifests::namespace("sabot")]);
}

#[test]
fn the_chart_asks_for_the_image_that_is_made_here() {
    let all = rendered(&json!({}));
    let container = &of_kind(&all, "DaemonSet")[0]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], image::default_name());
    let all = rendered(&everything());
    let container = &of_kind(&all, "DaemonSet")[0]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], format!("{}:9.9.9", image::REPOSITORY));
    assert_eq!(container["args"], json!(["--max-duration=15m"]));
}

#[test]
fn selectors_meet_the_daemons_pods() {
    let all = rendered(&everything());
    let daemon = of_kind(&all, "DaemonSet")[0];
    let labels = daemon["spec"]["template"]["metadata"]["labels"]
        .as_object()
        .expect("labels");
    let service = of_kind(&all, "Service")[0];
    let monitor = of_kind(&all, "ServiceMonitor")[0];
    let service_labels = service["metadata"]["labels"].as_object().expect("labels");
    for (selector, labels) in [
        (&daemon["spec"]["selector"]["matchLabels"], labels),
        (&service["spec"]["selector"], labels),
        (&monitor["spec"]["selector"]["matchLabels"], service_labels),
    ] {
        for (key, value) in selector.as_object().expect("a selector") {
            assert_eq!(labels.get(key), Some(value), "{key}");
        }
    }
    // By these the client finds the daemons.
    assert_eq!(labels["app.kubernetes.io/name"], "sabot");
    assert_eq!(labels["app.kubernetes.io/component"], "daemon");
    // The rules for Prometheus are about the job `sabot`, which comes from this label.
    let job = monitor["spec"]["jobLabel"].as_str().expect("a label");
    assert_eq!(service_labels[job], "sabot");
    let ports = service["spec"]["ports"].as_array().expect("a list");
    assert!(
        ports
            .iter()
            .any(|port| port["name"] == monitor["spec"]["endpoints"][0]["port"])
    );
}

#[test]
fn the_pod_is_bounded() {
    let all = rendered(&json!({}));
    let spec = &of_kind(&all, "DaemonSet")[0]["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    let volumes: BTreeSet<_> = spec["volumes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| &v["name"])
        .map(Value::to_string)
        .collect();
    let mounts = container["volumeMounts"].as_array().expect("a list");
    let mounted: BTreeSet<_> = mounts.iter().map(|m| m["name"].to_string()).collect();
    assert_eq!(volumes, mounted);
    for mount in mounts
        .iter()
        .filter(|mount| mount["name"] != "socket" && mount["name"] != "tun")
    {
        assert_eq!(mount["readOnly"], true, "{mount}");
    }
}

/// The daemon lists and watches, and never asks for one thing by its name.
#[test]
fn the_daemons_role_has_no_verb_that_it_does_without() {
    let all = rendered(&everything());
    let roles = of_kind(&all, "ClusterRole");
    let role = roles
        .iter()
        .find(|role| role["metadata"]["name"] == "sabot-daemon");
    let rules = role.expect("the daemon has a role")["rules"].as_array();
    let verbs: BTreeSet<_> = rules
        .expect("a list")
        .iter()
        .flat_map(|rule| rule["verbs"].as_array().expect("a list"))
        .map(|verb| verb.as_str().expect("a name"))
        .collect();
    assert_eq!(verbs, BTreeSet::from(["create", "list", "patch", "watch"]));
}

/// What the roles allow, and that nothing is a wildcard or a secret.
#[test]
fn roles_are_narrow_and_bindings_lead_to_them() {
    let all = rendered(&everything());
    let roles: Vec<_> = [of_kind(&all, "ClusterRole"), of_kind(&all, "Role")].concat();
    for role in &roles {
        for rule in role["rules"].as_array().expect("a list") {
            let text = rule.to_string();
            assert!(!text.contains('*') && !text.contains("secrets"), "{role:#}");
        }
    }
    let writes = |role: &Value| -> BTreeSet<String> {
        let rules = role["rules"].as_array().expect("a list").iter();
        let writing = rules.filter(|rule| {
            let verbs = rule["verbs"].as_array().expect("a list");
            verbs
                .iter()
                .any(|verb| !["get", "list", "watch"].map(Value::from).contains(verb))
        });
        let resources = writing.flat_map(|rule| rule["resources"].as_array().expect("a list"));
        resources
            .map(|resource| resource.as_str().expect("a name").to_owned())
            .collect()
    };
    let role = |name: &str| {
        let found = roles.iter().find(|role| role["metadata"]["name"] == name);
        *found.unwrap_or_else(|| panic!("no role {name}"))
    };
    for (name, expected) in [
        (
            "sabot-daemon",
            vec!["clusternetworkfaults/status", "events", "networkfaults/status"],
        ),
        ("sabot-viewer", vec![]),
        ("sabot-operator", vec!["networkfaults"]),
        (
            "sabot-cluster-operator",
            vec!["clusternetworkfaults", "networkfaults"],
        ),
        ("sabot-exec", vec!["pods/exec"]),
    ] {
        assert_eq!(
            writes(role(name)),
            expected.into_iter().map(str::to_owned).collect(),
            "{name}"
        );
    }
    let bindings = of_kind(&all, "ClusterRoleBinding");
    let [binding] = bindings.as_slice() else {
        panic!("only the daemon's role is bound: {bindings:#?}")
    };
    assert_eq!(binding["roleRef"]["name"], "sabot-daemon");
    let account = of_kind(&all, "ServiceAccount")[0];
    let daemon = of_kind(&all, "DaemonSet")[0];
    assert_eq!(binding["subjects"][0]["name"], account["metadata"]["name"]);
    assert_eq!(
        binding["subjects"][0]["namespace"],
        account["metadata"]["namespace"]
    );
    assert_eq!(
        daemon["spec"]["template"]["spec"]["serviceAccountName"],
        account["metadata"]["name"]
    );
}

/// Helm refuses what the schema doesn't have.
#[test]
fn every_value_is_in_the_schema_and_every_property_has_a_value() {
    let schema: Value = serde_json::from_str(&read("deploy/helm/sabot/values.schema.json")).expect("JSON");
    let chart = chart();
    let mut pending = vec![(chart.values(), &schema, "values".to_owned())];
    while let Some((values, schema, path)) = pending.pop() {
        let (Some(values), Some(properties)) = (values.as_object(), schema["properties"].as_object()) else {
            continue;
        };
        assert_eq!(schema["additionalProperties"], false, "{path}");
        // Helm gives every chart a `global`.
        let names: BTreeSet<_> = properties.keys().filter(|name| *name != "global").collect();
        assert_eq!(values.keys().collect::<BTreeSet<_>>(), names, "{path}");
        pending.extend(
            values
                .iter()
                .map(|(name, value)| (value, &properties[name], format!("{path}.{name}"))),
        );
    }
}

/// Those that name Services and nodes; the others are read as the client reads them by a test of the core.
#[test]
fn scenarios_say_what_they_ask_and_expect() {
    let folder = repository().join("deploy/scenarios/cluster");
    let mut names = BTreeSet::new();
    for entry in folder.read_dir().expect("scenarios") {
        let path = entry.expect("a file").path();
        let shown = path.display();
        let text = std::fs::read_to_string(&path).expect("a text");
        assert!(
            text.starts_with("# Hypothesis: ") && text.contains("\n# Expected: "),
            "{shown}"
        );
        for fault in documents(&text).expect("YAML") {
            assert_eq!(fault["apiVersion"], "sabot.dev/v1alpha1", "{shown}");
            let is_namespaced = fault["kind"] == "NetworkFault";
            assert!(is_namespaced || fault["kind"] == "ClusterNetworkFault", "{shown}");
            assert_eq!(
                fault["metadata"]["namespace"].is_string(),
                is_namespaced,
                "{shown}"
            );
            let name = fault["metadata"]["name"].as_str().expect("a name").to_owned();
            assert_eq!(
                path.file_stem().and_then(|stem| stem.to_str()),
                Some(name.as_str())
            );
            for field in ["duration", "target", "action"] {
                assert!(!fault["spec"][field].is_null(), "{shown}: {field}");
            }
            assert!(names.insert(name), "{shown}: twice");
        }
    }
    assert!(names.len() >= 4, "{names:?}");
}

#[test]
fn the_definitions_are_installed_and_roles_speak_of_them() {
    let all = rendered(&json!({}));
    let definitions = of_kind(&all, "CustomResourceDefinition");
    let names: BTreeSet<_> = definitions
        .iter()
        .map(|definition| definition["metadata"]["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["clusternetworkfaults.sabot.dev", "networkfaults.sabot.dev"])
    );
    let known: BTreeSet<String> = definitions
        .iter()
        .flat_map(|definition| {
            let plural = definition["spec"]["names"]["plural"].as_str().expect("a name");
            [plural.to_owned(), format!("{plural}/status")]
        })
        .collect();
    for role in of_kind(&all, "ClusterRole") {
        for rule in role["rules"].as_array().expect("a list") {
            if rule["apiGroups"] == json!(["sabot.dev"]) {
                for resource in rule["resources"].as_array().expect("a list") {
                    assert!(known.contains(resource.as_str().expect("a name")), "{role:#}");
                }
            }
        }
    }
}
