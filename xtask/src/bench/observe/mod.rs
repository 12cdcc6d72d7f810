//! `cargo xtask bench observe`: what it costs to be observed, beside the tools that one would use instead.

mod cycles;
mod idle;
mod scene;
mod streams;
mod syscalls;
mod tracers;

use anyhow::Result;

use super::Plan;
use super::report::Report;

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    syscalls::measure(plan, report)?;
    streams::measure(plan, report)?;
    cycles::measure(plan, report)?;
    idle::measure(plan, report)
}
