//! What observing TCP, drops and DNS costs a stream.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::SETTLED;
use super::scene::Scene;
use crate::bench::Plan;
use crate::bench::datapath::iperf;
use crate::bench::measure::Samples;
use crate::bench::report::{Figure, Report, Statistic};
use crate::interrupt;
use crate::ui::Step;

/// Between two streams.
const REST: Duration = Duration::from_millis(300);

/// Each round: without, with, and without again, so that a machine that gets slower speaks for neither.
pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let step = Step::start("streams with and without the daemon");
    let rounds = plan.repetitions(45, 1);
    let scene = Scene::new(2)?;
    let [from, to] = [scene.lab.pod(0), scene.lab.pod(1)];
    let run = || {
        thread::sleep(REST);
        iperf::stream(from, to, 1)
    };
    let (mut none, mut observed) = (Samples::default(), Samples::default());
    let (mut ratios, mut control) = (Samples::default(), Samples::default());
    // The first stream of a machine at rest is none of them.
    run()?;
    for round in 0..rounds {
        interrupt::check()?;
        step.note(&format!("round {} of {rounds}", round + 1));
        let before = run()?;
        let with = {
            let _daemon = scene.daemon(plan)?;
            thread::sleep(SETTLED);
            run()?
        };
        let after = run()?;
        none.push(before / 1e9);
        observed.push(with / 1e9);
        ratios.push(2.0 * with / (before + after));
        control.push(after / before);
    }
    step.done(&format!("{rounds} rounds"));
    let [none, observed, ratios, control] = [none, observed, ratios, control].map(|samples| samples.spread());
    report.section("one TCP stream, observed and not").row(
        "iperf3",
        vec![
            Figure::new("observed", "Gbit/s", observed)
                .more_is_better()
                .against("not observed", none),
            Figure::new("ratio", "", ratios)
                .more_is_better()
                .at_least(Statistic::P50, 0.98),
            Figure::new("ratio of two without", "", control),
        ],
    );
    Ok(())
}
