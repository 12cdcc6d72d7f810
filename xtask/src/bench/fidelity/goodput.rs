//! What TCP makes of a loss and a delay, beside what theory says that it makes of them.

use std::time::Duration;

use anyhow::Result;
use sabot_testkit::Spec;

use super::Scene;
use crate::bench::datapath::iperf;
use crate::bench::measure::{Samples, single};
use crate::bench::report::{Figure, Report};
use crate::bench::spec;
use crate::interrupt;
use crate::ui::Step;

/// One way; what a pod's link adds to the round trip is some thousandths of it.
const LATENCY: Duration = Duration::from_millis(20);
/// In percent.
const LOSSES: [f64; 4] = [0.1, 0.5, 1.0, 2.0];
/// What a run takes besides its own time, at most.
const OVERHEAD: Duration = Duration::from_secs(15);
/// Payload of a full segment: an MTU of 1,500 less the headers of IPv4 and of TCP with timestamps.
const SEGMENT: f64 = 1448.0;
/// Of Mathis, Semke, Mahdavi and Ott (1997), for periodic losses and an acknowledgement of each segment.
const CONSTANT: f64 = 1.224_744_871;
const DELAY: &str = "round-trip";

/// Bits per second that the model expects of TCP Reno.
fn mathis(loss: f64, round_trip: Duration) -> f64 {
    SEGMENT * 8.0 / round_trip.as_secs_f64() * CONSTANT / loss.sqrt()
}

pub(super) fn measure(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let rounds = scene.plan.repetitions(5, 1);
    let seconds = if scene.plan.quick { 2 } else { 10 };
    let step = Step::start("TCP under loss and delay");
    let runs = (LOSSES.len() * rounds) as u32;
    let delay = Spec::delay(scene.target(), LATENCY).egress().port("TCP", None);
    let delay = delay.lasting(runs * (Duration::from_secs(seconds.into()) + OVERHEAD));
    let answer = scene.client.apply(DELAY, delay.into(), spec::PATIENCE)?;
    spec::ensure_injected(&answer, 1)?;
    let mut rows = Vec::new();
    for percent in LOSSES {
        let mut goodput = Samples::default();
        for round in 0..rounds {
            interrupt::check()?;
            step.note(&format!("{percent} %, round {} of {rounds}", round + 1));
            let fault = scene.action(&format!("drop: {{percent: {percent}}}"));
            let run = || iperf::reno(scene.target(), scene.peer(), seconds);
            let (received, _) = scene.under(fault.egress().port("TCP", None), run)?;
            goodput.push(received / 1e6);
        }
        rows.push((percent, goodput.spread()));
    }
    scene.end(DELAY)?;
    step.done(&format!("{rounds} runs of {seconds} s each"));
    let section = report.section("goodput of TCP Reno under a delay of 20 ms one way");
    for (percent, goodput) in rows {
        let expected = mathis(percent / 100.0, LATENCY) / 1e6;
        let figure = Figure::new("goodput", "Mbit/s", goodput).more_is_better();
        let ratio = Figure::new("of the model", "", single(goodput.p50 / expected)).more_is_better();
        section.row(
            format!("{percent} % lost"),
            vec![figure.against("Mathis model", single(expected)), ratio],
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_the_published_one() {
        // 1 % of loss and 20 ms: 1448 * 8 / 0.02 * 1.2247 / 0.1.
        let expected = mathis(0.01, Duration::from_millis(20));
        assert!((expected - 7_093_721.0).abs() < 100.0, "{expected}");
        // Four times the loss, or twice the round trip, is half as fast.
        assert!((mathis(0.04, LATENCY) * 2.0 - mathis(0.01, LATENCY)).abs() < 1.0);
        assert!((mathis(0.01, LATENCY * 2) * 2.0 - mathis(0.01, LATENCY)).abs() < 1.0);
    }
}
