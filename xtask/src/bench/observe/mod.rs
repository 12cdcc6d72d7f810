//! `cargo xtask bench observe`: what it costs to be observed, beside the tools that one would use instead.

mod cycles;
mod events;
mod idle;
mod scene;
mod streams;
mod syscalls;
mod tracers;

use std::time::Duration;

use anyhow::Result;

use super::Plan;
use super::report::Report;

/// Until what a daemon does at its start has ended. Loops without one begin after as long a rest.
const SETTLED: Duration = Duration::from_secs(2);

type Scene = fn(&Plan, &mut Report) -> Result<()>;

const SCENES: [(&str, Scene); 5] = [
    ("syscalls", syscalls::measure),
    ("events", events::measure),
    ("streams", streams::measure),
    ("pods", cycles::measure),
    ("idle", idle::measure),
];

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    for measure in plan.chosen(&SCENES)? {
        measure(plan, report)?;
    }
    Ok(())
}
