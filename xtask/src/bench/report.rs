//! What was measured, for people and as a document.

use std::fmt;
use std::fs;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::measure::Spread;

/// The document that `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) bench: &'static str,
    /// A quick run's figures say little.
    quick: bool,
    machine: Machine,
    sections: Vec<Section>,
    comparisons: Vec<Comparison>,
    goals: Vec<Goal>,
    checks: Vec<Check>,
}

/// Where it was measured, and what else ran there.
#[derive(Debug, Serialize)]
struct Machine {
    kernel: String,
    cpus: usize,
    /// Runnable tasks over the last minute.
    load_before: f64,
    load_after: f64,
}

/// Figures that belong together.
#[derive(Debug, Serialize)]
pub(super) struct Section {
    title: String,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
pub(super) struct Figure {
    name: &'static str,
    unit: &'static str,
    #[serde(flatten)]
    spread: Spread,
}

/// How many times one median is another's.
#[derive(Debug, Serialize)]
struct Comparison {
    name: String,
    ratio: f64,
}

/// What is asked of a figure.
#[derive(Debug, Serialize)]
struct Goal {
    name: String,
    asked: String,
    measured: f64,
    met: bool,
}

/// Something that must be so, however fast.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    detail: String,
    ok: bool,
}

impl Report {
    /// Notes the machine and what else runs on it.
    ///
    /// # Errors
    ///
    /// `/proc` can't be read.
    pub(super) fn begin(bench: &'static str, quick: bool) -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel has no release")?;
        Ok(Self {
            bench,
            quick,
            machine: Machine {
                kernel: kernel.trim().to_owned(),
                cpus: std::thread::available_parallelism().map_or(1, usize::from),
                load_before: load()?,
                load_after: 0.0,
            },
            sections: Vec::new(),
            comparisons: Vec::new(),
            goals: Vec::new(),
            checks: Vec::new(),
        })
    }

    pub(super) fn end(&mut self) -> Result<()> {
        self.machine.load_after = load()?;
        Ok(())
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
        self.comparisons.push(Comparison {
            name: name.to_owned(),
            ratio: one / other,
        });
    }

    pub(super) fn at_most(&mut self, name: &str, measured: f64, bound: f64, unit: &str) {
        self.goals.push(Goal {
            name: name.to_owned(),
            asked: format!("<= {bound} {unit}"),
            measured,
            met: measured <= bound,
        });
    }

    pub(super) fn at_least(&mut self, name: &str, measured: f64, bound: f64) {
        self.goals.push(Goal {
            name: name.to_owned(),
            asked: format!(">= {bound}"),
            measured,
            met: measured >= bound,
        });
    }

    pub(super) fn check(&mut self, name: &str, ok: bool, detail: String) {
        self.checks.push(Check {
            name: name.to_owned(),
            detail,
            ok,
        });
    }

    pub(super) fn is_correct(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

impl Section {
    pub(super) fn row(&mut self, name: impl Into<String>, figures: Vec<Figure>) {
        self.rows.push(Row {
            name: name.into(),
            figures,
        });
    }

    /// One figure's whole spread, or several figures with their medians and bounds.
    fn table(&self) -> Table {
        let mut table = table();
        let first = self.rows.first().map_or(&[][..], |row| &row.figures);
        if let [figure] = first {
            table.set_header(["", "n", "p50", "p99", "min", "max", figure.unit]);
            for row in &self.rows {
                let spread = row.figures.first().map(|figure| figure.spread);
                let mut cells = vec![row.name.clone()];
                cells.extend(spread.iter().flat_map(|spread| {
                    [
                        spread.repetitions.to_string(),
                        number(spread.p50),
                        number(spread.p99),
                        number(spread.min),
                        number(spread.max),
                    ]
                }));
                table.add_row(cells);
            }
        } else {
            let names = first.iter().map(|figure| {
                let n = figure.spread.repetitions;
                format!("{}, {}\np50 (min..max) of {n}", figure.name, figure.unit)
            });
            table.set_header(std::iter::once(String::new()).chain(names));
            for row in &self.rows {
                let cells = row.figures.iter().map(|Figure { spread, .. }| {
                    format!(
                        "{} ({}..{})",
                        number(spread.p50),
                        number(spread.min),
                        number(spread.max)
                    )
                });
                table.add_row(std::iter::once(row.name.clone()).chain(cells));
            }
        }
        align(&mut table);
        table
    }
}

impl Figure {
    pub(super) fn new(name: &'static str, unit: &'static str, spread: Spread) -> Self {
        Self { name, unit, spread }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            kernel,
            cpus,
            load_before,
            load_after,
        } = &self.machine;
        writeln!(
            out,
            "bench {} on Linux {kernel}, {cpus} CPUs; load {load_before:.1} before, {load_after:.1} after{}",
            self.bench,
            if self.quick {
                " (a quick run: its figures say little)"
            } else {
                ""
            }
        )?;
        for section in &self.sections {
            writeln!(out, "\n{}\n{}", section.title, section.table())?;
        }
        if !self.comparisons.is_empty() {
            let mut table = table();
            for Comparison { name, ratio } in &self.comparisons {
                table.add_row([name.clone(), format!("{} x", number(*ratio))]);
            }
            align(&mut table);
            writeln!(out, "\nratios of medians\n{table}")?;
        }
        let mut table = table();
        table.set_header(["", "asked", "measured", ""]);
        for goal in &self.goals {
            let met = if goal.met { "met" } else { "NOT MET" };
            table.add_row([&goal.name, &goal.asked, &number(goal.measured), met]);
        }
        writeln!(out, "\ngoals\n{table}")?;
        for check in &self.checks {
            let mark = if check.ok { "ok" } else { "WRONG" };
            writeln!(out, "{mark}: {}: {}", check.name, check.detail)?;
        }
        Ok(())
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Numbers are read from the right.
fn align(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
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

fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("the machine has no load average")?;
    let first = text.split(' ').next().unwrap_or_default();
    first
        .parse()
        .with_context(|| format!("`{first}` is no load average"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::Samples;

    #[test]
    fn tables_show_every_figure() {
        let mut samples = Samples::default();
        samples.push(1.0);
        samples.push(3.0);
        let spread = samples.spread();
        let mut report = Report::begin("apply", false).expect("this is Linux");
        report
            .section("latency")
            .row("warm", vec![Figure::new("latency", "ms", spread)]);
        let both = vec![
            Figure::new("kernel", "ns", spread),
            Figure::new("sender", "ns", spread),
        ];
        report.section("cost").row("1 peer", both);
        report.at_most("warm, p99", 3.0, 2.0, "ms");
        let text = report.to_string();
        for word in [
            "latency",
            "1.00",
            "3.00",
            "1.00 (1.00..3.00)",
            "NOT MET",
            "<= 2 ms",
        ] {
            assert!(text.contains(word), "{word} is missing in:\n{text}");
        }
        assert!(report.is_correct());
        report.check("enforced when answered", false, "1 of 2 was late".to_owned());
        assert!(!report.is_correct());
    }
}
