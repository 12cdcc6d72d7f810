//! What Sabot takes of a node: binaries, memory and CPU at rest, for each target and for each fault.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sabot_testkit::daemon::Client;
use sabot_testkit::{Daemon, Lab};

use super::Plan;
use super::measure::{Samples, single};
use super::pods::Pods;
use super::report::{Figure, Report, Statistic};
use super::spec;
use super::usage::{Memory, cpu_time};
use crate::build::Binaries;
use crate::image;
use crate::interrupt;
use crate::ui::Step;

/// Targets of one fault.
const COUNTS: [usize; 3] = [0, 50, 250];
const QUICK_COUNTS: [usize; 3] = [0, 10, 50];
/// Faults that are added to one target, which takes 64.
const FAULTS: usize = 50;
const KIBIBYTE: f64 = 1024.0;
const MEBIBYTE: f64 = 1048576.0;
/// What is asked of a daemon with 50 targets.
const RESIDENT: f64 = 48.0;
const IDLE: f64 = 0.5;

/// What a daemon took with so many targets.
struct Taken {
    targets: usize,
    resident: Samples,
    maps: Samples,
    cpu: Samples,
    /// What applying the fault took.
    apply: Samples,
}

/// What each of many faults took more.
#[derive(Default)]
struct More {
    resident: Samples,
    maps: Samples,
    apply: Samples,
}

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    binaries(plan, report)?;
    let counts = if plan.quick { QUICK_COUNTS } else { COUNTS };
    let mut all = Vec::new();
    let mut faults = More::default();
    for targets in counts {
        let step = Step::start(&format!("a daemon with {targets} targets"));
        // The first pod is nobody's target.
        let lab = Lab::new(1 + targets)?;
        let pods = Pods::of(&lab, &[targets])?;
        let mut taken = Taken {
            targets,
            resident: Samples::default(),
            maps: Samples::default(),
            cpu: Samples::default(),
            apply: Samples::default(),
        };
        let rounds = plan.repetitions(3, 1);
        for _ in 0..rounds {
            interrupt::check()?;
            let (daemon, client) = pods.start(pods.options(&plan.options, &lab))?;
            at_rest(plan, &daemon, &client, &mut taken)?;
            if targets == counts[1] {
                more_faults(&lab, &daemon, &client, &mut faults)?;
            }
        }
        step.done(&format!("{rounds} times"));
        all.push(taken);
    }
    say(report, &all, &faults);
    Ok(())
}

fn binaries(plan: &Plan, report: &mut Report) -> Result<()> {
    let section = report.section("binaries");
    for (name, path) in [("sabotd", &plan.options.sabotd), ("sabot", &plan.options.sabot)] {
        let bytes = fs::metadata(path)
            .with_context(|| format!("{} can't be looked at", path.display()))?
            .len();
        let size = single(bytes as f64 / MEBIBYTE);
        section.row(name, vec![Figure::new("size", "MiB", size)]);
    }
    let scratch = tempfile::tempdir().context("a folder for the image can't be made")?;
    let (sabotd, sabot) = (plan.options.sabotd.clone(), plan.options.sabot.clone());
    let binaries = Binaries { sabotd, sabot };
    let written = image::write(&binaries, "sabot:bench", &scratch.path().join("image.tar"))?;
    for (name, bytes) in [
        ("image, compressed", written.archive),
        ("image, unpacked", written.unpacked),
    ] {
        let size = single(bytes as f64 / MEBIBYTE);
        section.row(name, vec![Figure::new("size", "MiB", size)]);
    }
    Ok(())
}

/// One partition of all targets, and what the daemon takes while nothing happens.
fn at_rest(plan: &Plan, daemon: &Daemon, client: &Client, taken: &mut Taken) -> Result<()> {
    if taken.targets > 0 {
        let fault = spec::fault(Pods::first(taken.targets), Vec::new(), spec::partition());
        let started = Instant::now();
        let answer = client.apply("all", fault, spec::PATIENCE)?;
        taken.apply.push_ms(started.elapsed());
        spec::ensure_injected(&answer, taken.targets)?;
    }
    let [rest, window] = if plan.quick { [1, 3] } else { [10, 30] }.map(Duration::from_secs);
    // Until what began with the last change has ended.
    thread::sleep(rest);
    let before = cpu_time(daemon.pid())?;
    thread::sleep(window);
    let spent = cpu_time(daemon.pid())?.saturating_sub(before);
    let memory = Memory::of(daemon)?;
    taken.cpu.push(spent.as_secs_f64() / window.as_secs_f64() * 100.0);
    taken.resident.push(memory.process as f64 / MEBIBYTE);
    taken.maps.push(memory.maps as f64 / MEBIBYTE);
    Ok(())
}

