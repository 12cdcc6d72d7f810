//! `cargo xtask bench datapath`: what faults cost the packets that they match, and those that they don't.

mod addresses;
mod flood;
pub(super) mod iperf;
mod ipset;
mod numbers;
mod packets;
mod statistics;
mod throughput;

use anyhow::{Context, Result};
use sabot_proto::sabot::v1::{Direction, FaultSpec};
use sabot_testkit::daemon::Client;
use sabot_testkit::{Daemon, Lab, LabPod};

use self::packets::Senders;
use super::Plan;
use super::report::Report;
use super::spec;
use crate::ui::Step;

/// Targets of faults beside those that are measured.
const OTHERS: usize = 15;

/// Four pods that differ in nothing but what is done to them, and others.
struct Scene<'a> {
    plan: &'a Plan,
    lab: Lab,
    daemon: Daemon,
    client: Client,
}

pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let step = Step::start("pods and sabotd");
    let lab = Lab::new(4 + OTHERS)?;
    let daemon = Daemon::start(plan.options.clone().netns(lab.node()))?;
    let client = daemon.client()?;
    let scene = Scene {
        plan,
        lab,
        daemon,
        client,
    };
    step.done(&format!("ready, pid {}", scene.daemon.pid()));
    throughput::measure(&scene, report)?;
    let senders = Senders::new(&scene)?;
    packets::measure(&scene, &senders, report)?;
    numbers::measure(&scene, &senders, report)
}

impl Scene<'_> {
    /// Where traffic goes.
    fn server(&self) -> &LabPod {
        self.lab.pod(0)
    }

    /// The pod that faults are applied to.
    fn faulted(&self) -> &LabPod {
        self.lab.pod(1)
    }

    /// The pod with ipset and iptables, which is like the untouched one while it has none.
    fn filtered(&self) -> &LabPod {
        self.lab.pod(2)
    }

    /// The pod that nothing is ever attached to.
    fn untouched(&self) -> &LabPod {
        self.lab.pod(3)
    }

    /// Pods that send nothing.
    fn others(&self) -> &[LabPod] {
        &self.lab.pods()[4..]
    }

    /// Does something while a fault is in force, and returns how many wire packets that left the target it has matched.
    fn under<T>(&self, name: &str, fault: FaultSpec, act: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
        let answer = self.client.apply(name, fault, spec::PATIENCE)?;
        spec::ensure_injected(&answer, 1)?;
        let done = act();
        let fault = self.client.delete("", name)?;
        let status = fault.status.context("the deleted fault has no status")?;
        let egress = status
            .ledgers
            .iter()
            .filter(|entry| entry.direction() == Direction::Egress);
        let ledgers = egress.filter_map(|entry| entry.ledger.as_ref());
        let matched = ledgers.filter_map(|ledger| ledger.matched.as_ref());
        Ok((done?, matched.map(|tally| tally.packets).sum()))
    }
}
