//! Fifty pods in one fault, as a selector means them; the runtime that says which pods there are is a fake one.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sabot_proto::sabot::v1::ListTargetsRequest;
use sabot_testkit::cri::fake::{Events, FakeRuntime, FakeSandbox, socket_in};
use sabot_testkit::daemon::Client;
use sabot_testkit::wait::wait_for;
use sabot_testkit::{Daemon, DaemonOptions, LabPod};

use super::witness::Witness;
use super::{FIFTY, Scene, trial};
use crate::bench::measure::Samples;
use crate::bench::spec;
use crate::interrupt;
use crate::ui::Step;

const NAMESPACE: &str = "bench";
/// A daemon that opens nothing for this long has attached what it is to attach beforehand.
const QUIET: Duration = Duration::from_millis(500);

pub(super) struct Latencies {
    pub(super) cold: Samples,
    pub(super) warm: Samples,
    pub(super) cold_clsact: Samples,
    pub(super) warm_clsact: Samples,
    pub(super) attached_beforehand: Samples,
}

pub(super) fn measure(scene: &mut Scene<'_>) -> Result<Latencies> {
    let folder = tempfile::tempdir()?;
    let socket = socket_in(&folder);
    let runtime = FakeRuntime::start(&socket, "1", Events::Unimplemented);
    for (index, pod) in scene.lab.pods()[1..=FIFTY].iter().enumerate() {
        runtime.put(&format!("sandbox-{index}"), sandbox(index, pod));
    }
    let options = scene.plan.options.clone();
    let options = options.runtime(&socket).netns(scene.lab.node());
    let (cold, warm) = rounds(scene, &options)?;
    let (cold_clsact, warm_clsact) = rounds(scene, &options.clone().flags(&["--hook", "clsact"]))?;
    let (attached_beforehand, _) = rounds(scene, &options.flags(&["--attach", "all"]))?;
    Ok(Latencies {
        cold,
        warm,
        cold_clsact,
        warm_clsact,
        attached_beforehand,
    })
}

/// As a runtime describes a pod of the lab.
fn sandbox(index: usize, pod: &LabPod) -> FakeSandbox {
    let mut sandbox = FakeSandbox::ready(&format!("pod-{index}"), pod.netns().path());
    sandbox.namespace = NAMESPACE.to_owned();
    sandbox.labels = [("app".to_owned(), "target".to_owned())].into();
    sandbox.addresses = vec![pod.ipv4().to_string()];
    sandbox
}

/// The first fault of each of several daemons, and the later ones, which find the targets warm.
fn rounds(scene: &mut Scene<'_>, options: &DaemonOptions) -> Result<(Samples, Samples)> {
    let step = Step::start(&format!("{FIFTY} targets {}", options.flags.join(" ")));
    let daemons = scene.plan.repetitions(6, 1);
    let targets: Vec<&LabPod> = scene.lab.pods()[1..=FIFTY].iter().collect();
    let mut witness = Witness::new(&targets, scene.lab.pod(0))?;
    let peer = spec::address(scene.lab.pod(0).ipv4());
    let fault = spec::fault(
        spec::pods(NAMESPACE, "app", "target"),
        vec![peer],
        spec::partition(),
    );
    let (mut first, mut later) = (Samples::default(), Samples::default());
    for _ in 0..daemons {
        let daemon = Daemon::start(options.clone())?;
        let client = daemon.client()?;
        wait_targets(&client)?;
        wait_quiet(&daemon)?;
        first.push_ms(trial(
            &client,
            &mut witness,
            "first",
            &fault,
            &mut scene.enforced,
        )?);
        for round in 0..5 {
            let name = format!("later-{round}");
            later.push_ms(trial(&client, &mut witness, &name, &fault, &mut scene.enforced)?);
        }
    }
    step.done(&format!("{daemons} daemons"));
    Ok((first, later))
}

/// Waits until the daemon knows all pods.
fn wait_targets(client: &Client) -> Result<()> {
    let listed = || {
        let request = ListTargetsRequest {
            namespace: Some(NAMESPACE.to_owned()),
        };
        let answer = client.wait(client.nodes().list_targets(request)).ok()?;
        (answer.into_inner().targets.len() == FIFTY).then_some(())
    };
    wait_for(spec::PATIENCE, Duration::from_millis(10), listed)
        .with_context(|| format!("the daemon doesn't find {FIFTY} pods"))
}

/// Waits until the daemon has stopped opening descriptors: what it attaches beforehand is attached.
fn wait_quiet(daemon: &Daemon) -> Result<()> {
    let folder = format!("/proc/{}/fd", daemon.pid());
    let end = Instant::now() + spec::PATIENCE;
    let (mut last, mut since) = (0, Instant::now());
    while since.elapsed() < QUIET {
        interrupt::sleep(Duration::from_millis(20))?;
        ensure!(
            Instant::now() < end,
            "the daemon doesn't come to rest in {:?}",
            spec::PATIENCE
        );
        let now = fs::read_dir(&folder)
            .with_context(|| format!("{folder} can't be read"))?
            .count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}
