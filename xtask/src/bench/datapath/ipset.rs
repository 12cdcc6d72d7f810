//! The same peers for iptables, in an ipset.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sabot_testkit::LabPod;

use super::addresses::Peers;

const SET: &str = "sabot-bench";

/// A set and a rule that accepts what it matches in a pod's OUTPUT; dropping it removes both.
pub(super) struct Filter<'a> {
    pod: &'a LabPod,
    /// What filling the set and adding the rule took.
    pub(super) took: Duration,
}

impl<'a> Filter<'a> {
    /// # Errors
    ///
    /// Holds what ipset or iptables said.
    pub(super) fn new(pod: &'a LabPod, peers: Peers) -> Result<Self> {
        let input = peers.set(SET);
        let started = Instant::now();
        run(pod, "ipset", &["restore"], &input)?;
        // From here on there is something to remove.
        let mut filter = Self {
            pod,
            took: Duration::ZERO,
        };
        run(pod, "iptables", &rule("-A"), "")?;
        filter.took = started.elapsed();
        Ok(filter)
    }
}

impl Drop for Filter<'_> {
    fn drop(&mut self) {
        let _ = run(self.pod, "iptables", &rule("-D"), "");
        if let Err(error) = run(self.pod, "ipset", &["destroy", SET], "") {
            eprintln!("the set can't be removed: {error:#}");
        }
    }
}

fn rule(what: &str) -> [&str; 11] {
    [
        "-w",
        "5",
        what,
        "OUTPUT",
        "-m",
        "set",
        "--match-set",
        SET,
        "dst",
        "-j",
        "ACCEPT",
    ]
}

/// Runs a program in the pod's netns, with input.
///
/// # Errors
///
/// Holds what it said.
pub(super) fn run(pod: &LabPod, program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = pod
        .netns()
        .command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{program}` can't be started"))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes())
            .with_context(|| format!("`{program}` doesn't read its input"))?;
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("`{program}` can't be waited for"))?;
    ensure!(
        output.status.success(),
        "`{program} {}` failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
