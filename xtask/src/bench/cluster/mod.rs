//! `cargo xtask bench cluster`: what one node's daemon takes from clusters of two sizes, and asks of their API servers, with
//! and without faults that name pods of other nodes. The API server is ours; the watch traffic is real.

mod people;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sabot_proto::sabot::v1::{Peer, PeerPods, peer};
use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, socket_in};
use sabot_testkit::kube::Recorded;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Daemon, Lab};
use tempfile::TempDir;

use self::people::{Inhabited, PEERS};
use super::Plan;
use super::measure::single;
use super::report::{Figure, Report};
use super::spec;
use super::usage::{Memory, cpu_time};
use crate::interrupt;
use crate::ui::Step;

/// Nodes of the clusters; 30 pods on each.
const SIZES: [usize; 2] = [500, 5000];
/// Active faults, each with a target of its own and peers of its own.
pub(super) const FAULTS: usize = 50;
/// Of the node's pods, which are the faults' targets.
const NAMESPACE: &str = "shop";
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
/// How long each state is measured; a watch is renewed after four to five minutes.
const WINDOW: Duration = Duration::from_secs(300);
const QUICK_WINDOW: Duration = Duration::from_secs(20);
const MEBIBYTE: f64 = 1048576.0;

/// What a daemon took in a window.
struct Taken {
    cpu: f64,
    resident: f64,
    requests: f64,
    events: f64,
}

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let window = if plan.quick { QUICK_WINDOW } else { WINDOW };
    let mut all = Vec::new();
    for nodes in SIZES {
        all.push((nodes, measure(plan, nodes, window)?));
    }
    let title = format!(
        "one daemon, {FAULTS} faults with {PEERS} pods of other nodes as each one's peers; 1 in 1,000 pods changes a second"
    );
    let section = report.section(&title);
    for (nodes, states) in &all {
        let pods = nodes * people::PODS_PER_NODE;
        for (what, taken) in ["no faults", "50 faults", "faults deleted"].iter().zip(states) {
            section.row(format!("{nodes} nodes, {pods} pods, {what}"), figures(taken));
        }
    }
    let [(_, small), (_, large)] = &all[..] else {
        return Ok(());
    };
    // What grows with the cluster: nothing may.
    for (what, index) in [("no faults", 0), ("50 faults", 1)] {
        let (small, large): (&Taken, &Taken) = (&small[index], &large[index]);
        report.compare(
            &format!("resident memory, 5,000 / 500 nodes, {what}"),
            large.resident,
            small.resident,
        );
    }
    let grown = large[1].resident - small[1].resident;
    report.at_most("memory that ten times the cluster takes", grown, 8.0, "MiB");
    report.at_most(
        "requests with 50 faults on 5,000 nodes",
        large[1].requests,
        30.0,
        "a minute",
    );
    Ok(())
}

fn figures(taken: &Taken) -> Vec<Figure> {
    vec![
        Figure::new("CPU", "% of a core", single(taken.cpu)),
        Figure::new("resident", "MiB", single(taken.resident)),
        Figure::new("requests", "a minute", single(taken.requests)),
        Figure::new("pods changed in the cluster", "a second", single(taken.events)),
    ]
}

/// Without faults, with them, and after them.
fn measure(plan: &Plan, nodes: usize, window: Duration) -> Result<Vec<Taken>> {
    let step = Step::start(&format!("a cluster of {nodes} nodes"));
    let lab = Lab::new(FAULTS)?;
    let cluster = Inhabited::start(lab.node(), nodes);
    let (folder, _runtime) = runtime(&lab)?;
    let kubeconfig = cluster.cluster.kubeconfig();
    let options = plan
        .options
        .clone()
        .netns(lab.node())
        .runtime(&socket_in(&folder));
    let options = options.flags(&["--kubeconfig", &kubeconfig.to_string_lossy()]);
    let daemon = Daemon::start(options)?;
    wait_watches(&cluster, 1)?;
    let mut taken = vec![take(&daemon, &cluster, window)?];

    let client = daemon.client()?;
    let start = Instant::now();
    for fault in 0..FAULTS {
        interrupt::check()?;
        let target = spec::pods(NAMESPACE, "app", &format!("target-{fault}"));
        let peers = Peer {
            kind: Some(peer::Kind::Pods(PeerPods {
                namespace: Some(people::namespace_of(fault)),
                selector: Some(spec::label("app", "peer")),
                ..PeerPods::default()
            })),
            except: Vec::new(),
        };
        let spec = spec::fault(target, vec![peers], spec::partition());
        let answer = client.apply(&format!("cut-{fault}"), spec, spec::PATIENCE)?;
        spec::ensure_injected(&answer, 1)?;
    }
    wait_watches(&cluster, 1 + FAULTS)?;
    let caught_up = start.elapsed();
    taken.push(take(&daemon, &cluster, window)?);

    for fault in 0..FAULTS {
        client.delete("", &format!("cut-{fault}"))?;
    }
    // What nobody wants any more is kept for a while, as attachments are.
    wait_watches(&cluster, 1)?;
    taken.push(take(&daemon, &cluster, window)?);
    step.done(&format!(
        "{FAULTS} faults in force after {:.1} s",
        caught_up.as_secs_f64()
    ));
    Ok(taken)
}

fn wait_watches(cluster: &Inhabited, count: usize) -> Result<()> {
    let open = || cluster.cluster.watches("pods") == count;
    ensure!(
        wait_until(PATIENCE, LOOK, open),
        "{} watches of pods are open, and not {count}",
        cluster.cluster.watches("pods")
    );
    Ok(())
}

/// What the daemon takes while the cluster lives.
fn take(daemon: &Daemon, cluster: &Inhabited, window: Duration) -> Result<Taken> {
    // Until what began with the last change has ended.
    interrupt::sleep(Duration::from_secs(2))?;
    let asked = |since: Instant| -> Vec<Recorded> {
        let mut requests = cluster.cluster.requests();
        requests.retain(|request| request.at >= since);
        requests
    };
    let (start, cpu) = (Instant::now(), cpu_time(daemon.pid())?);
    let changed = cluster.live(window)?;
    let took = start.elapsed();
    let cpu = cpu_time(daemon.pid())?.saturating_sub(cpu);
    let memory = Memory::of(daemon)?;
    let minutes = took.as_secs_f64() / 60.0;
    Ok(Taken {
        cpu: 100.0 * cpu.as_secs_f64() / took.as_secs_f64(),
        resident: memory.process as f64 / MEBIBYTE,
        requests: asked(start).len() as f64 / minutes,
        events: changed as f64 / took.as_secs_f64(),
    })
}

/// The lab's pods as those of this node.
fn runtime(lab: &Lab) -> Result<(TempDir, FakeRuntime)> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let runtime = FakeRuntime::start(&socket_in(&folder), "1.7.0", Events::Offered);
    for (number, pod) in lab.pods().iter().enumerate() {
        let name = format!("target-{number}");
        let sandbox = FakeSandbox {
            namespace: NAMESPACE.to_owned(),
            addresses: vec![pod.ipv4().to_string()],
            ..FakeSandbox::ready(&name, pod.netns().path())
        };
        runtime.put(&name, sandbox);
    }
    // The daemon finds them as it starts.
    thread::yield_now();
    Ok((folder, runtime))
}
