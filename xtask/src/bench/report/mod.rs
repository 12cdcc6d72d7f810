//! What was measured: collected by the parts, then told as text, as a JSON document and as an HTML page.

mod document;
mod figure;
mod html;
mod machine;
mod read;
mod svg;
mod text;

pub(super) use self::document::{Document, Outcome, Part};
use self::figure::Goal;
pub(super) use self::figure::{Figure, Statistic};
pub(super) use self::html::page;
use self::machine::Machine;
use super::measure::single;

/// What one part has measured.
#[derive(Debug)]
pub(super) struct Report {
    part: &'static str,
    /// Where it was measured, if elsewhere than the other parts.
    machine: Option<Machine>,
    sections: Vec<Section>,
    /// What was derived from the figures of several sections.
    derived: Vec<Row>,
    checks: Vec<Check>,
}

/// Cases that belong together, each with the same quantities.
#[derive(Debug)]
pub(super) struct Section {
    title: String,
    rows: Vec<Row>,
}

/// One case.
#[derive(Debug)]
struct Row {
    name: String,
    figures: Vec<Figure>,
}

/// Something that must be so, however fast.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Check {
    name: String,
    detail: String,
    ok: bool,
}

/// The title of what was derived.
const DERIVED: &str = "derived";

impl Report {
    pub(super) fn new(part: &'static str) -> Self {
        Self {
            part,
            machine: None,
            sections: Vec::new(),
            derived: Vec::new(),
            checks: Vec::new(),
        }
    }

    pub(super) fn section(&mut self, title: &str) -> &mut Section {
        self.sections.push(Section {
            title: title.to_owned(),
            rows: Vec::new(),
        });
        let last = self.sections.len() - 1;
        &mut self.sections[last]
    }

    /// How many times `one` is `other`.
    pub(super) fn compare(&mut self, name: &str, one: f64, other: f64) {
        self.derive(name, Figure::new("ratio", "times", single(one / other)));
    }

    /// Asks of a value that several figures gave that it isn't above the bound.
    pub(super) fn at_most(&mut self, name: &str, measured: f64, bound: f64, unit: &'static str) {
        let figure = Figure::new("value", unit, single(measured));
        self.derive(name, figure.at_most(Statistic::P50, bound));
    }

    /// Asks of a value that several figures gave that it isn't below the bound.
    pub(super) fn at_least(&mut self, name: &str, measured: f64, bound: f64) {
        let figure = Figure::new("value", "", single(measured)).more_is_better();
        self.derive(name, figure.at_least(Statistic::P50, bound));
    }

    /// A figure that was derived from those of several sections.
    pub(super) fn derive(&mut self, name: &str, figure: Figure) {
        self.derived.push(Row {
            name: name.to_owned(),
            figures: vec![figure],
        });
    }

    pub(super) fn check(&mut self, name: &str, ok: bool, detail: String) {
        self.checks.push(Check {
            name: name.to_owned(),
            detail,
            ok,
        });
    }

    /// All figures with the titles of their sections and the names of their cases.
    fn figures(&self) -> impl Iterator<Item = (&str, &str, &Figure)> {
        let sections = self
            .sections
            .iter()
            .map(|section| (section.title.as_str(), &section.rows));
        sections
            .chain(std::iter::once((DERIVED, &self.derived)))
            .flat_map(|(title, rows)| rows.iter().map(move |row| (title, row)))
            .flat_map(|(title, row)| {
                row.figures
                    .iter()
                    .map(move |figure| (title, row.name.as_str(), figure))
            })
    }

    /// All goals, each with what it is about and its unit.
    fn goals(&self) -> impl Iterator<Item = (String, &str, &Goal)> {
        self.figures().flat_map(|(title, case, figure)| {
            figure.goals.iter().map(move |goal| {
                let about = if title == DERIVED {
                    case.to_owned()
                } else {
                    format!("{title}: {case}, {} ({})", figure.name, goal.of.name())
                };
                (about, figure.unit.as_ref(), goal)
            })
        })
    }
}

impl Section {
    pub(super) fn row(&mut self, name: impl Into<String>, figures: Vec<Figure>) {
        self.rows.push(Row {
            name: name.into(),
            figures,
        });
    }
}

/// Three significant digits, or all of those before the point.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ if value.is_nan() => "-".to_owned(),
        _ => format!("{value:.4}"),
    }
}

/// What all renderers are tested with.
#[cfg(test)]
mod sample {
    use super::{Document, Figure, Outcome, Part, Report, Statistic};
    use crate::bench::measure::{Samples, Spread};

    pub(super) fn spread(values: &[f64]) -> Spread {
        let mut samples = Samples::default();
        for value in values {
            samples.push(*value);
        }
        samples.spread()
    }

    /// A part with a peer that is slower, one that is faster, and a check; and one that couldn't run.
    pub(super) fn document() -> Document {
        let mut report = Report::new("apply");
        let peer = spread(&[30.0, 40.0, 50.0]);
        let section = report.section("one target <b>");
        let warm = Figure::new("latency", "ms", spread(&[1.0, 2.0, 3.0]))
            .beside("ipset & iptables", peer)
            .at_least(Statistic::Advantage, 10.0)
            .at_most(Statistic::P99, 2.0);
        section.row("warm", vec![warm]);
        let cold = Figure::new("latency", "ms", spread(&[55.0])).beside("ipset & iptables", peer);
        section.row("cold", vec![cold]);
        let section = report.section("cost");
        let both = vec![
            Figure::new("kernel", "ns", spread(&[100.0, 300.0])),
            Figure::new("sender", "ns", spread(&[5.0])),
        ];
        section.row("1 peer", both);
        report.compare("cold / warm", 55.0, 2.0);
        report.at_most("what is left", 0.0, 0.0, "objects");
        report.check("enforced when answered", true, "0 of 3 were late".to_owned());
        let mut document = Document::begin(true).expect("this is Linux");
        document.push(Part::new(report, Outcome::Measured, 12.0));
        let missing = Outcome::Skipped("`bpftrace` isn't installed".to_owned());
        document.push(Part::new(Report::new("observe"), missing, 0.0));
        document
    }
}
