//! The report as one page that needs nothing but itself: no script, no font, no network.

use std::fmt::Write;
use std::iter;

use super::document::{Document, Part};
use super::figure::Figure;
use super::{Report, Row, Section, number, svg};
use crate::bench::measure::Spread;

/// A table with more rows is folded.
const FOLDED: usize = 16;

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1c2024; --soft: #666d75; --line: #d9dde2; --ours: #2f6fb7; --peer: #d2802a;
  --second: #7d5ba6; --control: #9aa3ad; --good: #2c7d4f; --bad: #b8322e; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ea; --soft: #9aa3ad; --line: #3a4047; --ours: #6ea8e6;
  --peer: #e6a35c; --second: #b294d6; --control: #77808a; --good: #6cc495; --bad: #ef7f7a; --page: #15181b; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 980px;
  margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0; } h2 { margin-top: 2em; border-bottom: 1px solid var(--line); }
h3 { margin: 1.6em 0 .3em; font-size: 1.02em; } p.soft, td.soft, .soft { color: var(--soft); }
table { border-collapse: collapse; font-size: .86em; margin: .6em 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .15em .7em; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { font-weight: 600; vertical-align: bottom; }
.met { color: var(--good); } .missed { color: var(--bad); font-weight: 600; }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif; } svg text { fill: var(--text); }
svg .case { text-anchor: end; } svg .tick { text-anchor: middle; fill: var(--soft); } svg .grid { stroke: var(--line); }
svg g line { stroke: var(--text); stroke-opacity: .55; } .ours rect { fill: var(--ours); } .peer rect { fill: var(--peer); }
.second rect { fill: var(--second); }
.control rect { fill: var(--control); } .key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .9em; }
summary { cursor: pointer; color: var(--soft); }
";

