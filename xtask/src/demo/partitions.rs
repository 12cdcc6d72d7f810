//! Partitions of a TCP connection that is established already.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::report::Outcome;
use super::scene::{PATIENCE, Probes, Scene, ms};
use crate::interrupt;
use crate::ui::Step;

const HELD: Duration = Duration::from_secs(1);
/// What is on its way when the fault comes in force arrives within this time.
const IN_FLIGHT: Duration = Duration::from_millis(50);

pub(super) fn one_way(scene: &mut Scene<'_>, step: &Step) -> Result<Outcome> {
    let seen = observe(scene, step, "demo-cut-ingress", "ingress")?;
    Ok(Outcome {
        asked:
            "ingress: requests arrive, answers don't, the stream stalls and resumes on the same connection"
                .into(),
        measured: seen.text(),
        ok: seen.is_cut() && seen.arrived * 10 >= seen.sent * 9,
    })
}

pub(super) fn both_ways(scene: &mut Scene<'_>, step: &Step) -> Result<Outcome> {
    let seen = observe(scene, step, "demo-cut", "both")?;
    Ok(Outcome {
        asked: "both: nothing arrives, the stream stalls and resumes on the same connection".into(),
        measured: seen.text(),
        ok: seen.is_cut() && seen.arrived == 0,
    })
}

/// What was seen of a partition.
struct Seen {
    /// Probes that the client sent while it held, and what became of them.
    sent: usize,
    arrived: usize,
    answered: usize,
    bystander_lost: usize,
    /// Pieces that came back on the stream while it held.
    progress: usize,
    /// From the fault's end until data came back on the stream.
    resumed: Option<Duration>,
    broken: Option<String>,
}

impl Seen {
    fn is_cut(&self) -> bool {
        self.sent > 0
            && self.answered == 0
            && self.bystander_lost == 0
            && self.progress == 0
            && self.resumed.is_some()
            && self.broken.is_none()
    }

    fn text(&self) -> String {
        let stream = match (&self.broken, self.resumed) {
            (Some(reason), _) => format!("the stream broke: {reason}"),
            (None, None) => "the stream didn't resume".to_owned(),
            (None, Some(after)) => format!(
                "stream: {} pieces while cut, same connection {} after its end",
                self.progress,
                ms(after)
            ),
        };
        format!(
            "of {} probes {} arrived, {} were answered; bystander lost {}; {stream}",
            self.sent, self.arrived, self.answered, self.bystander_lost
        )
    }
}

fn observe(scene: &mut Scene<'_>, step: &Step, name: &str, direction: &str) -> Result<Seen> {
    let probes = scene.probes()?;
    let stream = scene.stream()?;
    scene.apply(step, name, &["partition", "--direction", direction], "60s")?;
    interrupt::sleep(IN_FLIGHT)?;
    let from = Instant::now();
    step.note("an established TCP stream and paced probes under partition");
    interrupt::sleep(HELD)?;
    let until = Instant::now();
    let progress = stream.backs_between(from, until);
    scene.delete(step)?;
    let healed = Instant::now();
    let resumed = stream.wait_back(healed, PATIENCE);
    probes
        .client
        .wait_pass(healed, PATIENCE)
        .context("probes don't pass after the fault")?;
    Ok(Seen {
        progress,
        resumed,
        broken: stream.broken(),
        ..count(&probes, from, until)
    })
}

fn count(probes: &Probes, from: Instant, until: Instant) -> Seen {
    let samples = probes.client.between(from, until);
    Seen {
        sent: samples.len(),
        // What was sent last may arrive only after the fault.
        arrived: samples
            .iter()
            .filter(|sample| sample.arrived.is_some_and(|arrived| arrived < until))
            .count(),
        answered: samples
            .iter()
            .filter(|sample| sample.answered.is_some_and(|answered| answered < until))
            .count(),
        bystander_lost: probes.bystander_lost(from, until),
        progress: 0,
        resumed: None,
        broken: None,
    }
}
