//! From the fault as a user writes it to one that can be injected, with everything that is wrong said at once.

mod action;
pub(crate) mod names;
mod peers;
mod pods;
mod report;
mod services;
mod target;
mod timing;
mod traffic;

use std::time::{Duration, SystemTime};

use crate::model::{
    Action, BootTime, Direction, Fault, FaultName, PacketFilter, Peer, PortMatch, Pulse, Ramp, TargetSelector,
};
use crate::spec::{self, FaultSpec, Metadata};

pub(crate) use pods::plain_labels;
use report::Report;
pub use report::Violation;
pub use traffic::MAX_PORTS;

/// A start that lies this far back is taken as "now": the clocks of a user's and a node's machine differ.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// What the daemon's configuration bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest duration of a fault, and how far ahead it may start.
    pub max_duration: Duration,
    pub max_latency: Duration,
    /// One in this many decided packets is reported where the fault doesn't say; 0: none.
    pub default_sample_every: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_duration: Duration::from_secs(60 * 60),
            max_latency: Duration::from_secs(60),
            default_sample_every: 100,
        }
    }
}

/// A valid fault whose times aren't fixed yet.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidFault {
    pub name: FaultName,
    pub target: TargetSelector,
    pub peers: Vec<Peer>,
    pub direction: Direction,
    pub ports: Vec<PortMatch>,
    pub packets: PacketFilter,
    pub spare_node: bool,
    pub allow_control_plane: bool,
    pub action: Action,
    pub pulse: Option<Pulse>,
    pub ramp: Option<Ramp>,
    /// `None`: the daemon draws one.
    pub seed: Option<u64>,
    pub duration: Duration,
    /// `None`: at once.
    pub starts_at: Option<SystemTime>,
    pub sample_every: u32,
}

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instants {
    pub boot: BootTime,
    pub wall: SystemTime,
}

/// Checks a fault against the wall clock as it stands; see [`validate_at`].
///
/// # Errors
/// Every violation, in the order of the fields.
pub fn validate(
    metadata: &Metadata,
    spec: &FaultSpec,
    limits: &Limits,
) -> Result<ValidFault, Vec<Violation>> {
    validate_at(metadata, spec, limits, SystemTime::now())
}

/// Checks a fault. Over gRPC a fault of any namespace may target pods of any other one.
///
/// # Errors
/// Every violation, in the order of the fields.
pub fn validate_at(
    metadata: &Metadata,
    spec: &FaultSpec,
    limits: &Limits,
    now: SystemTime,
) -> Result<ValidFault, Vec<Violation>> {
    let mut report = Report::default();
    let name = fault_name(&mut report, metadata);
    let duration = duration(&mut report, spec.duration, limits);
    if let Some(start) = spec.starts_at {
        check_start(&mut report, start, now, limits);
    }
    let target = target::check(&mut report, &spec.target, &metadata.namespace);
    let mut peers = Vec::with_capacity(spec.peers.len());
    for (index, peer) in spec.peers.iter().enumerate() {
        let field = format!("spec.peers[{index}]");
        peers.extend(peers::check(&mut report, &field, peer, &metadata.namespace));
    }
    let ports = traffic::ports(&mut report, &spec.ports);
    let packets = spec.packets.as_ref().map(|p| traffic::packets(&mut report, p));
    let action = action::check(&mut report, &spec.action, limits);
    let pulse = spec
        .pulse
        .as_ref()
        .map(|p| timing::pulse(&mut report, p, spec.duration));
    let ramp = spec
        .ramp
        .as_ref()
        .and_then(|r| timing::ramp(&mut report, r, spec.duration, action.as_ref(), limits));
    match (duration, target, action) {
        (Some(duration), Some(target), Some(action)) if report.is_empty() => Ok(ValidFault {
            name,
            target,
            peers,
            direction: direction(spec.direction),
            ports,
            packets: packets.unwrap_or_default(),
            pulse,
            ramp,
            seed: spec.seed,
            spare_node: spec.spare_node.unwrap_or(true),
            allow_control_plane: spec.allow_control_plane.unwrap_or(false),
            action,
            duration,
            starts_at: spec.starts_at,
            sample_every: spec.sample_every.unwrap_or(limits.default_sample_every),
        }),
        _ => Err(report.into_violations()),
    }
}

