//! How many calls there were, how long they took, what they were about.

use std::time::Duration;

use sabot_testkit::cri::{CallRecord, PodSpec};

use crate::scene::Scene;

const PODS: usize = 4;

fn sum(calls: &[CallRecord], name: &str) -> (u64, Duration) {
    let took = calls
        .iter()
        .filter(|call| call.name == name)
        .map(|call| call.took);
    (took.clone().count() as u64, took.sum())
}

#[test]
fn calls_are_counted_exactly_and_last_as_long_as_their_client_says() {
    let scene = Scene::start();
    let before = scene.containerd.calls().len();
    for number in 0..PODS {
        let spec = PodSpec::idle("team-a", &format!("web-{number}"));
        let pod = scene.containerd.run_pod(&spec).expect("the pod runs");
        scene.containerd.stop_pod(&pod).expect("the pod ends");
    }
    let calls = scene.containerd.calls()[before..].to_vec();
    scene.assert_all_counted();

    let summaries = scene.summaries();
    for name in [
        "RunPodSandbox",
        "CreateContainer",
        "StartContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    ] {
        let (count, took) = sum(&calls, name);
        assert_eq!(count, PODS as u64);
        let summary = &summaries[name];
        assert_eq!((summary.calls, summary.in_flight), (count, 0), "{name}");
        let seen: Duration = summary
            .total
            .expect("it has a duration")
            .try_into()
            .expect("it isn't negative");
        // What the client adds is its own work and its threads' wake-ups.
        assert!(seen <= took, "{name}: {seen:?} of {took:?}");
        assert!(seen >= took / 2, "{name}: {seen:?} of {took:?}");
    }
    let scrape = scene.daemon.scrape().expect("metrics are served");
    for (name, summary) in &summaries {
        let labels = [("operation", name.as_str())];
        assert_eq!(
            scrape.sum("sabot_cri_operations_total", &labels),
            summary.calls as f64,
            "{name}"
        );
        let counted = scrape.value("sabot_cri_operation_duration_seconds_count", &labels);
        assert_eq!(counted, Some(summary.calls as f64), "{name}");
    }
    assert_eq!(scrape.value("sabot_cri_out_of_sync_total", &[]), Some(0.0));
    let lost = [("stream", "cri")];
    assert_eq!(scrape.value("sabot_events_lost_total", &lost), Some(0.0));
}

#[test]
fn a_pods_calls_are_told_in_their_order_with_who_asked_and_for_what() {
    let scene = Scene::start();
    let before = scene.containerd.calls().len();
    let pod = scene
        .containerd
        .run_pod(&PodSpec::idle("team-a", "web"))
        .expect("the pod runs");
    scene.containerd.stop_pod(&pod).expect("the pod ends");
    let calls = scene.containerd.calls()[before..].to_vec();
    for name in [
        "RunPodSandbox",
        "CreateContainer",
        "StartContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    ] {
        let event = scene
            .events
            .next(crate::scene::PATIENCE)
            .expect("the call is told");
        assert_eq!(event["operation"], name, "polls aren't told: {event}");
        assert_eq!(
            (&event["type"], &event["outcome"]),
            (&"cri".into(), &"OK".into()),
            "{event}"
        );
        assert_eq!(event["pod"]["namespace"], "team-a", "{event}");
        assert_eq!(event["pod"]["name"], "web", "{event}");
        assert_eq!(event["sandbox"], pod.sandbox.as_str(), "{event}");
        if name.ends_with("Container") {
            assert_eq!(event["container"], pod.container.as_str(), "{event}");
        }
        assert_eq!(event["pid"], std::process::id(), "{event}");
        let own_name = std::fs::read_to_string("/proc/self/comm").expect("it has a name");
        assert_eq!(event["process"], own_name.trim(), "{event}");
        let text = event["duration"].as_str().expect("it has a duration");
        let seen = humantime::parse_duration(text).expect("it is one");
        let (_, took) = sum(&calls, name);
        assert!(seen <= took && seen >= took / 3, "{name}: {seen:?} of {took:?}");
    }
}

#[test]
fn after_its_restart_the_runtime_is_observed_again() {
    let mut scene = Scene::start();
    scene.containerd.kill().expect("containerd is killed");
    scene.containerd.start_again().expect("containerd starts again");
    let pod = scene
        .containerd
        .run_pod(&PodSpec::idle("team-a", "web"))
        .expect("the pod runs");
    assert_eq!(scene.events.of("RunPodSandbox")["sandbox"], pod.sandbox.as_str());
    scene.containerd.stop_pod(&pod).expect("the pod ends");
    assert_eq!(scene.events.of("RemovePodSandbox")["pod"]["name"], "web");
}
