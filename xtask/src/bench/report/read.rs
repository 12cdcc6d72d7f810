//! A part of another run's document, taken into a report of this one.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::document::SCHEMA;
use super::figure::{Baseline, Better, Goal};
use super::machine::Machine;
use super::{Check, DERIVED, Figure, Report, Row, Section};
use crate::bench::measure::Spread;

/// What is read of a document.
#[derive(Deserialize)]
struct Written {
    schema: String,
    machine: Machine,
    parts: Vec<WrittenPart>,
}

#[derive(Deserialize)]
struct WrittenPart {
    state: String,
    reason: Option<String>,
    figures: Vec<Entry>,
    checks: Vec<Check>,
}

/// A figure on its own, as documents have it.
#[derive(Deserialize)]
struct Entry {
    section: String,
    case: String,
    quantity: String,
    unit: String,
    better: Better,
    ours: Spread,
    baselines: Vec<Baseline>,
    goals: Vec<Goal>,
}

impl Report {
    /// Takes in what the only part of a document has measured, and notes where that was.
    ///
    /// # Errors
    ///
    /// It isn't a document of this schema with one part; or that part came to no end, with its reason: what it had
    /// measured by then is taken in.
    pub(in crate::bench) fn take_in(&mut self, document: &str) -> Result<()> {
        let written: Written = serde_json::from_str(document).context("it isn't a report's document")?;
        ensure!(
            written.schema == SCHEMA,
            "the document's schema is `{}`, and not `{SCHEMA}`",
            written.schema
        );
        let count = written.parts.len();
        let Ok([part]) = <[WrittenPart; 1]>::try_from(written.parts) else {
            bail!("the document has {count} parts, and not one");
        };
        self.machine = Some(written.machine);
        for entry in part.figures {
            self.enter(entry);
        }
        self.checks.extend(part.checks);
        if part.state != "measured" {
            bail!("{}", part.reason.unwrap_or(part.state));
        }
        Ok(())
    }

    /// Figures of one section, and of one case in it, follow each other.
    fn enter(&mut self, entry: Entry) {
        let figure = Figure {
            name: entry.quantity.into(),
            unit: entry.unit.into(),
            better: entry.better,
            ours: entry.ours,
            baselines: entry.baselines,
            goals: entry.goals,
        };
        if entry.section == DERIVED {
            self.derive(&entry.case, figure);
            return;
        }
        if self
            .sections
            .last()
            .is_none_or(|section| section.title != entry.section)
        {
            self.section(&entry.section);
        }
        let Some(Section { rows, .. }) = self.sections.last_mut() else {
            return;
        };
        match rows.last_mut() {
            Some(row) if row.name == entry.case => row.figures.push(figure),
            _ => rows.push(Row {
                name: entry.case,
                figures: vec![figure],
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{Outcome, Part, sample};
    use super::*;

    /// The first part of the sample as a document of its own.
    fn written() -> Value {
        let mut value = serde_json::to_value(sample::document()).expect("it is JSON");
        value["machine"]["kernel"] = "6.12.9".into();
        if let Some(parts) = value["parts"].as_array_mut() {
            parts.truncate(1);
        }
        value
    }

    #[test]
    fn what_is_taken_in_is_written_as_it_was() {
        let written = written();
        let mut report = Report::new("apply");
        report.take_in(&written.to_string()).expect("it is a document");
        let mut document = sample::document();
        document.parts.clear();
        document.push(Part::new(report, Outcome::Measured, 12.0));
        let again = serde_json::to_value(&document).expect("it is JSON");
        for field in ["figures", "checks"] {
            assert_eq!(again["parts"][0][field], written["parts"][0][field], "{field}");
        }
        assert_eq!(again["parts"][0]["machine"]["kernel"], "6.12.9");
        let text = document.to_string();
        assert!(text.contains("measured on Linux 6.12.9"), "{text}");
        assert!(
            text.contains("ipset & iptables: 40.0") && text.contains("2 of 3 goals met"),
            "{text}"
        );
    }

    #[test]
    fn what_isnt_a_number_stays_none() {
        let mut written = written();
        written["parts"][0]["figures"][0]["ours"]["p50"] = Value::Null;
        let mut report = Report::new("apply");
        report.take_in(&written.to_string()).expect("it is a document");
        let measured = report.figures().next().map(|(.., figure)| figure.ours);
        let measured = measured.expect("there is a figure");
        assert!(measured.p50.is_nan() && measured.p99 == 3.0);
    }

    #[test]
    fn a_part_that_failed_tells_its_reason_and_keeps_its_figures() {
        let mut written = written();
        written["parts"][0]["state"] = "failed".into();
        written["parts"][0]["reason"] = "the pods are gone".into();
        let mut report = Report::new("apply");
        let error = report.take_in(&written.to_string()).expect_err("it failed");
        assert_eq!(error.to_string(), "the pods are gone");
        assert_eq!(report.figures().count(), 6);
    }

    #[test]
    fn other_documents_are_refused() {
        let mut other = written();
        other["schema"] = "sabot.dev/bench/v0".into();
        let mut none = written();
        none["parts"] = Value::Array(Vec::new());
        let cases = [
            (other.to_string(), "sabot.dev/bench/v0"),
            (none.to_string(), "0 parts"),
            ("{}".to_owned(), "isn't"),
        ];
        for (text, said) in cases {
            let error = Report::new("apply").take_in(&text).expect_err("it is refused");
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
