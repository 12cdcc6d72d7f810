//! Runs one test harness, and what failed in it once more.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};

use super::suites::Suite;
use super::watch;
use crate::ui;

/// What tests have come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) passed: u64,
    /// Those that failed, twice where they could be run again.
    pub(super) failed: Vec<String>,
    /// Those that failed first and passed then; they are among the passed ones.
    pub(super) unsteady: Vec<String>,
}

impl Outcome {
    /// A harness that can't be run has tested nothing, which isn't a success.
    pub(super) fn broken(title: &str, error: &Error) -> Self {
        ui::missing(title, &format!("{error:#}"));
        Self {
            failed: vec![format!("{title}: {error:#}")],
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.unsteady.extend(other.unsteady);
    }
}

/// Runs a suite and shows what it prints.
///
/// What failed is run once more, by itself: statistics of packets fail by chance as seldom as they promise, and machines
/// are busy. What fails again has failed.
pub(super) fn run(suite: &Suite, binaries: &Path, threads: Option<u32>, filter: Option<&str>) -> Outcome {
    let started = Instant::now();
    let run = |arguments: &[String]| attempt(suite, binaries, arguments, watch::SILENCE);
    let threads = threads.map(|threads| format!("--test-threads={threads}"));
    let filter = filter.map(str::to_owned);
    let first: Vec<String> = threads.into_iter().chain(filter).collect();
    let outcome = match run(&first) {
        Ok(first) if first.failed.is_empty() => Outcome {
            passed: first.passed,
            ..Outcome::default()
        },
        Ok(first) => {
            ui::heading(&format!("once more: {}", first.failed.join(", ")));
            let mut arguments = vec!["--exact".to_owned(), "--test-threads=1".to_owned()];
            arguments.extend_from_slice(&first.failed);
            match run(&arguments) {
                Ok(second) => weigh(&suite.name, &first, &second),
                Err(error) => Outcome::broken(&suite.name, &error),
            }
        }
        Err(error) => Outcome::broken(&suite.name, &error),
    };
    let counts = format!("{} passed, {} failed", outcome.passed, outcome.failed.len());
    ui::found(
        &suite.name,
        &format!("{counts} ({:.0} s)", started.elapsed().as_secs_f64()),
    );
    outcome
}

/// What a suite has come to whose failed tests were run again.
fn weigh(suite: &str, first: &Attempt, second: &Attempt) -> Outcome {
    let (failed, unsteady): (Vec<_>, Vec<_>) =
        first.failed.iter().partition(|name| second.failed.contains(name));
    let name = |test: &String| format!("{suite}: {test}");
    Outcome {
        passed: first.passed + unsteady.len() as u64,
        failed: failed.into_iter().map(name).collect(),
        unsteady: unsteady.into_iter().map(name).collect(),
    }
}

/// What a harness says at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Attempt {
    passed: u64,
    failed: Vec<String>,
}

fn attempt(suite: &Suite, binaries: &Path, arguments: &[String], silence: Duration) -> Result<Attempt> {
    let name = &suite.name;
    ui::heading(&format!("suite {name}"));
    let mut child = Command::new(&suite.program)
        .args(arguments)
        .current_dir(&suite.folder)
        .env("SABOT_BIN_DIR", binaries)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("the suite {name} can't be started"))?;
    let output = child.stdout.take().context("a suite has no output")?;
    let mut reader = Reader::default();
    let lines = watch::lines(output);
    loop {
        let line = match lines.recv_timeout(silence) {
            Ok(line) => line.with_context(|| format!("the output of the suite {name} can't be read"))?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let threads = watch::end(&mut child);
                bail!("it said nothing for {silence:?} and was ended; its threads:{threads}");
            }
        };
        println!("{line}");
        reader.line(&line);
    }
    let status = child.wait().context("a suite can't be waited for")?;
    reader.end(status)
}

