//! The private containerd itself, and the daemon's source of pods on it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sabot_testkit::cri::{Containerd, Pod, PodSpec, mounts_below};
use sabotd::engine::handle::RuntimeState;
use sabotd::targets::{self, RuntimeEndpoint, TargetsConfig, TargetsHandle, WorldUpdate};

/// Longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

fn fetch(containerd: &Containerd, from: &Pod, url: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let result = containerd
            .exec(from, &["wget", "-q", "-O", "-", url], PATIENCE)
            .unwrap();
        // The server's container runs, but may not listen yet.
        if result.success() {
            return result.stdout;
        }
        assert!(Instant::now() < deadline, "wget {url}: {result:?}");
    }
}

#[test]
fn pods_reach_each_other_and_leave_nothing() {
    let containerd = Containerd::start(&std::env::temp_dir()).unwrap();
    let web = containerd
        .run_pod(&PodSpec::web("team-a", "web").label("app", "web"))
        .unwrap();
    let cli = containerd.run_pod(&PodSpec::idle("team-b", "cli")).unwrap();
    assert_eq!(
        fetch(&containerd, &cli, &format!("http://{}/", web.ip())),
        "web\n"
    );
    assert_eq!(
        fetch(&containerd, &cli, &format!("http://[{}]/", web.ipv6())),
        "web\n"
    );
    assert!(web.cgroup.contains(&format!("pod{}", web.uid)), "{}", web.cgroup);
    let node = fs::metadata(containerd.node_netns()).unwrap();
    let pod = fs::metadata(&web.netns).unwrap();
    assert_ne!(node.ino(), pod.ino());

    let failed = containerd
        .exec(&cli, &["sh", "-c", "echo out; echo err >&2; exit 3"], PATIENCE)
        .unwrap();
    assert_eq!(
        (failed.exit_code, failed.stdout.as_str(), failed.stderr.as_str()),
        (Some(3), "out\n", "err\n")
    );
    let endless = containerd
        .exec(&cli, &["sleep", "1000"], Duration::from_secs(1))
        .unwrap();
    assert!(endless.timed_out(), "{endless:?}");

    assert!(!mounts_below(containerd.directory()).is_empty());
    let (directory, pids) = (
        containerd.directory().to_owned(),
        [web.pid, cli.pid, containerd.pid() as i32],
    );
    let sockets = shim_sockets(&containerd);
    drop(containerd);
    assert_nothing_left(&directory, &pids, &[&web, &cli], &sockets);
}

#[test]
fn a_test_that_panics_leaves_nothing_either() {
    let containerd = Containerd::start(&std::env::temp_dir()).unwrap();
    let pod = containerd.run_pod(&PodSpec::idle("team-a", "web")).unwrap();
    let (directory, pids) = (
        containerd.directory().to_owned(),
        [pod.pid, containerd.pid() as i32],
    );
    let sockets = shim_sockets(&containerd);
    let ended = std::thread::spawn(move || {
        // A containerd that is gone can't stop its pods.
        let killed = std::process::Command::new("kill")
            .args(["-9", &containerd.pid().to_string()])
            .status();
        assert!(killed.unwrap().success());
        panic!("as a test does");
    });
    assert!(ended.join().is_err());
    assert_nothing_left(&directory, &pids, &[&pod], &sockets);
}

/// Sockets of the shims: they lie outside the containerd's directory.
fn shim_sockets(containerd: &Containerd) -> Vec<PathBuf> {
    let bundles = containerd
        .directory()
        .join("state/io.containerd.runtime.v2.task/k8s.io");
    let addresses = fs::read_dir(bundles)
        .unwrap()
        .map(|bundle| bundle.unwrap().path().join("address"));
    addresses
        .map(|file| {
            fs::read_to_string(file)
                .unwrap()
                .trim_start_matches("unix://")
                .into()
        })
        .collect()
}

