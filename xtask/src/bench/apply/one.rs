//! One target: warm, where programs are attached already, and cold.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use sabot_testkit::Daemon;

use super::{Scene, cut, trial};
use crate::bench::measure::Samples;
use crate::bench::witness::Witness;

const TARGET: usize = 1;

/// In which the kernel is done with a namespace that was removed. Until then it holds the lock that attaching takes, too.
const SETTLED: Duration = Duration::from_millis(500);

pub(super) struct Latencies {
    pub(super) warm: Samples,
    pub(super) cold: Samples,
    pub(super) warm_clsact: Samples,
    pub(super) cold_clsact: Samples,
}

pub(super) fn measure(scene: &mut Scene<'_>) -> Result<Latencies> {
    let (warm, cold) = with_hook(scene, "auto")?;
    let (warm_clsact, cold_clsact) = with_hook(scene, "clsact")?;
    Ok(Latencies {
        warm,
        cold,
        warm_clsact,
        cold_clsact,
    })
}

/// A daemon's warm and cold latencies.
fn with_hook(scene: &mut Scene<'_>, hook: &str) -> Result<(Samples, Samples)> {
    let options = scene.plan.options.clone().netns(scene.lab.node());
    let daemon = Daemon::start(options.flags(&["--hook", hook]))?;
    let client = daemon.client()?;

    let step = scene.enforced.begin(format!("one warm target, --hook {hook}"));
    let mut warm = Samples::default();
    let target = scene.lab.pod(TARGET);
    let mut witness = Witness::new(&[target], scene.lab.pod(0))?;
    let fault = cut(&scene.lab, target);
    // Attaches; not counted.
    trial(&client, &mut witness, "first", &fault, &mut scene.enforced)?;
    let repetitions = scene.plan.repetitions(300, 40);
    for round in 0..repetitions {
        let name = format!("warm-{round}");
        warm.push_ms(trial(&client, &mut witness, &name, &fault, &mut scene.enforced)?);
    }
    step.done(&format!("{repetitions} times"));

    let step = scene.enforced.begin(format!("one cold target, --hook {hook}"));
    let mut cold = Samples::default();
    let repetitions = scene.plan.repetitions(30, 5);
    for round in 0..repetitions {
        scene.lab.add_pod()?;
        let last = scene.lab.pods().len() - 1;
        let target = scene.lab.pod(last);
        let mut witness = Witness::new(&[target], scene.lab.pod(0))?;
        let fault = cut(&scene.lab, target);
        let name = format!("cold-{round}");
        cold.push_ms(trial(&client, &mut witness, &name, &fault, &mut scene.enforced)?);
        drop(witness);
        scene.lab.remove_pod(last);
        thread::sleep(SETTLED);
    }
    step.done(&format!("{repetitions} times"));
    Ok((warm, cold))
}
