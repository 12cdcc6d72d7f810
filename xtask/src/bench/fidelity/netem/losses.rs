//! What share of its wire packets a bulk stream loses, which the kernel hands over as super-packets.
//!
//! How many were sent is what the sender's TCP counts, how many arrived is what a capture at the receiver counts from the
//! segment sizes; neither knows who lost what is between them.

use std::time::Duration;

use anyhow::{Result, ensure};
use sabot_testkit::snmp::{snmp, tcp_rests};
use sabot_testkit::wire::{WireCapture, WireFilter};
use sabot_testkit::witness::Side;
use sabot_testkit::{Books, LabPod};

use super::{NAME, Netem, Round, round};
use crate::bench::datapath::iperf;
use crate::bench::fidelity::Scene;
use crate::bench::measure::{Samples, single};
use crate::bench::report::{Figure, Report, Statistic};
use crate::ui::Step;

const PERCENTS: [f64; 2] = [1.0, 5.0];
/// How many times nearer to what was asked ours is to be.
const GOAL: f64 = 10.0;
/// Until the stream's end is acknowledged, also when that is lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// A capture that has seen nothing for so long has seen everything.
const QUIET: Duration = Duration::from_millis(500);

/// Wire packets of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wire {
    sent: u64,
    arrived: u64,
}

impl Wire {
    fn lost(self) -> u64 {
        self.sent - self.arrived
    }

    fn percent(self) -> f64 {
        self.lost() as f64 / self.sent as f64 * 100.0
    }
}

/// One tool's rounds.
#[derive(Default)]
struct Tally {
    all: Wire,
    /// Of each round, in percentage points.
    off: Samples,
}

impl Tally {
    fn push(&mut self, wire: Wire, asked: f64) {
        self.all.sent += wire.sent;
        self.all.arrived += wire.arrived;
        self.off.push((wire.percent() - asked).abs());
    }
}

struct Case {
    asked: f64,
    ours: Tally,
    theirs: Tally,
}

pub(super) fn measure(scene: &Scene<'_>, report: &mut Report) -> Result<()> {
    let rounds = scene.plan.repetitions(9, 2);
    let step = Step::start("losses of bulk TCP beside netem");
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for asked in PERCENTS {
        let mut case = Case {
            asked,
            ours: Tally::default(),
            theirs: Tally::default(),
        };
        for number in 0..rounds {
            step.note(&format!("{asked} %, round {} of {rounds}", number + 1));
            let Round {
                none,
                ours,
                theirs: [theirs],
            } = one(scene, asked, number)?;
            let (ours, counted) = ours;
            wrong.extend(unbooked(ours, &counted));
            if none.lost() != 0 {
                wrong.push(format!("the path itself lost {} of {}", none.lost(), none.sent));
            }
            case.ours.push(ours, asked);
            case.theirs.push(theirs, asked);
        }
        rows.push(case);
    }
    step.done(&format!("{rounds} rounds each"));
    say(report, &rows);
    report.check(
        "the ledger has what was sent and what was lost",
        wrong.is_empty(),
        if wrong.is_empty() {
            format!("in {} rounds", rounds * PERCENTS.len())
        } else {
            wrong.join("; ")
        },
    );
    Ok(())
}

fn one(scene: &Scene<'_>, asked: f64, number: usize) -> Result<Round<Wire, (Wire, Books)>> {
    let stream = |from: &LabPod| stream(scene, from);
    round(
        number,
        || stream(scene.untouched()),
        || {
            let fault = scene.action(&format!("drop: {{percent: {asked}}}"));
            let fault = fault.egress().port("TCP", None);
            let (wire, [egress, _]) = scene.under_seeded(fault, number as u64, || stream(scene.target()))?;
            Ok((wire, egress))
        },
        [(
            NAME,
            Box::new(|| {
                let _netem = Netem::on(scene.rival(), &format!("loss {asked}%"))?;
                stream(scene.rival())
            }),
        )],
    )
}

