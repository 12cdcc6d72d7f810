//! Time for each small packet: in our programs by the kernel's statistics, and at the sender beside ipset and iptables.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::Scene;
use super::addresses::{Aim, Kind, Peers};
use super::flood::{self, Sender};
use super::ipset::Filter;
use super::statistics::Statistics;
use crate::bench::measure::{Samples, Spread, single};
use crate::bench::report::{Figure, Report, Statistic};
use crate::bench::spec;
use crate::bench::usage::Memory;
use crate::interrupt;
use crate::ui::Step;

/// Packets in one measurement at least; spread ones are as many as there are peers.
const BURST: usize = 1 << 14;
const FULL: u32 = 1 << 16;
/// As many as one fault is promised to take.
const MOST: u32 = 150_000;

/// Senders in pods that differ in what is attached to them.
pub(super) struct Senders {
    pub(super) untouched: Sender,
    pub(super) faulted: Sender,
    pub(super) filtered: Sender,
}

impl Senders {
    /// # Errors
    ///
    /// What they send can't be taken out of the way, or a pod has no socket.
    pub(super) fn new(scene: &Scene<'_>) -> Result<Self> {
        for pod in [scene.untouched(), scene.faulted(), scene.filtered()] {
            flood::sink(&scene.lab, pod)?;
        }
        Ok(Self {
            untouched: Sender::new(scene.untouched())?,
            faulted: Sender::new(scene.faulted())?,
            filtered: Sender::new(scene.filtered())?,
        })
    }
}

/// What one way of sending costs.
#[derive(Default)]
struct Costs {
    /// In our programs, as the kernel takes it.
    kernel: Samples,
    /// The sender's time where nothing is attached.
    nothing: Samples,
    /// Under our fault.
    ours: Samples,
    /// Behind a rule of iptables with an ipset.
    ipset: Samples,
}

/// One way of sending.
#[derive(Clone, Copy)]
struct Pattern {
    aim: Aim,
    matched: bool,
}

const PATTERNS: [Pattern; 4] = [
    pattern(Aim::One, false),
    pattern(Aim::One, true),
    pattern(Aim::Spread, false),
    pattern(Aim::Spread, true),
];

const fn pattern(aim: Aim, matched: bool) -> Pattern {
    Pattern { aim, matched }
}

/// What a set of peers costs when it is given, and then.
struct Measured {
    peers: Peers,
    fault_took: Samples,
    ipset_took: Samples,
    /// What it adds to the maps and to the daemon, in megabytes.
    maps: Samples,
    process: Samples,
    costs: Vec<(Pattern, Costs)>,
}

pub(super) fn measure(scene: &Scene<'_>, senders: &Senders, report: &mut Report) -> Result<()> {
    let idle = idle(scene, senders)?;
    let counts: &[u32] = if scene.plan.quick {
        &[1, MOST]
    } else {
        &[1, 100, 10_000, FULL, MOST]
    };
    let mut all = Vec::new();
    for kind in Kind::ALL {
        for &count in counts {
            all.push(with_peers(scene, senders, Peers { kind, count })?);
        }
    }
    show(report, &idle, &all);
    Ok(())
}

/// In our programs on a target that is attached and has no fault.
fn idle(scene: &Scene<'_>, senders: &Senders) -> Result<Samples> {
    let peers = Peers {
        kind: Kind::Exact,
        count: 1,
    };
    let fault = spec::fault(spec::netns(scene.faulted()), peers.peers(), spec::partition());
    // Attaches.
    scene.under("first", fault, || Ok(()))?;
    let to = peers.destinations(Aim::One, false, BURST);
    let statistics = Statistics::of(&scene.daemon)?;
    let mut idle = Samples::default();
    for _ in 0..scene.plan.repetitions(5, 2) {
        idle.push(statistics.per_run(to.len(), || senders.faulted.flood(&to).map(drop))?);
    }
    Ok(idle)
}

