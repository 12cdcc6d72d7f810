//! How soon everything is as before: from each way in which faults end until packets of the last target pass, and until
//! nothing of ours is left.

mod traces;

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use sabot_proto::sabot::v1::{Fault, FaultSpec};
use sabot_testkit::daemon::Client;
use sabot_testkit::{Daemon, Lab, LabPod, Leaks, NetnsRef};

use self::traces::Traces;
use super::Plan;
use super::measure::{Samples, Spread};
use super::pods::Pods;
use super::report::{Figure, Report, Statistic};
use super::rules;
use super::spec;
use super::witness::Witness;
use crate::interrupt;
use crate::ui::Step;

/// Targets of one fault.
const COUNTS: [usize; 4] = [1, 10, 50, 110];
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
const LATENCY: Duration = Duration::from_millis(400);
/// How long a fault with a deadline is in force; attaching to each target takes of it.
const TERM: Duration = Duration::from_secs(3);
const TERM_EACH: Duration = Duration::from_millis(100);
/// What is under way arrives within this time.
const UNDER_WAY: Duration = Duration::from_millis(20);
/// What is asked of a kill, in milliseconds.
const PASSES: f64 = 200.0;
const GONE: f64 = 3000.0;
/// Of more targets the kernel alone takes longer: each of its programs goes after a grace period.
const FEW: usize = 50;

/// How a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Kill,
    Terminate,
    Deadline,
    Delete,
}

impl End {
    const ALL: [Self; 4] = [Self::Kill, Self::Terminate, Self::Deadline, Self::Delete];

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of sabotd",
            Self::Terminate => "SIGTERM to sabotd",
            Self::Deadline => "the fault's deadline",
            Self::Delete => "deleting the fault",
        }
    }

    fn ends_daemon(self) -> bool {
        matches!(self, Self::Kill | Self::Terminate)
    }
}

/// From the end of the faults.
#[derive(Default)]
struct Recovered {
    /// Until packets of the last target pass.
    passes: Samples,
    /// Until nothing is left.
    gone: Samples,
}

struct Scene<'a> {
    plan: &'a Plan,
    lab: Lab,
    pods: Pods,
    /// Targets that weren't cut off before their fault ended.
    open: usize,
}

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let counts = if plan.quick { &COUNTS[..3] } else { &COUNTS };
    let most = counts.iter().max().copied().unwrap_or_default();
    let step = Step::start("pods");
    let lab = Lab::new(1 + most)?;
    let pods = Pods::of(&lab, counts)?;
    let mut scene = Scene {
        plan,
        lab,
        pods,
        open: 0,
    };
    step.done(&format!("{most} targets and their peer"));
    let netns = scene.lab.pods().iter().map(|pod| &**pod.netns());
    let places: Vec<&NetnsRef> = netns.chain([&**scene.lab.node()]).collect();
    let leaks = Leaks::baseline(&places)?;
    let rules = by_rules(&mut scene, counts)?;
    for end in End::ALL {
        let step = Step::start(end.name());
        let title = format!("from {} until all is as before", end.name());
        let section = report.section(&title);
        for (count, rules) in counts.iter().zip(&rules) {
            step.note(&said(*count));
            let mut recovered = Recovered::default();
            for _ in 0..plan.repetitions(5, 1) {
                interrupt::check()?;
                trial(&mut scene, *count, end, &mut recovered)
                    .with_context(|| format!("{}, {}", end.name(), said(*count)))?;
            }
            section.row(said(*count), figures(*count, end, &recovered, rules));
        }
        step.done(&format!("{} counts of targets", counts.len()));
    }
    report.check(
        "cut off until the end",
        scene.open == 0,
        format!(
            "{} targets let packets through before their fault ended",
            scene.open
        ),
    );
    let left = leaks.wait_clean(PATIENCE)?;
    report.check(
        "nothing is left",
        left.is_empty(),
        if left.is_empty() {
            "programs, links, devices and qdiscs are as before".to_owned()
        } else {
            left.join(", ")
        },
    );
    Ok(())
}

fn said(count: usize) -> String {
    match count {
        1 => "1 target".to_owned(),
        _ => format!("{count} targets"),
    }
}

/// Rules that nobody removes outlive whoever made them, so only an end on request has something beside it.
fn figures(count: usize, end: End, recovered: &Recovered, rules: &Recovered) -> Vec<Figure> {
    let passes = Figure::new("last target passes", "ms", recovered.passes.spread());
    let gone = Figure::new("nothing of it is left", "ms", recovered.gone.spread());
    if end.ends_daemon() {
        let passes = passes.at_most(Statistic::P50, PASSES);
        let gone = if count > FEW {
            gone
        } else {
            gone.at_most(Statistic::P50, GONE)
        };
        return vec![passes, gone];
    }
    let beside = |figure: Figure, spread: Spread| figure.beside(rules::NAME, spread);
    vec![
        beside(passes, rules.passes.spread()).at_least(Statistic::Advantage, 1.0),
        beside(gone, rules.gone.spread()),
    ]
}

