//! What being observed costs a container runtime: pods that start and stop, with and without the daemon.

use std::thread;
use std::time::Instant;

use anyhow::Result;
use sabot_testkit::Daemon;
use sabot_testkit::cri::{Containerd, PodSpec};

use super::SETTLED;
use crate::bench::Plan;
use crate::bench::measure::Samples;
use crate::bench::report::{Figure, Report, Statistic};
use crate::bench::usage::cpu_time;
use crate::interrupt;
use crate::ui::Step;

/// Pods of one measurement, one after the other.
const PODS: usize = 10;

pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let step = Step::start("pods that start and stop on a containerd");
    let rounds = plan.repetitions(36, 1);
    let containerd = Containerd::start(&std::env::temp_dir())?;
    let (mut none, mut observed) = (Samples::default(), Samples::default());
    let (mut ratios, mut control, mut own) = (Samples::default(), Samples::default(), Samples::default());
    // The first pods unpack the image.
    cycle(&containerd)?;
    for round in 0..rounds {
        interrupt::check()?;
        step.note(&format!("round {} of {rounds}", round + 1));
        let before = cycle(&containerd)?;
        let with = {
            let options = plan.options.clone().runtime(&containerd.socket());
            let daemon = Daemon::start(options)?;
            thread::sleep(SETTLED);
            let spent = cpu_time(daemon.pid())?;
            let with = cycle(&containerd)?;
            own.push((cpu_time(daemon.pid())? - spent).as_secs_f64() * 1e3 / PODS as f64);
            with
        };
        thread::sleep(SETTLED);
        let after = cycle(&containerd)?;
        none.push(before);
        observed.push(with);
        ratios.push(2.0 * with / (before + after));
        control.push(after / before);
    }
    step.done(&format!("{rounds} rounds of {PODS} pods"));
    let [none, observed, ratios, control, own] =
        [none, observed, ratios, control, own].map(|samples| samples.spread());
    report.section("a pod's start and stop, observed and not").row(
        "containerd",
        vec![
            Figure::new("observed", "ms", observed).against("not observed", none),
            Figure::new("ratio", "", ratios).at_most(Statistic::P50, 1.03),
            Figure::new("ratio of two without", "", control),
            Figure::new("the daemon's own CPU", "ms a pod", own),
        ],
    );
    Ok(())
}

/// Milliseconds for a pod.
fn cycle(containerd: &Containerd) -> Result<f64> {
    let start = Instant::now();
    for number in 0..PODS {
        let pod = containerd.run_pod(&PodSpec::idle("bench", &format!("pod-{number}")))?;
        containerd.stop_pod(&pod)?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e3 / PODS as f64)
}