/// Many faults on one target, which is attached already.
fn more_faults(lab: &Lab, daemon: &Daemon, client: &Client, more: &mut More) -> Result<()> {
    let before = Memory::of(daemon)?;
    let peer = spec::address(lab.pod(0).ipv4());
    for number in 0..FAULTS {
        interrupt::check()?;
        let target = spec::netns(lab.pod(1));
        let fault = spec::fault(target, vec![peer.clone()], spec::drop_share(1.0));
        let started = Instant::now();
        let answer = client.apply(&format!("more-{number}"), fault, spec::PATIENCE)?;
        more.apply.push_ms(started.elapsed());
        spec::ensure_injected(&answer, 1)?;
    }
    let after = Memory::of(daemon)?;
    let each = |before: u64, after: u64| (after as f64 - before as f64) / KIBIBYTE / FAULTS as f64;
    more.resident.push(each(before.process, after.process));
    more.maps.push(each(before.maps, after.maps));
    Ok(())
}

fn say(report: &mut Report, all: &[Taken], faults: &More) {
    let section = report.section("a daemon at rest, all its targets in one fault");
    for (index, taken) in all.iter().enumerate() {
        let mut resident = Figure::new("resident", "MiB", taken.resident.spread());
        let mut cpu = Figure::new("CPU", "% of a core", taken.cpu.spread());
        // The largest node is without a goal.
        if index < 2 {
            resident = resident.at_most(Statistic::P50, RESIDENT);
            cpu = cpu.at_most(Statistic::P50, IDLE);
        }
        let maps = Figure::new("maps in the kernel", "MiB", taken.maps.spread());
        section.row(format!("{} targets", taken.targets), vec![resident, cpu, maps]);
    }
    let section = report.section("what one more takes");
    if let [.., few, many] = all {
        let each = |of: fn(&Taken) -> &Samples| each_more(few, many, of);
        section.row(
            format!("target, from {} to {}", few.targets, many.targets),
            vec![
                Figure::new(
                    "resident",
                    "KiB",
                    single(each(|taken| &taken.resident) * KIBIBYTE),
                ),
                Figure::new(
                    "maps in the kernel",
                    "KiB",
                    single(each(|taken| &taken.maps) * KIBIBYTE),
                ),
                Figure::new("apply", "ms", single(each(|taken| &taken.apply))),
            ],
        );
    }
    section.row(
        format!("fault, {FAULTS} on one target"),
        vec![
            Figure::new("resident", "KiB", faults.resident.spread()),
            Figure::new("maps in the kernel", "KiB", faults.maps.spread()),
            Figure::new("apply", "ms", faults.apply.spread()),
        ],
    );
}

/// What one target more takes, by the medians of two counts.
fn each_more(few: &Taken, many: &Taken, of: fn(&Taken) -> &Samples) -> f64 {
    let more = of(many).spread().p50 - of(few).spread().p50;
    more / (many.targets - few.targets) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Document, Outcome, Part};

    fn taken(targets: usize, resident: f64) -> Taken {
        let samples = |value: f64| {
            let mut samples = Samples::default();
            samples.push(value);
            samples
        };
        Taken {
            targets,
            resident: samples(resident),
            maps: samples(43.0),
            cpu: samples(0.1),
            apply: samples(targets as f64 * 2.0),
        }
    }

    #[test]
    fn one_more_target_is_the_slope_between_two_counts() {
        let all = [taken(0, 20.0), taken(50, 25.0), taken(250, 125.0)];
        assert_eq!(each_more(&all[1], &all[2], |taken| &taken.resident), 0.5);
        let mut report = Report::new("footprint");
        say(&mut report, &all, &More::default());
        let mut document = Document::begin(true).expect("this is Linux");
        document.push(Part::new(report, Outcome::Measured, 1.0));
        let text = document.to_string();
        // 100 MiB for 200 targets.
        assert!(
            text.contains("target, from 50 to 250") && text.contains("512"),
            "{text}"
        );
        assert!(text.contains("4 of 4 goals met"), "{text}");
    }
}
