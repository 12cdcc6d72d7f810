//! `cargo xtask bench cluster`: what one node's daemon takes from clusters of two sizes, and asks of their API servers, with
//! and without faults that name pods of other nodes. The API server is ours; the watch traffic is real.

mod event;
mod people;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sabot_proto::sabot::v1::{FaultSpec, Peer, PeerPods, peer};
use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, socket_in};
use sabot_testkit::kube::Recorded;
use sabot_testkit::wait::wait_until;
use sabot_testkit::{Daemon, Lab};
use tempfile::TempDir;

use self::people::{Inhabited, PEERS};
use super::Plan;
use super::measure::{Samples, single};
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
const LIFETIME: Duration = Duration::from_secs(1200);
const MEBIBYTE: f64 = 1048576.0;
/// What a daemon may watch.
const RESOURCES: [&str; 6] = [
    "pods",
    "services",
    "endpointslices",
    "nodes",
    "networkfaults",
    "clusternetworkfaults",
];

/// What is measured, in this order.
const STATES: [&str; 4] = [
    "no faults",
    "50 faults on pods of other nodes",
    "50 faults on pods of this node",
    "faults deleted",
];
const HERE: usize = 2;

/// What a daemon took in a window.
struct Taken {
    /// Seconds a minute.
    cpu: f64,
    resident: f64,
    requests: f64,
    watches: usize,
    events: f64,
}

/// What one cluster was measured with.
struct Measured {
    states: Vec<Taken>,
    /// From an event in the API server until the kernel acts on it.
    latency: Samples,
}

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let window = if plan.quick { QUICK_WINDOW } else { WINDOW };
    let mut all = Vec::new();
    for nodes in SIZES {
        all.push(measure(plan, nodes, window)?);
    }
    let title = format!(
        "one daemon, {FAULTS} faults with {PEERS} pods of other nodes as each one's peers; 1 in 1,000 pods changes a second"
    );
    let section = report.section(&title);
    for (state, what) in STATES.iter().enumerate() {
        for (nodes, measured) in SIZES.iter().zip(&all) {
            section.row(format!("{what}: {nodes} nodes"), figures(&measured.states[state]));
        }
    }
    let section = report
        .section("from a new pod in the API server to the first packet dropped for it, 50 faults in force");
    for (nodes, measured) in SIZES.iter().zip(&all) {
        let figure = Figure::new("latency", "ms", measured.latency.spread());
        section.row(format!("{nodes} nodes"), vec![figure]);
    }
    if let [small, large] = &all[..] {
        judge(report, small, large);
    }
    Ok(())
}

/// What may not grow with the cluster, and what only with the faults that concern the node.
fn judge(report: &mut Report, small: &Measured, large: &Measured) {
    for (what, (small, large)) in STATES.iter().zip(small.states.iter().zip(&large.states)) {
        let ratios = [
            ("resident memory", large.resident, small.resident),
            ("CPU", large.cpu, small.cpu),
        ];
        for (quantity, large, small) in ratios {
            report.compare(&format!("{quantity}, 5,000 / 500 nodes, {what}"), large, small);
        }
    }
    let [none, elsewhere, here, _] = &large.states[..] else {
        return;
    };
    let grown = here.resident - small.states[HERE].resident;
    report.at_most("memory that ten times the cluster takes", grown, 4.0, "MiB");
    let faults = here.resident - none.resident;
    report.at_most(
        "memory that 50 faults here take, 5,000 nodes",
        faults,
        40.0,
        "MiB",
    );
    let name = "memory that 50 faults of other nodes take, 5,000 nodes";
    report.at_most(name, elsewhere.resident - none.resident, 6.0, "MiB");
    report.at_most(
        "CPU with 50 faults here, 5,000 nodes",
        here.cpu,
        3.0,
        "s a minute",
    );
    for (what, taken) in [("of other nodes", elsewhere), ("here", here)] {
        let name = format!("requests with 50 faults {what}, 5,000 nodes");
        // Each watch is renewed once in four to five minutes.
        let renewals = taken.watches as f64 / 4.0;
        report.at_most(&name, taken.requests, 6.0 + 1.25 * renewals, "a minute");
    }
    let latency = large.latency.spread();
    report.at_most(
        "an event's way into the kernel, 5,000 nodes, p50",
        latency.p50,
        100.0,
        "ms",
    );
    let (none, same) = (none.watches, elsewhere.watches);
    report.check(
        "faults without targets here watch nothing",
        none == same,
        format!("{same} watches with them, {none} without"),
    );
}

