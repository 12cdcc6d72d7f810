//! The container in which something happens, or that it is about, is named.

use std::time::Duration;

use sabot_testkit::cri::{Pod, PodSpec};
use sabot_testkit::wait::wait_for;
use serde_json::{Value, json};

use crate::scene::{Events, LOOK, PATIENCE, Scene};

const MISSING: &str = "/no/such/file";
const SOON: Duration = Duration::from_millis(300);

fn run(scene: &Scene, name: &str) -> Pod {
    let spec = PodSpec::idle("team-a", name);
    scene.containerd.run_pod(&spec).expect("the pod runs")
}

fn exec(scene: &Scene, pod: &Pod, argv: &[&str]) {
    let done = scene.containerd.exec(pod, argv, PATIENCE);
    assert!(!done.expect("the command runs").success(), "{argv:?}");
}

/// The syscalls of these pods' containers, which are in pid namespaces of their own.
fn trace(scene: &Scene, pods: &[&Pod]) {
    let cgroups = pods.iter().flat_map(|pod| ["--cgroup", pod.cgroup.as_str()]);
    let arguments: Vec<_> = ["trace", "set"].into_iter().chain(cgroups).collect();
    scene.daemon.sabot_ok(&arguments).expect("they can be traced");
}

/// As `sabot events` has it.
fn reference(pod: &Pod) -> Value {
    json!({"name": "main", "id": pod.container, "pod": {"namespace": "team-a", "name": pod.spec.name}})
}

/// Makes the pod do something until it is told with its container. Nobody tells when events begin to be streamed, and a
/// container's cgroup becomes known within a second.
fn told(scene: &Scene, pod: &Pod, events: &Events, argv: &[&str], is_it: impl Fn(&Value) -> bool) -> Value {
    let told = wait_for(PATIENCE, LOOK, || {
        exec(scene, pod, argv);
        while let Some(event) = events.next(SOON) {
            if is_it(&event) && event.get("containerRef").is_some() {
                return Some(event);
            }
        }
        None
    });
    told.unwrap_or_else(|| panic!("{argv:?} in {} was not told with its container", pod.spec.name))
}

fn opens_missing(event: &Value) -> bool {
    event["detail"]["path"] == MISSING && event["errno"] == "ENOENT"
}

#[test]
fn syscalls_name_the_container_that_makes_them() {
    let scene = Scene::start();
    let (web, db) = (run(&scene, "web"), run(&scene, "db"));
    trace(&scene, &[&web, &db]);
    let events = Events::follow(&scene.daemon, "syscall");
    for pod in [&web, &db] {
        let event = told(&scene, pod, &events, &["cat", MISSING], opens_missing);
        assert_eq!(event["containerRef"], reference(pod), "{event}");
    }
    // The same pod with another container: of the same name, and not the same.
    let again = scene.containerd.restart_sandbox(&web).expect("it starts again");
    trace(&scene, &[&again]);
    let event = told(&scene, &again, &events, &["cat", MISSING], opens_missing);
    assert_ne!(again.container, web.container);
    assert_eq!(event["containerRef"], reference(&again), "{event}");

    // Only this one's, by the beginning of its id.
    trace(&scene, &[&again, &db]);
    let filtered = Events::filtered(
        &scene.daemon,
        &["--type", "syscall", "--container", &db.container[..12]],
    );
    let of_db = reference(&db);
    told(&scene, &db, &filtered, &["cat", MISSING], opens_missing);
    exec(&scene, &again, &["cat", MISSING]);
    exec(&scene, &db, &["cat", MISSING]);
    while let Some(event) = filtered.next(SOON) {
        assert_eq!(event["containerRef"], of_db, "{event}");
    }
    for pod in [&again, &db] {
        scene.containerd.stop_pod(pod).expect("the pod ends");
    }
    assert_no_series_has_a_container(&scene);
}

#[test]
fn connections_name_the_container_whose_socket_it_is() {
    let scene = Scene::start();
    let pod = run(&scene, "web");
    let events = Events::follow(&scene.daemon, "tcp");
    let refused = |event: &Value| event["change"] == "connect-failed" && event["errno"] == "ECONNREFUSED";
    let event = told(&scene, &pod, &events, &["nc", "127.0.0.1", "1"], refused);
    assert_eq!(event["containerRef"], reference(&pod), "{event}");
    assert_eq!(event["pod"], event["containerRef"]["pod"], "{event}");
    scene.containerd.stop_pod(&pod).expect("the pod ends");
    assert_no_series_has_a_container(&scene);
}

#[test]
fn calls_of_the_runtime_name_the_container_that_they_are_about() {
    let scene = Scene::start();
    let pod = run(&scene, "web");
    let expected = reference(&pod);
    for operation in ["CreateContainer", "StartContainer"] {
        let event = scene.events.of(operation);
        assert_eq!(event["containerRef"], expected, "{event}");
    }
    let event = wait_for(PATIENCE, LOOK, || {
        exec(&scene, &pod, &["cat", MISSING]);
        Some(scene.events.of("ExecSync"))
    });
    assert_eq!(event.expect("it is told")["containerRef"], expected);
    scene.containerd.stop_pod(&pod).expect("the pod ends");
    let event = scene.events.of("StopPodSandbox");
    assert_eq!(
        event.get("containerRef"),
        None,
        "it is about no container: {event}"
    );
}

/// There would be too many.
fn assert_no_series_has_a_container(scene: &Scene) {
    let (status, text) = scene.daemon.http("/metrics").expect("metrics are served");
    assert_eq!(status, 200);
    assert!(!text.contains("container=\"") && text.contains("sabot_unresolved_total{stream=\"containers\"}"));
}
