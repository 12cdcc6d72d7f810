//! How soon a delay is in force.

use std::time::{Duration, Instant};

use anyhow::Result;
use sabot_testkit::daemon::Client;
use sabot_testkit::{Daemon, Lab, LabPod};

use super::{Netem, Round, round};
use crate::bench::fidelity::Scene;
use crate::bench::measure::Samples;
use crate::bench::report::{Figure, Report};
use crate::bench::spec;
use crate::ui::Step;

/// A process that enters the pod, as Chaos Mesh runs it.
const TC: &str = "nsenter + tc";
const LATENCY: Duration = Duration::from_millis(10);

/// In milliseconds.
#[derive(Default)]
struct Case {
    cold: Samples,
    warm: Samples,
    theirs: Samples,
}

/// Each round has a pod that nothing was ever attached to.
pub(super) fn measure(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let rounds = scene.plan.repetitions(15, 3);
    let step = Step::start("from the call until a delay is in force");
    let lab = Lab::new(rounds)?;
    let daemon = Daemon::start(scene.plan.options.clone().netns(lab.node()))?;
    let client = daemon.client()?;
    let mut case = Case::default();
    for (number, pod) in lab.pods().iter().enumerate() {
        let Round {
            ours,
            theirs: [theirs],
            ..
        } = round(
            number,
            || Ok(Duration::ZERO),
            || Ok([apply(&client, pod)?, apply(&client, pod)?]),
            [(
                TC,
                Box::new(|| {
                    let started = Instant::now();
                    let netem = Netem::on(pod, &format!("delay {}ms", LATENCY.as_millis()))?;
                    let took = started.elapsed();
                    drop(netem);
                    Ok(took)
                }),
            )],
        )?;
        let [cold, warm] = ours;
        case.cold.push_ms(cold);
        case.warm.push_ms(warm);
        case.theirs.push_ms(theirs);
    }
    step.done(&format!("{rounds} pods"));
    let section = report.section("from the call until a delay of 10 ms is in force on one pod");
    for (name, ours) in [("cold", &case.cold), ("warm", &case.warm)] {
        let figure = Figure::new("time", "ms", ours.spread()).beside(TC, case.theirs.spread());
        section.row(name, vec![figure]);
    }
    Ok(())
}

/// From the call over gRPC to the answer.
fn apply(client: &Client, pod: &LabPod) -> Result<Duration> {
    const FAULT: &str = "netem";
    let fault = spec::fault(spec::netns(pod), Vec::new(), spec::delay(LATENCY));
    let started = Instant::now();
    let answer = client.apply(FAULT, fault, spec::PATIENCE)?;
    let took = started.elapsed();
    spec::ensure_injected(&answer, 1)?;
    client.delete("", FAULT)?;
    Ok(took)
}
