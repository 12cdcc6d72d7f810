//! What is asked of delays and losses, beside `tc netem` and, where a delay is constant, beside departure times and `sch_fq`:
//! on the same kernel and in the same run.
//!
//! Each way of treating a sender has a pod of its own, so that nothing of the one is in the other's path. They take turns,
//! and every other round goes backwards.

mod apply;
mod delays;
mod edt;
mod losses;
mod throughput;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sabot_testkit::LabPod;

use self::edt::Edt;
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
    // The target and its peer, one with netem, one without anything, one with departure times.
    let scene = Scene::new(plan, 5)?;
    Netem::on(scene.rival(), "delay 1ms")
        .context("there is no netem here; `--vm` measures in a guest that has it")?;
    Edt::on(scene.second_rival(), Duration::from_millis(1))
        .context("there is no fq here, or no tcx; `--vm` measures in a guest that has them")?;
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

    /// The pod whose packets are told when to depart.
    fn second_rival(&self) -> &LabPod {
        self.lab.pod(4)
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

/// What the senders got in one round; of ours there may be more to tell.
struct Round<T, O = T, const N: usize = 1> {
    none: T,
    ours: O,
    theirs: [T; N],
}

/// Another tool, and how it is measured.
type Rival<'a, T> = (&'static str, Box<dyn FnOnce() -> Result<T> + 'a>);

/// Measures the untouched pod, then ours and the others', or the last of the others first and ours last in every other
/// round.
fn round<T, O, const N: usize>(
    number: usize,
    none: impl FnOnce() -> Result<T>,
    ours: impl FnOnce() -> Result<O>,
    theirs: [Rival<'_, T>; N],
) -> Result<Round<T, O, N>> {
    interrupt::check()?;
    let none = none().context("no fault")?;
    let ours = || ours().context("ours");
    let measure = |rival: Rival<'_, T>| (rival.1)().context(rival.0);
    let (ours, theirs) = if number.is_multiple_of(2) {
        let ours = ours()?;
        (ours, in_order(theirs.into_iter().map(measure))?)
    } else {
        let mut theirs = in_order::<_, N>(theirs.into_iter().rev().map(measure))?;
        theirs.reverse();
        (ours()?, theirs)
    };
    Ok(Round { none, ours, theirs })
}

/// Stops at the first that fails.
fn in_order<T, const N: usize>(measured: impl Iterator<Item = Result<T>>) -> Result<[T; N]> {
    let measured: Vec<T> = measured.collect::<Result<_>>()?;
    let count = measured.len();
    <[T; N]>::try_from(measured).map_err(|_| anyhow!("{count} of {N} were measured"))
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
            let theirs: [Rival<'_, _>; 2] = [
                ("a", Box::new(measure("first"))),
                ("b", Box::new(measure("second"))),
            ];
            let round = round(number, measure("none"), measure("ours"), theirs);
            let round = round.expect("nothing fails");
            assert_eq!((round.none, round.ours), ("none", "ours"));
            assert_eq!(round.theirs, ["first", "second"]);
        }
        assert_eq!(
            order.into_inner(),
            [
                "none", "ours", "first", "second", "none", "second", "first", "ours"
            ]
        );
    }
}
