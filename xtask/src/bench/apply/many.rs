//! Many pods in one fault, as a selector means them.

use anyhow::Result;
use sabot_testkit::{DaemonOptions, LabPod};

use super::{FIFTY, Scene, trial};
use crate::bench::measure::Samples;
use crate::bench::pods::Pods;
use crate::bench::spec;
use crate::bench::witness::Witness;

/// What is measured of fifty pods besides.
pub(super) struct Hooks {
    pub(super) cold_clsact: Samples,
    pub(super) warm_clsact: Samples,
    pub(super) attached_beforehand: Samples,
}

/// One number of pods.
pub(super) struct Latencies {
    pub(super) count: usize,
    pub(super) cold: Samples,
    pub(super) warm: Samples,
}

pub(super) fn measure(scene: &mut Scene<'_>, counts: &[usize]) -> Result<(Vec<Latencies>, Hooks)> {
    let pods = Pods::of(&scene.lab, counts)?;
    let options = pods.options(&scene.plan.options, &scene.lab);
    let mut all = Vec::new();
    for &count in counts {
        let (cold, warm) = rounds(scene, &pods, &options, count)?;
        all.push(Latencies { count, cold, warm });
    }
    let clsact = options.clone().flags(&["--hook", "clsact"]);
    let (cold_clsact, warm_clsact) = rounds(scene, &pods, &clsact, FIFTY)?;
    let beforehand = options.flags(&["--attach", "all"]);
    let (attached_beforehand, _) = rounds(scene, &pods, &beforehand, FIFTY)?;
    let hooks = Hooks {
        cold_clsact,
        warm_clsact,
        attached_beforehand,
    };
    Ok((all, hooks))
}

/// The first fault of each of several daemons, and the later ones, which find the targets warm.
fn rounds(
    scene: &mut Scene<'_>,
    pods: &Pods,
    options: &DaemonOptions,
    count: usize,
) -> Result<(Samples, Samples)> {
    let what = format!("{count} targets {}", options.flags.join(" "));
    let step = scene.enforced.begin(what);
    let daemons = scene.plan.repetitions(6, 1);
    let targets: Vec<&LabPod> = scene.lab.pods()[1..=count].iter().collect();
    let mut witness = Witness::new(&targets, scene.lab.pod(0))?;
    let peer = spec::address(scene.lab.pod(0).ipv4());
    let fault = spec::fault(Pods::first(count), vec![peer], spec::partition());
    let (mut first, mut later) = (Samples::default(), Samples::default());
    for _ in 0..daemons {
        let (_daemon, client) = pods.start(options.clone())?;
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
