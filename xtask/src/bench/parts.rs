//! The parts of the report: what each needs of the machine, and how it is measured.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{Error, Result, anyhow};
use clap::ValueEnum;

use super::report::{self, Outcome, Report};
use super::{Plan, apply, cluster, datapath, fidelity, footprint, observe, recovery, verifier, vm};
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
    /// How soon all is as before once faults end, beside removing ipset's and iptables' rules.
    Recovery,
    /// Binaries, memory and CPU at rest, and what one more target and one more fault take.
    Footprint,
    /// What the verifier goes through for each program, and how long loading takes.
    Verifier,
    /// Delays, throughput and losses beside `tc netem`, on a kernel that has it; only when it is named.
    Netem,
    /// The same in a guest with a kernel of Debian's, which has it; when it is named or with --vm.
    Vm,
    /// What a node's daemon takes from large clusters; half an hour, and only when it is named.
    Cluster,
}

impl Part {
    /// Those that a report has when none is named.
    pub(super) const USUAL: [Self; 9] = [
        Self::Apply,
        Self::Datapath,
        Self::Delay,
        Self::Loss,
        Self::Rate,
        Self::Observe,
        Self::Recovery,
        Self::Footprint,
        Self::Verifier,
    ];

    pub(super) fn job(self) -> Job {
        match self {
            Self::Apply => Job::new("apply", &["ipset", "iptables", "nsenter"], apply::run),
            Self::Datapath => Job::new("datapath", &DATAPATH, datapath::run),
            Self::Delay => Job::new("delay", &["iperf3"], fidelity::delay),
            Self::Loss => Job::new("loss", &["iperf3"], fidelity::loss),
            Self::Rate => Job::new("rate", &[], fidelity::rate),
            Self::Observe => Job::new("observe", &OBSERVE, observe::run),
            Self::Recovery => Job::new("recovery", &RECOVERY, recovery::run),
            Self::Footprint => Job::new("footprint", &[], footprint::run),
            Self::Verifier => Job::new("verifier", &[], verifier::run),
            Self::Netem => Job::new("netem", &["iperf3", "nsenter", "tc"], fidelity::netem),
            Self::Vm => Job::new("vm", &VM, vm::run),
            Self::Cluster => Job::new("cluster", &[], cluster::run),
        }
    }
}

const DATAPATH: [&str; 6] = [
    "bpftool",
    "bridge",
    "iperf3",
    "ipset",
    "iptables",
    "iptables-restore",
];
const OBSERVE: [&str; 4] = ["bpftrace", "containerd", "iperf3", "strace"];

/// What a guest is made with and of.
const VM: [&str; 8] = [
    "busybox", "iperf3", "ldd", "nsenter", "ss", "strip", "tc", "timeout",
];

const RECOVERY: [&str; 4] = ["bpftool", "ipset", "iptables", "nsenter"];

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
        // What was measured before a panic is worth as much as what was before an error.
        let measured = catch_unwind(AssertUnwindSafe(|| (self.measure)(plan, &mut report)));
        let outcome = match measured.unwrap_or_else(|panic| Err(told(&*panic))) {
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

/// What a panic said.
fn told(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    anyhow!("panicked: {}", text.unwrap_or("without a word"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::bail;
    use sabot_testkit::DaemonOptions;

    use super::*;
    use crate::bench::report::Document;

    fn document(job: Job) -> Document {
        let plan = Plan {
            options: DaemonOptions::new(PathBuf::new(), PathBuf::new()),
            quick: true,
            scenes: Vec::new(),
        };
        let mut document = Document::begin(true).expect("this is Linux");
        document.push(job.run(&plan).expect("nobody interrupts it"));
        document
    }

    #[test]
    fn what_cant_be_measured_is_said_and_stops_nothing() {
        let lacks = document(Job::new("lacks", &["sabot-no-such-tool"], |_, _| {
            bail!("not reached")
        }));
        assert!(lacks.failed().is_empty());
        assert!(
            lacks
                .to_string()
                .contains("not measured: `sabot-no-such-tool` isn't installed")
        );
        let fails = document(Job::new("fails", &[], |_, report| {
            report.compare("before", 3.0, 2.0);
            bail!("the pods are gone")
        }));
        assert_eq!(fails.failed(), ["fails"]);
        let text = fails.to_string();
        assert!(
            text.contains("failed: the pods are gone") && text.contains("1.50 times"),
            "{text}"
        );
        let panics = document(Job::new("panics", &[], |_, _| panic!("no {}", "netns")));
        assert!(panics.to_string().contains("failed: panicked: no netns"));
    }
}