/// The same partitions as others make them, removed as they remove them.
fn by_rules(scene: &mut Scene<'_>, counts: &[usize]) -> Result<Vec<Recovered>> {
    let step = Step::start(&format!("{}, pod after pod", rules::NAME));
    let mut all = Vec::new();
    for &count in counts {
        let mut recovered = Recovered::default();
        for _ in 0..scene.plan.repetitions(3, 1) {
            let mut witness = scene.witness(count)?;
            rules::cut(scene.targets(count), scene.lab.pod(0).ipv4())?;
            witness.mark()?;
            interrupt::sleep(UNDER_WAY)?;
            let started = Instant::now();
            rules::heal(scene.targets(count))?;
            recovered.gone.push_ms(started.elapsed());
            scene.open += witness.passed()?;
            recovered.passes.push_ms(started.elapsed());
        }
        all.push(recovered);
    }
    step.done(&format!("{} counts of targets", counts.len()));
    Ok(all)
}

/// A daemon with a delay line and a partition on each target, which then end.
fn trial(scene: &mut Scene<'_>, count: usize, end: End, recovered: &mut Recovered) -> Result<()> {
    // Otherwise programs stay attached for a while, to be used again.
    let options = scene.pods.options(&scene.plan.options, &scene.lab);
    let (mut daemon, client) = scene.pods.start(options.flags(&["--keep-warm", "0s"]))?;
    let mut witness = scene.witness(count)?;
    let mut traces = Traces::before(&daemon, &scene.lab, 1 + count)?;
    let cut = inject(scene, &client, count, end)?;
    traces.learn(&daemon, end.ends_daemon())?;
    witness.mark()?;
    interrupt::sleep(UNDER_WAY)?;

    let ended = finish(&daemon, &client, &cut, end)?;
    scene.open += witness.passed()?;
    recovered.passes.push_ms(ended.elapsed());
    traces.wait_gone(PATIENCE)?;
    recovered.gone.push_ms(ended.elapsed());
    if end.ends_daemon() {
        daemon.wait_end(PATIENCE)?;
    }
    Ok(())
}

/// Both faults in force on all targets; returns the partition, which ends last.
fn inject(scene: &Scene<'_>, client: &Client, count: usize, end: End) -> Result<Fault> {
    let peer = spec::address(scene.lab.pod(0).ipv4());
    let slow = spec::fault(Pods::first(count), Vec::new(), spec::delay(LATENCY));
    let cut = spec::fault(Pods::first(count), vec![peer], spec::partition());
    let term = |fault: FaultSpec| {
        if end != End::Deadline {
            return fault;
        }
        let term = TERM + TERM_EACH * count as u32;
        FaultSpec {
            duration: term.try_into().ok(),
            ..fault
        }
    };
    let slow = client.apply("slow", term(slow), spec::PATIENCE)?;
    spec::ensure_injected(&slow, count)?;
    let cut = client.apply("cut", term(cut), spec::PATIENCE)?;
    spec::ensure_injected(&cut, count)?;
    Ok(cut)
}

/// Ends the faults, or waits until they end; returns when.
fn finish(daemon: &Daemon, client: &Client, cut: &Fault, end: End) -> Result<Instant> {
    let now = Instant::now();
    match end {
        End::Kill => daemon.signal(Signal::SIGKILL)?,
        End::Terminate => daemon.signal(Signal::SIGTERM)?,
        End::Delete => {
            client.delete("", "slow")?;
            client.delete("", "cut")?;
        }
        End::Deadline => {
            let status = cut.status.as_ref().context("the fault has no status")?;
            let expiry = status.expires_at.context("the fault never expires")?;
            let left = SystemTime::try_from(expiry)?.duration_since(SystemTime::now());
            let left = left.context("the fault's time was over before all targets were seen")?;
            ensure!(left < PATIENCE, "the fault expires in {left:?}");
            interrupt::sleep(left)?;
            return Ok(now + left);
        }
    }
    Ok(now)
}

impl Scene<'_> {
    fn targets(&self, count: usize) -> &[LabPod] {
        &self.lab.pods()[1..=count]
    }

    fn witness(&self, count: usize) -> Result<Witness> {
        let targets: Vec<&LabPod> = self.targets(count).iter().collect();
        Witness::new(&targets, self.lab.pod(0))
    }
}
