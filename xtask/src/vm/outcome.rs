//! What guests say of their tests, read from libtest's text with the guest's own lines between.

use std::collections::BTreeMap;

/// Before the reason why a test had nothing to test.
const SKIPPED: &str = "skipped: ";
/// Before a figure of a program: name, instructions that the verifier went through, microseconds to load.
const FIGURE: &str = "figure: ";

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    /// The machine lacks what it is about; with the reason.
    Skipped(String),
    /// With what it said.
    Failed(String),
    /// It began, and its suite or its guest ended before it did.
    Lost,
}

/// A test that began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) suite: String,
    pub(super) name: String,
    pub(super) outcome: Outcome,
}

/// What a program costs before it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Figure {
    pub(super) program: String,
    /// `None`: the kernel doesn't say (before 5.16).
    pub(super) instructions: Option<u64>,
    pub(super) micros: u64,
}

/// What a guest said.
#[derive(Debug, Default)]
pub(super) struct Guest {
    /// As `uname -r`; `None`: it didn't come that far.
    pub(super) release: Option<String>,
    pub(super) tests: Vec<Test>,
    pub(super) figures: Vec<Figure>,
    /// Suites that ended neither well nor with failed tests.
    pub(super) broken: Vec<String>,
    suite: String,
    /// Whose output the lines are.
    said_by: Option<String>,
    said: BTreeMap<String, String>,
}

impl Guest {
    /// How many of its tests failed, were lost or couldn't begin.
    pub(super) fn failures(&self) -> usize {
        let bad = |test: &&Test| matches!(test.outcome, Outcome::Failed(_) | Outcome::Lost);
        self.tests.iter().filter(bad).count() + self.broken.len()
    }

    /// Takes the next line in. Returns what is worth telling whoever waits.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        let line = line.trim_end();
        if let Some(word) = line.strip_prefix('@') {
            return self.guests_own(word);
        }
        if let Some(name) = heading(line) {
            self.said_by = Some(name.to_owned());
        } else if matches!(line, "successes:" | "failures:") || line.starts_with("test result: ") {
            self.said_by = None;
        } else if let Some((name, rest)) = begun(line) {
            self.said_by = None;
            self.tests.push(Test {
                suite: self.suite.clone(),
                name: name.to_owned(),
                outcome: Outcome::Lost,
            });
            self.end_of_test(rest);
            return Some(format!("{}: {name}", self.suite));
        } else if let Some(name) = &self.said_by {
            let said = self.said.entry(name.clone()).or_default();
            said.push_str(line);
            said.push('\n');
        } else {
            // Something else was printed between a test's name and its result.
            self.end_of_test(line);
        }
        None
    }

    fn guests_own(&mut self, word: &str) -> Option<String> {
        let (what, rest) = word.split_once(' ').unwrap_or((word, ""));
        match what {
            "kernel" => self.release = Some(rest.to_owned()),
            "suite" => self.suite = rest.to_owned(),
            "end" => self.end_of_suite(rest),
            "done" => {}
            _ => return None,
        }
        Some(word.to_owned())
    }

    fn end_of_test(&mut self, word: &str) {
        let outcome = match word.trim() {
            text if text.ends_with("FAILED") => Outcome::Failed(String::new()),
            text if text == "ok" || text.ends_with(" ok") => Outcome::Passed,
            text if text.starts_with("ignored") => Outcome::Skipped("ignored".to_owned()),
            _ => return,
        };
        if let Some(test) = self.tests.last_mut().filter(|test| test.outcome == Outcome::Lost) {
            test.outcome = outcome;
        }
    }

    /// What tests have said comes after all of them.
    fn end_of_suite(&mut self, rest: &str) {
        let (suite, status) = rest.rsplit_once(' ').unwrap_or((rest, ""));
        let mut failed = false;
        for test in self.tests.iter_mut().filter(|test| test.suite == suite) {
            let said = self.said.remove(&test.name).unwrap_or_default();
            self.figures.extend(said.lines().filter_map(figure));
            let reason = said.lines().find_map(|line| line.strip_prefix(SKIPPED));
            match (&mut test.outcome, reason) {
                (Outcome::Failed(text), _) => {
                    *text = said;
                    failed = true;
                }
                (outcome @ Outcome::Passed, Some(reason)) => *outcome = Outcome::Skipped(reason.to_owned()),
                _ => {}
            }
        }
        if status != "0" && !failed {
            self.broken.push(format!("{suite} ended with status {status}"));
        }
        self.said.clear();
        self.said_by = None;
    }
}

/// The name in a line like `---- a_test stdout ----`.
fn heading(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// The name in a line like `test a_test ... ok`, and what follows.
fn begun(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ...")?;
    (!name.contains(' ')).then_some((name, rest))
}

fn figure(line: &str) -> Option<Figure> {
    let mut words = line.strip_prefix(FIGURE)?.split_whitespace();
    Some(Figure {
        program: words.next()?.to_owned(),
        instructions: words.next()?.parse().ok(),
        micros: words.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(text: &str) -> Guest {
        let mut guest = Guest::default();
        for line in text.lines() {
            guest.line(line);
        }
        guest
    }

    #[test]
    fn passed_skipped_and_failed_tests_are_told_apart() {
        let guest = guest(
            "@kernel 6.1.0-56-amd64\n@suite kernels\n\nrunning 3 tests\r\ntest a ... ok\ntest b::c ... FAILED\ntest d ... ok\n\n\
             successes:\n\n---- a stdout ----\nfigure: fault_egress 1234 56\nfigure: fault_line - 7\n\n\
             ---- d stdout ----\nskipped: tcx: Invalid argument\n\nsuccesses:\n    a\n    d\n\n\
             failures:\n\n---- b::c stdout ----\nthread panicked: no\n\nfailures:\n    b::c\n\n\
             test result: FAILED. 2 passed; 1 failed\n\n@end kernels 101\n@done\n",
        );
        let outcomes: Vec<_> = guest.tests.iter().map(|test| &test.outcome).collect();
        assert_eq!(outcomes[0], &Outcome::Passed);
        assert!(matches!(outcomes[1], Outcome::Failed(text) if text.contains("panicked")));
        assert_eq!(outcomes[2], &Outcome::Skipped("tcx: Invalid argument".to_owned()));
        assert_eq!(guest.figures[0].instructions, Some(1234));
        assert_eq!(guest.figures[1].instructions, None);
        assert!(guest.broken.is_empty());
        assert_eq!(guest.release.as_deref(), Some("6.1.0-56-amd64"));
    }

    #[test]
    fn a_suite_that_is_ended_loses_the_test_that_ran() {
        let guest = guest("@suite kernels\ntest a ... ok\ntest b ... \n@end kernels 137\n@done\n");
        assert_eq!(guest.tests[1].outcome, Outcome::Lost);
        assert_eq!(guest.broken, ["kernels ended with status 137"]);
    }

    #[test]
    fn what_is_printed_in_between_hides_no_result() {
        let guest = guest("@suite s\ntest a ... noise of a child\nok\n@end s 0\n");
        assert_eq!(guest.tests[0].outcome, Outcome::Passed);
    }
}