/// Everybody sends as much: of more packets chance is further from none.
fn stream(scene: &Scene<'_>, from: &LabPod) -> Result<Wire> {
    let bytes = scene.plan.repetitions(15_000_000, 3_000_000) as u64;
    let peer = scene.peer();
    let filter = WireFilter {
        protocol: Some(libc::IPPROTO_TCP as u8),
        source: Some(from.ipv4()),
        ..WireFilter::default()
    };
    let capture = WireCapture::on(peer.netns(), "eth0", Side::Ingress, filter)?;
    // The kernel counts what is sent again apart from what is sent.
    let segments = || -> Result<u64> {
        let counter = |name| snmp(from.netns(), "Tcp", name);
        Ok(counter("OutSegs")? + counter("RetransSegs")?)
    };
    let before = segments()?;
    iperf::transfer(from, peer, bytes)?;
    tcp_rests(from.netns(), PATIENCE)?;
    let wire = Wire {
        arrived: capture.count_after(QUIET)?.packets,
        sent: segments()? - before,
    };
    ensure!(
        wire.sent >= wire.arrived && wire.arrived > 0,
        "of {} packets {} arrived",
        wire.sent,
        wire.arrived
    );
    Ok(wire)
}

/// What of the fault's own counts isn't what others counted.
fn unbooked(wire: Wire, counted: &Books) -> Option<String> {
    let booked = [counted.matched.packets, counted.dropped.packets];
    (booked != [wire.sent, wire.lost()]).then(|| {
        let [sent, lost] = booked;
        format!(
            "{} of {} were lost, and {lost} of {sent} are booked",
            wire.lost(),
            wire.sent
        )
    })
}

fn say(report: &mut Report, rows: &[Case]) {
    let section =
        report.section("share of its wire packets that a TCP stream lost, each round against what was asked");
    for Case { asked, ours, theirs } in rows {
        section.row(
            format!("drop {asked} %"),
            vec![
                Figure::new("off by", "percentage points", ours.off.spread())
                    .beside(NAME, theirs.off.spread())
                    .at_least(Statistic::Advantage, GOAL),
                Figure::new("of all", "% lost", single(ours.all.percent())),
                Figure::new("of all with netem", "% lost", single(theirs.all.percent())),
                Figure::new("sent", "packets", single(ours.all.sent as f64)),
                Figure::new("sent with netem", "packets", single(theirs.all.sent as f64)),
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Document, Outcome, Part};

    fn wire(sent: u64, lost: u64) -> Wire {
        Wire {
            sent,
            arrived: sent - lost,
        }
    }

    #[test]
    fn each_round_is_held_against_what_was_asked() {
        let mut case = Case {
            asked: 1.0,
            ours: Tally::default(),
            theirs: Tally::default(),
        };
        // Too much and too little: together they are right, each for itself isn't.
        for (ours, theirs) in [(101, 150), (99, 50)] {
            case.ours.push(wire(10_000, ours), case.asked);
            case.theirs.push(wire(10_000, theirs), case.asked);
        }
        assert_eq!(case.theirs.all.percent(), 1.0);
        let mut report = Report::new("netem");
        say(&mut report, &[case]);
        let mut document = Document::begin(true).expect("this is Linux");
        document.push(Part::new(report, Outcome::Measured, 1.0));
        let text = document.to_string();
        assert!(
            text.contains("netem: 0.50") && text.contains("1 of 1 goals met"),
            "{text}"
        );
    }

    #[test]
    fn a_ledger_that_others_dont_confirm_is_told() {
        let mut books = Books::default();
        books.matched.packets = 1000;
        books.dropped.packets = 9;
        assert_eq!(unbooked(wire(1000, 9), &books), None);
        let said = unbooked(wire(1000, 10), &books).expect("it differs");
        assert_eq!(said, "10 of 1000 were lost, and 9 of 1000 are booked");
    }
}
