//! The whole report, and the JSON document that it is.
//!
//! `schema` changes when a field changes its meaning or goes. All figures stand in one flat list for each part, so that two
//! documents are compared by `part`, `section`, `case` and `quantity`. A number that isn't one is `null`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use serde::{Serialize, Serializer};

use super::figure::{Baseline, Better, Figure, Goal};
use super::machine::{self, Machine};
use super::{Check, Report};
use crate::bench::measure::Spread;

pub(super) const SCHEMA: &str = "sabot.dev/bench/v2";

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub(in crate::bench) struct Document {
    schema: &'static str,
    /// When it began, in UTC.
    pub(super) date: String,
    /// A quick run's figures say little.
    pub(super) quick: bool,
    pub(super) machine: Machine,
    /// Of sabotd, the peers and the tools, as each names itself.
    pub(super) versions: BTreeMap<String, String>,
    /// Runnable tasks over the last minute, before the run and after it.
    pub(super) load: [f64; 2],
    pub(super) parts: Vec<Part>,
}

/// What became of one part.
#[derive(Debug, Serialize)]
pub(in crate::bench) struct Part {
    name: &'static str,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
    pub(super) seconds: f64,
    /// Where it was measured, if elsewhere than the rest.
    pub(super) machine: Option<Machine>,
    #[serde(rename = "figures", serialize_with = "flat")]
    pub(super) report: Report,
    /// What must be so, however fast.
    checks: Vec<Check>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "reason", rename_all = "lowercase")]
pub(in crate::bench) enum Outcome {
    Measured,
    /// Something that it needs isn't here.
    Skipped(String),
    /// It began and came to no end; what it had measured by then is shown.
    Failed(String),
}

/// A figure on its own.
#[derive(Serialize)]
struct Entry<'a> {
    part: &'static str,
    section: &'a str,
    case: &'a str,
    quantity: &'a str,
    unit: &'a str,
    better: Better,
    ours: Spread,
    baselines: Vec<Beside<'a>>,
    goals: &'a [Goal],
}

/// What stands beside a figure.
#[derive(Serialize)]
struct Beside<'a> {
    #[serde(flatten)]
    baseline: &'a Baseline,
    /// How many times better our median is.
    advantage: Option<f64>,
}

impl Document {
    /// Notes the machine and what else runs on it.
    ///
    /// # Errors
    ///
    /// `/proc` can't be read.
    pub(in crate::bench) fn begin(quick: bool) -> Result<Self> {
        let load = machine::load()?;
        Ok(Self {
            schema: SCHEMA,
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            quick,
            machine: Machine::this()?,
            versions: BTreeMap::new(),
            load: [load, load],
            parts: Vec::new(),
        })
    }

    /// Asks the tools, and ours, for their versions.
    pub(in crate::bench) fn note_versions(&mut self, sabotd: &Path) {
        self.versions = machine::versions(Some(sabotd));
    }

    pub(in crate::bench) fn push(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// Notes what runs on the machine afterwards.
    ///
    /// # Errors
    ///
    /// `/proc` can't be read.
    pub(in crate::bench) fn end(&mut self) -> Result<()> {
        self.load[1] = machine::load()?;
        Ok(())
    }

    /// Whether each fault had its effect.
    pub(in crate::bench) fn is_correct(&self) -> bool {
        self.parts.iter().flat_map(Part::checks).all(|check| check.ok)
    }

    /// The parts that came to no end.
    pub(in crate::bench) fn failed(&self) -> Vec<&'static str> {
        let failed = self
            .parts
            .iter()
            .filter(|part| matches!(part.outcome, Outcome::Failed(_)));
        failed.map(|part| part.name).collect()
    }

    /// The figures in which another tool is better, with what they are about and with that tool.
    pub(super) fn behind(&self) -> impl Iterator<Item = (String, &Figure, &Baseline)> {
        self.parts.iter().flat_map(|part| {
            let figures = part.report.figures();
            figures.flat_map(|(section, case, figure)| {
                let about = format!("{}: {section}: {case}, {}", part.name, figure.name);
                figure.ahead().map(move |peer| (about.clone(), figure, peer))
            })
        })
    }

