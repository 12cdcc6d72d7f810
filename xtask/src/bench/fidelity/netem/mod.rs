//! What is asked of delays and losses, beside `tc netem` on the same kernel and in the same run.
//!
//! Each way of treating a sender has a pod of its own, so that nothing of the one is in the other's path. They take turns,
//! and every other round goes backwards.

mod apply;
mod delays;
mod losses;
mod throughput;

use anyhow::{Context, Result};
use sabot_testkit::LabPod;

use super::Scene;
use crate::bench::Plan;
use crate::bench::report::Report;
use crate::bench::rules;
use crate::interrupt;

/// How reports name it.
const NAME: &str = "netem";
/// Packets in netem's queue; with its own 1,000 a fast stream would lose some to its bound.
const LIMIT: u32 = 100_000;

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    // The target and its peer, one with netem, one without anything.
    let scene = Scene::new(plan, 4)?;
    Netem::on(scene.rival(), "delay 1ms")
        .context("there is no netem here; `--vm` measures in a guest that has it")?;
    delays::measure(&scene, report)?;
    throughput::measure(&scene, report)?;
    losses::measure(&scene, report)?;
    apply::measure(&scene, report)
}

impl Scene<'_> {
    /// The pod that netem stands on.
    fn rival(&self) -> &LabPod {
        self.lab.pod(2)
    }

    /// The pod that nothing is ever done to.
    fn untouched(&self) -> &LabPod {
        self.lab.pod(3)
    }
}

/// `tc netem` on a pod's way out; dropping it removes it.
struct Netem<'a> {
    pod: &'a LabPod,
}

impl<'a> Netem<'a> {
    /// With what it is told, as `delay 10ms`.
    ///
    /// # Errors
    ///
    /// Holds what `tc` said.
    fn on(pod: &'a LabPod, told: &str) -> Result<Self> {
        rules::run(
            pod,
            &format!("tc qdisc add dev eth0 root netem limit {LIMIT} {told}"),
        )?;
        Ok(Self { pod })
    }
}

impl Drop for Netem<'_> {
    fn drop(&mut self) {
        if let Err(error) = rules::run(self.pod, "tc qdisc del dev eth0 root") {
            eprintln!("netem stays: {error:#}");
        }
    }
}

/// What the three senders got in one round; of ours there may be more to tell.
struct Round<T, O = T> {
    none: T,
    ours: O,
    theirs: T,
}

/// Measures the untouched pod, then ours and netem's, or netem's and ours in every other round.
fn round<T, O>(
    number: usize,
    none: impl FnOnce() -> Result<T>,
    ours: impl FnOnce() -> Result<O>,
    theirs: impl FnOnce() -> Result<T>,
) -> Result<Round<T, O>> {
    interrupt::check()?;
    let none = none().context("no fault")?;
    let ours = || ours().context("ours");
    let theirs = || theirs().context(NAME);
    let (ours, theirs) = if number.is_multiple_of(2) {
        let ours = ours()?;
        (ours, theirs()?)
    } else {
        let theirs = theirs()?;
        (ours()?, theirs)
    };
    Ok(Round { none, ours, theirs })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn every_other_round_goes_backwards() {
        let order = RefCell::new(Vec::new());
        let measure = |name| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                Ok(name)
            }
        };
        for number in 0..2 {
            let round = round(number, measure("none"), measure("ours"), measure("theirs"));
            let round = round.expect("nothing fails");
            assert_eq!((round.none, round.ours, round.theirs), ("none", "ours", "theirs"));
        }
        assert_eq!(
            order.into_inner(),
            ["none", "ours", "theirs", "none", "theirs", "ours"]
        );
    }
}
