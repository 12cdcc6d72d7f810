//! The dashboard and the alert rules, with promtool and with a real Prometheus that scrapes a real daemon.

mod dashboard;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sabot_testkit::metrics::Scrape;
use sabot_testkit::prometheus::Series;
use sabot_testkit::wait::{wait_for, wait_until};
use serde_json::Value;

use crate::dashboard::{Dashboard, concrete, list, selectors, text, variables_of};
use crate::scene::{LOOK, PATIENCE, PODS, Scene};

/// Labels by which a reader selects, and the variables that do it.
const SELECTED: [(&str, &str); 5] = [
    ("instance", "node"),
    ("namespace", "namespace"),
    ("pod", "pod"),
    ("fault", "fault"),
    ("process", "process"),
];

/// A file of `deploy/`.
pub(crate) fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

fn read_yaml(file: &str) -> Value {
    let text = fs::read_to_string(deploy(file)).expect("the file is there");
    serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every rule of all groups.
fn rules() -> Vec<Value> {
    let document = read_yaml("prometheus/rules.yaml");
    let groups = list(&document["groups"]).iter();
    groups.flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(deploy("prometheus"))
        .output()
        .expect("promtool runs (Debian's package prometheus)");
    assert!(
        output.status.success(),
        "promtool {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]);
    promtool(&["test", "rules", "rules.test.yaml"]);
}

/// promtool is content with an alert that no test names.
#[test]
fn every_alert_is_seen_to_fire_and_to_stay_silent() {
    let document = read_yaml("prometheus/rules.test.yaml");
    let groups = list(&document["tests"]).iter();
    let checks: Vec<&Value> = groups
        .flat_map(|group| group["alert_rule_test"].as_array().map_or(&[][..], Vec::as_slice))
        .collect();
    for rule in rules() {
        let expression = text(&rule["expr"]);
        let Some(alert) = rule["alert"].as_str() else {
            let record = text(&rule["record"]);
            assert!(record.contains(':'), "{record} reads as if it were scraped");
            continue;
        };
        for (field, value) in [
            ("for", &rule["for"]),
            ("summary", &rule["annotations"]["summary"]),
            ("description", &rule["annotations"]["description"]),
        ] {
            assert!(value.is_string(), "{alert} has no {field}");
        }
        let severity = text(&rule["labels"]["severity"]);
        assert!(
            ["critical", "warning", "info"].contains(&severity.as_str()),
            "{alert}: {severity}"
        );
        assert!(!expression.contains('$'), "{alert} has a variable");
        let counts = [true, false].map(|fires| {
            let same = |check: &&&Value| {
                check["alertname"] == alert && list(&check["exp_alerts"]).is_empty() != fires
            };
            checks.iter().filter(same).count()
        });
        assert!(
            counts.iter().all(|&count| count > 0),
            "{alert}: {counts:?} checks that it fires, and that it doesn't"
        );
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_imports() {
    let dashboard = Dashboard::read();
    assert_eq!(dashboard.document["uid"], "sabot");
    assert!(dashboard.document["schemaVersion"].as_u64() >= Some(39));
    let names: BTreeSet<String> = dashboard
        .variables()
        .iter()
        .map(|variable| text(&variable["name"]))
        .collect();
    for (_, variable) in SELECTED {
        assert!(names.contains(variable), "no variable {variable}");
    }
    let ids: BTreeSet<u64> = dashboard
        .all_panels()
        .iter()
        .map(|panel| panel["id"].as_u64().expect("a panel has an id"))
        .collect();
    assert_eq!(ids.len(), dashboard.all_panels().len(), "ids are unique");
    assert_no_overlap(&dashboard);
    for panel in dashboard.panels() {
        let title = &panel.title;
        assert!(text(&panel.document["description"]).ends_with('.'), "{title}");
        let unit = &panel.document["fieldConfig"]["defaults"]["unit"];
        assert!(!text(unit).is_empty(), "{title} has no unit");
        assert!(!panel.queries.is_empty(), "{title} asks nothing");
        for target in list(&panel.document["targets"]) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
        for query in &panel.queries {
            let unknown: Vec<_> = variables_of(query)
                .into_iter()
                .filter(|name| name != "__rate_interval" && !names.contains(name))
                .collect();
            assert!(unknown.is_empty(), "{title} has unknown variables {unknown:?}");
        }
    }
}

/// Each cell of the grid belongs to one panel at most, within 24 columns.
fn assert_no_overlap(dashboard: &Dashboard) {
    let mut taken = BTreeMap::new();
    for panel in dashboard.all_panels() {
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("it has a place"));
        assert!(x + w <= 24 && w > 0 && h > 0, "{panel:#}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            let other = taken.insert(cell, &panel["title"]);
            assert!(other.is_none(), "{} lies on {other:?}", panel["title"]);
        }
    }
}

#[test]
fn a_real_prometheus_answers_every_query_with_what_the_daemon_counted() {
    let scene = Scene::new();
    let dashboard = Dashboard::read();
    // First what can't become right by waiting.
    assert_families(&scene.scrape(), &dashboard);
    let unanswered = unanswered(&scene, &dashboard);
    assert!(
        unanswered.is_empty(),
        "panels without a number after {PATIENCE:?} of traffic: {unanswered:#?}"
    );
    assert_selected(&scene.scrape(), &dashboard);
    assert_variables(&scene, &dashboard);
    assert_faults(&scene, &dashboard);
    assert_rules(&scene);
    assert_exemplars(&scene);
}

/// All names in the dashboard and the rules are those of families, and all families are on the dashboard.
fn assert_families(scrape: &Scrape, dashboard: &Dashboard) {
    let rules = rules();
    let recorded: BTreeSet<String> = rules
        .iter()
        .filter_map(|rule| rule["record"].as_str().map(str::to_owned))
        .collect();
    let shown: Vec<String> = dashboard
        .panels()
        .into_iter()
        .flat_map(|panel| panel.queries)
        .chain(dashboard.annotations())
        .collect();
    let variables = dashboard
        .label_queries()
        .into_iter()
        .map(|(selector, _)| selector);
    let queries: Vec<String> = rules
        .iter()
        .map(|rule| text(&rule["expr"]))
        .chain(shown.iter().cloned())
        .chain(variables)
        .collect();
    let names: BTreeSet<&str> = queries
        .iter()
        .flat_map(|query| selectors(query))
        .map(|selector| selector.metric)
        .collect();
    let unknown: Vec<_> = names
        .iter()
        .filter(|&&name| scrape.family_of(name).is_none() && !recorded.contains(name))
        .collect();
    let on_dashboard: BTreeSet<&str> = shown
        .iter()
        .flat_map(|query| selectors(query))
        .filter_map(|selector| scrape.family_of(selector.metric))
        .collect();
    let missing: Vec<_> = scrape
        .families()
        .filter(|family| !on_dashboard.contains(family))
        .collect();
    assert!(
        unknown.is_empty() && missing.is_empty(),
        "named without being a family: {unknown:#?}; families that the dashboard doesn't show: {missing:#?}"
    );
}

/// Lets pods talk until all panels show a number; returns those that don't.
fn unanswered(scene: &Scene, dashboard: &Dashboard) -> Vec<String> {
    let mut left = Vec::new();
    wait_until(PATIENCE, LOOK, || {
        scene.talk();
        let shows = |query: &String| {
            let answer = scene.prometheus.query(&concrete(query));
            let answer = answer.unwrap_or_else(|error| panic!("{query}: {error:#}"));
            answer.iter().any(|series| series.value.is_finite())
        };
        left = dashboard
            .panels()
            .into_iter()
            .flat_map(|panel| {
                let silent = panel.queries.into_iter().filter(|query| !shows(query));
                silent
                    .map(|query| format!("{}: {query}", panel.title))
                    .collect::<Vec<_>>()
            })
            .collect();
        left.is_empty()
    });
    for query in dashboard.annotations() {
        let answer = scene.prometheus.query(&concrete(&query));
        assert!(!answer.expect("it is a query").is_empty(), "{query}");
    }
    left
}

/// No query reads the series of everybody where the reader has selected somebody.
fn assert_selected(scrape: &Scrape, dashboard: &Dashboard) {
    for panel in dashboard.panels() {
        for selector in panel.queries.iter().flat_map(|query| selectors(query)) {
            let has_label = |label: &str| {
                let mut samples = scrape.samples(selector.metric, &[]);
                samples.any(|sample| sample.labels.contains_key(label))
            };
            for (label, variable) in SELECTED {
                let matcher = format!("{label}=~\"${variable}\"");
                let fixed = format!("{label}=\"");
                // Of one name, on the node itself or as a container.
                let anywhere = format!("{label}=~\"(.+/)?");
                let is_selected = [matcher, fixed, anywhere]
                    .iter()
                    .any(|part| selector.matchers.contains(part));
                assert!(
                    is_selected || !has_label(label),
                    "{}: {selector:?} isn't selected by {label}",
                    panel.title
                );
            }
        }
    }
}

fn assert_variables(scene: &Scene, dashboard: &Dashboard) {
    let mut values = BTreeMap::new();
    for (selector, label) in dashboard.label_queries() {
        let selector = concrete(&selector);
        let endpoint = format!("label/{label}/values");
        let found = scene.prometheus.api(&endpoint, &[("match[]", &selector)]);
        let found = found.unwrap_or_else(|error| panic!("{label}: {error:#}"));
        let found: Vec<String> = list(&found).iter().map(text).collect();
        assert!(!found.is_empty(), "{label} has no values");
        values.insert(label, found);
    }
    assert_eq!(values["fault"], ["cut", "late", "some"]);
    assert!(values["namespace"].iter().any(|value| value == "shop"));
    assert!(values["process"].iter().any(|value| value == "etcd"));
    for pod in PODS {
        assert!(
            values["pod"].iter().any(|value| value == pod),
            "{pod}: {values:?}"
        );
    }
}

/// The panels of faults show what the faults' own counters say.
fn assert_faults(scene: &Scene, dashboard: &Dashboard) {
    let faults = scene.faults_at_rest();
    let faults = list(&faults["faults"]);
    let ask = |title: &str| {
        let panel = dashboard.panel(title);
        let query = concrete(&panel.queries[0]);
        scene.prometheus.query(&query).expect("it is a query")
    };
    let expected = counters(faults);
    assert!(expected.len() > faults.len(), "{expected:?}");
    let mut shown = BTreeMap::new();
    let same = wait_until(PATIENCE, LOOK, || {
        shown = ask("Counters of the faults").iter().map(by_outcome).collect();
        shown == expected
    });
    assert!(same, "Prometheus has {shown:#?}, the daemon {expected:#?}");

    let sum = |outcome: fn(&str) -> bool| {
        let parts = expected.iter().filter(|((_, _, name), _)| outcome(name));
        parts.map(|(_, value)| value).sum::<f64>()
    };
    for (title, value) in [
        ("Faults in force", 3.0),
        ("Targets under faults", 3.0),
        ("Packets matched", sum(|outcome| outcome == "matched")),
        (
            "Lost without being asked",
            sum(|outcome| outcome.starts_with("lost_")),
        ),
        ("Packets held now", 0.0),
    ] {
        let shown: Vec<f64> = ask(title).iter().map(|series| series.value).collect();
        assert_eq!(shown, [value], "{title}");
    }
    let left = ask("Next end")[0].value;
    assert!((1.0..600.0).contains(&left), "{left} s of ten minutes are left");
}

type Outcome = (String, String, String);

fn by_outcome(series: &Series) -> (Outcome, f64) {
    let label = |name: &str| series.labels.get(name).cloned().unwrap_or_default();
    assert_eq!(label("namespace"), "shop");
    (
        (label("fault"), label("direction"), label("outcome")),
        series.value,
    )
}

/// What the daemon says over its API, as `get` shows it: wire packets that aren't zero.
fn counters(faults: &[Value]) -> BTreeMap<Outcome, f64> {
    let mut counters = BTreeMap::new();
    for fault in faults {
        for ledger in list(&fault["status"]["ledgers"]) {
            let fields = ledger.as_object().expect("a ledger has fields");
            let tallies = fields.iter().filter(|(field, _)| *field != "held");
            for (field, tally) in tallies {
                let Some(packets) = tally["packets"].as_u64().filter(|&packets| packets > 0) else {
                    continue;
                };
                let key = (
                    text(&fault["metadata"]["name"]),
                    text(&ledger["direction"]),
                    snake_case(field),
                );
                *counters.entry(key).or_default() += packets as f64;
            }
        }
    }
    counters
}

/// `lostQueue` is the outcome `lost_queue`.
fn snake_case(field: &str) -> String {
    let mut name = String::new();
    for character in field.chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_lowercase());
    }
    name
}

/// Calls of the runtime that failed are exemplars, with the faults that were in force.
fn assert_exemplars(scene: &Scene) {
    let query = "sabot_cri_operation_duration_seconds_bucket{operation=\"RunPodSandbox\"}";
    let found = wait_for(PATIENCE, LOOK, || {
        scene.talk();
        let range = [("query", query), ("start", "0"), ("end", "9999999999")];
        let data = scene.prometheus.api("query_exemplars", &range);
        let series = list(&data.expect("it has a store for them")).to_vec();
        let exemplars = series
            .iter()
            .flat_map(|series| list(&series["exemplars"]).to_vec());
        exemplars.into_iter().next()
    });
    let found = found.expect("it stores exemplars");
    let fault = text(&found["labels"]["fault"]);
    assert!(fault.contains("late") && fault.contains("cut"), "{found:#}");
}

/// Prometheus has evaluated all rules, recorded what is to be recorded, and nothing is wrong that mustn't be.
fn assert_rules(scene: &Scene) {
    let evaluated = wait_for(PATIENCE, LOOK, || {
        let data = scene.prometheus.api("rules", &[]).expect("it lists its rules");
        let groups = list(&data["groups"]).iter();
        let rules: Vec<Value> = groups.flat_map(|group| list(&group["rules"]).to_vec()).collect();
        rules
            .iter()
            .all(|rule| rule["health"] != "unknown")
            .then_some(rules)
    });
    let evaluated = evaluated.expect("it evaluates its rules");
    assert_eq!(evaluated.len(), rules().len());
    for rule in &evaluated {
        assert_eq!(rule["health"], "ok", "{rule:#}");
        if [
            "SabotFaultOutlivesDeadline",
            "SabotPacketsLostByInstrument",
            "SabotAbsent",
        ]
        .iter()
        .any(|alert| rule["name"] == *alert)
        {
            assert_eq!(rule["state"], "inactive", "{rule:#}");
        }
        if rule["type"] == "recording" {
            let name = text(&rule["name"]);
            let recorded = scene.prometheus.query(&name).expect("it is a query");
            assert!(!recorded.is_empty(), "{name} isn't recorded");
        }
    }
}
