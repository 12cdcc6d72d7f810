//! Pods that come, restart and go while a fault means them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use sabot_proto::sabot::v1::{Direction, FaultStatus, Phase, TargetPhase, TargetStatus};
use sabot_testkit::Leaks;
use sabot_testkit::cri::{Pod, PodSpec, mounts_below};
use sabot_testkit::traffic::ping;
use sabot_testkit::wait::{best_of, wait_for, wait_until};

use crate::node::{LOOK, Node, PATIENCE, Probes, is_injected, netns, packets, sum};

/// From a sandbox's readiness until a fault that means it is in force.
const LATE: Duration = Duration::from_secs(1);
const TRIES: usize = 3;

fn web(name: &str) -> PodSpec {
    PodSpec::web("team-a", name).label("app", "web")
}

fn cli() -> PodSpec {
    PodSpec::web("team-b", "cli").label("app", "cli")
}

fn is_on(target: &TargetStatus, pod: &str) -> bool {
    target.phase() == TargetPhase::Injected && target.target.as_ref().is_some_and(|t| t.pod_name == pod)
}

/// The one target of a fault has the network namespace of this pod.
fn is_only_on(status: &FaultStatus, pod: &Pod) -> bool {
    let inode = netns(pod).inode();
    let [target] = status.targets.as_slice() else {
        return false;
    };
    is_on(target, &pod.spec.name) && target.target.as_ref().is_some_and(|t| t.netns == inode)
}

#[test]
fn a_pod_that_comes_later_is_hit_within_a_second() {
    let node = Node::start();
    let cli = node.pod(&cli());
    let said =
        node.sabot("partition --name cut --target pods:team-a/app=web --peer pods:team-b/app=cli --for 120s");
    assert!(said.contains("Pending"), "{said}");
    let mut number = 0;
    let took = best_of(TRIES, LATE, "from a ready sandbox to the fault", || {
        number += 1;
        let name = format!("late-{number}");
        let (late, injected) = thread::scope(|scope| {
            let seen = scope.spawn(|| {
                wait_for(PATIENCE, LOOK, || {
                    let status = node.status("cut");
                    let is_hit = status.targets.iter().any(|target| is_on(target, &name));
                    is_hit.then(Instant::now)
                })
            });
            let late = node.containerd.run_pod(&web(&name)).expect("the pod runs");
            (late, seen.join().expect("it doesn't panic"))
        });
        let injected = injected.unwrap_or_else(|| panic!("{name} isn't hit: {:#?}", node.status("cut")));
        let probes = Probes::start_unchecked(&cli, &late, late.ip());
        let from = injected.max(Instant::now());
        thread::sleep(Duration::from_millis(300));
        probes.assert_cut(from, Instant::now());
        injected.saturating_duration_since(late.sandbox_ready)
    });
    eprintln!("the fault was in force {took:?} after the sandbox was ready");
    let status = node.status("cut");
    assert!(is_injected(&status), "{status:#?}");

    // A peer that comes later is one too.
    let peer = node.pod(&PodSpec::web("team-b", "cli-2").label("app", "cli"));
    let last = node.pod(&web("last"));
    node.wait_status("cut", "the last pod", |status| {
        status.targets.iter().any(|t| is_on(t, "last"))
    });
    node.assert_cut(&[(&peer, &last)]);
    node.sabot("delete cut");
    node.assert_reaches(&[(&peer, &last)]);
}

#[test]
fn a_pod_that_restarts_gets_the_fault_and_its_old_sandbox_is_forgotten() {
    let node = Node::start();
    let (old, cli) = (node.pod(&web("web")), node.pod(&cli()));
    node.assert_reaches(&[(&cli, &old)]);
    node.sabot("partition --name cut --target pod:team-a/web --peer pod:team-b/cli --for 120s");
    assert!(is_only_on(&node.status("cut"), &old));
    node.assert_cut(&[(&cli, &old)]);
    let counted = packets(sum(&node.status("cut"), Direction::Ingress).dropped);
    assert!(counted > 0);

    let new = node.containerd.restart_sandbox(&old).expect("the pod restarts");
    assert_ne!(new.sandbox, old.sandbox);
    node.wait_known(&new);
    node.wait_status("cut", "the new sandbox alone", |status| is_only_on(status, &new));
    node.assert_cut(&[(&cli, &new)]);
    let total = packets(sum(&node.status("cut"), Direction::Ingress).dropped);
    assert!(
        total > counted,
        "{total} packets, of which {counted} before the restart"
    );

    // The same for a peer: the fault follows its new address.
    let cli = node.containerd.restart_sandbox(&cli).expect("the pod restarts");
    node.wait_known(&cli);
    node.assert_cut(&[(&cli, &new)]);
    node.sabot("delete cut");
    node.assert_reaches(&[(&cli, &new)]);
}