fn assert_nothing_left(directory: &Path, pids: &[i32], pods: &[&Pod], sockets: &[PathBuf]) {
    assert!(!sockets.is_empty());
    for socket in sockets {
        assert!(!socket.exists(), "{} is still there", socket.display());
    }
    assert!(!directory.exists(), "{} is still there", directory.display());
    assert_eq!(mounts_below(directory), Vec::<PathBuf>::new());
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        // A zombie is init's to reap.
        let gone = status.is_empty() || status.contains("State:\tZ");
        assert!(gone, "the process {pid} is still there:\n{status}");
    }
    let name = directory.file_name().unwrap().to_str().unwrap().to_lowercase();
    let traces = [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/memory",
        "/var/lib/cni/results",
    ];
    for place in traces {
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        let ours = |file: &String| file.contains(&name) || pods.iter().any(|pod| file.contains(&pod.sandbox));
        let left: Vec<_> = names.filter(ours).collect();
        assert!(left.is_empty(), "left in {place}: {left:?}");
    }
}

/// Waits until the world is as `holds` says, and tells how long it took.
async fn wait_for(targets: &TargetsHandle, what: &str, holds: impl Fn(&WorldUpdate) -> bool) -> Duration {
    let begin = Instant::now();
    let mut updates = targets.watch();
    if tokio::time::timeout(PATIENCE, updates.wait_for(|update| holds(update)))
        .await
        .is_err()
    {
        panic!("waited in vain for {what}; last: {:#?}", targets.current());
    }
    begin.elapsed()
}

#[test]
fn the_daemon_follows_a_real_runtime() {
    let containerd = Containerd::start(&std::env::temp_dir()).unwrap();
    let web = containerd
        .run_pod(&PodSpec::web("team-a", "web").label("app", "web"))
        .unwrap();
    let host = containerd
        .run_pod(&PodSpec::idle("kube-system", "proxy").host_network())
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let targets = {
        let _context = runtime.enter();
        targets::start(TargetsConfig {
            runtime_endpoint: RuntimeEndpoint::Socket(containerd.socket()),
            ..TargetsConfig::default()
        })
    };
    let is_ready = |runtime: &RuntimeState| matches!(runtime, RuntimeState::Ready { .. });
    runtime.block_on(wait_for(&targets, "both pods", |u| {
        u.world.pods.len() == 2 && is_ready(&u.runtime)
    }));

    let update = targets.current();
    assert!(
        matches!(&update.runtime, RuntimeState::Ready { name, .. } if name == "containerd"),
        "{:?}",
        update.runtime
    );
    let seen = &update.world.pods[&web.sandbox];
    assert_eq!(
        (seen.namespace.as_str(), seen.name.as_str(), &seen.uid),
        ("team-a", "web", &web.uid)
    );
    assert_eq!(seen.labels["app"], "web");
    let mut addresses = seen.addresses.clone();
    addresses.sort();
    assert_eq!(addresses, web.addresses);
    let devices: Vec<_> = seen
        .devices
        .iter()
        .map(|d| (d.key.device.as_str(), d.mac_header))
        .collect();
    assert_eq!(devices, [("eth0", true)]);
    let netns = fs::metadata(&web.netns).unwrap();
    assert_eq!(seen.devices[0].key.netns.ino, netns.ino());
    let seen = &update.world.pods[&host.sandbox];
    assert!(seen.host_network && seen.devices.is_empty());

    let late = containerd.run_pod(&PodSpec::idle("team-b", "late")).unwrap();
    let took = runtime.block_on(wait_for(&targets, "the late pod", |u| {
        u.world.pods.contains_key(&late.sandbox)
    }));
    eprintln!("a new pod was seen {took:?} after its container ran");

    let again = containerd.restart_sandbox(&web).unwrap();
    assert_eq!((&again.uid, again.attempt), (&web.uid, 1));
    runtime.block_on(wait_for(&targets, "the new sandbox alone", |u| {
        u.world.pods.contains_key(&again.sandbox) && !u.world.pods.contains_key(&web.sandbox)
    }));
    containerd.stop_pod(&late).unwrap();
    runtime.block_on(wait_for(&targets, "the pod to go", |u| {
        !u.world.pods.contains_key(&late.sandbox)
    }));
}
