//! The parts of the report: what each needs of the machine, and how it is measured.

use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

use super::report::{self, Outcome, Report};
use super::{Plan, apply, cluster, datapath, fidelity, observe};
use crate::{interrupt, process, ui};

/// What `--only` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// From the call to the answer that says the fault is enforced, beside ipset and iptables.
    Apply,
    /// What each packet costs, and throughput, with faults in force; beside ipset and iptables.
    Datapath,
    /// How near delays come to what was asked, and the delay line's throughput.
    Delay,
    /// How near losses come to what was asked.
    Loss,
    /// How near rates come to what was asked, and how soon resets and rejections are seen.
    Rate,
    /// What it costs to be observed, beside bpftrace and strace.
    Observe,
    /// What a node's daemon takes from large clusters; half an hour, and only when it is named.
    Cluster,
}

impl Part {
    /// Those that a report has when none is named.
    pub(super) const USUAL: [Self; 6] = [
        Self::Apply,
        Self::Datapath,
        Self::Delay,
        Self::Loss,
        Self::Rate,
        Self::Observe,
    ];

    pub(super) fn job(self) -> Job {
        match self {
            Self::Apply => Job::new("apply", &["ipset", "iptables", "nsenter"], apply::run),
            Self::Datapath => Job::new("datapath", &DATAPATH, datapath::run),
            Self::Delay => Job::new("delay", &["iperf3"], fidelity::delay),
            Self::Loss => Job::new("loss", &[], fidelity::loss),
            Self::Rate => Job::new("rate", &[], fidelity::rate),
            Self::Observe => Job::new("observe", &OBSERVE, observe::run),
            Self::Cluster => Job::new("cluster", &[], cluster::run),
        }
    }
}

const DATAPATH: [&str; 5] = ["bpftool", "bridge", "iperf3", "ipset", "iptables"];
const OBSERVE: [&str; 4] = ["bpftrace", "containerd", "iperf3", "strace"];

/// Something that is measured on its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) name: &'static str,
    /// Programs without which it can't be measured.
    needs: &'static [&'static str],
    measure: fn(&Plan, &mut Report) -> Result<()>,
}

impl Job {
    pub(super) fn new(
        name: &'static str,
        needs: &'static [&'static str],
        measure: fn(&Plan, &mut Report) -> Result<()>,
    ) -> Self {
        Self { name, needs, measure }
    }

    /// All scenes of fidelity, or those of them that are named.
    pub(super) fn fidelity() -> Self {
        Self::new("fidelity", &["iperf3"], fidelity::run)
    }

    /// Measures it. What it lacks, and what goes wrong in it, is said in the report and stops nothing else.
    ///
    /// # Errors
    ///
    /// The run was interrupted.
    pub(super) fn run(self, plan: &Plan) -> Result<report::Part> {
        let mut report = Report::new(self.name);
        let missing = self
            .needs
            .iter()
            .find(|program| process::find_program(program).is_none());
        if let Some(program) = missing {
            let reason = format!("`{program}` isn't installed");
            ui::missing(&format!("bench {}", self.name), &reason);
            return Ok(report::Part::new(report, Outcome::Skipped(reason), 0.0));
        }
        ui::heading(&format!("bench {}:", self.name));
        let started = Instant::now();
        let outcome = match (self.measure)(plan, &mut report) {
            Ok(()) => Outcome::Measured,
            Err(error) => {
                interrupt::check()?;
                ui::missing(&format!("bench {}", self.name), &format!("{error:#}"));
                Outcome::Failed(format!("{error:#}"))
            }
        };
        Ok(report::Part::new(
            report,
            outcome,
            started.elapsed().as_secs_f64(),
        ))
    }
}