/// The whole page; it is well-formed XML too.
pub(in crate::bench) fn page(document: &Document) -> String {
    let mut out = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>Sabot: figures</title>\n<style>",
    );
    out.push_str(STYLE);
    out.push_str("</style>\n</head>\n<body>\n");
    head(&mut out, document);
    behind(&mut out, document);
    missed(&mut out, document);
    for part in &document.parts {
        part_html(&mut out, part);
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// Text between tags or in an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // What no document may hold.
            control if control.is_control() && !control.is_whitespace() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

fn head(out: &mut String, document: &Document) {
    let machine = &document.machine;
    let (met, all) = document.score();
    let [before, after] = document.load;
    let _ = writeln!(
        out,
        "<h1>Sabot: figures</h1>\n<p class=\"soft\">{}, Linux {} ({}), {} CPUs: {}, {} MiB; load {before:.1} before, {after:.1} after</p>",
        escape(&document.date),
        escape(&machine.kernel),
        machine.architecture,
        machine.cpus,
        escape(&machine.cpu),
        machine.memory_mib,
    );
    if document.quick {
        out.push_str(
            "<p class=\"missed\">A quick run: it shows that everything runs; its figures say little.</p>\n",
        );
    }
    let _ = writeln!(
        out,
        "<p>{met} of {all} goals met. Bars are medians, lines reach from the least to the most.\
         <span class=\"ours\"><svg class=\"key\" viewBox=\"0 0 9 9\"><rect width=\"9\" height=\"9\"/></svg>Sabot</span>\
         <span class=\"peer\"><svg class=\"key\" viewBox=\"0 0 9 9\"><rect width=\"9\" height=\"9\"/></svg>another tool</span>\
         <span class=\"second\"><svg class=\"key\" viewBox=\"0 0 9 9\"><rect width=\"9\" height=\"9\"/></svg>a second one</span>\
         <span class=\"control\"><svg class=\"key\" viewBox=\"0 0 9 9\"><rect width=\"9\" height=\"9\"/></svg>without Sabot</span></p>"
    );
    out.push_str("<details><summary>Versions</summary>\n<table>\n");
    for (name, version) in &document.versions {
        row(out, "td", &[escape(name), escape(version)]);
    }
    out.push_str("</table>\n</details>\n");
}

fn behind(out: &mut String, document: &Document) {
    out.push_str("<h2>Where a peer is better</h2>\n");
    let mut rows = String::new();
    for (about, figure, peer) in document.behind() {
        let cells = [
            escape(&about),
            escape(&format!("{} {}", number(figure.ours.p50), figure.unit)),
            escape(&format!("{} {}", number(peer.spread.p50), figure.unit)),
            escape(&peer.name),
        ];
        row(&mut rows, "td", &cells);
    }
    if rows.is_empty() {
        out.push_str("<p>Nowhere in this run.</p>\n");
        return;
    }
    out.push_str("<table>\n");
    row(out, "th", &["", "ours", "the peer's", "peer"].map(str::to_owned));
    let _ = writeln!(out, "{rows}</table>");
}

fn missed(out: &mut String, document: &Document) {
    let goals = document.parts.iter().flat_map(|part| part.report.goals());
    let mut rows = String::new();
    for (about, unit, goal) in goals.filter(|(.., goal)| !goal.met) {
        let measured = goal.measured.map_or("-".to_owned(), number);
        row(
            &mut rows,
            "td",
            &[escape(&about), escape(&goal.asked(unit)), measured],
        );
    }
    if !rows.is_empty() {
        out.push_str("<h2>Goals that were not met</h2>\n<table>\n");
        row(out, "th", &["", "asked", "measured"].map(str::to_owned));
        let _ = writeln!(out, "{rows}</table>");
    }
}

fn part_html(out: &mut String, part: &Part) {
    let _ = writeln!(
        out,
        "<h2 id=\"{0}\">{0} <small class=\"soft\">{1:.0} s</small></h2>",
        escape(part.name()),
        part.seconds
    );
    if let Some(machine) = &part.machine {
        let _ = writeln!(out, "<p class=\"soft\">measured {}</p>", escape(&machine.place()));
    }
    if let Some(reason) = part.outcome.reason() {
        let _ = writeln!(out, "<p class=\"missed\">{}</p>", escape(&reason));
    }
    for section in &part.report.sections {
        section_html(out, section);
    }
    derived(out, &part.report);
    for check in part.checks() {
        let (class, mark) = if check.ok {
            ("met", "ok")
        } else {
            ("missed", "wrong")
        };
        let _ = writeln!(
            out,
            "<p><span class=\"{class}\">{mark}</span>: {}: {}</p>",
            escape(&check.name),
            escape(&check.detail)
        );
    }
}

fn section_html(out: &mut String, section: &Section) {
    let _ = writeln!(out, "<h3>{}</h3>", escape(&section.title));
    let quantities = section.rows.iter().map(|row| row.figures.len()).max();
    for quantity in 0..quantities.unwrap_or(0) {
        let cases: Vec<(&str, &Figure)> = section
            .rows
            .iter()
            .filter_map(|row| Some((row.name.as_str(), row.figures.get(quantity)?)))
            .collect();
        // One bar alone compares nothing.
        let compares = cases.len() > 1 || cases.iter().any(|(_, figure)| !figure.baselines.is_empty());
        if let (true, Some((_, figure))) = (compares, cases.first()) {
            if quantities > Some(1) {
                let unit = if figure.unit.is_empty() {
                    String::new()
                } else {
                    format!(", {}", figure.unit)
                };
                let _ = writeln!(
                    out,
                    "<p class=\"soft\">{}{}</p>",
                    escape(&figure.name),
                    escape(&unit)
                );
            }
            out.push_str(&svg::chart(&cases));
        }
    }
    let count: usize = section.rows.iter().map(|row| row.figures.len()).sum();
    table(out, &section.rows, count);
}

/// What was derived, as a table: its values are of different kinds.
fn derived(out: &mut String, report: &Report) {
    if !report.derived.is_empty() {
        out.push_str("<h3>Derived</h3>\n");
        table(out, &report.derived, report.derived.len());
    }
}

fn table(out: &mut String, rows: &[Row], count: usize) {
    let open = if count <= FOLDED { " open=\"open\"" } else { "" };
    let _ = writeln!(out, "<details{open}><summary>{count} figures</summary>\n<table>");
    let figures = || rows.iter().flat_map(|row| &row.figures);
    let beside = figures().map(|figure| figure.baselines.len()).max().unwrap_or(0);
    let ours = ["", "quantity", "n", "median", "min to max", "p99"].map(str::to_owned);
    let theirs = ["beside it", "median", "min to max", "times better"].map(str::to_owned);
    let header = iter::once(ours.as_slice()).chain(iter::repeat_n(theirs.as_slice(), beside));
    let goal = "goal".to_owned();
    let header = header.flatten().chain([&goal]).cloned();
    row(out, "th", &header.collect::<Vec<_>>());
    for case in rows {
        for figure in &case.figures {
            row(out, "td", &cells(&case.name, figure, beside));
        }
    }
    out.push_str("</table>\n</details>\n");
}

/// `beside`: how many baselines the table has room for.
fn cells(case: &str, figure: &Figure, beside: usize) -> Vec<String> {
    let bounds = |spread: Spread| format!("{} to {}", number(spread.min), number(spread.max));
    let ours = figure.ours;
    let mut cells = vec![
        escape(case),
        escape(&figure.name),
        ours.repetitions.to_string(),
        escape(format!("{} {}", number(ours.p50), figure.unit).trim_end()),
        bounds(ours),
        number(ours.p99),
    ];
    for place in 0..beside {
        match figure.baselines.get(place) {
            Some(baseline) => cells.extend([
                escape(&baseline.name),
                number(baseline.spread.p50),
                bounds(baseline.spread),
                figure.advantage_over(baseline).map_or("-".to_owned(), number),
            ]),
            None => cells.extend(iter::repeat_n(String::new(), 4)),
        }
    }
    let goals = figure.goals.iter().map(|goal| {
        format!(
            "<span class=\"{}\">{} {}: {}</span>",
            if goal.met { "met" } else { "missed" },
            goal.of.name(),
            escape(&goal.asked(&figure.unit)),
            goal.verdict()
        )
    });
    cells.push(goals.collect::<Vec<_>>().join("<br/>"));
    cells
}

/// A row of cells, whose content is markup already.
fn row(out: &mut String, tag: &str, cells: &[String]) {
    out.push_str("<tr>");
    for cell in cells {
        let _ = write!(out, "<{tag}>{cell}</{tag}>");
    }
    out.push_str("</tr>\n");
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// The tags that are open at the end, or the first one that closes another.
    fn unbalanced(page: &str) -> Vec<String> {
        let mut open: Vec<String> = Vec::new();
        for tag in page.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').expect("a tag that isn't closed");
            let name = tag.split([' ', '/']).find(|word| !word.is_empty());
            let name = name.unwrap_or_default().to_owned();
            if tag.starts_with('!') || tag.ends_with('/') {
                continue;
            }
            if tag.starts_with('/') {
                if open.pop().as_ref() != Some(&name) {
                    return vec![format!("</{name}>")];
                }
            } else {
                open.push(name);
            }
        }
        open
    }

    #[test]
    fn the_page_is_well_formed_and_needs_nothing_from_elsewhere() {
        let page = page(&sample::document());
        assert_eq!(unbalanced(&page), Vec::<String>::new());
        for outside in [
            "http:", "https:", "//", "<script", "<link", "<img", "@import", "url(",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(
            unbalanced("<p><b></p>"),
            ["</p>"],
            "this check sees what is wrong"
        );
    }

    #[test]
    fn the_page_tells_figures_peers_goals_and_reasons() {
        let page = page(&sample::document());
        for words in [
            "one target &lt;b&gt;",
            "ipset &amp; iptables",
            "<h2>Where a peer is better</h2>\n<table>",
            "apply: one target &lt;b&gt;: cold, latency",
            "<h2>Goals that were not met</h2>",
            "times better &gt;= 10 times: met",
            "p99 &lt;= 2 ms: NOT MET",
            "not measured: `bpftrace` isn't installed",
            "A quick run",
            "2 of 3 goals met",
        ] {
            assert!(page.contains(words), "{words} is missing in:\n{page}");
        }
        assert!(!page.contains("<b>"), "names are escaped");
    }

    #[test]
    fn everything_that_means_something_to_a_parser_is_escaped() {
        assert_eq!(
            escape("a<b>&\"c\"\u{1}\n"),
            "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}\n"
        );
    }
}
