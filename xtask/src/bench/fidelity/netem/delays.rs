//! How exact constant delays are.

use std::time::Duration;

use anyhow::{Result, ensure};
use sabot_testkit::LabPod;
use sabot_testkit::traffic::{Arrival, StampedLoad};

use super::edt::{self, Edt};
use super::{NAME, Netem, Round, round};
use crate::bench::fidelity::delays::errors;
use crate::bench::fidelity::{Scene, median};
use crate::bench::measure::{Samples, Spread};
use crate::bench::report::{Figure, Report, Statistic};
use crate::ui::Step;

const LATENCIES: [u64; 3] = [1, 10, 100];
/// What an emulated machine sends in time.
const PER_SECOND: u32 = 250;

/// Of one way of treating a sender: the middle and the 99th percentile of each round's distances, and how many datagrams
/// didn't arrive.
#[derive(Default)]
struct Distances {
    p50: Samples,
    p99: Samples,
    missing: Samples,
}

impl Distances {
    fn push(&mut self, errors: Spread, sent: u64) {
        self.p50.push(errors.p50);
        self.p99.push(errors.p99);
        self.missing.push(sent as f64 - errors.repetitions as f64);
    }
}

/// One latency's.
#[derive(Default)]
struct Case {
    none: Distances,
    ours: Distances,
    netem: Distances,
    edt: Distances,
}

pub(super) fn measure(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let rounds = scene.plan.repetitions(7, 2);
    let load = StampedLoad {
        datagrams: scene.plan.repetitions(500, 200) as u64,
        payload: 64,
        per_second: PER_SECOND,
    };
    let step = Step::start("constant delays beside netem and EDT");
    let mut rows = Vec::new();
    for millis in LATENCIES {
        let latency = Duration::from_millis(millis);
        let mut case = Case::default();
        for number in 0..rounds {
            step.note(&format!("{millis} ms, round {} of {rounds}", number + 1));
            let Round {
                none,
                ours,
                theirs: [netem, edt],
            } = one(scene, load, latency, number)?;
            // What the path takes is nobody's error.
            let path = median(&none)?;
            let sent = load.datagrams;
            case.none.push(errors(&none, path), sent);
            case.ours.push(errors(&ours, latency + path), sent);
            case.netem.push(errors(&netem, latency + path), sent);
            case.edt.push(errors(&edt, latency + path), sent);
        }
        rows.push((millis, case));
    }
    step.done(&format!("{rounds} rounds of {} datagrams each", load.datagrams));
    say(report, &rows);
    Ok(())
}

fn one(
    scene: &Scene<'_>,
    load: StampedLoad,
    latency: Duration,
    number: usize,
) -> Result<Round<Vec<Arrival>, Vec<Arrival>, 2>> {
    let send = |from: &LabPod| {
        let arrivals = scene.send_from(from, load)?;
        ensure!(!arrivals.is_empty(), "nothing arrived");
        Ok(arrivals)
    };
    let millis = latency.as_millis();
    round(
        number,
        || send(scene.untouched()),
        || {
            let fault = scene.action(&format!("delay: {{latency: {millis}ms}}"));
            let (arrivals, _) = scene.under(fault.egress().port("UDP", None), || send(scene.target()))?;
            Ok(arrivals)
        },
        [
            (
                NAME,
                Box::new(|| {
                    let _netem = Netem::on(scene.rival(), &format!("delay {millis}ms"))?;
                    send(scene.rival())
                }),
            ),
            (
                edt::NAME,
                Box::new(|| {
                    let _edt = Edt::on(scene.second_rival(), latency)?;
                    send(scene.second_rival())
                }),
            ),
        ],
    )
}

fn say(report: &mut Report, rows: &[(u64, Case)]) {
    let title = format!("distance from the asked delay of a round, {PER_SECOND} datagrams a second");
    let section = report.section(&title);
    for (millis, case) in rows {
        let figure = |name: &'static str, of: fn(&Distances) -> &Samples| {
            Figure::new(name, "us", of(&case.ours).spread())
                .beside(NAME, of(&case.netem).spread())
                .beside(edt::NAME, of(&case.edt).spread())
                .at_least(Statistic::Advantage, 1.0)
        };
        section.row(
            format!("delay {millis} ms"),
            vec![
                figure("median", |distances| &distances.p50),
                figure("p99", |distances| &distances.p99),
                Figure::new("no fault: the path's own p99", "us", case.none.p99.spread()),
                Figure::new("missing", "datagrams", case.ours.missing.spread())
                    .beside(NAME, case.netem.missing.spread())
                    .beside(edt::NAME, case.edt.missing.spread()),
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Document, Outcome, Part};

    fn spread(values: &[f64]) -> Spread {
        let mut samples = Samples::default();
        for value in values {
            samples.push(*value);
        }
        samples.spread()
    }

    #[test]
    fn median_and_p99_each_have_their_goal() {
        let mut case = Case::default();
        case.none.push(spread(&[1.0, 9.0]), 2);
        // Nearer in the middle, further at the end.
        case.ours.push(spread(&[10.0, 90.0]), 2);
        case.netem.push(spread(&[20.0, 60.0]), 2);
        case.edt.push(spread(&[20.0, 99.0]), 2);
        let mut report = Report::new("netem");
        say(&mut report, &[(10, case)]);
        let mut document = Document::begin(true).expect("this is Linux");
        document.push(Part::new(report, Outcome::Measured, 1.0));
        let text = document.to_string();
        assert!(text.contains("1 of 2 goals met"), "{text}");
        let behind = text.split("where a peer is better").nth(1);
        let behind = behind.expect("the section is there");
        assert!(
            behind.contains("delay 10 ms, p99") && !behind.contains("median  "),
            "{behind}"
        );
    }
}
