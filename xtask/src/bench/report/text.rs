//! The report as tables for a terminal.

use std::{fmt, iter};

use comfy_table::{CellAlignment, Table, presets};

use super::document::{Document, Part};
use super::figure::Figure;
use super::{Row, Section, number};
use crate::bench::measure::Spread;

impl fmt::Display for Document {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = self.load;
        writeln!(
            out,
            "{} {}; load {before:.1} before, {after:.1} after{}",
            self.date,
            self.machine.place(),
            if self.quick {
                " (a quick run: its figures say little)"
            } else {
                ""
            }
        )?;
        for part in &self.parts {
            part_text(out, part)?;
        }
        behind(out, self)?;
        let (met, all) = self.score();
        writeln!(out, "\n{met} of {all} goals met")
    }
}

fn part_text(out: &mut fmt::Formatter<'_>, part: &Part) -> fmt::Result {
    writeln!(out, "\n== {} ({:.0} s)", part.name(), part.seconds)?;
    if let Some(machine) = &part.machine {
        writeln!(out, "measured {}", machine.place())?;
    }
    if let Some(reason) = part.outcome.reason() {
        writeln!(out, "{reason}")?;
    }
    let report = &part.report;
    for section in &report.sections {
        writeln!(out, "\n{}\n{}", section.title, table_of(section))?;
    }
    let ratios: Vec<&Row> = report
        .derived
        .iter()
        .filter(|row| row.figures.iter().all(|figure| figure.goals.is_empty()))
        .collect();
    if !ratios.is_empty() {
        let mut table = table();
        for row in ratios {
            let values = row
                .figures
                .iter()
                .map(|figure| format!("{} {}", beside_cell(figure, figure.ours.p50), figure.unit));
            table.add_row(iter::once(row.name.clone()).chain(values));
        }
        align(&mut table);
        writeln!(out, "\nderived\n{table}")?;
    }
    let mut goals = table();
    goals.set_header(["", "asked", "measured", ""]);
    for (about, unit, goal) in report.goals() {
        let measured = goal.measured.map_or("-".to_owned(), number);
        goals.add_row([about, goal.asked(unit), measured, goal.verdict().to_owned()]);
    }
    if goals.row_count() > 0 {
        writeln!(out, "\ngoals\n{goals}")?;
    }
    for check in part.checks() {
        let mark = if check.ok { "ok" } else { "WRONG" };
        writeln!(out, "{mark}: {}: {}", check.name, check.detail)?;
    }
    Ok(())
}

/// A derived value, with what a peer has there.
fn beside_cell(figure: &Figure, value: f64) -> String {
    let beside = figure
        .baselines
        .iter()
        .map(|baseline| format!(" ({}: {})", baseline.name, number(baseline.spread.p50)));
    iter::once(number(value)).chain(beside).collect()
}

fn behind(out: &mut fmt::Formatter<'_>, document: &Document) -> fmt::Result {
    let mut table = table();
    table.set_header(["", "ours", "the peer's", ""]);
    for (about, figure, peer) in document.behind() {
        table.add_row([
            about,
            format!("{} {}", number(figure.ours.p50), figure.unit),
            format!("{} {}", number(peer.spread.p50), figure.unit),
            peer.name.clone(),
        ]);
    }
    if table.row_count() == 0 {
        return writeln!(out, "\nwhere a peer is better: nowhere in this run");
    }
    align(&mut table);
    writeln!(out, "\nwhere a peer is better (medians)\n{table}")
}

/// One figure's whole spread, or several figures with their medians and bounds; each with what stands beside it.
fn table_of(section: &Section) -> Table {
    let mut table = table();
    let columns = section.rows.first().map_or(&[][..], |row| &row.figures);
    let beside: Vec<usize> = (0..columns.len())
        .map(|column| {
            let figures = section.rows.iter().filter_map(|row| row.figures.get(column));
            figures.map(|figure| figure.baselines.len()).max().unwrap_or(0)
        })
        .collect();
    let mut header = vec![String::new()];
    if let [figure] = columns {
        header.extend(["n", "p50", "p99", "min", "max", &figure.unit].map(str::to_owned));
        for _ in 0..beside[0] {
            header.extend(["beside it: p50 (min..max)".to_owned(), "times better".to_owned()]);
        }
    } else {
        for (figure, beside) in columns.iter().zip(&beside) {
            let n = figure.ours.repetitions;
            header.push(format!("{}, {}\np50 (min..max) of {n}", figure.name, figure.unit));
            header.extend(iter::repeat_n("beside it".to_owned(), *beside));
        }
    }
    table.set_header(header);
    for row in &section.rows {
        table.add_row(cells(row, columns.len() == 1, &beside));
    }
    align(&mut table);
    table
}

fn cells(row: &Row, is_alone: bool, beside: &[usize]) -> Vec<String> {
    let mut cells = vec![row.name.clone()];
    for (figure, beside) in row.figures.iter().zip(beside) {
        let Spread {
            repetitions,
            min,
            p50,
            p99,
            max,
        } = figure.ours;
        if is_alone {
            cells.push(repetitions.to_string());
            cells.extend([p50, p99, min, max].map(number));
            cells.push(String::new());
        } else {
            cells.push(bounded(figure.ours));
        }
        for place in 0..*beside {
            let baseline = figure.baselines.get(place);
            cells.push(baseline.map_or_else(String::new, |baseline| {
                format!("{}: {}", baseline.name, bounded(baseline.spread))
            }));
            if is_alone {
                let advantage = baseline.and_then(|baseline| figure.advantage_over(baseline));
                cells.push(advantage.map_or_else(String::new, number));
            }
        }
    }
    cells
}

/// The median and the bounds, or one value.
fn bounded(spread: Spread) -> String {
    if spread.repetitions == 1 {
        return number(spread.p50);
    }
    format!(
        "{} ({}..{})",
        number(spread.p50),
        number(spread.min),
        number(spread.max)
    )
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

#[cfg(test)]
mod tests {
    use super::super::sample;

    #[test]
    fn tables_show_every_figure_goal_and_reason() {
        let text = sample::document().to_string();
        for words in [
            "a quick run",
            "== apply (12 s)",
            "ipset & iptables: 40.0 (30.0..50.0)",
            "20.0",
            "100 (100..300)",
            "cold / warm",
            "27.5 times",
            "NOT MET",
            "<= 2 ms",
            ">= 10 times",
            "ok: enforced when answered: 0 of 3 were late",
            "not measured: `bpftrace` isn't installed",
            "where a peer is better (medians)",
            "2 of 3 goals met",
        ] {
            assert!(text.contains(words), "{words} is missing in:\n{text}");
        }
        let behind = text
            .split("where a peer is better")
            .nth(1)
            .expect("the section is there");
        assert!(behind.contains("cold") && !behind.contains("warm"), "{behind}");
    }
}
