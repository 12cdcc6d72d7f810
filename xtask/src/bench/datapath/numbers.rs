//! Time for each small packet by how many faults there are, or peers of one fault; beside a rule of iptables for each.

use anyhow::Result;
use sabot_testkit::LabPod;

use super::addresses::{Aim, Kind, Peers};
use super::flood::Sender;
use super::ipset::run;
use super::packets::Senders;
use super::{OTHERS, Scene};
use crate::bench::measure::Samples;
use crate::bench::report::{Figure, Report, Statistic};
use crate::bench::spec;
use crate::interrupt;
use crate::ui::Step;

/// How many, and on how many targets, each of which takes 64 of them.
const FAULTS: [(u32, u32); 4] = [(1, 1), (10, 1), (60, 1), (1000, 1 + OTHERS as u32)];
const PEERS: [u32; 3] = [1, 100, 10_000];
/// Packets in one measurement.
const BURST: usize = 1 << 12;
const RULES: &str = "iptables, a rule for each";

/// What the sender of a packet has more than where nothing is attached.
#[derive(Default)]
struct Added {
    ours: Samples,
    rules: Samples,
}

pub(super) fn measure(scene: &Scene<'_>, senders: &Senders, report: &mut Report) -> Result<()> {
    let step = Step::start("many faults, and a rule for each");
    let mut faults = Vec::new();
    for (count, targets) in FAULTS {
        let added = under_faults(scene, senders, count, targets)?;
        let name = if targets == 1 {
            count.to_string()
        } else {
            format!("{count} on {targets} targets")
        };
        faults.push((count, name, added));
    }
    step.done(&format!("{} counts", FAULTS.len()));
    let step = Step::start("many peers, and a rule for each");
    let mut peers = Vec::new();
    for count in PEERS {
        peers.push((count, count.to_string(), under_peers(scene, senders, count)?));
    }
    step.done(&format!("{} counts", PEERS.len()));
    for (what, all) in [("faults", &faults), ("peers of one fault", &peers)] {
        let section = report.section(&format!("what an unmatched packet's sender has more: {what}"));
        for (count, name, added) in all {
            let figure = Figure::new("added", "ns", added.ours.spread()).beside(RULES, added.rules.spread());
            // A single rule is as little as there can be.
            let figure = if *count > 1 {
                figure.at_least(Statistic::Advantage, 1.0)
            } else {
                figure
            };
            section.row(name.clone(), vec![figure]);
        }
    }
    Ok(())
}

/// Each fault has a peer of its own, and one target, in turn. Its rule is in its target too.
fn under_faults(scene: &Scene<'_>, senders: &Senders, count: u32, targets: u32) -> Result<Added> {
    let pods = [scene.faulted()].into_iter().chain(scene.others());
    let pods: Vec<&LabPod> = pods.take(targets as usize).collect();
    let name = |number: usize| format!("one-of-many-{number}");
    for (number, peer) in exact(count).peers().into_iter().enumerate() {
        interrupt::check()?;
        let target = spec::netns(pods[number % pods.len()]);
        let fault = spec::fault(target, vec![peer], spec::partition());
        let answer = scene.client.apply(&name(number), fault, spec::PATIENCE)?;
        spec::ensure_injected(&answer, 1)?;
    }
    let added = added(scene, senders, exact(count.div_ceil(targets)))?;
    for number in 0..count as usize {
        scene.client.delete("", &name(number))?;
    }
    Ok(added)
}

fn under_peers(scene: &Scene<'_>, senders: &Senders, count: u32) -> Result<Added> {
    let peers = exact(count);
    let target = spec::netns(scene.faulted());
    let fault = spec::fault(target, peers.peers(), spec::partition());
    let (added, _) = scene.under("many-peers", fault, || added(scene, senders, peers))?;
    Ok(added)
}

fn exact(count: u32) -> Peers {
    Peers {
        kind: Kind::Exact,
        count,
    }
}

fn added(scene: &Scene<'_>, senders: &Senders, peers: Peers) -> Result<Added> {
    let _rules = Rules::new(scene.filtered(), peers)?;
    let to = peers.destinations(Aim::One, false, BURST);
    let mut added = Added::default();
    for _ in 0..scene.plan.repetitions(9, 2) {
        interrupt::check()?;
        let flood = |sender: &Sender| sender.flood(&to);
        let nothing = flood(&senders.untouched)?;
        added.ours.push(flood(&senders.faulted)? - nothing);
        added.rules.push(flood(&senders.filtered)? - nothing);
    }
    Ok(added)
}

/// A rule for each peer in a pod's OUTPUT; dropping it removes them.
struct Rules<'a>(&'a LabPod);

impl<'a> Rules<'a> {
    fn new(pod: &'a LabPod, peers: Peers) -> Result<Self> {
        run(pod, "iptables-restore", &["-w", "5", "--noflush"], &peers.rules())?;
        Ok(Self(pod))
    }
}

impl Drop for Rules<'_> {
    fn drop(&mut self) {
        if let Err(error) = run(self.0, "iptables", &["-w", "5", "-F", "OUTPUT"], "") {
            eprintln!("the rules can't be removed: {error:#}");
        }
    }
}