    /// How many goals were met, and how many there are.
    pub(super) fn score(&self) -> (usize, usize) {
        let goals = || self.parts.iter().flat_map(|part| part.report.goals());
        (goals().filter(|(.., goal)| goal.met).count(), goals().count())
    }
}

impl Part {
    pub(in crate::bench) fn new(mut report: Report, outcome: Outcome, seconds: f64) -> Self {
        Self {
            name: report.part,
            outcome,
            seconds,
            machine: report.machine.take(),
            checks: std::mem::take(&mut report.checks),
            report,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn checks(&self) -> &[Check] {
        &self.checks
    }
}

impl Outcome {
    /// Why there are no figures, or not all.
    pub(super) fn reason(&self) -> Option<String> {
        match self {
            Self::Measured => None,
            Self::Skipped(reason) => Some(format!("not measured: {reason}")),
            Self::Failed(reason) => Some(format!("failed: {reason}")),
        }
    }
}

fn flat<S: Serializer>(report: &Report, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(report.figures().map(|(section, case, figure)| {
        Entry {
            part: report.part,
            section,
            case,
            quantity: &figure.name,
            unit: &figure.unit,
            better: figure.better,
            ours: figure.ours,
            baselines: figure
                .baselines
                .iter()
                .map(|baseline| Beside {
                    baseline,
                    advantage: figure.advantage_over(baseline),
                })
                .collect(),
            goals: &figure.goals,
        }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::sample;

    #[test]
    fn the_document_has_its_documented_shape() {
        let document = sample::document();
        let value: Value = serde_json::to_value(&document).expect("it is JSON");
        assert_eq!(value["schema"], "sabot.dev/bench/v2");
        assert!(
            value["date"]
                .as_str()
                .is_some_and(|date| date.ends_with('Z') && date.len() == 20)
        );
        for field in ["kernel", "architecture", "cpu", "cpus", "memory_mib"] {
            assert!(!value["machine"][field].is_null(), "{field}");
        }
        let part = &value["parts"][0];
        assert_eq!(
            (&part["name"], &part["state"]),
            (&json!("apply"), &json!("measured"))
        );
        assert_eq!(
            part["figures"][0],
            json!({
                "part": "apply",
                "section": "one target <b>",
                "case": "warm",
                "quantity": "latency",
                "unit": "ms",
                "better": "less",
                "ours": {"repetitions": 3, "min": 1.0, "p50": 2.0, "p99": 3.0, "max": 3.0},
                "baselines": [{
                    "name": "ipset & iptables", "kind": "peer",
                    "repetitions": 3, "min": 30.0, "p50": 40.0, "p99": 50.0, "max": 50.0,
                    "advantage": 20.0,
                }],
                "goals": [
                    {"of": "advantage", "relation": "at_least", "bound": 10.0, "measured": 20.0, "met": true},
                    {"of": "p99", "relation": "at_most", "bound": 2.0, "measured": 3.0, "met": false},
                ],
            })
        );
        assert_eq!(part["figures"].as_array().map(Vec::len), Some(6));
        assert_eq!(part["checks"][0]["ok"], true);
        let skipped = &value["parts"][1];
        assert_eq!(skipped["state"], "skipped");
        assert_eq!(skipped["reason"], "`bpftrace` isn't installed");
    }

    #[test]
    fn what_a_peer_does_better_is_known() {
        let document = sample::document();
        let behind: Vec<_> = document
            .behind()
            .map(|(about, _, peer)| (about, &*peer.name))
            .collect();
        let cold = "apply: one target <b>: cold, latency".to_owned();
        assert_eq!(behind, [(cold, "ipset & iptables")]);
        assert_eq!(document.score(), (2, 3));
        assert!(document.is_correct() && document.failed().is_empty());
    }
}
