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

/// What leaves the observers of the network alone: TCP, drops and DNS.
const NETWORK_ALONE: [&str; 4] = ["--syscalls", "never", "--cri-calls", "false"];

/// Each round: none, the network observed, none, all observed, none; each is compared with those before and after it, so that
/// a machine that gets slower speaks for neither.
pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let step = Step::start("streams with and without the daemon");
    let rounds = plan.repetitions(45, 1);
    let scene = Scene::new(2)?;
    let [from, to] = [scene.lab.pod(0), scene.lab.pod(1)];
    let run = || {
        thread::sleep(REST);
        iperf::stream(from, to, 1)
    };
    let observed = |flags: &[&str]| {
        let _daemon = scene.daemon(plan, flags)?;
        thread::sleep(SETTLED);
        run()
    };
    let (mut network, mut all, mut control) = (Beside::default(), Beside::default(), Beside::default());
    // The first stream of a machine at rest is none of them.
    run()?;
    for round in 0..rounds {
        interrupt::check()?;
        step.note(&format!("round {} of {rounds}", round + 1));
        let before = run()?;
        let with_network = observed(&NETWORK_ALONE)?;
        let between = run()?;
        let with_all = observed(&[])?;
        let after = run()?;
        network.push(with_network, before, between);
        all.push(with_all, between, after);
        control.push(between, before, after);
    }
    step.done(&format!("{rounds} rounds"));
    let section = report.section("one TCP stream, observed and not");
    let (figures, ratio) = network.figures();
    section.row(
        "TCP, drops and DNS",
        vec![figures, ratio.at_least(Statistic::P50, 0.98)],
    );
    let (figures, ratio) = all.figures();
    section.row("syscalls and calls of the runtime as well", vec![figures, ratio]);
    let (figures, ratio) = control.figures();
    section.row("nothing", vec![figures, ratio]);
    Ok(())
}

/// Streams, each beside those before and after it.
#[derive(Default)]
struct Beside {
    /// Gbit/s.
    streams: Samples,
    neighbours: Samples,
    ratios: Samples,
}

impl Beside {
    /// All in bit/s.
    fn push(&mut self, stream: f64, before: f64, after: f64) {
        let neighbour = (before + after) / 2.0;
        self.streams.push(stream / 1e9);
        self.neighbours.push(neighbour / 1e9);
        self.ratios.push(stream / neighbour);
    }

    /// The streams, and what share of their neighbours' throughput they had.
    fn figures(self) -> (Figure, Figure) {
        let streams = Figure::new("observed", "Gbit/s", self.streams.spread())
            .more_is_better()
            .against("not observed", self.neighbours.spread());
        let ratio = Figure::new("ratio", "", self.ratios.spread()).more_is_better();
        (streams, ratio)
    }
}
