//! What the verifier of this kernel goes through for each program, and how long loading it takes.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use sabot_testkit::verified::{ALWAYS, FLAGS, Loaded, MOST_INSTRUCTIONS, loaded};
use sabot_testkit::{Daemon, Lab};

use super::Plan;
use super::measure::Samples;
use super::report::{Figure, Report, Statistic};
use crate::interrupt;
use crate::ui::Step;

/// What was seen of one program.
#[derive(Default)]
struct Program {
    instructions: Samples,
    load: Samples,
}

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let step = Step::start("programs that are loaded");
    let lab = Lab::new(0)?;
    let rounds = plan.repetitions(9, 2);
    let mut programs: BTreeMap<String, Program> = BTreeMap::new();
    for _ in 0..rounds {
        interrupt::check()?;
        let options = plan.options.clone().netns(lab.node()).flags(&FLAGS);
        let daemon = Daemon::start(options)?;
        let seen = loaded(&daemon.log());
        ensure!(!seen.is_empty(), "the daemon's log names no programs");
        for Loaded {
            program,
            instructions,
            micros,
        } in seen
        {
            let program = programs.entry(program).or_default();
            program.load.push(micros as f64 / 1e3);
            if let Some(count) = instructions {
                program.instructions.push(count as f64);
            }
        }
    }
    step.done(&format!("{} programs, {rounds} times", programs.len()));
    say(report, &programs);
    Ok(())
}

fn say(report: &mut Report, programs: &BTreeMap<String, Program>) {
    let bound = MOST_INSTRUCTIONS as f64;
    let told = programs
        .iter()
        .filter(|(_, program)| program.instructions.spread().repetitions > 0);
    let section = report.section("instructions that the verifier went through");
    let mut over = Vec::new();
    for (name, program) in told {
        let instructions = program.instructions.spread();
        if instructions.max > bound {
            over.push(format!("{name}: {}", instructions.max));
        }
        let figure = Figure::new("verified", "instructions", instructions);
        section.row(name.clone(), vec![figure.at_most(Statistic::Max, bound)]);
    }
    let section = report.section("from the call to the kernel until the program is loaded");
    for (name, program) in programs {
        let figure = Figure::new("time", "ms", program.load.spread());
        section.row(name.clone(), vec![figure]);
    }
    let missing: Vec<&str> = ALWAYS
        .into_iter()
        .filter(|name| !programs.contains_key(*name))
        .collect();
    report.check(
        "every fault has its programs",
        missing.is_empty(),
        if missing.is_empty() {
            ALWAYS.join(", ")
        } else {
            format!("missing: {}", missing.join(", "))
        },
    );
    report.check(
        "within half of the verifier's bound",
        over.is_empty(),
        if over.is_empty() {
            format!("none above {MOST_INSTRUCTIONS} instructions")
        } else {
            over.join(", ")
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Document, Outcome, Part};

    fn document(programs: &[(&str, &[f64])]) -> Document {
        let programs = programs.iter().map(|(name, counts)| {
            let mut program = Program::default();
            program.load.push(2.5);
            for count in *counts {
                program.instructions.push(*count);
            }
            ((*name).to_owned(), program)
        });
        let mut report = Report::new("verifier");
        say(&mut report, &programs.collect());
        let mut document = Document::begin(true).expect("this is Linux");
        document.push(Part::new(report, Outcome::Measured, 1.0));
        document
    }

    #[test]
    fn a_program_over_the_bound_or_a_missing_one_is_wrong() {
        let small: &[f64] = &[1000.0];
        let all: Vec<_> = ALWAYS.into_iter().map(|name| (name, small)).collect();
        assert!(document(&all).is_correct());
        // Of an old kernel only the time is known.
        let untold: Vec<_> = ALWAYS.into_iter().map(|name| (name, &[][..])).collect();
        assert!(document(&untold).is_correct());
        assert!(!document(&all[1..]).is_correct());
        let mut large = all.clone();
        large.push(("queries", &[1000.0, 500_001.0]));
        let large = document(&large);
        assert!(!large.is_correct());
        assert!(large.to_string().contains("queries: 500001"), "{large}");
    }
}