#[test]
fn a_pod_that_is_deleted_during_a_delay_is_really_gone() {
    let node = Node::start();
    let leaks = Leaks::baseline(&[&node.netns()]).expect("the machine can be looked at");
    let (pod, cli) = (node.pod(&web("web")), node.pod(&cli()));
    node.sabot("delay 2s --name late --target pods:team-a/app=web --for 120s");

    // What pins a namespace need not be visible anywhere. The kernel tells: it destroys a veth with the namespace that one of
    // its ends is in, and this one is unknown to the runtime's own cleaning up.
    let outside = node.netns();
    outside
        .ip(&["link", "add", "tell", "type", "veth", "peer", "name", "tale"])
        .expect("a veth is made");
    outside
        .ip(&["link", "set", "tale", "netns", &pod.pid.to_string()])
        .expect("it is moved into the pod");
    let is_there = || outside.ip(&["link", "show", "dev", "tell"]).is_ok();
    assert!(is_there());
    let link = format!("net:[{}]", netns(&pod).inode());

    let mut pings = netns(&cli)
        .command("ping")
        .args(["-q", "-i", "0.01", "-w", "60", &pod.ip().to_string()])
        .spawn()
        .expect("ping starts");
    let held = node.wait_status("late", "held packets", |status| {
        packets(sum(status, Direction::Ingress).held) > 20
    });
    assert!(is_injected(&held));
    node.containerd.stop_pod(&pod).expect("the pod ends");
    let gone = wait_until(PATIENCE, LOOK, || !is_there());
    let _ = pings.kill();
    let _ = pings.wait();
    assert!(
        gone,
        "the deleted pod's network namespace lives on, held by {:?}",
        holders(&link)
    );
    assert_eq!(holders(&link), Vec::<String>::new());
    let mounts = mounts_below(node.containerd.directory());
    let is_of_pod = |path: &std::path::PathBuf| path.to_string_lossy().contains(&pod.sandbox);
    assert!(!mounts.iter().any(is_of_pod), "{mounts:#?}");

    let status = node.wait_status("late", "the pod's end", |status| status.targets.is_empty());
    assert_eq!(status.phase(), Phase::Pending, "{status:#?}");
    assert!(
        status.message.contains("no pod in namespace team-a"),
        "{}",
        status.message
    );
    assert_eq!(node.daemon.http("/healthz").expect("it answers").0, 200);
    let left = leaks.wait_clean(PATIENCE).expect("the machine can be looked at");
    assert_eq!(left, Vec::<String>::new());

    // The daemon goes on, with the next pod of these labels.
    let next = node.pod(&web("web-2"));
    node.wait_status("late", "the next pod", |status| is_only_on(status, &next));
    let report = ping(&netns(&cli), next.ip(), 1, Duration::from_millis(10)).expect("ping runs");
    assert_eq!(
        report.median(),
        None,
        "a delay of 2 s in each direction has no answer within a second"
    );
    node.sabot("delete late");
    node.assert_reaches(&[(&cli, &next)]);
}

/// Processes that are in a network namespace or have it open, and mounts of it.
fn holders(link: &str) -> Vec<String> {
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc").expect("proc is mounted").flatten() {
        let path = process.path();
        let tasks = fs::read_dir(path.join("task")).into_iter().flatten().flatten();
        let files = fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        let places = tasks
            .map(|task| task.path().join("ns/net"))
            .chain(files.map(|file| file.path()));
        // What has ended meanwhile holds nothing.
        let held =
            places.filter(|place| fs::read_link(place).is_ok_and(|target| target.to_string_lossy() == link));
        holders.extend(held.map(|place| place.display().to_string()));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
    holders.extend(
        mounts
            .lines()
            .filter(|line| line.contains(link))
            .map(str::to_owned),
    );
    holders
}
