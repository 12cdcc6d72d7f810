//! Short texts for people.

mod action;

use std::time::{Duration, SystemTime};

use sabot_core::quick::{PeerForm, PortForm, TargetForm};
use sabot_core::spec::{Action, Direction, FaultSpec, Packets};

use crate::view::{FaultDoc, LedgerDoc, Phase, TargetRefDoc};

/// Peers, or addresses, that are listed.
const FEW: usize = 16;

pub(crate) use action::action;

/// `pods:shop/app=web, 50% of them (seed 7)`.
pub(crate) fn target(spec: &FaultSpec) -> String {
    let form = TargetForm(spec.target.clone()).to_string();
    let of_pods = spec.target.pods.as_ref().and_then(|pods| pods.pick.as_ref());
    let of_service = || spec.target.service.as_ref()?.pick.as_ref();
    let Some(pick) = of_pods.or_else(of_service) else {
        return form;
    };
    let share = match (pick.count, pick.percent) {
        (Some(count), _) => count.to_string(),
        (None, Some(percent)) => format!("{percent}%"),
        (None, None) => return form,
    };
    format!("{form}, {share} of them (seed {})", pick.seed)
}

/// As many as a screen takes, and how many more there are.
pub(crate) fn peers(spec: &FaultSpec) -> String {
    if spec.peers.is_empty() {
        return "every other end".to_owned();
    }
    few(spec.peers.iter().map(|p| PeerForm(p.clone()).to_string()))
}

/// `a b c and 149997 more`, of what may be very many words.
pub(crate) fn few(words: impl ExactSizeIterator<Item = String>) -> String {
    let more = words.len().saturating_sub(FEW);
    let shown: Vec<_> = words.take(FEW).collect();
    let shown = shown.join(" ");
    if more == 0 {
        shown
    } else {
        format!("{shown} and {more} more")
    }
}

/// `both directions, UDP:53 8443, DSCP 46, 100 to 1500 bytes, the node is spared`.
pub(crate) fn traffic(spec: &FaultSpec) -> String {
    let direction = match spec.direction.unwrap_or_default() {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
        Direction::Both => "both directions",
    };
    let ports: Vec<_> = spec
        .ports
        .iter()
        .map(|p| PortForm(p.clone()).to_string())
        .collect();
    let ports = if ports.is_empty() {
        "all ports".to_owned()
    } else {
        ports.join(" ")
    };
    let node = if spec.spare_node.unwrap_or(true) {
        "the node is spared"
    } else {
        "the node is hit too"
    };
    let mut parts = vec![direction.to_owned(), ports];
    parts.extend(spec.packets.iter().flat_map(packets));
    parts.push(node.to_owned());
    if spec.allow_control_plane == Some(true) {
        parts.push("the node's control plane too".to_owned());
    }
    parts.join(", ")
}

fn packets(packets: &Packets) -> Vec<String> {
    let points: Vec<_> = packets.dscp.iter().map(ToString::to_string).collect();
    let points = (!points.is_empty()).then(|| format!("DSCP {}", points.join(" ")));
    let lengths = match (packets.min_length, packets.max_length) {
        (None, None) => None,
        (Some(least), None) => Some(format!("{least} bytes or more")),
        (None, Some(most)) => Some(format!("up to {most} bytes")),
        (Some(least), Some(most)) => Some(format!("{least} to {most} bytes")),
    };
    points.into_iter().chain(lengths).collect()
}

/// `10s on, 5s off; from 0% to 100% of its value over 1m`; empty where it just is in force.
pub(crate) fn course(spec: &FaultSpec) -> String {
    let text = humantime::format_duration;
    let pulse = spec
        .pulse
        .as_ref()
        .map(|pulse| format!("{} on, {} off", text(pulse.on), text(pulse.off)));
    let ramp = spec.ramp.as_ref().map(|ramp| {
        let (from, to) = (ramp.from.unwrap_or(0.0), ramp.to.unwrap_or(100.0));
        format!("from {from}% to {to}% of its value over {}", text(ramp.over))
    });
    let parts: Vec<_> = pulse.into_iter().chain(ramp).collect();
    parts.join("; ")
}

/// `3.85%`, of a share from 0 to 1.
pub(crate) fn share(share: f64) -> String {
    // Four digits behind the point are enough, and none of them is an artefact of the unit.
    format!("{}%", (share * 1e6).round() / 1e4)
}

/// Until it ends, or starts: `12s`, `starts in 5s`; `-` when it has ended, or nothing says yet when it begins.
pub(crate) fn remaining(fault: &FaultDoc, now: SystemTime) -> String {
    let Some(end) = fault.status.expires_at.filter(|_| !fault.status.phase.is_ended()) else {
        return "-".to_owned();
    };
    let left = |until: SystemTime| until.duration_since(now).ok().filter(|left| !left.is_zero());
    if let Some(ahead) = fault.status.starts_at.and_then(|t| left(t.0)) {
        return format!("starts in {}", rounded(ahead));
    }
    match left(end.0) {
        Some(left) => rounded(left),
        None => "0s".to_owned(),
    }
}

/// To seconds, upwards: what is left is never said to be nothing.
fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// What the fault did: `12 dropped`, `40 delayed, 2 lost`. What the action is for is always said, the rest where there was
/// some.
pub(crate) fn effect(action: &Action, total: &LedgerDoc) -> String {
    let main = match action {
        Action { corrupt: Some(_), .. } => "corrupted",
        Action {
            duplicate: Some(_), ..
        } => "duplicated",
        Action { reject: Some(_), .. } | Action { reset: Some(_), .. } => "rejected",
        Action { delay: Some(_), .. }
        | Action { reorder: Some(_), .. }
        | Action {
            rate_limit: Some(_), ..
        } => "delayed",
        _ => "dropped",
    };
    let all = [
        (total.dropped, "dropped"),
        (total.corrupted, "corrupted"),
        (total.duplicated, "duplicated"),
        (total.rejected, "rejected"),
        (total.delayed, "delayed"),
        (total.bypassed, "bypassed"),
        (total.lost(), "lost"),
    ];
    let (first, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, what)| *what == main);
    let others = others.into_iter().filter(|(tally, _)| tally.packets > 0);
    let parts: Vec<_> = first
        .into_iter()
        .chain(others)
        .map(|(tally, what)| format!("{} {what}", tally.packets))
        .collect();
    parts.join(", ")
}

/// `team-a/web eth0`, or `eth0 (netns 4026532281)` where it is no pod.
pub(crate) fn target_ref(target: &TargetRefDoc) -> String {
    let device = if target.device.is_empty() {
        "-"
    } else {
        &target.device
    };
    if !target.pod_name.is_empty() {
        format!("{}/{} {device}", target.pod_namespace, target.pod_name)
    } else if target.netns != 0 {
        format!("{device} (netns {})", target.netns)
    } else {
        device.to_owned()
    }
}

pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Unknown => "Unknown",
        Phase::Pending => "Pending",
        Phase::Injected => "Injected",
        Phase::Partial => "Partial",
        Phase::Failed => "Failed",
        Phase::Expired => "Expired",
        Phase::Deleted => "Deleted",
    }
}

pub(crate) fn protocol(number: u32) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    }
}

/// `10.0.0.1:80`, `[fd00::1]:80`, or the address alone where there is no port.
pub(crate) fn endpoint(address: &str, port: u32) -> String {
    match (port, address.contains(':')) {
        (0, _) => address.to_owned(),
        (port, false) => format!("{address}:{port}"),
        (port, true) => format!("[{address}]:{port}"),
    }
}