fn fault_name(report: &mut Report, metadata: &Metadata) -> FaultName {
    if !names::is_subdomain(&metadata.name) {
        report.add("metadata.name", &metadata.name, names::SUBDOMAIN_RULE);
    }
    if !metadata.namespace.is_empty() && !names::is_label(&metadata.namespace) {
        report.add("metadata.namespace", &metadata.namespace, names::LABEL_RULE);
    }
    FaultName {
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
    }
}

fn duration(report: &mut Report, duration: Option<Duration>, limits: &Limits) -> Option<Duration> {
    let max = humantime::format_duration(limits.max_duration);
    let allowed = || format!("a duration above 0 and up to {max}");
    match duration {
        None => report.missing("spec.duration", allowed()),
        Some(duration) if duration.is_zero() || duration > limits.max_duration => {
            report.add("spec.duration", humantime::format_duration(duration), allowed());
        }
        Some(_) => {}
    }
    duration
}

fn check_start(report: &mut Report, start: SystemTime, now: SystemTime, limits: &Limits) {
    let too_late = start
        .duration_since(now)
        .is_ok_and(|ahead| ahead > limits.max_duration);
    let too_early = now.duration_since(start).is_ok_and(|behind| behind > CLOCK_SKEW);
    if too_late || too_early {
        let text =
            |time| spec::rfc3339(time).unwrap_or_else(|| "a time before 1970 or after 9999".to_owned());
        let max = humantime::format_duration(limits.max_duration);
        let allowed = format!("a time from now, {}, to {max} ahead", text(now));
        report.add("spec.startsAt", text(start), allowed);
    }
}

fn direction(direction: Option<spec::Direction>) -> Direction {
    match direction.unwrap_or_default() {
        spec::Direction::Egress => Direction::Egress,
        spec::Direction::Ingress => Direction::Ingress,
        spec::Direction::Both => Direction::Both,
    }
}

impl ValidFault {
    /// Fixes the times: created now, starting now or at `startsAt` where that lies ahead; and the seed, which is
    /// `drawn_seed` where the user gave none.
    pub fn fix(self, clock: Instants, drawn_seed: u64) -> Fault {
        let starts = self.starts_at.map_or(clock.wall, |start| start.max(clock.wall));
        self.fix_from(starts, clock, drawn_seed)
    }

    /// The same for a fault whose time has been running since `since`: what is left of it is what it would have left had it
    /// been here all the time. An instant that lies ahead counts as now.
    pub fn resume(self, since: SystemTime, clock: Instants, drawn_seed: u64) -> Fault {
        self.fix_from(since.min(clock.wall), clock, drawn_seed)
    }

    fn fix_from(self, starts: SystemTime, clock: Instants, drawn_seed: u64) -> Fault {
        let ahead = starts.duration_since(clock.wall).unwrap_or_default();
        let behind = clock.wall.duration_since(starts).unwrap_or_default();
        let starts_at = clock.boot.after(ahead).before(behind);
        // A fault that began before the machine did has its end where it belongs all the same.
        let expires_at = clock.boot.after(ahead).after(self.duration).before(behind);
        Fault {
            name: self.name,
            target: self.target,
            peers: self.peers,
            direction: self.direction,
            ports: self.ports,
            packets: self.packets,
            pulse: self.pulse,
            ramp: self.ramp,
            seed: self.seed.unwrap_or(drawn_seed),
            spare_node: self.spare_node,
            allow_control_plane: self.allow_control_plane,
            action: self.action,
            duration: self.duration,
            starts_at,
            expires_at,
            created: clock.wall,
            starts,
            // Only an unbounded --max-duration lets a duration pass that the clock can't count to.
            expires: starts.checked_add(self.duration).unwrap_or(starts),
            sample_every: self.sample_every,
        }
    }
}
