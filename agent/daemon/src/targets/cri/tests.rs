use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use sabot_core::model::Pod;
use sabot_proto::runtime::v1::PodSandboxState;
use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, info, socket_in};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::engine::handle::RuntimeState;
use crate::targets::test_netns::TestNetns;
use crate::targets::{RuntimeEndpoint, TargetsConfig, TargetsHandle, Wanted, WorldUpdate, start};

/// Longer than a busy machine needs; a test that fails waits this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// A pace that no test lives to see.
const NEVER: Duration = Duration::from_secs(3600);

fn config(socket: PathBuf) -> TargetsConfig {
    TargetsConfig {
        runtime_endpoint: RuntimeEndpoint::Socket(socket),
        runtime_poll: Duration::from_millis(20),
        runtime_poll_with_events: NEVER,
        runtime_timeout: NEVER,
        inspect_interval: Duration::from_millis(50),
        ..TargetsConfig::default()
    }
}

async fn wait_for(targets: &TargetsHandle, what: &str, holds: impl Fn(&WorldUpdate) -> bool) {
    let mut updates = targets.watch();
    let waited = timeout(PATIENCE, updates.wait_for(|update| holds(update))).await;
    if waited.is_err() {
        panic!("waited in vain for {what}; last: {:#?}", targets.current());
    }
}

fn names(update: &WorldUpdate) -> Vec<&str> {
    update.world.pods.values().map(|pod| pod.name.as_str()).collect()
}

fn is_ready(update: &WorldUpdate, version: &str, with_events: bool) -> bool {
    matches!(&update.runtime, RuntimeState::Ready { name, version: v, events } if name == "fake" && v == version && *events == with_events)
}

fn pod_netns() -> TestNetns {
    let netns = TestNetns::new();
    netns.ip("link add eth0 type veth peer name far0");
    netns.ip("address add 10.88.0.2/16 dev eth0");
    netns.ip("link set eth0 up");
    netns.ip("route add default via 10.88.0.1");
    netns
}

