//! The part that needs another kernel than most machines': measured in a guest, by this same program.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Plan;
use super::report::Report;
use crate::vm::Errand;

/// The oldest of Debian's kernels with all that is measured.
const KERNEL: &str = "6.12";
/// What the guest's part calls that the tests' fixtures don't.
const TOOLS: [&str; 4] = ["iperf3", "nsenter", "ss", "timeout"];
const LIMIT: Duration = Duration::from_secs(45 * 60);

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let this = env::current_exe().context("this program has no path")?;
    let programs = [
        ("sabot/sabotd".to_owned(), plan.options.sabotd.clone()),
        ("sabot/sabot".to_owned(), plan.options.sabot.clone()),
        ("sabot/xtask".to_owned(), this),
    ];
    let errand = Errand {
        name: "netem",
        kernel: KERNEL,
        programs: &programs,
        tools: &TOOLS,
        command: &command(plan.quick),
        limit: LIMIT,
    };
    report.take_in(&errand.document()?)
}

/// What the guest runs.
fn command(quick: bool) -> String {
    let quick = if quick { " --quick" } else { "" };
    format!("/sabot/xtask bench --only netem --json --binaries /sabot{quick}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Arguments;
    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        task: Task,
    }

    #[derive(clap::Subcommand)]
    enum Task {
        Bench(Arguments),
    }

    #[test]
    fn the_guest_understands_what_it_is_told() {
        for quick in [false, true] {
            let command = command(quick);
            let Task::Bench(arguments) = Cli::try_parse_from(command.split(' '))
                .expect("these are arguments")
                .task;
            let jobs = super::super::jobs(&arguments).expect("they go together");
            let names: Vec<&str> = jobs.iter().map(|job| job.name).collect();
            assert_eq!(names, ["netem"]);
            assert!(arguments.json && arguments.quick == quick);
        }
    }
}
