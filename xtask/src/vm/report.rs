//! What all kernels said: tables for people, JUnit for machines.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use super::outcome::{Guest, Outcome, Test};

/// The guests by their kernels.
pub(super) type Guests = [(&'static str, Guest)];

/// How many tests failed, were lost or couldn't begin.
pub(super) fn failures(guests: &Guests) -> usize {
    guests.iter().map(|(_, guest)| guest.failures()).sum()
}

/// All tables, then the reasons.
pub(super) fn text(guests: &Guests) -> String {
    let mut text = format!("{}\n", outcomes(guests));
    if guests.iter().any(|(_, guest)| !guest.figures.is_empty()) {
        let _ = write!(text, "\n{}\n", figures(guests));
    }
    for (kernel, guest) in guests {
        let mut skipped: BTreeMap<&str, usize> = BTreeMap::new();
        for test in &guest.tests {
            let (what, why) = match &test.outcome {
                Outcome::Passed => continue,
                Outcome::Skipped(why) => {
                    *skipped.entry(why).or_default() += 1;
                    continue;
                }
                Outcome::Failed(why) => ("FAILED", why.as_str()),
                Outcome::Lost => ("LOST", "its suite or its guest ended before it did"),
            };
            let _ = writeln!(
                text,
                "{kernel} {}: {} {what}: {}",
                test.suite,
                test.name,
                why.trim_end()
            );
        }
        for (why, count) in skipped {
            let _ = writeln!(text, "{kernel}: {count} skipped: {why}");
        }
        for broken in &guest.broken {
            let _ = writeln!(text, "{kernel}: {broken}");
        }
    }
    text
}

/// Test × kernel.
fn outcomes(guests: &Guests) -> Table {
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for test in guests.iter().flat_map(|(_, guest)| &guest.tests) {
        let row = (test.suite.as_str(), test.name.as_str());
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let cell = |guest: &Guest, row: (&str, &str)| {
        let found = guest
            .tests
            .iter()
            .find(|test| (test.suite.as_str(), test.name.as_str()) == row);
        match found.map(|test| &test.outcome) {
            None => "-",
            Some(Outcome::Passed) => "passed",
            Some(Outcome::Skipped(_)) => "skipped",
            Some(Outcome::Failed(_)) => "FAILED",
            Some(Outcome::Lost) => "LOST",
        }
    };
    let mut table = table("test", guests);
    for row in rows {
        let cells = guests.iter().map(|(_, guest)| cell(guest, row).to_owned());
        table.add_row(std::iter::once(format!("{}: {}", row.0, row.1)).chain(cells));
    }
    table
}

/// Program × kernel: instructions that the verifier went through, and milliseconds to load.
fn figures(guests: &Guests) -> Table {
    let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (column, (_, guest)) in guests.iter().enumerate() {
        for figure in &guest.figures {
            let row = rows
                .entry(&figure.program)
                .or_insert_with(|| vec!["-".to_owned(); guests.len()]);
            let instructions = figure
                .instructions
                .map_or_else(|| "?".to_owned(), |count| count.to_string());
            row[column] = format!("{instructions} / {:.0} ms", figure.micros as f64 / 1e3);
        }
    }
    let mut table = table("program: instructions verified / load", guests);
    for (program, cells) in rows {
        table.add_row(std::iter::once(program.to_owned()).chain(cells));
    }
    table
}

fn table(first: &str, guests: &Guests) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let names = guests.iter().map(|(kernel, guest)| match &guest.release {
        Some(release) => release.trim_end_matches("-amd64").to_owned(),
        None => format!("{kernel} (didn't boot)"),
    });
    table.set_header(std::iter::once(first.to_owned()).chain(names));
    table
}

/// One `testsuite` for each kernel and suite.
pub(super) fn junit(guests: &Guests) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for (kernel, guest) in guests {
        let mut suites: BTreeMap<&str, Vec<&Test>> = BTreeMap::new();
        for test in &guest.tests {
            suites.entry(&test.suite).or_default().push(test);
        }
        for (suite, tests) in suites {
            junit_suite(&mut xml, &format!("{kernel}.{suite}"), &tests);
        }
        for broken in &guest.broken {
            let _ = writeln!(
                xml,
                "  <testsuite name=\"{kernel}\" tests=\"1\" errors=\"1\"><testcase classname=\"{kernel}\" name=\"the guest\">\
                 <error message=\"it broke\">{}</error></testcase></testsuite>",
                escape(broken)
            );
        }
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn junit_suite(xml: &mut String, name: &str, tests: &[&Test]) {
    let count = |is: fn(&Outcome) -> bool| tests.iter().filter(|test| is(&test.outcome)).count();
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Lost));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    let name = escape(name);
    let _ = writeln!(
        xml,
        "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\">",
        tests.len()
    );
    for test in tests {
        let inner = match &test.outcome {
            Outcome::Passed => String::new(),
            Outcome::Skipped(why) => format!("<skipped message=\"{}\"/>", escape(why)),
            Outcome::Failed(why) => format!("<failure message=\"failed\">{}</failure>", escape(why)),
            Outcome::Lost => "<failure message=\"lost\"/>".to_owned(),
        };
        let _ = writeln!(
            xml,
            "    <testcase classname=\"{name}\" name=\"{}\">{inner}</testcase>",
            escape(&test.name)
        );
    }
    xml.push_str("  </testsuite>\n");
}

/// Text as XML takes it; control characters that XML can't have at all are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            other if other.is_control() => {}
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Figure;
    use super::*;

    fn guest(outcome: Outcome) -> Guest {
        let mut guest = Guest::default();
        guest.line("@kernel 6.1.0-56-amd64");
        guest.tests.push(Test {
            suite: "kernels".to_owned(),
            name: "a_test".to_owned(),
            outcome,
        });
        guest.figures.push(Figure {
            program: "fault_egress".to_owned(),
            instructions: Some(10),
            micros: 2500,
        });
        guest
    }

    #[test]
    fn a_table_has_a_column_for_each_kernel() {
        let skipped = Outcome::Skipped("tcx: no".to_owned());
        let guests = [("6.1", guest(skipped)), ("7.2", guest(Outcome::Passed))];
        let text = text(&guests);
        assert!(text.contains("kernels: a_test"), "{text}");
        assert!(text.contains("skipped") && text.contains("passed"), "{text}");
        assert!(text.contains("10 / 2 ms"), "{text}");
        assert!(text.contains("6.1: 1 skipped: tcx: no"), "{text}");
        assert_eq!(failures(&guests), 0);
    }

    #[test]
    fn a_failure_is_counted_and_told_to_machines() {
        let guests = [("6.1", guest(Outcome::Failed("no <b>".to_owned())))];
        assert_eq!(failures(&guests), 1);
        let xml = junit(&guests);
        assert!(xml.contains("failures=\"1\""), "{xml}");
        assert!(xml.contains("no &lt;b&gt;"), "{xml}");
    }
}
