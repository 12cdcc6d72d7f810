//! What others do for the same partition: a set and rules in the pod's netns, one process a command.
//!
//! It is the sequence of Chaos Mesh's chaos-daemon: it enters the pod's netns for each command, fills an ipset, and links
//! chains of its own, with a rule that matches the set, into INPUT and OUTPUT.

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sabot_testkit::LabPod;

use super::{FIFTY, Scene};
use crate::bench::measure::Samples;
use crate::interrupt;
use crate::ui::Step;

const SET: &str = "sabot-bench";
const TARGET: usize = 1;

pub(super) struct Latencies {
    /// One pod.
    pub(super) one: Samples,
    /// Fifty pods, one after the other.
    pub(super) fifty: Samples,
}

pub(super) fn measure(scene: &Scene<'_>) -> Result<Latencies> {
    let peer = scene.lab.pod(0).ipv4();
    let step = Step::start("ipset + iptables, one pod");
    let mut one = Samples::default();
    let repetitions = scene.plan.repetitions(30, 5);
    for _ in 0..repetitions {
        one.push_ms(partition(&scene.lab.pods()[TARGET..=TARGET], peer)?);
    }
    step.done(&format!("{repetitions} times"));
    let step = Step::start("ipset + iptables, pod after pod");
    let mut fifty = Samples::default();
    let repetitions = scene.plan.repetitions(3, 1);
    for _ in 0..repetitions {
        fifty.push_ms(partition(&scene.lab.pods()[1..=FIFTY], peer)?);
    }
    step.done(&format!("{repetitions} times"));
    Ok(Latencies { one, fifty })
}

/// How long it took to cut the pods off; they are as before afterwards.
fn partition(pods: &[LabPod], peer: IpAddr) -> Result<Duration> {
    let peer = peer.to_string();
    let started = Instant::now();
    for pod in pods {
        interrupt::check()?;
        run(pod, &format!("ipset create {SET} hash:net"))?;
        run(pod, &format!("ipset add {SET} {peer}"))?;
        for (chain, end) in [("INPUT", "src"), ("OUTPUT", "dst")] {
            run(pod, &format!("iptables -w 5 -N SABOT-{chain}"))?;
            run(
                pod,
                &format!("iptables -w 5 -A SABOT-{chain} -m set --match-set {SET} {end} -j DROP"),
            )?;
            run(pod, &format!("iptables -w 5 -A {chain} -j SABOT-{chain}"))?;
        }
    }
    let took = started.elapsed();
    for pod in pods {
        run(pod, "iptables -w 5 -F")?;
        run(pod, "iptables -w 5 -X")?;
        run(pod, &format!("ipset destroy {SET}"))?;
    }
    Ok(took)
}

/// One process that enters the netns and becomes the command.
fn run(pod: &LabPod, command: &str) -> Result<()> {
    let output = Command::new("nsenter")
        .arg(format!("--net={}", pod.netns().path().display()))
        .arg("--")
        .args(command.split(' '))
        .output()
        .with_context(|| format!("`{command}` can't be started"))?;
    ensure!(
        output.status.success(),
        "`{command}` failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
