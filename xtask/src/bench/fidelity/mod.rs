//! `cargo xtask bench fidelity`: how near to what was asked each fault comes, per wire packet.

mod answers;
mod delays;
mod goodput;
mod line;
mod losses;
mod netem;
mod rates;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use sabot_proto::sabot::v1::{Direction, Fault};
use sabot_testkit::daemon::Client;
use sabot_testkit::traffic::{Arrival, StampedLoad};
use sabot_testkit::{Books, Daemon, Lab, LabPod, Spec};

use super::Plan;
use super::report::Report;
use super::spec;
use crate::ui::Step;

/// Nothing more comes when nothing has come for so long.
const QUIET: Duration = Duration::from_secs(1);
const SEED: u64 = 7;

/// A target, its peer, and whoever else a scene has.
struct Scene<'a> {
    plan: &'a Plan,
    lab: Lab,
    daemon: Daemon,
    client: Client,
}

type Measure = fn(&Scene<'_>, &mut Report) -> Result<()>;

const SCENES: [(&str, Measure); 7] = [
    ("losses", losses::measure),
    ("goodput", goodput::measure),
    ("delays", delays::measure),
    ("rates", rates::measure),
    ("answers", answers::measure),
    ("throughput", line::throughput),
    ("idle", line::idle),
];

const DELAY: [Measure; 3] = [delays::measure, line::throughput, line::idle];
const LOSS: [Measure; 2] = [losses::measure, goodput::measure];
const RATE: [Measure; 2] = [rates::measure, answers::measure];

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    all(plan, report, &plan.chosen(&SCENES)?)
}

/// What is asked of delays.
pub(super) fn delay(plan: &Plan, report: &mut Report) -> Result<()> {
    all(plan, report, &DELAY)
}

/// What is asked of losses.
pub(super) fn loss(plan: &Plan, report: &mut Report) -> Result<()> {
    all(plan, report, &LOSS)
}

/// What is asked of rates and of answers.
pub(super) fn rate(plan: &Plan, report: &mut Report) -> Result<()> {
    all(plan, report, &RATE)
}

/// What is asked of delays and losses, beside `tc netem` on this kernel.
pub(super) fn netem(plan: &Plan, report: &mut Report) -> Result<()> {
    netem::run(plan, report)
}

fn all(plan: &Plan, report: &mut Report, scenes: &[Measure]) -> Result<()> {
    let scene = Scene::new(plan, 2)?;
    for measure in scenes {
        measure(&scene, report)?;
    }
    Ok(())
}

impl<'a> Scene<'a> {
    fn new(plan: &'a Plan, pods: usize) -> Result<Self> {
        let step = Step::start("pods and sabotd");
        let lab = Lab::new(pods)?;
        let daemon = Daemon::start(plan.options.clone().netns(lab.node()))?;
        let client = daemon.client()?;
        let scene = Self {
            plan,
            lab,
            daemon,
            client,
        };
        step.done(&format!("ready, pid {}", scene.daemon.pid()));
        Ok(scene)
    }

    fn target(&self) -> &LabPod {
        self.lab.pod(0)
    }

    fn peer(&self) -> &LabPod {
        self.lab.pod(1)
    }

    /// Does something while a fault is in force; with the fault's last counters on egress and on ingress.
    fn under<T>(&self, fault: Spec, act: impl FnOnce() -> Result<T>) -> Result<(T, [Books; 2])> {
        self.under_seeded(fault, SEED, act)
    }

    /// The same with randomness of its own, for rounds that are to be independent of each other.
    fn under_seeded<T>(
        &self,
        fault: Spec,
        seed: u64,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<(T, [Books; 2])> {
        const NAME: &str = "fidelity";
        let answer = self.client.apply(NAME, fault.seed(seed).into(), spec::PATIENCE)?;
        spec::ensure_injected(&answer, 1)?;
        let done = act();
        // What is still on its way is let on by the deletion, and counted.
        thread::sleep(Duration::from_millis(200));
        let ended = self.end(NAME);
        let (done, fault) = (done?, ended?);
        let books = [Direction::Egress, Direction::Ingress].map(|direction| Books::of(&fault, direction));
        Ok((done, books))
    }

    /// Deletes a fault that was to be in force all the while.
    fn end(&self, name: &str) -> Result<Fault> {
        let still = self.client.get("", name)?;
        let deleted = self.client.delete("", name)?;
        spec::ensure_injected(&still, 1).with_context(|| format!("fault {name}, when it was deleted"))?;
        Ok(deleted)
    }

    /// Sends stamped datagrams from the target to its peer.
    fn send(&self, load: StampedLoad) -> Result<Vec<Arrival>> {
        self.send_from(self.target(), load)
    }

    /// The same from another pod.
    fn send_from(&self, from: &LabPod, load: StampedLoad) -> Result<Vec<Arrival>> {
        let to = self.peer();
        load.run(from.netns(), to.netns(), to.ipv4(), QUIET)
    }

    /// A fault on the target.
    fn action(&self, yaml: &str) -> Spec {
        Spec::action(self.target(), yaml)
    }
}

/// The middle delay of datagrams.
fn median(arrivals: &[Arrival]) -> Result<Duration> {
    let delays: Vec<Duration> = arrivals.iter().map(|arrival| arrival.delay).collect();
    (!delays.is_empty())
        .then(|| sabot_testkit::traffic::median(delays))
        .context("nothing arrived")
}
