//! What a runtime tells of its containers by itself: the second source beside its clients' calls.

use std::time::SystemTime;

use sabot_proto::runtime::v1::ContainerEventType::{
    ContainerCreatedEvent, ContainerDeletedEvent, ContainerStartedEvent, ContainerStoppedEvent,
};
use sabot_proto::runtime::v1::{
    ContainerEventResponse, ContainerEventType, ContainerMetadata, ContainerStatus, PodSandboxMetadata,
    PodSandboxStatus,
};
use sabot_proto::sabot::v1::{GetSnapshotRequest, GetSnapshotResponse, RuntimeSource};
use sabot_testkit::cri::fake::{Events, FakeRuntime, socket_in};
use sabot_testkit::daemon::Client;
use sabot_testkit::wait::{wait_for, wait_until};
use sabot_testkit::{Daemon, DaemonOptions};
use tempfile::TempDir;

use crate::scene::{LOOK, PATIENCE, Scene};

struct Told {
    client: Client,
    // Ends before the runtime does.
    daemon: Daemon,
    runtime: FakeRuntime,
    folder: TempDir,
}

impl Told {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let runtime = FakeRuntime::start(&socket_in(&folder), "2.0.0", Events::Offered);
        let options = DaemonOptions::built().expect("the daemon is built");
        let options = options.runtime(&socket_in(&folder));
        let daemon = Daemon::start(options).expect("the daemon starts (root is needed)");
        let scene = Self {
            client: daemon.client().expect("the daemon answers"),
            daemon,
            runtime,
            folder,
        };
        scene.wait_subscribed();
        scene
    }

    fn wait_subscribed(&self) {
        let is_subscribed = || self.runtime.subscribers() == 1 && source(&self.client, "events").in_use;
        assert!(wait_until(PATIENCE, LOOK, is_subscribed), "nobody subscribes");
    }

    fn snapshot(&self) -> GetSnapshotResponse {
        let answer = self
            .client
            .wait(self.client.observe().get_snapshot(GetSnapshotRequest {}));
        answer.expect("there is a snapshot").into_inner()
    }

    /// By change.
    fn counts(&self) -> Vec<(String, u64)> {
        let counts = self.snapshot().container_events.into_iter();
        counts.map(|count| (count.name, count.count)).collect()
    }

    fn assert_counts(&self, expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        let mut last = Vec::new();
        let equal = wait_until(PATIENCE, LOOK, || {
            last = self.counts();
            last == expected
        });
        assert!(equal, "{last:?}, and {expected:?} were told");
    }
}

fn source(client: &Client, name: &str) -> RuntimeSource {
    let node = client.node().expect("the node is described");
    let sources = node.runtime.expect("with its runtime").sources;
    let mut found = sources.into_iter().filter(|source| source.name == name);
    found.next().unwrap_or_else(|| panic!("no source {name}"))
}

/// Something that happened in the pod `team-a/web`, to its sandbox if that is what the id means.
fn event(change: ContainerEventType, id: &str) -> ContainerEventResponse {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    ContainerEventResponse {
        container_id: id.into(),
        container_event_type: change.into(),
        created_at: now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(0)),
        pod_sandbox_status: Some(PodSandboxStatus {
            id: "s1".into(),
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                namespace: "team-a".into(),
                ..PodSandboxMetadata::default()
            }),
            ..PodSandboxStatus::default()
        }),
        containers_statuses: vec![ContainerStatus {
            id: "c1".into(),
            metadata: Some(ContainerMetadata {
                name: "main".into(),
                attempt: 0,
            }),
            ..ContainerStatus::default()
        }],
    }
}

#[test]
fn what_a_runtime_tells_of_its_containers_is_told_and_counted() {
    let scene = Told::start();
    let events = crate::scene::Events::follow(&scene.daemon, "container");
    // Nobody tells when events begin to be streamed.
    let mut markers = 0;
    let first = wait_for(PATIENCE, LOOK, || {
        scene.runtime.tell(event(ContainerCreatedEvent, "marker"));
        markers += 1;
        events.next(LOOK)
    });
    assert_eq!(first.expect("events are streamed")["container"], "marker");
    while events.next(LOOK * 5).is_some() {}

    let life = [
        (ContainerCreatedEvent, "s1", "created"),
        (ContainerStartedEvent, "s1", "started"),
        (ContainerCreatedEvent, "c1", "created"),
        (ContainerStartedEvent, "c1", "started"),
        (ContainerStoppedEvent, "c1", "stopped"),
        (ContainerDeletedEvent, "c1", "deleted"),
        (ContainerStoppedEvent, "s1", "stopped"),
        (ContainerDeletedEvent, "s1", "deleted"),
    ];
    for (change, id, expected) in life {
        scene.runtime.tell(event(change, id));
        let told = events.next(PATIENCE).expect("it is told");
        assert_eq!(
            (&told["type"], &told["change"]),
            (&"container".into(), &expected.into()),
            "{told}"
        );
        assert_eq!(told["pod"]["namespace"], "team-a", "{told}");
        assert_eq!(
            (&told["pod"]["name"], &told["sandbox"]),
            (&"web".into(), &"s1".into()),
            "{told}"
        );
        let container = told.get("container").and_then(|id| id.as_str());
        assert_eq!(container, (id != "s1").then_some(id), "{told}");
        let name = told["containerRef"]["name"].as_str();
        assert_eq!(name, (id != "s1").then_some("main"), "{told}");
    }
    let created = markers + 2;
    scene.assert_counts(&[
        ("created", created),
        ("started", 2),
        ("stopped", 2),
        ("deleted", 2),
    ]);
    let scrape = scene.daemon.scrape().expect("metrics are served");
    let count = |change| scrape.value("sabot_cri_container_events_total", &[("change", change)]);
    assert_eq!(
        (count("created"), count("deleted")),
        (Some(created as f64), Some(2.0))
    );
    assert_eq!((count("stopped"), count("other")), (Some(2.0), Some(0.0)));
    assert_eq!(
        scrape.value("sabot_cri_container_event_gaps_total", &[]),
        Some(0.0)
    );
    // Both sources are in use here.
    assert!(source(&scene.client, "calls").in_use);
}

#[test]
fn an_interruption_is_said_and_what_comes_after_it_is_counted() {
    let mut scene = Told::start();
    scene.runtime.tell(event(ContainerStartedEvent, "c1"));
    scene.assert_counts(&[("started", 1)]);
    let socket = socket_in(&scene.folder);
    drop(std::mem::replace(
        &mut scene.runtime,
        FakeRuntime::start(&socket, "2.0.1", Events::Offered),
    ));
    scene.wait_subscribed();
    scene.runtime.tell(event(ContainerStoppedEvent, "c1"));
    scene.assert_counts(&[("started", 1), ("stopped", 1)]);
    let scrape = scene.daemon.scrape().expect("metrics are served");
    assert_eq!(
        scrape.value("sabot_cri_container_event_gaps_total", &[]),
        Some(1.0)
    );
    let missing = scene.snapshot().audit.expect("there is an audit").missing;
    let said = missing
        .iter()
        .any(|what| what.contains("the container runtime's events were interrupted"));
    assert!(said, "{missing:?}");
}

#[test]
fn a_runtime_that_tells_nothing_is_seen_by_its_calls_alone() {
    let scene = Scene::start();
    let (calls, events) = (source(&scene.client, "calls"), source(&scene.client, "events"));
    assert!(calls.in_use && !events.in_use, "{calls:?} {events:?}");
    assert!(calls.blind_spots.contains("older than the daemon"), "{calls:?}");
    assert!(events.detail.contains("GetContainerEvents"), "{events:?}");
}