fn figures(taken: &Taken) -> Vec<Figure> {
    vec![
        Figure::new("CPU", "s a minute", single(taken.cpu)),
        Figure::new("resident", "MiB", single(taken.resident)),
        Figure::new("requests", "a minute", single(taken.requests)),
        Figure::new("open watches", "", single(taken.watches as f64)),
        Figure::new("pods changed in the cluster", "a second", single(taken.events)),
    ]
}

/// Without faults, with those of other nodes, with those of this one, and after them.
fn measure(plan: &Plan, nodes: usize, window: Duration) -> Result<Measured> {
    let step = Step::start(&format!("a cluster of {nodes} nodes"));
    // The last pod is another node's.
    let lab = Lab::new(FAULTS + 1)?;
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
    let mut states = vec![take(&daemon, &cluster, window)?];

    let client = daemon.client()?;
    for fault in 0..FAULTS {
        client.apply(&format!("far-{fault}"), cut("elsewhere", fault), spec::PATIENCE)?;
    }
    states.push(take(&daemon, &cluster, window)?);
    for fault in 0..FAULTS {
        client.delete("", &format!("far-{fault}"))?;
    }

    let start = Instant::now();
    for fault in 0..FAULTS {
        interrupt::check()?;
        let answer = client.apply(&format!("cut-{fault}"), cut("target", fault), spec::PATIENCE)?;
        spec::ensure_injected(&answer, 1)?;
    }
    wait_watches(&cluster, 1 + FAULTS)?;
    let caught_up = start.elapsed();
    states.push(take(&daemon, &cluster, window)?);
    let latency = event::latency(plan.repetitions(50, 10), &lab, &cluster)?;

    for fault in 0..FAULTS {
        client.delete("", &format!("cut-{fault}"))?;
    }
    // What nobody wants any more is kept for a while, as attachments are.
    wait_watches(&cluster, 1)?;
    states.push(take(&daemon, &cluster, window)?);
    step.done(&format!(
        "{FAULTS} faults in force after {:.1} s",
        caught_up.as_secs_f64()
    ));
    Ok(Measured { states, latency })
}

/// A partition of pods whose label begins like this, from peers all over the cluster.
fn cut(target: &str, fault: usize) -> FaultSpec {
    let peers = Peer {
        kind: Some(peer::Kind::Pods(PeerPods {
            namespace: Some(people::namespace_of(fault)),
            selector: Some(spec::label("app", "peer")),
            ..PeerPods::default()
        })),
        except: Vec::new(),
    };
    let target = spec::pods(NAMESPACE, "app", &format!("{target}-{fault}"));
    FaultSpec {
        // Each is there through two windows at most.
        duration: LIFETIME.try_into().ok(),
        ..spec::fault(target, vec![peers], spec::partition())
    }
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
    let watched = RESOURCES.iter().map(|plural| cluster.cluster.watches(plural));
    Ok(Taken {
        cpu: cpu.as_secs_f64() / minutes,
        resident: memory.process as f64 / MEBIBYTE,
        requests: asked(start).len() as f64 / minutes,
        watches: watched.sum(),
        events: changed as f64 / took.as_secs_f64(),
    })
}

/// The lab's pods as those of this node.
fn runtime(lab: &Lab) -> Result<(TempDir, FakeRuntime)> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let runtime = FakeRuntime::start(&socket_in(&folder), "1.7.0", Events::Offered);
    for (number, pod) in lab.pods().iter().take(FAULTS).enumerate() {
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