/// Reads what libtest prints.
#[derive(Debug, Default)]
struct Reader {
    /// The list that a heading `failures:` has begun last, of which libtest prints two: outputs, and then names alone.
    failures: Vec<String>,
    listing: bool,
    /// Passed and failed tests by the line at the end.
    result: Option<(u64, u64)>,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if line == "failures:" {
            self.failures.clear();
            self.listing = true;
        } else if let Some(result) = parse_result(line) {
            self.result = Some(result);
            self.listing = false;
        } else if let (true, Some(name)) = (self.listing, line.strip_prefix("    ")) {
            self.failures.push(name.to_owned());
        }
    }

    fn end(self, status: ExitStatus) -> Result<Attempt> {
        let (passed, failed) = self
            .result
            .with_context(|| format!("it ended without a result ({status})"))?;
        let names = self.failures.len() as u64;
        ensure!(
            failed == 0 || failed == names,
            "it names {names} of {failed} failed tests"
        );
        ensure!(
            status.success() == (failed == 0),
            "it ended with {status} after {failed} failed tests"
        );
        Ok(Attempt {
            passed,
            failed: self.failures,
        })
    }
}

/// The numbers in a line like `test result: ok. 8 passed; 0 failed; 0 ignored; …`.
fn parse_result(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    let number = |what: &str| {
        let mut parts = counts.split("; ");
        parts.find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
    };
    Some((number(" passed")?, number(" failed")?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn exit(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    fn read(text: &str, code: i32) -> Result<Attempt> {
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        reader.end(exit(code))
    }

    const FAILED: &str = "\
test a ... ok
test m::b ... FAILED

failures:

---- m::b stdout ----
thread 'm::b' panicked:
    Broken pipe

failures:
    m::b

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.32s
";

    #[test]
    fn results_of_harnesses_are_read() {
        let attempt = read(FAILED, 101).expect("it has a result");
        assert_eq!(attempt.passed, 1);
        assert_eq!(attempt.failed, ["m::b"]);
        let ok =
            "test result: ok. 13 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.3s";
        assert_eq!(read(ok, 0).expect("it has a result").passed, 13);
        assert_eq!(parse_result("test result: what is this"), None);
    }

    #[test]
    fn a_harness_that_ends_otherwise_than_it_says_is_broken() {
        assert!(read("test a ... ", 134).is_err(), "it has no result");
        assert!(read(FAILED, 0).is_err(), "it failed and says that it didn't");
        assert!(
            read(&FAILED.replace("    m::b\n\ntest", "\ntest"), 101).is_err(),
            "it doesn't say what"
        );
    }

    #[test]
    fn a_harness_that_hangs_is_ended_with_what_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = folder.path().join("suite");
        let text = "#!/bin/sh\nsleep 1000 &\necho $! > child\necho 'test a ... ok'\nwait\n";
        std::fs::write(&script, text).expect("a script");
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("a mode");
        let suite = Suite::script(&script);
        let silence = Duration::from_secs(2);
        let error = attempt(&suite, folder.path(), &[], silence).expect_err("it has no end");
        let said = format!("{error:#}");
        assert!(
            said.contains("said nothing for 2s") && said.contains(" suite S"),
            "{said}"
        );
        let child = std::fs::read_to_string(folder.path().join("child")).expect("it started one");
        let stat = format!("/proc/{}/stat", child.trim());
        // Who adopts it may leave it a zombie.
        let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        let started = Instant::now();
        while !gone() {
            assert!(started.elapsed() < Duration::from_secs(20), "{stat} is there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn what_passes_the_second_time_is_unsteady_and_what_fails_again_has_failed() {
        let attempt = |passed, failed: &[&str]| Attempt {
            passed,
            failed: failed.iter().map(|&name| name.to_owned()).collect(),
        };
        let outcome = weigh("s", &attempt(5, &["a", "b"]), &attempt(1, &["b"]));
        assert_eq!(outcome.passed, 6);
        assert_eq!(outcome.failed, ["s: b"]);
        assert_eq!(outcome.unsteady, ["s: a"]);
    }
}