/// All patterns under a fault with these peers that drops 0 % of what it matches, and under a rule with them that accepts.
fn with_peers(scene: &Scene<'_>, senders: &Senders, peers: Peers) -> Result<Measured> {
    let step = Step::start(&format!("{} {}", peers.count, peers.kind.name()));
    let fault = spec::fault(spec::netns(scene.faulted()), peers.peers(), spec::drop_share(0.0));
    let filter = Filter::new(scene.filtered(), peers)?;
    let mut measured = Measured {
        peers,
        fault_took: Samples::default(),
        ipset_took: Samples::default(),
        maps: Samples::default(),
        process: Samples::default(),
        costs: Vec::new(),
    };
    measured.ipset_took.push_ms(filter.took);
    let before = Memory::of(&scene.daemon)?;
    let started = Instant::now();
    let mut expected = 0;
    let ((), matched) = scene.under("packets", fault, || {
        measured.fault_took.push_ms(started.elapsed());
        let under = Memory::of(&scene.daemon)?;
        let megabytes = |before: u64, under: u64| (under as f64 - before as f64) / 1e6;
        measured.maps.push(megabytes(before.maps, under.maps));
        measured.process.push(megabytes(before.process, under.process));
        for pattern in PATTERNS {
            let to = peers.destinations(pattern.aim, pattern.matched, BURST);
            let rounds = scene.plan.repetitions(5, 2);
            let mut costs = Costs::default();
            for _ in 0..rounds {
                interrupt::check()?;
                costs.nothing.push(senders.untouched.flood(&to)?);
                costs.ours.push(senders.faulted.flood(&to)?);
                costs.ipset.push(senders.filtered.flood(&to)?);
            }
            // The statistics cost time themselves, so they are taken apart from the sender's time.
            let statistics = Statistics::of(&scene.daemon)?;
            for _ in 0..rounds {
                let flood = || senders.faulted.flood(&to).map(drop);
                costs.kernel.push(statistics.per_run(to.len(), flood)?);
            }
            if pattern.matched {
                expected += (2 * rounds * to.len()) as u64;
            }
            measured.costs.push((pattern, costs));
        }
        Ok(())
    })?;
    // Otherwise something else was measured than what the table says.
    ensure!(
        matched == expected,
        "the fault matched {matched} packets of {expected} that were sent to its peers"
    );
    step.done(&format!("{} ways of sending", PATTERNS.len()));
    Ok(measured)
}

fn show(report: &mut Report, idle: &Samples, all: &[Measured]) {
    let section = report.section("time for each small UDP packet that leaves the pod");
    for measured in all {
        for (pattern, costs) in &measured.costs {
            section.row(
                format!("{}, {}", measured.name(), pattern.name()),
                vec![
                    Figure::new("our programs", "ns", costs.kernel.spread()),
                    Figure::new("sender", "ns", costs.ours.spread())
                        .against("nothing attached", costs.nothing.spread()),
                    Figure::new("ours adds", "ns", costs.ours.less(&costs.nothing).spread())
                        .beside("ipset + iptables", costs.ipset.less(&costs.nothing).spread()),
                ],
            );
        }
    }
    let section = report.section("our programs on an attached target without a fault");
    section.row(
        "each packet",
        vec![Figure::new("our programs", "ns", idle.spread())],
    );
    let section = report.section("giving the peers");
    for measured in all {
        section.row(
            measured.name(),
            vec![
                Figure::new("fault (apply)", "ms", measured.fault_took.spread())
                    .beside("ipset restore + iptables", measured.ipset_took.spread()),
                Figure::new("maps grow by", "MB", measured.maps.spread()),
                Figure::new("sabotd grows by", "MB", measured.process.spread()),
            ],
        );
    }
    compare(report, all);
}

/// How the costs grow with the peers.
fn compare(report: &mut Report, all: &[Measured]) {
    for kind in Kind::ALL {
        let with = |count: u32| {
            all.iter()
                .find(|measured| measured.peers.kind == kind && measured.peers.count == count)
        };
        for count in [FULL, MOST] {
            let (Some(few), Some(many)) = (with(1), with(count)) else {
                continue;
            };
            for ((pattern, few), (_, many)) in few.costs.iter().zip(&many.costs) {
                let p50 = |samples: &Samples| samples.spread().p50;
                let name = |what: &str| format!("{what}, {}, {}", kind.name(), pattern.name());
                report.compare(
                    &name(&format!("our programs with {count} / with 1")),
                    p50(&many.kernel),
                    p50(&few.kernel),
                );
                let mut growth = Figure::new("growth", "times", grown(&few.ours, &many.ours))
                    .beside("ipset + iptables", grown(&few.ipset, &many.ipset));
                if count == MOST {
                    growth = growth.at_least(Statistic::Advantage, 1.0);
                }
                report.derive(&name(&format!("the sender's time with {count} / with 1")), growth);
            }
        }
    }
}

/// How many times more the one is than the other, by medians.
fn grown(few: &Samples, many: &Samples) -> Spread {
    single(many.spread().p50 / few.spread().p50)
}

impl Pattern {
    fn name(self) -> String {
        let aim = match self.aim {
            Aim::One => "one destination",
            Aim::Spread => "spread",
        };
        let matched = if self.matched { "matched" } else { "unmatched" };
        format!("{aim}, {matched}")
    }
}

impl Measured {
    fn name(&self) -> String {
        format!("{} {}", self.peers.count, self.peers.kind.name())
    }
}