#[tokio::test]
async fn pods_appear_and_disappear() {
    let (dir, netns) = (TempDir::new().unwrap(), pod_netns());
    let runtime = FakeRuntime::start(&socket_in(&dir), "1.6.20", Events::Unimplemented);
    let targets = start(config(socket_in(&dir)));
    wait_for(&targets, "the runtime", |u| is_ready(u, "1.6.20", false)).await;

    runtime.put("s1", FakeSandbox::ready("web", netns.path()));
    wait_for(&targets, "the pod", |u| names(u) == ["web"]).await;

    let update = targets.current();
    let pod = &update.world.pods["s1"];
    let device = &pod.devices[0];
    assert_eq!(
        (device.key.device.as_str(), device.mac_header, device.node_device),
        ("eth0", true, false)
    );
    assert_eq!(device.netns_path, netns.path());
    let expected = Pod {
        namespace: "shop".into(),
        name: "web".into(),
        uid: "uid-web".into(),
        sandbox: "s1".into(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        annotations: Default::default(),
        addresses: ["10.88.0.2", "fd00::2"].map(|a| a.parse().unwrap()).into(),
        host_network: false,
        workload: Default::default(),
        netns_path: Some(netns.path().to_owned()),
        process: None,
        devices: vec![device.clone()],
    };
    assert_eq!(*pod, expected);

    runtime.remove("s1");
    wait_for(&targets, "the pod to go", |u| u.world.pods.is_empty()).await;
}

#[tokio::test]
async fn only_ready_sandboxes_count() {
    let (dir, netns) = (TempDir::new().unwrap(), pod_netns());
    let runtime = FakeRuntime::start(&socket_in(&dir), "1", Events::Unimplemented);
    let mut sandbox = FakeSandbox::ready("web", netns.path());
    sandbox.state = PodSandboxState::SandboxNotready;
    runtime.put("s1", sandbox.clone());
    runtime.put("s2", FakeSandbox::ready("other", netns.path()));
    let targets = start(config(socket_in(&dir)));
    wait_for(&targets, "the ready one", |u| names(u) == ["other"]).await;

    sandbox.state = PodSandboxState::SandboxReady;
    runtime.put("s1", sandbox);
    wait_for(&targets, "both", |u| names(u) == ["web", "other"]).await;
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_resolved_is_tried_again() {
    let (dir, netns) = (TempDir::new().unwrap(), pod_netns());
    let runtime = FakeRuntime::start(&socket_in(&dir), "1", Events::Unimplemented);
    let good = FakeSandbox::ready("web", netns.path());
    let gone = PathBuf::from("/proc/0/ns/net");
    runtime.put("s0", good.clone());
    runtime.put(
        "s1",
        FakeSandbox {
            status_fails: true,
            ..good.clone()
        },
    );
    runtime.put(
        "s2",
        FakeSandbox {
            info: "not json".into(),
            ..good.clone()
        },
    );
    runtime.put(
        "s3",
        FakeSandbox {
            info: info(0, &gone),
            ..good.clone()
        },
    );
    runtime.put(
        "s4",
        FakeSandbox {
            info: "{}".into(),
            ..good.clone()
        },
    );
    let targets = start(config(socket_in(&dir)));
    wait_for(&targets, "the good one", |u| u.world.pods.len() == 1).await;

    for id in ["s1", "s2", "s3", "s4"] {
        runtime.put(id, good.clone());
    }
    wait_for(&targets, "all of them", |u| u.world.pods.len() == 5).await;
    let asked = runtime.state().statuses;
    let lists = runtime.state().lists;
    wait_until(|| runtime.state().lists > lists + 3).await;
    assert_eq!(
        runtime.state().statuses,
        asked,
        "known sandboxes are not asked about again"
    );
}

#[tokio::test]
async fn a_sandbox_that_hangs_keeps_nobody_waiting() {
    let (dir, netns) = (TempDir::new().unwrap(), pod_netns());
    let runtime = FakeRuntime::start(&socket_in(&dir), "1", Events::Unimplemented);
    let good = FakeSandbox::ready("web", netns.path());
    runtime.put(
        "s1",
        FakeSandbox {
            status_hangs: true,
            ..good.clone()
        },
    );
    runtime.put("s2", good);
    let targets = start(config(socket_in(&dir)));
    wait_for(&targets, "the other one", |u| u.world.pods.contains_key("s2")).await;
    assert!(!targets.current().world.pods.contains_key("s1"));
}

#[tokio::test]
async fn the_process_is_the_way_where_the_mount_is_not_seen() {
    let dir = TempDir::new().unwrap();
    let runtime = FakeRuntime::start(&socket_in(&dir), "1", Events::Unimplemented);
    let mut holder = std::process::Command::new("unshare")
        .args(["--net", "sleep", "600"])
        .spawn()
        .unwrap();
    let pid = holder.id();
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    wait_until(|| std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|ns| ns != own)).await;
    // As CRI-O and a daemon without the node's mounts: an empty file where the namespace is mounted elsewhere.
    let unmounted = dir.path().join("netns");
    std::fs::write(&unmounted, "").unwrap();
    let mut sandbox = FakeSandbox::ready("web", &unmounted);
    sandbox.info = info(pid, &unmounted);
    runtime.put("s1", sandbox);
    let targets = start(config(socket_in(&dir)));
    wait_for(&targets, "the pod", |u| names(u) == ["web"]).await;

    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_for(&targets, "the pod without its process to go", |u| {
        u.world.pods.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_pod_on_the_nodes_network_has_its_addresses_and_no_devices() {
    let dir = TempDir::new().unwrap();
    let runtime = FakeRuntime::start(&socket_in(&dir), "1", Events::Unimplemented);
    let mut declared = FakeSandbox::ready("declared", &PathBuf::from("/proc/self/ns/net"));
    declared.host_network = true;
    declared.addresses = Vec::new();
    declared.info = String::new();
    runtime.put("s1", declared);
    // Its runtime doesn't say so, but its namespace does.
    runtime.put(
        "s2",
        FakeSandbox::ready("found", &PathBuf::from("/proc/self/ns/net")),
    );
    let targets = start(config(socket_in(&dir)));
    wait_for(&targets, "both", |u| names(u) == ["declared", "found"]).await;

    let update = targets.refresh(Wanted::default(), BTreeSet::new()).await;
    for pod in update.world.pods.values() {
        assert!(pod.host_network && pod.devices.is_empty());
        assert!(
            update
                .world
                .node_addresses
                .iter()
                .all(|a| pod.addresses.contains(a))
        );
    }
}

#[tokio::test]
async fn events_make_the_next_look_come_at_once() {
    let (dir, netns) = (TempDir::new().unwrap(), pod_netns());
    let runtime = FakeRuntime::start(&socket_in(&dir), "2.0.0", Events::Offered);
    let targets = start(config(socket_in(&dir)));
    wait_for(&targets, "events", |u| is_ready(u, "2.0.0", true)).await;
    wait_until(|| runtime.subscribers() == 1).await;

    // Nothing but the event can tell: the next look without one is an hour away.
    runtime.put("s1", FakeSandbox::ready("web", netns.path()));
    runtime.emit("s1");
    wait_for(&targets, "the pod", |u| names(u) == ["web"]).await;
    runtime.remove("s1");
    runtime.emit("s1");
    wait_for(&targets, "the pod to go", |u| u.world.pods.is_empty()).await;
}

#[tokio::test]
async fn an_event_before_its_sandbox_is_ready_is_enough() {
    let (dir, netns) = (TempDir::new().unwrap(), pod_netns());
    let runtime = FakeRuntime::start(&socket_in(&dir), "2.0.0", Events::Offered);
    let mut slow = config(socket_in(&dir));
    slow.runtime_poll = Duration::from_secs(1);
    let targets = start(slow);
    wait_for(&targets, "events", |u| is_ready(u, "2.0.0", true)).await;
    wait_until(|| runtime.subscribers() == 1).await;

    let lists = runtime.state().lists;
    runtime.emit("s1");
    wait_until(|| runtime.state().lists > lists).await;
    runtime.put("s1", FakeSandbox::ready("web", netns.path()));
    wait_for(&targets, "the pod", |u| names(u) == ["web"]).await;
}

#[tokio::test]
async fn a_runtime_that_restarts_keeps_its_pods() {
    let (dir, netns) = (TempDir::new().unwrap(), pod_netns());
    let socket = socket_in(&dir);
    for events in [Events::Unimplemented, Events::Offered] {
        let offered = events == Events::Offered;
        let runtime = FakeRuntime::start(&socket, "1", events);
        runtime.put("s1", FakeSandbox::ready("web", netns.path()));
        let targets = start(config(socket.clone()));
        wait_for(&targets, "the pod", |u| {
            names(u) == ["web"] && is_ready(u, "1", offered)
        })
        .await;

        drop(runtime);
        std::fs::remove_file(&socket).unwrap();
        wait_for(&targets, "the runtime to be down", |u| {
            matches!(u.runtime, RuntimeState::Down(_))
        })
        .await;
        assert_eq!(names(&targets.current()), ["web"]);

        let runtime = FakeRuntime::start(&socket, "2", events);
        runtime.put("s1", FakeSandbox::ready("web", netns.path()));
        runtime.put("s2", FakeSandbox::ready("new", netns.path()));
        wait_for(&targets, "both pods", |u| {
            names(u) == ["web", "new"] && is_ready(u, "2", offered)
        })
        .await;
    }
}

#[tokio::test]
async fn a_runtime_that_hangs_delays_no_refresh() {
    let (dir, netns) = (TempDir::new().unwrap(), pod_netns());
    let runtime = FakeRuntime::start(&socket_in(&dir), "1", Events::Unimplemented);
    runtime.put("s1", FakeSandbox::ready("web", netns.path()));
    let targets = start(config(socket_in(&dir)));
    wait_for(&targets, "the pod", |u| names(u) == ["web"]).await;
    runtime.state().list_hangs = true;
    let lists = runtime.state().lists;
    wait_until(|| runtime.state().lists > lists).await;

    let wanted = Wanted {
        netns_paths: [netns.path().to_owned()].into(),
        ..Wanted::default()
    };
    let update = timeout(PATIENCE, targets.refresh(wanted, BTreeSet::new()))
        .await
        .expect("the refresh waits for nobody");
    assert_eq!(update.world.namespaces[netns.path()].len(), 1);
    assert_eq!(names(&update), ["web"]);
}

#[tokio::test]
async fn a_runtime_that_hangs_is_down() {
    let (dir, netns) = (TempDir::new().unwrap(), pod_netns());
    let runtime = FakeRuntime::start(&socket_in(&dir), "1", Events::Unimplemented);
    runtime.put("s1", FakeSandbox::ready("web", netns.path()));
    let mut impatient = config(socket_in(&dir));
    impatient.runtime_timeout = Duration::from_millis(500);
    let targets = start(impatient);
    wait_for(&targets, "the pod", |u| names(u) == ["web"]).await;

    runtime.state().list_hangs = true;
    wait_for(&targets, "the runtime to be down", |u| {
        matches!(&u.runtime, RuntimeState::Down(reason) if reason.contains("ListPodSandbox was not answered"))
    })
    .await;
    assert_eq!(names(&targets.current()), ["web"]);
    runtime.state().list_hangs = false;
    wait_for(&targets, "the runtime", |u| is_ready(u, "1", false)).await;
}

#[tokio::test]
async fn a_socket_that_does_not_exist_is_absent_until_it_does() {
    let dir = TempDir::new().unwrap();
    let targets = start(config(socket_in(&dir)));
    wait_for(
        &targets,
        "absence",
        |u| matches!(&u.runtime, RuntimeState::Absent(reason) if reason.contains("cri.sock does not exist")),
    )
    .await;

    let _runtime = FakeRuntime::start(&socket_in(&dir), "1", Events::Unimplemented);
    wait_for(&targets, "the runtime", |u| is_ready(u, "1", false)).await;
}

#[tokio::test]
async fn without_a_runtime_nothing_is_looked_for() {
    let targets = start(TargetsConfig {
        runtime_endpoint: RuntimeEndpoint::Disabled,
        ..TargetsConfig::default()
    });
    wait_for(
        &targets,
        "absence",
        |u| matches!(&u.runtime, RuntimeState::Absent(r) if r.contains("`none`")),
    )
    .await;
}

async fn wait_until(holds: impl Fn() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("waited in vain");
}
