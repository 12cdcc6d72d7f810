//! What others do for a partition: a set and rules in the pod's netns, one process a command.
//!
//! It is the sequence of Chaos Mesh's chaos-daemon: it enters the pod's netns for each command, fills an ipset, and links
//! chains of its own, with a rule that matches the set, into INPUT and OUTPUT.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sabot_testkit::LabPod;

use crate::interrupt;

/// How reports name it.
pub(super) const NAME: &str = "ipset + iptables";
const SET: &str = "sabot-bench";

/// Cuts the pods off from their peer, one after the other.
///
/// # Errors
///
/// Holds what ipset or iptables said.
pub(super) fn cut(pods: &[LabPod], peer: IpAddr) -> Result<()> {
    let peer = peer.to_string();
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
    Ok(())
}

/// Removes what [`cut`] made; the pods are as before.
///
/// # Errors
///
/// As [`cut`].
pub(super) fn heal(pods: &[LabPod]) -> Result<()> {
    for pod in pods {
        run(pod, "iptables -w 5 -F")?;
        run(pod, "iptables -w 5 -X")?;
        run(pod, &format!("ipset destroy {SET}"))?;
    }
    Ok(())
}

/// One process that enters the netns and becomes the command.
///
/// # Errors
///
/// Holds what the command said.
pub(super) fn run(pod: &LabPod, command: &str) -> Result<()> {
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
