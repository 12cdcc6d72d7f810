//! What TCP gets through a delay.

use std::time::Duration;

use anyhow::Result;
use sabot_testkit::LabPod;

use super::edt::{self, Edt};
use super::{NAME, Netem, Round, round};
use crate::bench::datapath::iperf;
use crate::bench::fidelity::Scene;
use crate::bench::fidelity::line::enlarge_buffers;
use crate::bench::measure::Samples;
use crate::bench::report::{Figure, Report, Statistic};
use crate::ui::Step;

const FLOWS: [u32; 2] = [1, 4];
/// What ours is to be of netem's.
const GOAL: f64 = 0.9;

/// In Gbit/s.
#[derive(Default)]
struct Case {
    none: Samples,
    ours: Samples,
    netem: Samples,
    edt: Samples,
    /// Ours to netem's of the same round.
    ratio: Samples,
    /// Packets that ours lost although nobody asked for it.
    lost: Samples,
}

impl Case {
    fn push(
        &mut self,
        Round {
            none,
            ours,
            theirs: [netem, edt],
        }: &Round<f64, (f64, u64), 2>,
    ) {
        let (ours, lost) = ours;
        self.lost.push(*lost as f64);
        self.none.push(none / 1e9);
        self.ours.push(ours / 1e9);
        self.netem.push(netem / 1e9);
        self.edt.push(edt / 1e9);
        self.ratio.push(ours / netem);
    }
}

pub(super) fn measure(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    for pod in scene.lab.pods() {
        enlarge_buffers(pod)?;
    }
    let rounds = scene.plan.repetitions(7, 1);
    let seconds = if scene.plan.quick { 1 } else { 3 };
    let step = Step::start("throughput of a delay beside netem and EDT");
    let mut rows = Vec::new();
    for flows in FLOWS {
        let mut case = Case::default();
        for number in 0..rounds {
            step.note(&format!("{flows} flows, round {} of {rounds}", number + 1));
            let run = |from: &LabPod| iperf::streams(from, scene.peer(), flows, seconds);
            case.push(&round(
                number,
                || run(scene.untouched()),
                || {
                    let fault = scene.action("delay: {latency: 5ms}").egress();
                    let (bits, [egress, _]) = scene.under(fault, || run(scene.target()))?;
                    Ok((bits, egress.lost().packets))
                },
                [
                    (
                        NAME,
                        Box::new(|| {
                            let _netem = Netem::on(scene.rival(), "delay 5ms")?;
                            run(scene.rival())
                        }),
                    ),
                    (
                        edt::NAME,
                        Box::new(|| {
                            let _edt = Edt::on(scene.second_rival(), Duration::from_millis(5))?;
                            run(scene.second_rival())
                        }),
                    ),
                ],
            )?);
        }
        rows.push((flows, case));
    }
    step.done(&format!("{rounds} rounds each"));
    say(report, &rows);
    Ok(())
}

fn say(report: &mut Report, rows: &[(u32, Case)]) {
    let section = report.section("TCP throughput with a delay of 5 ms one way");
    for (flows, case) in rows {
        let plural = if *flows == 1 { "" } else { "s" };
        section.row(
            format!("{flows} flow{plural}"),
            vec![
                Figure::new("delay 5 ms", "Gbit/s", case.ours.spread())
                    .more_is_better()
                    .beside(NAME, case.netem.spread())
                    .beside(edt::NAME, case.edt.spread()),
                Figure::new("to netem's of the same round", "", case.ratio.spread())
                    .more_is_better()
                    .at_least(Statistic::P50, GOAL),
                Figure::new("no fault", "Gbit/s", case.none.spread()).more_is_better(),
                Figure::new("lost by ours", "packets", case.lost.spread()),
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Document, Outcome, Part};

    #[test]
    fn the_goal_is_about_pairs_of_one_round() {
        let mut case = Case::default();
        // A machine that gets slower: each time nine tenths, although the medians differ by more.
        for gbits in [9.0, 4.0, 1.0] {
            case.push(&Round {
                none: gbits * 1e9,
                ours: (gbits * 0.9e9, 0),
                theirs: [gbits * 1e9, gbits * 2e9],
            });
        }
        let mut report = Report::new("netem");
        say(&mut report, &[(1, case)]);
        let mut document = Document::begin(true).expect("this is Linux");
        document.push(Part::new(report, Outcome::Measured, 1.0));
        let text = document.to_string();
        assert!(
            text.contains("1 flow ") && text.contains("1 of 1 goals met"),
            "{text}"
        );
    }
}
